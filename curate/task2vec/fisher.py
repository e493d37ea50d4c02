"""The engine: the diagonal of a language model's Fisher information, one value a weight row.

For sequence x of T tokens with labels y drawn from the model at every position,
F = E_x E_y (∂ log p(y | x) / ∂w)², the diagonal (Achille et al. 2019, arXiv 1902.03545, eq. 1),
then the mean over each row of each weight matrix of the transformer blocks. The square is of
the whole sequence's gradient. No weight gradient is formed: the hooks of `rows` see each
layer's input and output gradient, and the labels of `labels` start the backward pass at the
last hidden state. Norms, biases, embeddings and the head's rows are added where asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curate.records import RowBlock
from curate.task2vec.batches import Ids, is_out_of_memory, micro_batches, to_device
from curate.task2vec.forward import find_logit_map, frozen, keeps_packed_apart
from curate.task2vec.gradients import whiten_and_project
from curate.task2vec.passes import pass_and_back
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.sites import find_sites, row_blocks


@dataclass(frozen=True, slots=True)
class FisherRows:
    """Row Fisher of groups of sequences."""

    values: npt.NDArray[np.float64]  # (n_groups, dim), >= 0, mean over sequences and columns
    blocks: tuple[RowBlock, ...]
    n_sequences: tuple[int, ...]  # in each group
    hidden: npt.NDArray[np.float64]  # (n_groups, width): mean last hidden state over tokens
    loss: float  # nats/token of the model on these sequences
    gradients: npt.NDArray[np.float64] | None = None  # (n_groups, settings.gradients)


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """One micro-batch, done: tensors on the model's device."""

    which: tuple[int, ...]  # of the sequences given
    rows: Tensor  # (B, dim) float32: mean over columns and draws of the squared gradient
    hidden: Tensor  # (B, width) float32: sum of the last hidden state over the tokens
    nats: Tensor  # () float64: summed loss
    means: Tensor | None = None  # (n_groups, output rows, COLUMNS): summed gradients, projected


def fisher_rows(
    model: Any,
    sequences: Sequence[Ids],
    *,
    groups: Sequence[int] | None = None,
    settings: FisherSettings | None = None,
    batch_tokens: int = 4_096,
    packed: bool = False,
    autocast: bool = False,
    head: Tensor | None = None,
    receive: Callable[[SequenceRows], None] | None = None,
) -> FisherRows:
    """Return the exact row Fisher of sequences, each group's mean apart.

    A group's value is the mean over its sequences of the squared gradient of each, so neither
    the batch size nor the order nor padding changes it beyond rounding (float32 products,
    float64 sums). Cost: the forward pass, the activations' gradients, and per layer the
    smaller of T²(d_in + d_out)/2 and T·d_in·d_out multiply-adds a sequence.

    Args:
        model: a `transformers` causal language model in eval mode.
        sequences: (T,) token ids each, 2 <= T <= the model's positions.
        groups: of each sequence, from 0 without gaps; None puts all in one.
        settings: what is computed.
        batch_tokens: tokens that go through the model together; halved when out of memory.
        packed: several sequences in one row of the input, each seeing itself alone.
        autocast: run the forward pass in bfloat16.
        head: (V, width) a matrix that takes the place of the head's; None keeps it.
        receive: given the rows of every single sequence before they are summed.

    Raises:
        ValueError: a layer with weights in the blocks is of no known type; a sequence is too
            short; the model's logits are not its head's, but for the scale and the cap of its
            configuration; it is in training mode; the settings are malformed.
    """
    settings = settings or FisherSettings()
    blocks = fisher_blocks(model, settings)
    group_of = np.zeros(len(sequences), np.int64) if groups is None else np.asarray(groups)
    n_sequences, n_tokens = _count(sequences, group_of)
    device = next(model.parameters()).device
    width = model.get_output_embeddings().weight.shape[1]
    shape = (len(n_sequences), blocks[-1].stop)
    values = torch.zeros(shape, dtype=torch.float64, device=device)
    hidden = torch.zeros((shape[0], width), dtype=torch.float64, device=device)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    means: Tensor | float = 0.0
    for part in iterate_rows(
        model,
        sequences,
        settings=settings,
        batch_tokens=batch_tokens,
        packed=packed,
        autocast=autocast,
        head=head,
        groups=group_of,
    ):
        of = to_device(group_of[list(part.which)], device)
        values.index_add_(0, of, part.rows.double())
        hidden.index_add_(0, of, part.hidden.double())
        nats += part.nats
        if part.means is not None:
            means = means + part.means.double()
        if receive:
            receive(part)
    rows = values.cpu().numpy() / n_sequences[:, None]
    n_labels = n_tokens - n_sequences
    return FisherRows(
        values=rows,
        blocks=blocks,
        n_sequences=tuple(n_sequences.tolist()),
        hidden=hidden.cpu().numpy() / n_tokens[:, None],
        loss=float(nats) / float(n_labels.sum()),
        gradients=_whitened(means, rows, blocks, n_sequences, n_labels, model, settings),
    )


