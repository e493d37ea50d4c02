"""The weight matrices of a model's transformer blocks, and their place in an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from curate.records import RowBlock, Rows


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of the transformer blocks."""

    name: str  # of its module
    layer: int  # transformer block, from 0
    module: nn.Module
    fan_in: int
    fan_out: int


def find_matrices(model: nn.Module, *, n_layers: int, layers: str) -> list[Matrix]:
    """List the weight matrices of the selected transformer blocks, in the model's order.

    Args:
        model: a causal language model whose blocks are one nn.ModuleList.
        n_layers: how many blocks it has.
        layers: "all", or "last:K".

    Raises:
        ValueError: no such list; a layer type with weights that is not known; a matrix that
            two layers share; `layers` is malformed or names more blocks than there are.
    """
    prefix, blocks = _find_blocks(model, n_layers)
    first = _first_layer(layers, n_layers)
    matrices = []
    owner: dict[int, str] = {}
    for layer in range(first, n_layers):
        for name, module in blocks[layer].named_modules(prefix=f"{prefix}.{layer}"):
            if not _holds_matrix(name, module):
                continue
            weight = module.weight
            if (other := owner.setdefault(id(weight), name)) != name:
                raise ValueError(f"{name} and {other} share one weight matrix")
            fan_out, fan_in = weight.shape if isinstance(module, nn.Linear) else weight.shape[::-1]
            matrices.append(Matrix(name, layer, module, fan_in, fan_out))
    if not matrices:
        raise ValueError(f"the blocks {prefix} of {type(model).__name__} hold no weight matrix")
    return matrices


def _find_blocks(model: nn.Module, n_layers: int) -> tuple[str, nn.ModuleList]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return name, module
    raise ValueError(f"{type(model).__name__} has no list of {n_layers} transformer blocks")


def _first_layer(layers: str, n_layers: int) -> int:
    if layers == "all":
        return 0
    word, _, number = layers.partition(":")
    if word != "last" or not number.isdecimal() or not 1 <= int(number) <= n_layers:
        raise ValueError(
            f"layers is {layers!r}; it must be 'all' or 'last:K' with K from 1 to {n_layers}"
        )
    return n_layers - int(number)


def _holds_matrix(name: str, module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    if type(module) is nn.Linear or isinstance(module, Conv1D):
        return True
    wide = [key for key, value in own.items() if value.ndim >= 2]
    if wide:
        raise ValueError(
            f"{name}: {type(module).__name__} holds weights ({', '.join(wide)}) of a layer type "
            "that is not known; only Linear and Conv1D are"
        )
    return False


def row_blocks(matrices: Sequence[Matrix], *, rows: Rows) -> tuple[RowBlock, ...]:
    """Lay out the coordinates of an embedding: output rows, then input rows, of each matrix."""
    blocks = []
    start = 0
    for matrix in matrices:
        kind = matrix.name.rpartition(".")[2]
        widths = [(kind, matrix.fan_out)] if rows != "input" else []
        widths += [(f"{kind}.in", matrix.fan_in)] if rows != "output" else []
        for label, width in widths:
            blocks.append(RowBlock(matrix.name, matrix.layer, label, start, start + width))
            start += width
    return tuple(blocks)
