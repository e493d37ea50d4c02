"""Labels drawn from the probe, and the gradient of their likelihood at the last hidden state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_BLOCK = 64  # tokens summed together before a draw looks inside
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LogitMap:
    """What a model does to the logits that its head gives."""

    scale: float = 1.0  # multiplied with (Cohere, Granite)
    cap: float = 0.0  # then cap · tanh(· / cap) (Gemma 2); 0: none

    def apply(self, logits: Tensor) -> Tensor:
        """Return the changed logits."""
        logits = logits if self.scale == 1 else logits * self.scale
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits

    def slopes(self, logits: Tensor) -> Tensor | None:
        """Return the derivatives of changed logits by those before the cap; None: all are 1."""
        return 1 - (logits / self.cap).square() if self.cap else None


@dataclass(frozen=True, slots=True, eq=False)
class HeadGradients:
    """What the labels of n positions give at the last hidden state."""

    hidden: Tensor  # (draws, n, width) float32 or wider; one more where the text's own are asked
    nats: Tensor  # (n,) loss in nats/token
    labels: Tensor  # (draws, n, K)
    slopes: Tensor | None  # (draws, n, K) of the label's logit by what the head gave; None: all 1


def contrast_coefficients(contrast: int) -> npt.NDArray[np.float32]:
    """Return what the drawn labels of one position are weighted with.

    With Σc = 0 and Σc² = 1 the vector Σ_k c_k e_{y_k} over independent draws y_k ~ p has
    mean 0 and covariance diag(p) − ppᵀ: the moments of e_y − p, without its dense p.

    Args:
        contrast: 1 (one label against p) or an even number of labels.

    Returns:
        (contrast,).

    Raises:
        ValueError: odd and not 1, or below 1.
    """
    if contrast == 1:
        return np.ones(1, dtype=np.float32)
    if contrast < 1 or contrast % 2:
        raise ValueError(f"contrast is {contrast}; it must be 1 or an even number of labels")
    return np.where(np.arange(contrast) % 2, -1.0, 1.0).astype(np.float32) / np.float32(
        np.sqrt(contrast)
    )


def sequence_seeds(
    ids: npt.NDArray[np.integer[Any]], *, draws: int, contrast: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the random numbers that decide a sequence's labels.

    They depend on the sequence's own tokens and the seed alone, so that neither its batch
    nor its place in it can change a label.

    Args:
        ids: (T,) token ids.
        draws: label draws.
        contrast: labels a draw and position.
        seed: of the embedding.

    Returns:
        (draws, T − 1, contrast) in [0, 2³²).
    """
    state = hashlib.blake2b(str(seed).encode(), digest_size=16)
    state.update(np.ascontiguousarray(ids, dtype="<i8").tobytes())
    generator = np.random.Generator(np.random.Philox(int.from_bytes(state.digest(), "little")))
    return generator.integers(1 << 32, size=(draws, len(ids) - 1, contrast), dtype=np.int64)


def draw_labels(weights: Tensor, seeds: Tensor) -> Tensor:
    """Draw labels in proportion to weights, so that weights a little off give nearly all the same.

    A label is found by a path of coins down a tree whose leaves are the tokens: at each fork one
    coin falls by the share of the probability that lies on either side. Rounded logits move that
    share by as much as they move probabilities, so that of two precisions few coins fall apart;
    under an inverse distribution function a label changes with all that lies before it (for
    logits in bfloat16 15 % of labels, here 1 %: docs/reliability.md).

    Args:
        weights: (n, V) >= 0, float32 or float64; of softmax(logits), exp(logits − their largest).
        seeds: (n, K) int64 in [0, 2³²), each of its own label.

    Returns:
        (n, K) labels, int64, 0 to V − 1.
    """
    n, vocab = weights.shape
    if vocab % _BLOCK:
        weights = nn.functional.pad(weights, (0, _BLOCK - vocab % _BLOCK))
    blocks = weights.view(n, -1, _BLOCK)  # (n, V/64, 64)
    forks, inside = _forks(blocks.sum(dim=-1)), _BLOCK.bit_length() - 1
    coins = _coins(seeds, len(forks) - 1 + inside).to(weights.dtype)  # (n, K, levels)
    block = _descend(forks, coins)
    row = torch.arange(n, device=weights.device)[:, None]
    within = _forks(blocks[row, block].view(-1, _BLOCK))  # of (n·K, 64)
    offset = _descend(within, coins[..., -inside:].reshape(-1, 1, inside)).view_as(block)
    return (block * _BLOCK + offset).clamp_(max=vocab - 1)


def _forks(weights: Tensor) -> list[Tensor]:
    """Return sums of pairs, of pairs of these, and so on, from the whole (n, 1) to the weights.

    Entry i of a level of h is the sum of the entries i and i + h of the next, where there are.
    """
    levels = [weights]
    while (width := levels[0].shape[1]) > 1:
        half = (width + 1) // 2
        sums = levels[0][:, :half].clone()
        sums[:, : width - half] += levels[0][:, half:]
        levels.insert(0, sums)
    return levels


