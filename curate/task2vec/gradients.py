"""Mean gradients of a text's own labels, whitened by the Fisher information and projected.

The gradient of one sequence's log-likelihood with respect to W (out × in) is GᵀA; its columns
are multiplied by random signs S before it is formed, so that GᵀAS costs T·r·(in + out) and no
weight gradient exists. Divided by the square root of its row's Fisher information and added up
with signs to a short vector, its inner product with that of another text estimates the natural
gradient's g · F⁻¹ g'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curate.task2vec.rows import random_signs

if TYPE_CHECKING:
    from curate.records import Counts, Floats

COLUMNS = 16  # random signs that a row's columns are reduced to


def column_signs(width: int, *, number: int, seed: int) -> Tensor:
    """Return the signs (width, COLUMNS) of the `number`-th input that the layers of a model read.

    Each input has its own, so that the errors of its matrices do not add up.
    """
    return random_signs(width, COLUMNS, seed + (number << 12))


def sum_by_group(projected: Tensor, y: Tensor, *, group: Tensor, n_groups: int) -> Tensor:
    """Return the summed gradients of each group's sequences, their columns projected.

    Args:
        projected: (n, T, COLUMNS), activations times signs.
        y: (n, T, fan_out) gradients.
        group: (n,) of each sequence, below `n_groups`.
        n_groups: how many.

    Returns:
        (n_groups, fan_out, COLUMNS) float32 or wider.
    """
    wide = torch.promote_types(y.dtype, torch.float32)
    each = torch.bmm(y.transpose(1, 2), projected.to(y.dtype)).to(wide)
    sums = torch.zeros((n_groups, *each.shape[1:]), dtype=wide, device=y.device)
    return sums.index_add_(0, group, each)


def whiten_and_project(
    means: Floats, fisher: Floats, *, width: int, seed: int
) -> npt.NDArray[np.float64]:
    """Return short vectors whose inner products estimate g · F⁻¹ g'.

    Each row is divided by the square root of its Fisher information; where the other vector was
    divided by its own, F is the geometric mean of the two. Rows without information give 0.
    Count sketch (Charikar et al. 2002): unbiased over the seed, with a standard error of at most
    |u| |v| · (2 / width + 2 / (COLUMNS · matrices))^½ about.

    Args:
        means: (n, rows, COLUMNS) mean gradients, columns projected.
        fisher: (rows,) >= 0, mean over the row's columns, of the same unit (a token's).
        width: of the result.
        seed: of buckets and signs; they depend on it, `width` and the shape alone.

    Returns:
        (n, width) float64.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> whiten_and_project(np.ones((1, 2, 16)), np.array([1.0, 0.0]), width=1, seed=0).shape
        (1, 1)
    """
    if means.ndim != 3 or means.shape[1:] != (len(fisher), COLUMNS):
        raise ValueError(f"mean gradients are {means.shape}, Fisher rows {fisher.shape}")
    scale = np.divide(1.0, np.sqrt(fisher), out=np.zeros(len(fisher)), where=fisher > 0)
    values = means * (scale[:, None] / np.sqrt(COLUMNS))
    rng = np.random.default_rng([seed, width])
    bucket: Counts = rng.integers(0, width, values[0].size)
    sign = rng.choice(np.array([-1.0, 1.0]), values[0].size)
    flat = values.reshape(len(values), -1) * sign
    return np.array([np.bincount(bucket, weights=row, minlength=width) for row in flat])
