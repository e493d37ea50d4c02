"""The small language model: a Llama-like decoder in plain torch, and its loss.

Tied embedding, RMSNorm before each half block, rotary positions, normalised queries and keys,
squared-ReLU MLP. Documents packed into one block do not see each other.
"""

from __future__ import annotations

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
    """Attention, then MLP, each added to the stream."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.RMSNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Return the stream after this block.

        Args:
            x: (B, T, D) the stream.
            cos: (B, 1, T, D / heads / 2) of the rotary angles.
            sin: the same shape.
            mask: (B, 1, T, T) bool, True where a position may look.
        """
        B, T, D = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(B, T, 3, self.n_heads, D // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        q, k = _rotate(_normalised(q), cos, sin), _rotate(_normalised(k), cos, sin)
        seen = F.scaled_dot_product_attention(q, k, v.contiguous(), attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.relu(self.up(self.norm_mlp(x))).square())


class SmallModel(nn.Module):
    """A decoder of one of `SHAPES` over `vocab` tokens."""

    def __init__(self, size: str, *, vocab: int, seed: int) -> None:
        super().__init__()
        n_blocks, width, n_heads = SHAPES[size]
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, n_heads) for _ in range(n_blocks))
        self.norm = nn.RMSNorm(width)
        self.half_head = width // n_heads // 2
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weights in self.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    weights.zero_()  # every block starts as the identity
                elif weights.ndim == 2:
                    std = 0.02 if name == "embedding.weight" else width**-0.5
                    weights.normal_(0.0, std, generator=generator)

    @property
    def head(self) -> Tensor:
        """Weights of the head, (V, D): the embedding's."""
        return self.embedding.weight

    def matrices(self) -> list[nn.Parameter]:
        """Return the matrices of the blocks: what Muon updates."""
        return [weights for weights in self.blocks.parameters() if weights.ndim == 2]

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Return the normalised last hidden state.

        Args:
            ids: (B, T) token ids.
            starts: (B, T) for each position, where its document starts in this block.

        Returns:
            (B, T, D); `logits` makes predictions of it.
        """
        T = ids.shape[1]
        place = torch.arange(T, device=ids.device)
        same = starts[:, :, None] == starts[:, None, :]  # (B, T, T)
        mask = (same & (place[:, None] >= place[None, :]))[:, None]
        rates = 10_000 ** -(torch.arange(self.half_head, device=ids.device) / self.half_head)
        angles = ((place - starts)[:, :, None] * rates)[:, None]  # (B, 1, T, half_head)
        cos, sin = angles.cos(), angles.sin()
        x = F.rms_norm(self.embedding(ids), (self.embedding.embedding_dim,))
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of tied-embedding logits, with its gradient, without keeping the logits.

    In parts of rows: p = softmax(h Eᵀ), ∂h = (p − 1_y) E, ∂E = (p − 1_y)ᵀ h.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, labels: Tensor, part: int, keep: bool
    ) -> Tensor:
        """Return (n,) nats of `labels` (n,) given hidden (n, D) and embedding (V, D).

        The gradient is that of the sum: the incoming gradient has to be one number. It is made
        here, where `keep` asks for it.
        """
        nats = torch.empty(len(labels), device=hidden.device)
        d_hidden, d_embedding = torch.zeros_like(hidden), None
        if keep and ctx.needs_input_grad[1]:  # a frozen head has no gradient
            d_embedding = torch.zeros_like(embedding)
        for start in range(0, len(labels), part):
            rows = slice(start, start + part)
            p = F.linear(hidden[rows], embedding).float()  # (part, V)
            p -= p.amax(dim=-1, keepdim=True)
            of_label = p.gather(1, labels[rows, None])
            total = p.exp_().sum(dim=-1, keepdim=True)
            nats[rows] = (total.log() - of_label)[:, 0]
            if not keep:
                continue
            p /= total
            p.scatter_add_(1, labels[rows, None], torch.full_like(of_label, -1.0))
            p = p.to(hidden.dtype)
            d_hidden[rows] = p @ embedding
            if d_embedding is not None:
                d_embedding += p.T @ hidden[rows]
        ctx.save_for_backward(d_hidden, d_embedding)
        return nats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that `forward` has made."""
        d_hidden, d_embedding = ctx.saved_tensors
        scale = upstream[0][0]
        return (
            d_hidden * scale,
            None if d_embedding is None else d_embedding * scale,
            None,
            None,
            None,
        )


def head_loss(head: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the nats of each label, (B · T,).

    Only the gradient of their sum can be taken.

    Args:
        head: (V, D) weights; one that learns nothing costs nothing.
        hidden: (B, T, D) states.
        labels: (B, T) token ids.
    """
    # 8 MB of logits stay in a CPU's cache.
    part = max(1, (1 << 21 if hidden.device.type == "cpu" else 1 << 28) // len(head))
    return HeadLoss.apply(
        hidden.flatten(0, 1),
        head.to(hidden.dtype),
        labels.flatten(),
        part,
        torch.is_grad_enabled(),
    )


def _normalised(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
