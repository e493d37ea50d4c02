"""One language model, trained from scratch or further: one loop, read from top to bottom.

On a CPU a run is deterministic for a number of threads; on a GPU up to the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from curate.verification.continued import LanguageModel
from curate.verification.small_model import SmallModel, head_loss

IntArray = npt.NDArray[np.int32]
DIVERGED_STEPS = 8  # a mean over so many steps, a nat above knowing nothing, is a divergence

# --- the data ---


@dataclass(frozen=True, slots=True)
class Blocks:
    """Packed training data: position t of a block predicts `labels[t]`."""

    ids: npt.NDArray[np.int64]  # (n, T)
    labels: npt.NDArray[np.int64]  # (n, T)
    starts: npt.NDArray[np.int64]  # (n, T) where the document of each position starts


def pack_blocks(
    documents: Sequence[IntArray], *, eos: int, block_tokens: int, tokens: int, seed: int
) -> Blocks:
    """Pack documents in seeded order into full blocks, passing over them as often as needed.

    Each document has `eos` before it. What a block's end cuts off goes on in another block,
    without its context. The blocks are shuffled: a long document would else fill many steps in
    a row, and at a high learning rate a model forgets the rest meanwhile.

    Args:
        documents: token ids of each, at least one token in all.
        eos: the id that stands before each document, and is predicted after it.
        block_tokens: T, positions a block.
        tokens: labels to train on; rounded down to whole blocks, at least one.
        seed: of the order; every pass has its own.

    Raises:
        ValueError: no token in any document.
    """
    if not any(len(document) for document in documents):
        raise ValueError("no tokens to train on")
    n_blocks = max(1, tokens // block_tokens)
    need = n_blocks * block_tokens + 1
    rng = np.random.default_rng(seed)
    pieces: list[IntArray] = []
    while sum(map(len, pieces)) < need:
        for number in rng.permutation(len(documents)):
            pieces += [np.array([eos], dtype=np.int32), documents[number]]
    stream = np.concatenate(pieces)[:need].astype(np.int64)
    is_start = np.zeros(sum(map(len, pieces)), dtype=bool)
    is_start[np.cumsum([0, *map(len, pieces)])[:-1:2]] = True  # every other piece is an eos
    order = rng.permutation(n_blocks)
    ids = stream[:-1].reshape(n_blocks, block_tokens)[order]
    marks = is_start[: need - 1].reshape(n_blocks, block_tokens)[order]
    starts = np.maximum.accumulate(np.where(marks, np.arange(block_tokens), 0), axis=1)
    return Blocks(ids, stream[1:].reshape(n_blocks, block_tokens)[order], starts)


# --- the loop ---


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What decides a run, apart from its documents."""

    size: str
    vocab: int
    eos: int
    tokens: int  # labels to train on
    block_tokens: int
    batch_tokens: int
    learning_rate: float
    seed: int  # of initialisation and order


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run between two steps: all that the next step depends on, the data apart."""

    step: int  # steps done
    curve: list[tuple[int, float]]  # (tokens seen, training loss)
    tensors: dict[str, torch.Tensor]  # weights and the optimisers' state, on the CPU


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, told after every step."""

    step: int  # steps done
    steps: int
    tokens: int
    model: LanguageModel
    snapshot: Callable[[], Snapshot]


