"""The engine: the diagonal of a language model's Fisher information, one value a weight row.

For sequence x of T tokens with labels y drawn from the model at every position,
F = E_x E_y (∂ log p(y | x) / ∂w)², the diagonal (Achille et al. 2019, arXiv 1902.03545, eq. 1),
then the mean over each row of each weight matrix of the transformer blocks. The square is of
the whole sequence's gradient. No weight gradient is formed: the hooks of `rows` see each
layer's input and output gradient, and the labels of `labels` start the backward pass at the
last hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from curate.records import LabelSource, RowBlock, Rows
from curate.task2vec.labels import head_gradients, sequence_uniforms
from curate.task2vec.matrices import Matrix, find_matrices, row_blocks
from curate.task2vec.rows import recording

Ids = npt.NDArray[np.integer[Any]]
_HEAD_BYTES = (32 << 20, 512 << 20)  # of the logits that exist at a time: CPU, GPU


@dataclass(frozen=True, slots=True)
class FisherRows:
    """Row Fisher of groups of sequences."""

    values: npt.NDArray[np.float64]  # (n_groups, dim), >= 0, mean over sequences and columns
    blocks: tuple[RowBlock, ...]
    n_sequences: tuple[int, ...]  # in each group
    hidden: npt.NDArray[np.float64]  # (n_groups, width): mean last hidden state over tokens
    loss: float  # nats/token of the model on these sequences


@dataclass(frozen=True, slots=True)
class FisherSettings:
    """What is computed; every field changes the values."""

    labels: LabelSource = "model"  # true Fisher, or the empirical one
    draws: int = 1  # label draws a sequence, each a backward pass
    contrast: int = 4  # labels a draw and position: 1, or an even number
    rows: Rows = "output"
    layers: str = "all"  # "all", or "last:K" blocks
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """One micro-batch, done: tensors on the model's device."""

    which: tuple[int, ...]  # of the sequences given
    rows: Tensor  # (B, dim) float32: mean over columns and draws of the squared gradient
    hidden: Tensor  # (B, width) float32: sum of the last hidden state over the tokens
    nats: Tensor  # () float64: summed loss


@dataclass(frozen=True, slots=True)
class _Batch:
    """Sequences that go through the model together, padded on the right."""

    ids: Tensor  # (B, T) int64
    mask: Tensor | None  # (B, T) int64; None without pads
    positions: Tensor  # (n,) flat positions that have a next token
    observed: Tensor  # (n,) those next tokens
    uniforms: Tensor | None  # (draws, n, contrast)


