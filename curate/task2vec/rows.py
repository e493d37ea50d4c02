"""Row sums of squared per-sequence weight gradients, from activations and their gradients.

The gradient of one sequence's log-likelihood with respect to W (out × in) is GᵀA, with input
activations A (T × in) and output gradients G (T × out). Only the sums over its squared rows
are wanted: f_o = Σ_i (GᵀA)²_oi = g_oᵀ (A Aᵀ) g_o. Whichever of the two forms is cheaper for a
layer's shape is taken; neither outlives its layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from curate.settings import Rows, Square
from curate.task2vec.quantity import FisherSettings

_STRIPE = 64  # positions of a gram matrix that are multiplied together


def square_rows(
    x: Tensor, y: Tensor, *, settings: FisherSettings, fan_outs: int, shared: list[Tensor]
) -> list[Tensor]:
    """Return the rows of one matrix by whichever way the settings and its shape ask for.

    Args:
        x: (n, L, fan_in) activations.
        y: (n, L, fan_out) gradients.
        settings: which rows, of what, by signs or exactly.
        fan_outs: of all matrices that read `x` and share what is made of it.
        shared: what was made of `x` by the first of them, or empty: then it is filled.
    """
    length, fan_in, fan_out = x.shape[1], x.shape[2], y.shape[2]
    rows = settings.rows
    if settings.square == "position":
        return rows_by_position(x, y, rows=rows)
    if settings.signs:
        return _signed_rows(x, y, settings, shared)
    if rows == "output":
        if not prefer_gram(length, fan_in=fan_in, fan_out=fan_outs):
            return rows_by_gradient(x, y, rows=rows)
        if not shared:
            shared.extend(gram_stripes(x))
        return [rows_by_gram(shared, y)]
    if rows == "input" and prefer_gram(length, fan_in=fan_in, fan_out=fan_out):
        return [rows_by_gram(gram_stripes(y), x)]
    return rows_by_gradient(x, y, rows=rows)


def _signed_rows(
    x: Tensor, y: Tensor, settings: FisherSettings, shared: list[Tensor]
) -> list[Tensor]:
    def project(value: Tensor) -> Tensor:
        return value @ random_signs(value.shape[2], settings.signs, settings.seed).to(value)

    parts = []
    if settings.rows != "input":
        if not shared:
            shared.append(project(x))
        parts.append(rows_by_signs(shared[0], y))
    if settings.rows != "output":
        parts.append(rows_by_signs(project(y), x))
    return parts


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


@lru_cache(maxsize=64)
def random_signs(width: int, signs: int, seed: int) -> Tensor:
    """Return a (width, signs) matrix of ±1 that depends on its arguments alone."""
    generator = torch.Generator().manual_seed((seed << 24) + width)
    return torch.randint(0, 2, (width, signs), generator=generator).float() * 2 - 1


def rows_by_signs(projected: Tensor, y: Tensor) -> Tensor:
    """Estimate the row sums of (YᵀX)² from X times random signs.

    Unbiased; a row's relative variance is at most 2 / signs.

    Args:
        projected: (B, T, signs), X S.
        y: (B, T, width).

    Returns:
        (B, width) float32 or wider.
    """
    (rows,) = rows_by_gradient(projected, y, rows="output")
    return rows / projected.shape[2]


def rows_by_position(x: Tensor, y: Tensor, *, rows: Rows) -> list[Tensor]:
    """Return Σ_t of the squared gradient of every position apart: no cross terms.

    Args:
        x: (B, T, fan_in) activations.
        y: (B, T, fan_out) gradients.
        rows: which rows.

    Returns:
        As `rows_by_gradient`.
    """
    wide = torch.promote_types(y.dtype, torch.float32)
    x, y = x.to(wide).square(), y.to(wide).square()
    output = torch.bmm(y.transpose(1, 2), x.sum(dim=2, keepdim=True))[:, :, 0]
    into = torch.bmm(x.transpose(1, 2), y.sum(dim=2, keepdim=True))[:, :, 0]
    return {"output": [output], "input": [into], "both": [output, into]}[rows]


def rows_by_token(
    token: Tensor, vectors: Tensor, *, sequence: Tensor, n: int, vocab: int
) -> Tensor:
    """Return the squared length of each token's summed vectors, in every sequence apart.

    Args:
        token: (m,) ids below `vocab`.
        vectors: (m, width) what each entry adds to its token's row.
        sequence: (m,) below `n`.
        n: sequences.
        vocab: rows of the matrix.

    Returns:
        (n, vocab) float32 or wider.
    """
    wide = torch.promote_types(vectors.dtype, torch.float32)
    keys, which = torch.unique(sequence * vocab + token, return_inverse=True)
    sums = torch.zeros((len(keys), vectors.shape[1]), dtype=wide, device=vectors.device)
    sums.index_add_(0, which, vectors.to(wide))
    result = torch.zeros(n * vocab, dtype=wide, device=vectors.device)
    result[keys] = sums.square().sum(dim=1)
    return result.view(n, vocab)


def prefer_gram(length: int, *, fan_in: int, fan_out: int) -> bool:
    """Say whether T²(d_in + d_out)/2 is less than T·d_in·d_out; `fan_out` of all that share."""
    blocks = max(1, -(-length // _STRIPE))
    triangle = 0.5 + 0.5 / blocks  # the part of a gram matrix that its stripes compute
    return length * triangle * (fan_in + fan_out) < fan_in * fan_out


def vector_rows(gradients: Tensor, *, square: Square) -> Tensor:
    """Return the squares of what a vector's entries get, one a sequence: (n, width).

    Args:
        gradients: (n, L, width), at every position.
        square: of each position's part, or of their sum.
    """
    wide = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
    if square == "position":
        return wide.square().sum(dim=1)
    return wide.sum(dim=1).square()