def train_model(
    documents: Sequence[IntArray],
    settings: TrainSettings,
    *,
    start: LanguageModel | None = None,
    device: str = "cpu",
    on_step: Callable[[Progress], None] | None = None,
    resume: Snapshot | None = None,
) -> tuple[LanguageModel, list[tuple[int, float]]]:
    """Train a small model from scratch, or a given one further.

    Matrices of a small model's blocks are updated by Muon (orthogonalised momentum; Jordan et al.
    2024), all else by AdamW; 5 % linear warm-up, then cosine to a tenth; gradients clipped to
    norm 1.

    Args:
        documents: token ids of each document.
        settings: size, tokens, steps, seed.
        start: the model to go on from, which changes; None makes one of the size.
        device: cpu or cuda; bfloat16 autocast on cuda only.
        on_step: told after every step; may ask for a snapshot, must not change the model.
        resume: a snapshot of a run of the same documents and settings, to go on from.

    Returns:
        The model, and its training loss as (tokens seen, nats/token).

    Raises:
        ValueError: no documents.
        FloatingPointError: the loss is not finite, or stays a nat above that of a guess, and of
            the first steps from a given model.
    """
    # Data: the same order on any device.
    data = pack_blocks(
        documents,
        eos=settings.eos,
        block_tokens=settings.block_tokens,
        tokens=settings.tokens,
        seed=settings.seed,
    )
    n_blocks, T = data.ids.shape
    batch = min(n_blocks, max(1, settings.batch_tokens // T))  # blocks a step
    steps = math.ceil(n_blocks / batch)
    n_parts = math.ceil(batch * T / (1 << 12 if device == "cpu" else 1 << 16))
    part = math.ceil(batch / n_parts)  # blocks a forward pass, so that memory is bounded

    # Model and optimisers.
    model = start or SmallModel(settings.size, vocab=settings.vocab, seed=settings.seed)
    model.to(device)
    optimisers = _optimisers(model)
    curve: list[tuple[int, float]] = []
    guess = math.log(settings.vocab)  # nats/token of knowing nothing
    if resume is not None:
        curve += resume.curve
        _restore(model, optimisers, resume.tensors)
    for step in range(resume.step if resume else 0, steps):
        # One batch, in parts: gradients of the mean loss over all its labels.
        chosen = slice(step * batch, min(n_blocks, (step + 1) * batch))
        n_labels = (chosen.stop - chosen.start) * T
        total = torch.zeros((), device=device)
        for first in range(chosen.start, chosen.stop, part):
            rows = slice(first, min(first + part, chosen.stop))
            ids, labels, starts = (
                torch.from_numpy(array[rows]).to(device)
                for array in (data.ids, data.labels, data.starts)
            )
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
                loss = head_loss(model.head, model(ids, starts), labels).sum()
            (loss / n_labels).backward()
            total += loss.detach()

        # Divergence: said at once, not after the last step.
        value = float(total) / n_labels
        curve.append((min(chosen.stop, n_blocks) * T, value))
        recent = [loss for _, loss in curve[-DIVERGED_STEPS:]]  # one odd batch is no divergence
        worst = max([guess, *(loss for _, loss in curve[:DIVERGED_STEPS] if start)])
        if not math.isfinite(value) or sum(recent) / len(recent) > worst + 1.0:
            raise FloatingPointError(f"loss {value:.3g} at step {step + 1} of {steps}")

        # Update: warm-up, cosine, clipping.
        warm = min(1.0, (step + 1) / max(1, round(0.05 * steps)))
        rate = settings.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
        if on_step is not None:
            snapshot = partial(_snapshot, model, optimisers, curve, step + 1)
            on_step(Progress(step + 1, steps, curve[-1][0], model, snapshot))
    return model, curve


def _optimisers(model: LanguageModel) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices that it is for, where there are any, and AdamW for the rest."""
    matrices = model.matrices()
    of_muon = {id(weights) for weights in matrices}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in of_muon]
    adamw = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    if not matrices:
        return [adamw]
    return [torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), adamw]


# --- between two steps ---


def _snapshot(
    model: LanguageModel,
    optimisers: Sequence[torch.optim.Optimizer],
    curve: Sequence[tuple[int, float]],
    step: int,
) -> Snapshot:
    learning = ((name, each) for name, each in model.named_parameters() if each.requires_grad)
    tensors: dict[str, torch.Tensor] = {f"model/{name}": weights for name, weights in learning}
    for place, optimiser in enumerate(optimisers):
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{place}/{number}/{name}": value for name, value in state.items()}
    copies = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    return Snapshot(step, list(curve), copies)


def _restore(
    model: LanguageModel,
    optimisers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[f"model/{name}"])
    for place, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"{place}/"):
                _, number, what = name.split("/")
                state.setdefault(int(number), {})[what] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