def fisher_rows(
    model: Any,
    sequences: Sequence[Ids],
    *,
    groups: Sequence[int] | None = None,
    settings: FisherSettings | None = None,
    batch_tokens: int = 4_096,
    autocast: bool = False,
    advance: Callable[[int], None] | None = None,
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
        autocast: run the forward pass in bfloat16.
        advance: told how many tokens each finished micro-batch had.

    Raises:
        ValueError: a layer with weights in the blocks is of no known type; a sequence is too
            short; the model changes the head's logits or is in training mode; the settings
            are malformed.
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
    for part in iterate_rows(
        model, sequences, settings=settings, batch_tokens=batch_tokens, autocast=autocast
    ):
        of = torch.as_tensor(group_of[list(part.which)], device=device)
        values.index_add_(0, of, part.rows.double())
        hidden.index_add_(0, of, part.hidden.double())
        nats += part.nats
        if advance:
            advance(sum(len(sequences[i]) for i in part.which))
    return FisherRows(
        values=values.cpu().numpy() / n_sequences[:, None],
        blocks=blocks,
        n_sequences=tuple(n_sequences.tolist()),
        hidden=hidden.cpu().numpy() / n_tokens[:, None],
        loss=float(nats) / float(n_tokens.sum() - len(sequences)),
    )


def fisher_blocks(model: Any, settings: FisherSettings) -> tuple[RowBlock, ...]:
    """Return the coordinates that `fisher_rows` would give, without computing them.

    Raises:
        ValueError: as `fisher_rows`.
    """
    return row_blocks(_matrices(model, settings), rows=settings.rows)


def iterate_rows(
    model: Any,
    sequences: Sequence[Ids],
    *,
    settings: FisherSettings,
    batch_tokens: int = 4_096,
    autocast: bool = False,
) -> Iterator[SequenceRows]:
    """Yield the row Fisher of every single sequence, in micro-batches of like length.

    Args:
        model: as in `fisher_rows`, as are the others.
        sequences: (T,) token ids each.
        settings: what is computed.
        batch_tokens: tokens that go through the model together.
        autocast: run the forward pass in bfloat16.

    Raises:
        ValueError: as `fisher_rows`.
    """
    matrices = _matrices(model, settings)
    pending = micro_batches([len(s) for s in sequences], batch_tokens=batch_tokens)[::-1]
    with _frozen(model):
        _check_head(model, sequences[0], autocast=autocast)
        while pending:
            which = pending.pop()
            chosen = [sequences[i] for i in which]
            try:
                done = _run(model, matrices, chosen, settings=settings, autocast=autocast)
            except torch.OutOfMemoryError:
                if len(which) == 1:
                    raise
                half = len(which) // 2
                pending += [which[half:], which[:half]]
                continue
            yield SequenceRows(which, *done)


def micro_batches(lengths: Sequence[int], *, batch_tokens: int) -> list[tuple[int, ...]]:
    """Group sequences of like length, longest first, each group at most `batch_tokens` padded.

    Example:
        >>> micro_batches([3, 8, 4], batch_tokens=8)
        [(1,), (2, 0)]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return [tuple(batch) for batch in batches]


def _run(
    model: Any,
    matrices: Sequence[Matrix],
    sequences: Sequence[Ids],
    *,
    settings: FisherSettings,
    autocast: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows (B, dim), summed hidden states (B, width) and summed loss of one batch."""
    device = next(model.parameters()).device
    batch = _pad(sequences, settings, device=device)
    n, length = batch.ids.shape
    draws = settings.draws if settings.labels == "model" else 1
    with recording(matrices, shape=(n, length), rows=settings.rows, draws=draws) as recorder:
        with torch.enable_grad():
            last = _last_hidden(model, batch.ids, batch.mask, autocast=autocast)  # (B, T, width)
        flat = last.detach().reshape(n * length, -1)
        head = model.get_output_embeddings()
        narrow = torch.bfloat16 if autocast else head.weight.dtype
        with torch.no_grad():
            gradients, nats = head_gradients(
                flat[batch.positions],
                matrix=head.weight.to(narrow),
                bias=None if head.bias is None else head.bias.to(narrow),
                observed=batch.observed,
                uniforms=batch.uniforms,
                chunk=max(1, _HEAD_BYTES[device.type == "cuda"] // (4 * head.weight.shape[0])),
            )
            start = torch.zeros_like(flat)
        for draw in range(draws):
            start[batch.positions] = gradients[draw].to(start.dtype)
            last.backward(start.view_as(last), retain_graph=draw + 1 < draws)
        rows = _join(recorder.sums, matrices, settings) / draws
    real = flat if batch.mask is None else flat * batch.mask.reshape(-1, 1)
    summed = real.view(n, length, -1).sum(
        dim=1, dtype=torch.promote_types(flat.dtype, torch.float32)
    )
    return rows, summed, nats.double().sum()


def _join(
    sums: dict[str, list[Tensor]], matrices: Sequence[Matrix], settings: FisherSettings
) -> Tensor:
    """Lay the matrices' row sums side by side, each divided by what a row sums over."""
    parts = []
    for matrix in matrices:
        found = sums.get(matrix.name)
        if not found:
            raise ValueError(f"{matrix.name} got no gradient: the forward pass does not use it")
        over = [matrix.fan_in] if settings.rows != "input" else []
        over += [matrix.fan_out] if settings.rows != "output" else []
        parts += [part / count for part, count in zip(found, over, strict=True)]
    return torch.cat(parts, dim=1)


def _pad(sequences: Sequence[Ids], settings: FisherSettings, *, device: torch.device) -> _Batch:
    lengths = np.array([len(s) for s in sequences])
    longest = int(lengths.max())
    ids = np.zeros((len(sequences), longest), np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    place = np.arange(longest)
    flat = np.flatnonzero(place < lengths[:, None] - 1)  # positions with a next token
    uniforms = None
    if settings.labels == "model":
        draws, contrast, seed = settings.draws, settings.contrast, settings.seed
        each = [sequence_uniforms(s, draws=draws, contrast=contrast, seed=seed) for s in sequences]
        uniforms = torch.from_numpy(np.concatenate(each, axis=1)).to(device)
    mask = None
    if lengths.min() < longest:
        mask = torch.from_numpy((place < lengths[:, None]).astype(np.int64)).to(device)
    return _Batch(
        ids=torch.from_numpy(ids).to(device),
        mask=mask,
        positions=torch.from_numpy(flat).to(device),
        observed=torch.from_numpy(ids.reshape(-1)[flat + 1]).to(device),
        uniforms=uniforms,
    )


def _last_hidden(model: Any, ids: Tensor, mask: Tensor | None, *, autocast: bool) -> Tensor:
    base = getattr(model, model.base_model_prefix)
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=autocast):
        return base(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state


def _check_head(model: Any, sequence: Ids, *, autocast: bool) -> None:
    """Refuse a model whose logits are not the head of its last hidden state."""
    if model.training:
        raise ValueError("the model is in training mode; its dropout would count as information")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"the head is a {type(head).__name__}, not a Linear layer")
    device = next(model.parameters()).device
    ids = torch.as_tensor(np.asarray(sequence[:4], np.int64), device=device)[None]
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        last = _last_hidden(model, ids, None, autocast=autocast)
        ours, theirs = head(last), model(input_ids=ids, use_cache=False).logits
    if not torch.allclose(
        ours.float(), theirs.float(), rtol=2e-2, atol=2e-2 * float(theirs.abs().max())
    ):
        raise ValueError(f"{type(model).__name__} changes its logits after the head")


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Let no parameter require a gradient for a while."""
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _matrices(model: Any, settings: FisherSettings) -> list[Matrix]:
    n_layers = model.config.num_hidden_layers
    return find_matrices(model, n_layers=n_layers, layers=settings.layers)


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
