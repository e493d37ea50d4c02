"""What a model answers, in token ids: nats of a continuation, and what it writes by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curate.verification.blocks import IntArray
from curate.verification.continued import LanguageModel


def continuation_nats(
    model: LanguageModel,
    sequences: Sequence[IntArray],
    last: Sequence[int],
    *,
    eos: int,
    block_tokens: int,
    batch: int = 32,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the nats of the last tokens of sequences, and whether a greedy model writes them.

    `eos` stands before a sequence, as before a document in training; of what is longer than a
    block its end is read.

    Args:
        model: one model, on the device to compute on.
        sequences: token ids of context and continuation; one without any takes 0 nats.
        last: of each, the tokens of the continuation, > 0.
        eos: the id before each document in training.
        block_tokens: longest context.
        batch: sequences a forward pass; changes the result by rounding only.

    Returns:
        (n,) nats, and (n,) True where every token is the likeliest.
    """
    nats = np.zeros(len(sequences))
    greedy = np.array([not len(sequence) for sequence in sequences])
    order = sorted(np.flatnonzero(~greedy).tolist(), key=lambda number: -len(sequences[number]))
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        whole = [np.append(np.int32(eos), sequences[number]) for number in numbers]
        hidden = _hidden(model, [ids[:-1][-block_tokens:] for ids in whole], eos=eos)
        for row, number in enumerate(numbers):
            size = min(len(sequences[number]), block_tokens)
            n = min(last[number], size)
            logits = _logits(model, hidden[row, size - n : size])  # (n, V)
            labels = torch.from_numpy(whole[row][-n:].astype(np.int64)).to(logits.device)
            log_p = logits.log_softmax(-1).gather(1, labels[:, None])
            nats[number] = -float(log_p.double().sum())
            greedy[number] = bool((logits.argmax(-1) == labels).all())
    return nats, greedy


def write_greedily(
    model: LanguageModel,
    contexts: Sequence[IntArray],
    most: Sequence[int],
    *,
    eos: int,
    block_tokens: int,
    ended: Callable[[int, Sequence[int]], bool],
) -> list[list[int]]:
    """Return what a model writes after each context, the likeliest token at each place.

    Args:
        model: one model.
        contexts: token ids; of a long one the end is read.
        most: of each, tokens that are written at most.
        eos: the id before each document in training; a model that writes it has ended.
        block_tokens: longest context.
        ended: told the number of a context and what is written so far, says whether it is enough.
    """
    written: list[list[int]] = [[] for _ in contexts]
    live = [number for number, limit in enumerate(most) if limit > 0]
    while live:
        rows = [
            np.concatenate([[eos], contexts[n], written[n]]).astype(np.int32)[-block_tokens:]
            for n in live
        ]
        hidden = _hidden(model, rows, eos=eos)
        ends = torch.stack([hidden[row, len(ids) - 1] for row, ids in enumerate(rows)])
        going = []
        for number, token in zip(live, _logits(model, ends).argmax(-1).tolist(), strict=True):
            if token == eos:
                continue
            written[number].append(token)
            if len(written[number]) < most[number] and not ended(number, written[number]):
                going.append(number)
        live = going
    return written


def _hidden(model: LanguageModel, rows: Sequence[IntArray], *, eos: int) -> Tensor:
    """Return the last hidden states (B, T, D) of rows of ids, filled up with `eos`."""
    ids = np.full((len(rows), max(map(len, rows))), eos, dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    device = next(model.parameters()).device
    with torch.no_grad(), _precision(device):
        there = torch.from_numpy(ids).to(device)[None]
        hidden: Tensor = model(there, torch.zeros_like(there))[0]
    return hidden


def _logits(model: LanguageModel, hidden: Tensor) -> Tensor:
    with torch.no_grad(), _precision(hidden.device):
        return model.logits(hidden)


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


def alone(model: LanguageModel) -> Iterator[LanguageModel]:
    """Yield each of the models that stand side by side as one of its own."""
    if model.n_runs == 1:
        yield model
        return
    for run in range(model.n_runs):
        own = copy.deepcopy(model)
        for weights in own.parameters():
            weights.data = weights.data[run : run + 1].clone()
        yield own
