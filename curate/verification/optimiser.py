"""How weights are updated: Muon for the matrices of small models, AdamW for all else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor, nn

from curate.verification.continued import LanguageModel

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that lifts all singular values towards 1 (Jordan et al. 2024)."""


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Jordan et al. 2024), for G matrices side by side, (G, m, n).

    Each is updated as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` would update it alone,
    which takes one matrix at a time; here all matrices of one shape are made orthogonal at once.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix by its gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            by_shape = sorted(group["params"], key=lambda weights: weights.shape)
            for shape, alike in groupby(by_shape, key=lambda weights: weights.shape):
                several = list(alike)
                made = orthogonal(torch.cat([self._ahead(each, momentum) for each in several]))
                for weights, update in zip(several, made.split(shape[0]), strict=True):
                    weights.mul_(1 - rate * group["weight_decay"])
                    weights.add_(update, alpha=-rate * 0.2 * math.sqrt(max(shape[1:])))

    def _ahead(self, weights: Tensor, momentum: float) -> Tensor:
        """Return Nesterov's momentum of the gradient."""
        state = self.state[weights]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weights)
        buffer: Tensor = state["momentum_buffer"]
        gradient = weights.grad
        if gradient is None:  # pragma: no cover - every matrix is used in every step
            raise ValueError("a matrix without a gradient")
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonal(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Return matrices of the same singular vectors whose singular values are near 1.

    Newton and Schulz's iteration in bfloat16, as Muon has it: values end between 0.7 and 1.2.

    Args:
        matrices: (n, rows, columns).
        steps: of the iteration.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    if upright := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x


def make_optimisers(model: LanguageModel) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices that it is for, where there are any, and AdamW for the rest."""
    matrices = model.matrices()
    of_muon = {id(weights) for weights in matrices}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in of_muon]
    adamw = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(matrices), adamw] if matrices else [adamw]


@torch.no_grad()
def clip_gradients(model: LanguageModel, most: float) -> None:
    """Scale the gradient of each model side by side to a norm of at most `most`."""
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    norms = [each.reshape(model.n_runs, -1).norm(dim=1) for each in gradients]
    scale = (most / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)  # (G,)
    for each in gradients:
        each.mul_(scale.view(-1, *[1] * (each.ndim - 1)))
