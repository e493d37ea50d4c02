"""Experts whose weights lie stacked in one tensor: their rows, from its whole gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from curate.settings import Rows
from curate.task2vec.sites import Site

Groups = tuple[Tensor, int]  # (n,) of each sequence, and how many there are


def take_gradient(site: Site) -> Tensor:
    """Take the gradient of stacked weights, of the one sequence there is: (experts, out, in)."""
    assert site.stack is not None
    gradient, site.stack.grad = site.stack.grad, None
    if gradient is None:  # no token came here
        gradient = torch.zeros_like(site.stack)
    gradient = gradient.reshape(-1, *gradient.shape[-2:])
    gradient = gradient.to(torch.promote_types(site.stack.dtype, torch.float32))
    return gradient.transpose(1, 2) if site.transposed else gradient


def stack_rows(gradient: Tensor, *, rows: Rows) -> list[Tensor]:
    """Return the mean square of each row of (experts, out, in), and of each column: (1, ...)."""
    square = gradient.square()
    parts = [square.mean(dim=2)] if rows != "input" else []
    parts += [square.mean(dim=1)] if rows != "output" else []
    return [part.reshape(1, -1) for part in parts]


def stack_means(gradient: Tensor, signs: Tensor, *, groups: Groups) -> Tensor:
    """Return the sequence's gradient in its group, columns projected: (n_groups, rows, width)."""
    group, n_groups = groups
    projected = gradient @ signs.to(gradient)
    projected = projected.reshape(1, -1, projected.shape[-1])
    sums = projected.new_zeros((n_groups, *projected.shape[1:]))
    return sums.index_add_(0, group, projected)
