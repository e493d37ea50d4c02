"""One micro-batch through the model and back: what every sequence adds to the row Fisher.

No weight gradient is formed: the hooks see each layer's input and output gradient, and labels
that are drawn from the model start the backward pass at the last hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curate.task2vec.batches import Batch, Ids, lay_out, to_device
from curate.task2vec.forward import last_hidden, working_dtype
from curate.task2vec.hooks import Entries, recording
from curate.task2vec.labels import (
    HeadGradients,
    LogitMap,
    contrast_coefficients,
    head_gradients,
)
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.sites import Site

_HEAD_BYTES = (32 << 20, 512 << 20)  # of the logits that exist at a time: CPU, GPU


@torch.inference_mode(False)  # where the caller is in it, autograd would record nothing
def pass_and_back(
    model: Any,
    sites: Sequence[Site],
    sequences: Sequence[Ids],
    *,
    settings: FisherSettings,
    packed: bool,
    autocast: bool,
    head: Tensor | None,
    logit_map: LogitMap,
    groups: tuple[npt.NDArray[np.int64], int],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Run sequences forward once and backward once a draw of labels.

    Args:
        model: as in `fisher_rows`, its weights frozen.
        sites: whose rows are wanted.
        sequences: that go through together.
        settings: what is computed.
        packed: several sequences in one row of the input.
        autocast: run the forward pass in bfloat16.
        head: (V, width) in the head's place; None keeps it.
        logit_map: what the model does to the head's logits.
        groups: (n,) of each sequence, and how many there are; for mean gradients.

    Returns:
        rows (n, dim): mean over draws of the squared gradient; hidden states (n, width), summed
        over tokens; () the summed loss; mean gradients where settings want them.

    Raises:
        ValueError: a site got no gradient, because the forward pass does not use it.
    """
    device, dtype = next(model.parameters()).device, working_dtype(model, autocast=autocast)
    numbered = any(site.form == "embedding" for site in sites)  # so that each row has its own
    batch = lay_out(
        sequences, settings, packed=packed, device=device, dtype=dtype, numbered=numbered
    )
    draws = settings.draws if settings.labels == "model" else 1
    own = bool(settings.gradients) and settings.labels == "model"  # one pass more
    of = (to_device(groups[0], device), groups[1])
    by_token = any(site.form == "head" or site.tied for site in sites)
    with (
        torch.autocast(device.type, enabled=False),  # the caller's, if any
        recording(
            sites, layout=batch.layout, settings=settings, passes=draws + own, groups=of
        ) as recorder,
    ):
        recorder.wants_means = bool(settings.gradients) and not own
        with torch.enable_grad():
            last = last_hidden(model, batch, autocast=autocast)  # (B, T, width)
        flat = last.detach().reshape(batch.ids.numel(), -1)
        with torch.no_grad():
            found = _label_gradients(
                model, flat[batch.inputs], batch, head=head, autocast=autocast, own=own,
                logit_map=logit_map,
            )  # fmt: skip
            start = torch.zeros_like(flat)
        for draw in range(draws + own):
            if draw == draws:
                recorder.wants_rows, recorder.wants_means = False, True
            elif by_token:
                recorder.head, recorder.head_bias = _head_entries(batch, flat, found, draw)
            start[batch.inputs] = found.hidden[draw].to(start.dtype)
            last.backward(start.view_as(last), retain_graph=draw + 1 < draws + own)
            recorder.end_draw()
        rows = _join(recorder.sums, sites) / draws
        means = None
        if settings.gradients:
            means = torch.cat(
                [recorder.means[s.name] for s in sites if s.name in recorder.means], 1
            )
    summed = batch.layout.split(_without_pads(flat, batch).view(*batch.ids.shape, -1))
    summed = summed.sum(dim=1, dtype=torch.promote_types(flat.dtype, torch.float32))
    return rows, summed, found.nats.double().sum(), means


def _label_gradients(
    model: Any, hidden: Tensor, batch: Batch, *, head: Tensor | None, autocast: bool, own: bool,
    logit_map: LogitMap,
) -> HeadGradients:  # fmt: skip
    module = model.get_output_embeddings()
    matrix = module.weight if head is None else head
    narrow = torch.bfloat16 if autocast else module.weight.dtype
    room = _HEAD_BYTES[hidden.device.type == "cuda"]
    return head_gradients(
        hidden,
        matrix=matrix.to(narrow),
        bias=None if module.bias is None else module.bias.to(narrow),
        observed=batch.observed,
        seeds=batch.seeds,
        chunk=max(1, room // (4 * matrix.shape[0])),
        own=own,
        logit_map=logit_map,
    )


def _head_entries(
    batch: Batch, flat: Tensor, found: HeadGradients, draw: int
) -> tuple[Entries, Entries]:
    """Return what the labels of one draw add to the head's rows and bias: c_k h and c_k at y_k."""
    labels = found.labels[draw]
    wide = flat[batch.inputs].to(torch.promote_types(flat.dtype, torch.float32))
    c = torch.from_numpy(contrast_coefficients(labels.shape[1])).to(wide).expand(labels.shape)
    if found.slopes is not None:
        c = c * found.slopes[draw]
    vectors = (wide[:, None, :] * c[:, :, None]).reshape(-1, flat.shape[1])
    owner = batch.layout.owner[batch.inputs].repeat_interleave(labels.shape[1])
    token = labels.reshape(-1)
    return (owner, token, vectors), (owner, token, c.reshape(-1, 1))


def _without_pads(flat: Tensor, batch: Batch) -> Tensor:
    if batch.mask is None or batch.mask.ndim == 4:  # a packed batch leaves its pads behind
        return flat
    return flat * batch.mask.reshape(-1, 1)


def _join(sums: dict[str, list[Tensor]], sites: Sequence[Site]) -> Tensor:
    """Lay the sites' parts side by side."""
    for site in sites:
        if not sums.get(site.name):
            raise ValueError(f"{site.name} got no gradient: the forward pass does not use it")
    return torch.cat([part for site in sites for part in sums[site.name]], dim=1)