def _descend(forks: list[Tensor], coins: Tensor) -> Tensor:
    """Return the place in the last level to which coins (n, K, levels) lead from the first."""
    place = torch.zeros(coins.shape[:2], dtype=torch.int64, device=coins.device)
    whole = forks[0].expand(-1, coins.shape[1])
    for depth, level in enumerate(forks[1:]):
        left = level.gather(1, place)
        # no right side, or none of weight: the left one is the whole, to the last bit
        right = (coins[..., depth] * whole >= left) & (left < whole)
        place = place + right * forks[depth].shape[1]
        whole = level.gather(1, place)
    return place


def _coins(seeds: Tensor, count: int) -> Tensor:
    """Return `count` uniform numbers of each seed, (n, K, count) float32 in [0, 1)."""
    numbers = torch.arange(1, count + 1, device=seeds.device) * 0x632BE5AB
    return (_mixed(_mixed(seeds)[..., None] ^ (numbers & _WORD)) >> 8).float() * 2.0**-24


def _mixed(words: Tensor) -> Tensor:
    """Return words of 32 bits with every bit spread over all (a multiply and shift hash)."""
    for _ in range(2):
        words = ((words ^ (words >> 16)) * 0x45D9F3B) & _WORD
    return words ^ (words >> 16)


def head_gradients(
    hidden: Tensor,
    *,
    matrix: Tensor,
    bias: Tensor | None,
    observed: Tensor,
    seeds: Tensor | None,
    chunk: int,
    own: bool = False,
    logit_map: LogitMap | None = None,
) -> HeadGradients:
    """Return the gradient of the labels' log-likelihood with respect to the last hidden state.

    The logits exist for one chunk of positions at a time.

    Args:
        hidden: (n, width) last hidden state of the positions that have a next token.
        matrix: (V, width) of the head that maps it to logits, in the products' precision.
        bias: (V,) of the head, or None.
        observed: (n,) the tokens that follow in the text.
        seeds: (draws, n, K) for labels drawn from the model; None for the text's own.
        chunk: positions at a time.
        own: also give the gradient of the text's own labels, after the draws.
        logit_map: what the model does to the head's logits; None leaves them.
    """
    logit_map = logit_map or LogitMap()
    draws = 1 if seeds is None else seeds.shape[0]
    wide = torch.promote_types(hidden.dtype, torch.float32)
    gradients = torch.empty((draws + own, *hidden.shape), dtype=wide, device=hidden.device)
    nats = torch.empty(len(hidden), dtype=wide, device=hidden.device)
    of = observed[None, :, None] if seeds is None else torch.zeros_like(seeds)
    slopes_of = torch.empty(of.shape, dtype=wide, device=of.device) if logit_map.cap else None
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        logits = nn.functional.linear(hidden[part].to(matrix.dtype), matrix, bias)
        logits = logit_map.apply(logits.to(wide))  # (chunk, V)
        slopes = logit_map.slopes(logits)
        target = observed[part]
        at_target = logits.gather(1, target[:, None])[:, 0]
        peak = logits.amax(dim=-1, keepdim=True)
        weights = logits.sub_(peak).exp_()  # (chunk, V), unnormalised p
        total = weights.sum(dim=-1)
        nats[part] = total.log() + peak[:, 0] - at_target
        for draw in range(draws):
            if seeds is not None:
                of[draw, part] = draw_labels(weights, seeds[draw, part])
            gradients[draw, part] = _pull_back(of[draw, part], weights, total, matrix, slopes)
            if slopes is not None and slopes_of is not None:
                slopes_of[draw, part] = slopes.gather(1, of[draw, part])
        if own:
            gradients[draws, part] = _pull_back(target[:, None], weights, total, matrix, slopes)
    if logit_map.scale != 1:
        gradients.mul_(logit_map.scale)
        slopes_of = torch.ones_like(of, dtype=wide) if slopes_of is None else slopes_of
        slopes_of.mul_(logit_map.scale)
    return HeadGradients(gradients, nats, of, slopes_of)


def _pull_back(
    labels: Tensor, weights: Tensor, total: Tensor, matrix: Tensor, slopes: Tensor | None
) -> Tensor:
    """Return Σ_k c_k W[y_k], (n, width); for a single label W[y] − pᵀW; W[v] by its slope."""
    n, contrast = labels.shape
    result = torch.zeros((n, matrix.shape[1]), dtype=weights.dtype, device=matrix.device)
    for k, coefficient in enumerate(contrast_coefficients(contrast).tolist()):
        rows = nn.functional.embedding(labels[:, k], matrix).to(weights.dtype)
        if slopes is not None:
            rows = rows * slopes.gather(1, labels[:, k : k + 1])
        result.add_(rows, alpha=coefficient)
    if contrast == 1:
        if slopes is not None:
            weights = weights * slopes
        dense = (weights.to(matrix.dtype) @ matrix).to(weights.dtype)
        result.sub_(dense / total[:, None])
    return result
