"""Language models trained from scratch or further: one loop, read from top to bottom.

Several small models can go side by side in it, each with its own documents and seed; the loop
is the same for one. On a CPU a run is deterministic for a number of threads; on a GPU, and
between one model and several, up to the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from curate.verification.blocks import IntArray, pack_blocks
from curate.verification.continued import LanguageModel
from curate.verification.optimiser import clip_gradients, make_optimisers
from curate.verification.small_model import SmallModel

DIVERGED_STEPS = 8  # a mean over so many steps, a nat above knowing nothing, is a divergence

Curve = list[tuple[int, float]]
"""(tokens seen, training loss in nats/token) after every step."""


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
    curve: Curve
    tensors: dict[str, torch.Tensor]  # weights and the optimisers' state, on the CPU


@dataclass(frozen=True, slots=True)
class Progress:
    """Where runs side by side are, told after every step."""

    step: int  # steps done
    steps: int
    tokens: int
    losses: tuple[float, ...]  # (G,) of this step
    model: LanguageModel
    snapshot: Callable[[int], Snapshot]  # of one of the runs


class DivergedError(FloatingPointError):
    """The loss of a run is not finite, or stays far above that of a guess."""

    def __init__(self, run: int, message: str) -> None:
        super().__init__(message)
        self.run = run  # which of those side by side


def train_model(
    documents: Sequence[IntArray],
    settings: TrainSettings,
    *,
    start: LanguageModel | None = None,
    device: str = "cpu",
    on_step: Callable[[Progress], None] | None = None,
    resume: Snapshot | None = None,
) -> tuple[LanguageModel, Curve]:
    """Train one model: `train_models` for one run."""
    model, (curve,) = train_models(
        [documents],
        [settings],
        start=start,
        device=device,
        on_step=on_step,
        resume=[resume] if resume else None,
    )
    return model, curve


def train_models(
    documents: Sequence[Sequence[IntArray]],
    settings: Sequence[TrainSettings],
    *,
    start: LanguageModel | None = None,
    device: str = "cpu",
    compiled: bool = False,
    on_step: Callable[[Progress], None] | None = None,
    resume: Sequence[Snapshot] | None = None,
) -> tuple[LanguageModel, list[Curve]]:
    """Train G small models from scratch side by side, or a given one further.

    Matrices of a small model's blocks are updated by Muon (orthogonalised momentum; Jordan et al.
    2024), all else by AdamW; 5 % linear warm-up, then cosine to a tenth; gradients clipped to
    norm 1.

    Args:
        documents: of each run, token ids of each document.
        settings: of each run; they differ by their seeds alone.
        start: the model to go on from, which changes, for one run; None makes them of the size.
        device: cpu or cuda; bfloat16 autocast on cuda only.
        compiled: fuse the model's operations first, which takes a minute.
        on_step: told after every step; may ask for snapshots, must not change the model.
        resume: snapshots after one and the same step, of the same documents and settings.

    Returns:
        The models, and the training losses of each run.

    Raises:
        ValueError: no documents.
        DivergedError: a loss is not finite, or stays a nat above that of a guess, and of the
            first steps from a given model.
    """
    # Data: the same order on any device, and whatever goes beside it.
    one, n_runs = settings[0], len(settings)
    data = [
        pack_blocks(
            texts,
            eos=one.eos,
            block_tokens=one.block_tokens,
            tokens=one.tokens,
            seed=own.seed,
        )
        for texts, own in zip(documents, settings, strict=True)
    ]
    n_blocks, T = data[0].ids.shape
    batch = min(n_blocks, max(1, one.batch_tokens // T))  # blocks a step
    steps = math.ceil(n_blocks / batch)
    n_parts = math.ceil(n_runs * batch * T / (1 << 12 if device == "cpu" else 1 << 16))
    part = math.ceil(batch / n_parts)  # blocks a forward pass, so that memory is bounded

    # Models and optimisers.
    seeds = [own.seed for own in settings]
    model = start or SmallModel(one.size, vocab=one.vocab, seeds=seeds)
    model.to(device)
    forward = torch.compile(model) if compiled else model
    optimisers = make_optimisers(model)
    curves: list[Curve] = [[] for _ in settings]
    guess = math.log(one.vocab)  # nats/token of knowing nothing
    if resume is not None:
        curves = [list(each.curve) for each in resume]
        _restore(model, optimisers, [each.tensors for each in resume])
    for step in range(resume[0].step if resume else 0, steps):
        # One batch of each run, in parts: gradients of the mean loss over all its labels.
        chosen = slice(step * batch, min(n_blocks, (step + 1) * batch))
        n_labels = (chosen.stop - chosen.start) * T
        total = torch.zeros(n_runs, device=device)
        for first in range(chosen.start, chosen.stop, part):
            rows = slice(first, min(first + part, chosen.stop))
            ids, labels, starts = (
                torch.from_numpy(np.stack(arrays)).to(device)  # (G, b, T)
                for arrays in zip(
                    *((own.ids[rows], own.labels[rows], own.starts[rows]) for own in data),
                    strict=True,
                )
            )
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
                loss = model.nats(forward(ids, starts), labels)  # (G, b · T)
            (loss.sum() / n_labels).backward()
            total += loss.detach().sum(dim=1)

        # Divergence: said at once, not after the last step.
        seen = chosen.stop * T
        losses = tuple(value / n_labels for value in total.tolist())
        for run, (curve, value) in enumerate(zip(curves, losses, strict=True)):
            curve.append((seen, value))
            recent = [each for _, each in curve[-DIVERGED_STEPS:]]  # one odd batch is none
            worst = max([guess, *(each for _, each in curve[:DIVERGED_STEPS] if start)])
            if not math.isfinite(value) or sum(recent) / len(recent) > worst + 1.0:
                raise DivergedError(run, f"loss {value:.3g} at step {step + 1} of {steps}")

        # Update: warm-up, cosine, clipping.
        warm = min(1.0, (step + 1) / max(1, round(0.05 * steps)))
        rate = one.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        clip_gradients(model, 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
        if on_step is not None:
            snapshot = partial(_snapshot, model, optimisers, curves, step + 1)
            on_step(Progress(step + 1, steps, seen, losses, model, snapshot))
    return model, curves


# --- between two steps ---


def _snapshot(
    model: LanguageModel,
    optimisers: Sequence[torch.optim.Optimizer],
    curves: Sequence[Curve],
    step: int,
    run: int,
) -> Snapshot:
    learning = ((name, each) for name, each in model.named_parameters() if each.requires_grad)
    tensors: dict[str, torch.Tensor] = {f"model/{name}": weights for name, weights in learning}
    for place, optimiser in enumerate(optimisers):
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{place}/{number}/{name}": value for name, value in state.items()}
    own = {
        name: value[run : run + 1] if model.n_runs > 1 and value.ndim else value
        for name, value in tensors.items()
    }
    copies = {name: value.detach().cpu().clone() for name, value in own.items()}
    return Snapshot(step, list(curves[run]), copies)


def _restore(
    model: LanguageModel,
    optimisers: Sequence[torch.optim.Optimizer],
    several: Sequence[Mapping[str, torch.Tensor]],
) -> None:
    tensors = {
        name: torch.cat([each[name] for each in several])
        if len(several) > 1 and value.ndim
        else value
        for name, value in several[0].items()
    }
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
