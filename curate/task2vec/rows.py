"""Row sums of squared per-sequence weight gradients, from activations and their gradients.

The gradient of one sequence's log-likelihood with respect to W (out × in) is GᵀA, with input
activations A (T × in) and output gradients G (T × out). Only the sums over its squared rows
are wanted: f_o = Σ_i (GᵀA)²_oi = g_oᵀ (A Aᵀ) g_o. Whichever of the two forms is cheaper for a
layer's shape is taken; neither outlives its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from curate.records import Rows
from curate.task2vec.matrices import Matrix

_STRIPE = 64  # positions of a gram matrix that are multiplied together


def gram_stripes(x: Tensor) -> list[Tensor]:
    """Return the lower block triangle of X Xᵀ, one stripe of positions after another.

    What lies left of the diagonal block counts twice, for its mirror image.

    Args:
        x: (B, T, d).

    Returns:
        Stripes (B, ≤64, end of the stripe).
    """
    stripes = []
    for start in range(0, x.shape[1], _STRIPE):
        stop = min(start + _STRIPE, x.shape[1])
        stripe = torch.bmm(x[:, start:stop], x[:, :stop].transpose(1, 2))
        stripe[:, :, :start] *= 2
        stripes.append(stripe)
    return stripes


def rows_by_gram(stripes: Sequence[Tensor], y: Tensor) -> Tensor:
    """Return y_jᵀ (X Xᵀ) y_j for every column j.

    Args:
        stripes: of X, from `gram_stripes`.
        y: (B, T, width).

    Returns:
        (B, width) float32 or wider, >= 0.
    """
    wide = torch.promote_types(y.dtype, torch.float32)
    result = torch.zeros((y.shape[0], y.shape[2]), dtype=wide, device=y.device)
    for stripe in stripes:
        stop = stripe.shape[2]
        start = stop - stripe.shape[1]
        product = torch.bmm(stripe, y[:, :stop]).to(wide)
        result += product.mul_(y[:, start:stop]).sum(dim=1)
    return result.clamp_(min=0)  # rounding may leave a zero row just below


def rows_by_gradient(x: Tensor, y: Tensor, *, rows: Rows) -> list[Tensor]:
    """Return the row sums of (YᵀX)², with every sequence's gradient in memory for a moment.

    Args:
        x: (B, T, fan_in) activations.
        y: (B, T, fan_out) gradients.
        rows: which rows.

    Returns:
        Output rows (B, fan_out) and then input rows (B, fan_in), where asked for.
    """
    gradient = torch.bmm(y.transpose(1, 2), x)  # (B, fan_out, fan_in)
    wide = torch.promote_types(gradient.dtype, torch.float32)
    over = ([2] if rows != "input" else []) + ([1] if rows != "output" else [])
    return [torch.linalg.vector_norm(gradient, dim=axis, dtype=wide).square_() for axis in over]


@dataclass(slots=True, eq=False)
class Activation:
    """An input that one or more matrices read, and what they share about it."""

    value: Tensor  # as the module got it; held so that its identity stays its own
    version: int
    fan_outs: list[int] = field(default_factory=list)
    left: int = 0  # gradients still to come
    stripes: list[Tensor] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Recorder:
    """What the hooks of one micro-batch fill: one forward pass, then `draws` backward passes."""

    shape: tuple[int, int]  # sequences, positions
    rows: Rows
    draws: int
    activations: dict[int, Activation] = field(default_factory=dict)
    sums: dict[str, list[Tensor]] = field(default_factory=dict)  # matrix → its rows, (B, width)


@contextmanager
def recording(
    matrices: Sequence[Matrix], *, shape: tuple[int, int], rows: Rows, draws: int
) -> Iterator[Recorder]:
    """Hook the matrices for one forward pass; every backward pass then adds to the sums.

    No weight needs a gradient. Where nothing before a matrix needs one either, its output
    becomes a leaf, so that the backward pass ends at the first selected block.

    Raises:
        ValueError: a matrix is used twice, or reads something other than the positions.
    """
    recorder = Recorder(shape, rows, draws)
    handles = [m.module.register_forward_hook(_forward_hook(recorder, m)) for m in matrices]
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
        recorder.activations.clear()


def _forward_hook(recorder: Recorder, matrix: Matrix) -> Callable[..., Tensor]:
    def forward(module: object, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        activation = _enter(recorder, matrix, args[0])
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        output.register_hook(lambda grad: _add_rows(recorder, matrix, activation, grad))
        return output

    return forward


def _enter(recorder: Recorder, matrix: Matrix, value: Tensor) -> Activation:
    n, length = recorder.shape
    if value.numel() != n * length * matrix.fan_in:
        raise ValueError(f"{matrix.name} reads {tuple(value.shape)}, not {n} × {length} positions")
    if matrix.name in recorder.sums:
        raise ValueError(f"{matrix.name} is used twice in one forward pass")
    recorder.sums[matrix.name] = []
    found = recorder.activations.setdefault(id(value), Activation(value, value._version))
    found.fan_outs.append(matrix.fan_out)
    found.left += recorder.draws
    return found


def _add_rows(recorder: Recorder, matrix: Matrix, found: Activation, grad: Tensor) -> None:
    """Add one draw's rows of one matrix."""
    if found.value._version != found.version:
        raise ValueError(f"the input of {matrix.name} was changed in place after it was read")
    y = grad.detach().reshape(*recorder.shape, matrix.fan_out)
    x = found.value.detach().reshape(*recorder.shape, matrix.fan_in).to(y.dtype)
    parts = _square_rows(x, y, found, rows=recorder.rows)
    sums = recorder.sums[matrix.name]
    if sums:
        for total, part in zip(sums, parts, strict=True):
            total += part
    else:
        sums.extend(parts)
    found.left -= 1
    if not found.left:
        found.stripes.clear()
        recorder.activations.pop(id(found.value), None)


def _square_rows(x: Tensor, y: Tensor, found: Activation, *, rows: Rows) -> list[Tensor]:
    length, fan_in, fan_out = x.shape[1], x.shape[2], y.shape[2]
    by_gram = length * _triangle(length)
    if rows == "output":
        shared = sum(found.fan_outs)  # of the matrices that share one gram of the input
        if by_gram * (fan_in + shared) >= fan_in * shared:
            return rows_by_gradient(x, y, rows=rows)
        if not found.stripes:
            found.stripes.extend(gram_stripes(x))
        return [rows_by_gram(found.stripes, y)]
    if rows == "input" and by_gram * (fan_in + fan_out) < fan_in * fan_out:
        return [rows_by_gram(gram_stripes(y), x)]
    return rows_by_gradient(x, y, rows=rows)


def _triangle(length: int) -> float:
    """Return the part of a gram matrix that its stripes compute, 0.5 to 1."""
    return 0.5 + 0.5 / max(1, -(-length // _STRIPE))
