"""The small language model: a Llama-like decoder in plain torch, and its loss.

Tied embedding, RMSNorm before each half block, rotary positions, normalised queries and keys,
squared-ReLU MLP. Documents packed into one block do not see each other. Several models can be
trained side by side: everything has a first axis G, of length 1 for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES: dict[str, tuple[int, int, int]] = {  # size → (blocks, width, heads)
    "tiny": (2, 96, 2),
    "1M": (4, 144, 3),
    "3M": (4, 256, 4),
    "15M": (8, 400, 5),
    "50M": (16, 512, 8),
    "124M": (10, 1024, 16),
}
"""A block has 12 · width² parameters; the name of a size is the sum over its blocks."""


def count_parameters(size: str, *, vocab: int) -> int:
    """Return the weights of a model in its matrices, the embedding among them."""
    n_blocks, width, _ = SHAPES[size]
    return (12 * n_blocks * width + vocab) * width


class Block(nn.Module):
    """Attention, then MLP, each added to the stream; of G models side by side."""

    def __init__(self, n_runs: int, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = _weights(n_runs, width)
        self.qkv = _weights(n_runs, 3 * width, width)
        self.out = _weights(n_runs, width, width)
        self.norm_mlp = _weights(n_runs, width)
        self.up = _weights(n_runs, 4 * width, width)
        self.down = _weights(n_runs, width, 4 * width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Return the stream after this block.

        Args:
            x: (G, B, T, D) the stream.
            cos: (G · B, 1, T, D / heads / 2) of the rotary angles.
            sin: the same shape.
            mask: (G · B, 1, T, T) bool, True where a position may look.
        """
        G, B, T, D = x.shape
        qkv = _linear(_normalised(x, self.norm_attention), self.qkv)
        q, k, v = qkv.view(G * B, T, 3, self.n_heads, D // self.n_heads).permute(2, 0, 3, 1, 4)
        q, k = _rotate(_normalised(q), cos, sin), _rotate(_normalised(k), cos, sin)
        seen = F.scaled_dot_product_attention(q, k, v.contiguous(), attn_mask=mask)
        x = x + _linear(seen.transpose(1, 2).reshape(G, B, T, D), self.out)
        inside = F.relu(_linear(_normalised(x, self.norm_mlp), self.up)).square()
        return x + _linear(inside, self.down)


class SmallModel(nn.Module):
    """G decoders of one of `SHAPES` over `vocab` tokens, side by side: one for each seed.

    They share nothing but the calls: every weight has a first axis of length G. What one model
    leaves a GPU idle, others can use; a CPU is busy with one.
    """

    def __init__(self, size: str, *, vocab: int, seeds: Sequence[int]) -> None:
        super().__init__()
        n_blocks, width, n_heads = SHAPES[size]
        self.embedding = _weights(len(seeds), vocab, width)
        self.blocks = nn.ModuleList(Block(len(seeds), width, n_heads) for _ in range(n_blocks))
        self.norm = _weights(len(seeds), width)
        self.half_head = width // n_heads // 2
        for place, seed in enumerate(seeds):
            self._start(place, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _start(self, place: int, generator: torch.Generator) -> None:
        """Draw the first weights of one model, which do not depend on the others."""
        for name, weights in self.named_parameters():
            own = weights[place]
            if name.endswith(("out", "down")):
                own.zero_()  # every block starts as the identity
            elif own.ndim == 2:
                std = 0.02 if name == "embedding" else own.shape[1] ** -0.5
                own.normal_(0.0, std, generator=generator)

    @property
    def n_runs(self) -> int:
        """Models side by side, G."""
        return len(self.embedding)

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the nats of each label, (G, B · T); only the gradient of their sum can be taken.

        Args:
            hidden: (G, B, T, D) what `forward` returned.
            labels: (G, B, T) token ids.
        """
        return head_loss(self.embedding, hidden, labels)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return what the first model predicts of states (n, D), (n, V) float32."""
        return (hidden @ self.embedding[0].to(hidden.dtype).T).float()

    def matrices(self) -> list[nn.Parameter]:
        """Return the matrices of the blocks, each (G, m, n): what Muon updates."""
        return [weights for weights in self.blocks.parameters() if weights.ndim == 3]

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Return the normalised last hidden states.

        Args:
            ids: (G, B, T) token ids.
            starts: (G, B, T) for each position, where its document starts in this block.

        Returns:
            (G, B, T, D): what `nats` and `logits` take.
        """
        G, T = len(ids), ids.shape[-1]
        own = starts.flatten(0, 1)  # (G · B, T)
        place = torch.arange(T, device=ids.device)
        same = own[:, :, None] == own[:, None, :]
        mask = (same & (place[:, None] >= place[None, :]))[:, None]
        rates = 10_000 ** -(torch.arange(self.half_head, device=ids.device) / self.half_head)
        angles = ((place - own)[:, :, None] * rates)[:, None]  # (G · B, 1, T, half_head)
        cos, sin = angles.cos(), angles.sin()
        _, V, D = self.embedding.shape
        rows = ids + V * torch.arange(G, device=ids.device)[:, None, None]
        x = F.rms_norm(F.embedding(rows, self.embedding.view(G * V, D)), (D,))
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return _normalised(x, self.norm)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of tied-embedding logits, with its gradient, without keeping the logits.

    In parts of rows: p = softmax(h Eᵀ), ∂h = (p − 1_y) E, ∂E = (p − 1_y)ᵀ h; where logits are
    capped, c · tanh(h Eᵀ / c), p − 1_y is multiplied by 1 − tanh².
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        embedding: Tensor,
        labels: Tensor,
        part: int,
        keep: bool,
        cap: float,
    ) -> Tensor:
        """Return (G, n) nats of `labels` (G, n) given hidden (G, n, D) and embedding (G, V, D).

        The gradient is that of the sum: the incoming gradient has to be one number. It is made
        here, where `keep` asks for it.
        """
        nats = torch.empty(labels.shape, device=hidden.device)
        d_hidden, d_embedding = torch.zeros_like(hidden), None
        if keep and ctx.needs_input_grad[1]:  # a frozen head has no gradient
            d_embedding = torch.zeros_like(embedding)
        for start in range(0, labels.shape[1], part):
            rows = slice(start, start + part)
            p = torch.bmm(hidden[:, rows], embedding.mT).float()  # (G, part, V)
            if cap:
                p = p.div_(cap).tanh_()
                slopes = 1 - p.square()
                p *= cap
            p -= p.amax(dim=-1, keepdim=True)
            of_label = p.gather(2, labels[:, rows, None])
            total = p.exp_().sum(dim=-1, keepdim=True)
            nats[:, rows] = (total.log() - of_label)[..., 0]
            if not keep:
                continue
            p /= total
            p.scatter_add_(2, labels[:, rows, None], torch.full_like(of_label, -1.0))
            if cap:
                p *= slopes
            p = p.to(hidden.dtype)
            d_hidden[:, rows] = torch.bmm(p, embedding)
            if d_embedding is not None:
                d_embedding += torch.bmm(p.mT, hidden[:, rows])
        ctx.save_for_backward(d_hidden, d_embedding)
        return nats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that `forward` has made."""
        d_hidden, d_embedding = ctx.saved_tensors
        scale = upstream[0][0, 0]
        return (
            d_hidden * scale,
            None if d_embedding is None else d_embedding * scale,
            *[None] * 4,
        )


def head_loss(head: Tensor, hidden: Tensor, labels: Tensor, *, cap: float = 0.0) -> Tensor:
    """Return the nats of each label, (G, B · T).

    Only the gradient of their sum can be taken.

    Args:
        head: (G, V, D) weights; one that learns nothing costs nothing.
        hidden: (G, B, T, D) states.
        labels: (G, B, T) token ids.
        cap: the logits are cap · tanh(· / cap); 0 leaves them.
    """
    # 8 MB of logits stay in a CPU's cache.
    most = 1 << 21 if hidden.device.type == "cpu" else 1 << 28
    return HeadLoss.apply(
        hidden.flatten(1, 2),
        head.to(hidden.dtype),
        labels.flatten(1, 2),
        max(1, most // (len(head) * head.shape[1])),
        torch.is_grad_enabled(),
        cap,
    )


def _weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def _linear(x: Tensor, weights: Tensor) -> Tensor:
    """Apply each model's matrix (G, m, n) to its own states (G, B, T, n)."""
    return torch.bmm(x.flatten(1, 2), weights.mT).unflatten(1, x.shape[1:3])


def _normalised(x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Divide by the root mean square; times each model's own scale (G, D)."""
    plain = F.rms_norm(x, (x.shape[-1],))
    return plain if scale is None else plain * scale[:, None, None, :]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