def _whitened(
    means: Tensor | float,
    rows: npt.NDArray[np.float64],
    blocks: Sequence[RowBlock],
    n_sequences: npt.NDArray[np.int64],
    n_labels: npt.NDArray[np.float64],
    model: Any,
    settings: FisherSettings,
) -> npt.NDArray[np.float64] | None:
    """Return each group's mean gradient over a label, whitened by the Fisher of all groups."""
    if isinstance(means, float):
        return None
    names = {s.name for s in find_sites(model, settings) if s.form in ("matrix", "stack")}
    kept = [
        np.arange(block.start, block.stop)
        for block in blocks
        if block.name in names and not block.kind.endswith(".in")
    ]
    of_a_label = (n_sequences / n_labels.sum()) @ rows[:, np.concatenate(kept)]
    return whiten_and_project(
        means.cpu().numpy() / n_labels[:, None, None],
        of_a_label,
        width=settings.gradients,
        seed=settings.seed,
    )


def fisher_blocks(model: Any, settings: FisherSettings) -> tuple[RowBlock, ...]:
    """Return the coordinates that `fisher_rows` would give, without computing them.

    Raises:
        ValueError: as `fisher_rows`.
    """
    return row_blocks(find_sites(model, settings), rows=settings.rows)


def iterate_rows(
    model: Any,
    sequences: Sequence[Ids],
    *,
    settings: FisherSettings,
    batch_tokens: int = 4_096,
    packed: bool = False,
    autocast: bool = False,
    head: Tensor | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> Iterator[SequenceRows]:
    """Yield the row Fisher of every single sequence, in micro-batches of like length.

    Args:
        model: as in `fisher_rows`, as are the others.
        sequences: (T,) token ids each.
        settings: what is computed.
        batch_tokens: tokens that go through the model together; one sequence does where
            experts are stacked, because only their whole gradient can be had.
        packed: several sequences a row.
        autocast: run the forward pass in bfloat16.
        head: in the head's place.
        groups: (n,) of each sequence, for mean gradients; None puts all in one.

    Raises:
        ValueError: as `fisher_rows`; or the model does not keep packed sequences apart.
    """
    sites = find_sites(model, settings)
    if any(site.form == "stack" for site in sites):
        batch_tokens, packed = 1, False
    lengths = [len(s) for s in sequences]
    group_of = np.zeros(len(sequences), np.int64) if groups is None else groups
    pending = micro_batches(lengths, batch_tokens=batch_tokens, packed=packed)[::-1]
    with frozen(model):
        logit_map = find_logit_map(model, sequences[0], autocast=autocast)
        if packed and not keeps_packed_apart(model, longest=max(lengths), autocast=autocast):
            raise ValueError(f"{type(model).__name__} does not keep packed sequences apart")
        while pending:
            which = pending.pop()
            chosen = [sequences[i] for i in which]
            try:
                done = pass_and_back(
                    model, sites, chosen,
                    settings=settings, packed=packed, autocast=autocast, head=head,
                    logit_map=logit_map,
                    groups=(group_of[list(which)], int(group_of.max()) + 1),
                )  # fmt: skip
            except (RuntimeError, MemoryError) as error:
                if len(which) == 1 or not is_out_of_memory(error):
                    raise
                done = None
            if done is None:  # here the failed pass' tensors are free again
                half = len(which) // 2
                pending += [which[half:], which[:half]]
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield SequenceRows(which, *done)


def _count(
    sequences: Sequence[Ids], group_of: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return sequences and tokens of each group."""
    if not len(sequences):
        raise ValueError("no sequences")
    if len(group_of) != len(sequences):
        raise ValueError(f"{len(sequences)} sequences but {len(group_of)} groups")
    lengths = np.array([len(s) for s in sequences])
    if lengths.min() < 2:
        raise ValueError(f"a sequence of {lengths.min()} tokens has no next token")
    n_sequences = np.bincount(group_of).astype(np.int64)
    if not n_sequences.all():
        raise ValueError(f"group {int(np.argmin(n_sequences))} has no sequence")
    return n_sequences, np.bincount(group_of, weights=lengths).astype(np.float64)
