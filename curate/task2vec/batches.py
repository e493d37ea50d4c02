"""Micro-batches: which sequences go through the model together, and where each one lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from curate.task2vec.labels import sequence_seeds
from curate.task2vec.quantity import FisherSettings

Ids = npt.NDArray[np.integer[Any]]
_NO_MEMORY = (
    "outofmemory",
    "cantallocatememory",
    "cannotallocatememory",
    "notenoughmemory",
    "failedtoallocate",
    "allocfailed",  # cuBLAS, cuSOLVER, hipBLAS, MIOpen
    "allocationfailed",  # cuDNN 9
    "statusnotinitialized",  # cuBLAS and cuDNN where there is no room for their handles
    "rocblasstatusmemoryerror",
    "nvmlsuccess",  # torch asks the driver what is left, and a slice of a GPU (MIG) cannot say
    "badalloc",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a micro-batch lie in the model's (B, T) input."""

    n: int  # sequences
    rows: int  # B
    length: int  # T
    places: Tensor | None  # (n, L) flat positions, B·T beyond a sequence's end; None: row i is i
    owner: Tensor  # (B·T,) sequence of each position; a pad has its neighbour's

    def split(self, value: Tensor) -> Tensor:
        """Return (B, T, width) as (n, L, width), 0 beyond a sequence's end."""
        if self.places is None:
            return value
        flat = value.reshape(self.rows * self.length, -1)
        return nn.functional.pad(flat, (0, 0, 0, 1))[self.places]


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch on the model's device."""

    ids: Tensor  # (B, T) int64
    mask: Tensor | None  # (B, T) int64, (B, 1, T, T) to be added, or None where nothing is hidden
    positions: Tensor | None  # (B, T) int64, from 0 in every sequence; None: 0 to T − 1
    layout: Layout
    inputs: Tensor  # (m,) flat positions that have a next token, sequence by sequence
    observed: Tensor  # (m,) those next tokens
    seeds: Tensor | None  # (draws, m, contrast); None for the text's own labels


def micro_batches(
    lengths: Sequence[int], *, batch_tokens: int, packed: bool = False
) -> list[tuple[int, ...]]:
    """Group sequences of like length, longest first, each group at most `batch_tokens` wide.

    Padded, a group counts its longest sequence for each; packed, its sum.

    Example:
        >>> micro_batches([3, 8, 4], batch_tokens=8)
        [(1,), (2, 0)]
    """
    batches: list[list[int]] = []
    filled = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        cost = lengths[i] if packed or not batches else lengths[batches[-1][0]]
        if batches and filled + cost <= batch_tokens:
            batches[-1].append(i)
            filled += cost
        else:
            batches.append([i])
            filled = lengths[i]
    return [tuple(batch) for batch in batches]


def lay_out(
    sequences: Sequence[Ids],
    settings: FisherSettings,
    *,
    packed: bool,
    device: torch.device,
    dtype: torch.dtype,
    numbered: bool = False,
) -> Batch:
    """Put sequences into one input: each in a row of its own, or packed into as few as fit.

    In a packed row a sequence sees itself alone and its positions restart at 0.

    Args:
        sequences: (T_i,) token ids each, T_i >= 2.
        settings: its labels, draws, contrast and seed decide the random numbers.
        packed: several sequences a row.
        device: of the model.
        dtype: of the packed mask.
        numbered: give the positions even where they are the model's own default.
    """
    lengths = np.array([len(s) for s in sequences])
    longest = int(lengths.max())
    row, start = _first_fit(lengths, longest) if packed else (np.arange(len(lengths)), lengths * 0)
    n_rows = int(row.max()) + 1
    begin = row * longest + start
    ids, owner = np.zeros(n_rows * longest, np.int64), np.full(n_rows * longest, -1)
    positions = np.zeros(n_rows * longest, np.int64)
    for i, (sequence, place) in enumerate(zip(sequences, begin, strict=True)):
        ids[place : place + len(sequence)] = sequence
        owner[place : place + len(sequence)] = i
        positions[place : place + len(sequence)] = np.arange(len(sequence))
    inputs = np.concatenate([np.arange(b, b + n - 1) for b, n in zip(begin, lengths, strict=True)])
    whole = int(lengths.min()) == longest
    shape = (n_rows, longest)
    mask = None if packed or whole else (owner >= 0).astype(np.int64).reshape(shape)
    places = _places(begin, lengths, n_rows * longest) if packed else None
    layout = Layout(
        len(sequences), *shape, to_device(places, device), to_device(np.maximum(owner, 0), device)
    )
    return Batch(
        ids=to_device(ids.reshape(shape), device),
        mask=own_past(to_device(owner.reshape(shape), device), dtype)
        if packed
        else to_device(mask, device),
        positions=to_device(positions.reshape(shape), device) if packed or numbered else None,
        layout=layout,
        inputs=to_device(inputs, device),
        observed=to_device(ids[inputs + 1], device),
        seeds=to_device(_seeds(sequences, settings), device),
    )


def _first_fit(
    lengths: npt.NDArray[Any], longest: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the row and the first column of each sequence, in rows of `longest` tokens."""
    filled: list[int] = []
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for i in np.argsort(-lengths, kind="stable"):
        fits = (r for r, used in enumerate(filled) if used + lengths[i] <= longest)
        r = next(fits, len(filled))
        if r == len(filled):
            filled.append(0)
        row[i], start[i] = r, filled[r]
        filled[r] += int(lengths[i])
    return row, start


def _places(
    begin: npt.NDArray[Any], lengths: npt.NDArray[Any], nowhere: int
) -> npt.NDArray[np.int64]:
    column = np.arange(int(lengths.max()))
    return np.where(column < lengths[:, None], begin[:, None] + column, nowhere)


def own_past(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention: 0 on a sequence's own past, the lowest number elsewhere.

    A pad sees itself, so that its row of the softmax is defined.

    Args:
        owner: (B, T) any number of the sequence of each position, -1 of a pad.
        dtype: of the activations.
    """
    length, device = owner.shape[1], owner.device
    past = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen = (owner[:, :, None] == owner[:, None, :]) & past
    hidden = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=device)
    return hidden.masked_fill_(seen, 0)[:, None]


def _seeds(sequences: Sequence[Ids], settings: FisherSettings) -> npt.NDArray[np.int64] | None:
    if settings.labels == "data":
        return None
    each = [
        sequence_seeds(s, draws=settings.draws, contrast=settings.contrast, seed=settings.seed)
        for s in sequences
    ]
    return np.concatenate(each, axis=1)


def to_device(array: npt.NDArray[Any] | None, device: torch.device) -> Any:
    """Copy to the device; to a GPU without waiting for it."""
    if array is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception is any of the forms in which torch reports a lack of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = "".join(filter(str.isalpha, str(error))).lower()  # spaces, underscores, capitals differ
    return isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY)


def tokens_that_fit(
    free: int, *, widths: Sequence[tuple[int, int]], hidden: int, length: int, element: int
) -> int:
    """Return how many tokens may go through the model together, from the memory that is free.

    Counts what waits for the backward pass: every matrix' input and output, about two tensors
    of the hidden width around each norm and residual, one row of the attention weights and of
    the largest gram matrix; half of what is free is left for all else.

    Args:
        free: bytes.
        widths: (fan_in, fan_out) of every matrix that the backward pass goes through.
        hidden: width of the model.
        length: longest sequence, tokens.
        element: bytes of an activation.
    """
    waiting = sum(2 * fan_out + fan_in for fan_in, fan_out in widths) + 6 * hidden
    return max(1, free // (2 * (element * waiting + 4 * length * 4)))
