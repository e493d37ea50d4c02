"""The forward pass of an unmodified model, and what has to hold of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.task2vec.batches import Batch, Ids, is_out_of_memory, lay_out
from curate.task2vec.labels import LogitMap
from curate.task2vec.quantity import FisherSettings

_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")  # of a configuration
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_WINDOWS = ("sliding_window", "attention_chunk_size")  # of a configuration, tokens


def working_dtype(model: Any, *, autocast: bool) -> torch.dtype:
    """Return the precision of the activations."""
    return torch.bfloat16 if autocast else next(model.parameters()).dtype


def last_hidden(model: Any, batch: Batch, *, autocast: bool) -> Tensor:
    """Return the last hidden state, (B, T, width): what the head reads."""
    base = before_head(model)
    places = {} if batch.positions is None else {"position_ids": batch.positions}
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=autocast):
        return base(
            input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **places
        ).last_hidden_state


def before_head(model: Any) -> Any:
    """Return the module that gives the last hidden state."""
    base = getattr(model, model.base_model_prefix, None)
    # the prefix of some (Llama 4) names a part that only their siblings with images have
    return model.model if base is None else base


def keeps_packed_apart(model: Any, *, longest: int, autocast: bool = False) -> bool:
    """Say whether sequences that share a row have the hidden states that they have alone.

    Args:
        model: as in `fisher_rows`.
        longest: tokens of the longest sequence. The mask of a packed row takes the place of a
            window, so that beyond one no row is shared.
        autocast: run in bfloat16.
    """
    config = model.config.get_text_config(decoder=True)
    windows = [getattr(config, key, None) for key in _WINDOWS]
    if longest > min((w for w in windows if w), default=longest):
        return False
    device, dtype = next(model.parameters()).device, working_dtype(model, autocast=autocast)
    vocab = model.get_input_embeddings().weight.shape[0]
    texts = [np.arange(n, 2 * n) % vocab for n in (8, 4, 3)]  # the last two share a row
    hidden = []
    for packed in (False, True):
        batch = lay_out(
            texts, FisherSettings(labels="data"), packed=packed, device=device, dtype=dtype
        )
        try:
            with torch.no_grad():
                last = last_hidden(model, batch, autocast=autocast)
        except (TypeError, ValueError, RuntimeError, IndexError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            return False  # no positions to restart, or a mask of another shape
        hidden.append(last.reshape(batch.ids.numel(), -1)[batch.inputs].float())
    apart, together = hidden
    bound = (5e-2 if autocast else 1e-4) * float(apart.abs().max())
    return torch.allclose(apart, together, rtol=0, atol=bound)


def find_logit_map(model: Any, sequence: Ids, *, autocast: bool) -> LogitMap:
    """Return what the model does to the logits of its head, as its own forward pass shows.

    Raises:
        ValueError: they are not the head of its last hidden state, changed by the scale and the
            cap that its configuration names; or it is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode; its dropout would count as information")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"the head is a {type(head).__name__}, not a Linear layer")
    device = next(model.parameters()).device
    ids = torch.as_tensor(np.asarray(sequence[:4], np.int64), device=device)[None]
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        last = before_head(model)(input_ids=ids, use_cache=False).last_hidden_state
        theirs = model(input_ids=ids, use_cache=False).logits.float()
        if last.shape[-1] != head.in_features:
            raise ValueError(f"{type(model).__name__} changes its last hidden state")
        ours = head(last).float()
    narrow = working_dtype(model, autocast=autocast).itemsize < 4
    bound = (2e-2 if narrow else 1e-4) * float(theirs.abs().max())
    for logit_map in _logit_maps(model.config.get_text_config(decoder=True)):
        if torch.allclose(logit_map.apply(ours), theirs, rtol=0, atol=bound):
            return logit_map
    raise ValueError(f"{type(model).__name__} changes its last hidden state or its logits")


def _logit_maps(config: Any) -> list[LogitMap]:
    """Return what a configuration may mean, and last that nothing is changed."""

    def named(keys: Sequence[str]) -> list[float]:  # a word (MPT) is not used
        values = [getattr(config, key, None) for key in keys]
        return [float(each) for each in values if isinstance(each, int | float) and each]

    scales = [way for scale in named(_SCALES) if scale != 1 for way in (scale, 1 / scale)]
    return [LogitMap(scale, cap) for cap in (*named(_CAPS), 0.0) for scale in (*scales, 1.0)]


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Let no parameter require a gradient for a while."""
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
