"""Which of a model's weights are embedded, and their place in an embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from curate.records import RowBlock
from curate.settings import Rows
from curate.task2vec.quantity import FisherSettings, check_by_token, check_quantity

Form = Literal["matrix", "stack", "norm", "embedding", "head"]
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Site:
    """A module whose weight, or bias, or both have rows in the embedding."""

    name: str  # of its module; of its parameter for a stack
    layer: int  # transformer block, from 0; −1 before the first, their number after the last
    form: Form
    module: nn.Module
    fan_in: int
    fan_out: int
    weight: bool = True
    bias: bool = False
    stack: nn.Parameter | None = None  # (experts, …, …), or the matrix that routes to them
    transposed: bool = False  # a stack is (experts, in, out)
    tied: bool = False  # an embedding's weight is the head's too


def find_sites(model: Any, settings: FisherSettings) -> list[Site]:
    """List the weights that the settings select, in the model's order.

    Args:
        model: a causal language model whose blocks are one nn.ModuleList.
        settings: `layers` and `also` decide.

    Raises:
        ValueError: no such list; a layer type with weights that is not known; a matrix that
            two layers share; settings that are malformed.
    """
    check_quantity(settings)
    config = model.config.get_text_config(decoder=True)  # of a model that reads images too
    n_layers = config.num_hidden_layers
    prefix, blocks = _find_blocks(model, n_layers)
    first = _first_layer(settings.layers, n_layers)
    sites: list[Site] = []
    for layer in range(first, n_layers):
        for name, module in blocks[layer].named_modules(prefix=f"{prefix}.{layer}"):
            sites += _block_sites(config, name, layer, module, settings.also)
    if not any(site.form in ("matrix", "stack") for site in sites):
        raise ValueError(f"the blocks {prefix} of {type(model).__name__} hold no weight matrix")
    if settings.square == "position" and any(site.form == "stack" for site in sites):
        raise ValueError("stacked experts need square = 'sequence': only their sum can be had")
    _check_apart(sites)
    outer = list(_outer_sites(model, prefix, n_layers, settings.also))
    if any(site.form == "head" for site in outer):
        check_by_token(settings, what="rows of the head")
    return sites + outer


def row_blocks(sites: Sequence[Site], *, rows: Rows) -> tuple[RowBlock, ...]:
    """Lay out the coordinates of an embedding: of each site output, input rows and bias."""
    blocks = []
    start = 0
    for site in sites:
        kind = site.name.rpartition(".")[2]
        for end, width in site_widths(site, rows=rows):
            name = site.name + ("" if end == ".in" else end)
            blocks.append(RowBlock(name, site.layer, kind + end, start, start + width))
            start += width
    return tuple(blocks)


def site_widths(site: Site, *, rows: Rows) -> list[tuple[str, int]]:
    """Return the parts that a site gives, as (ending of its name, number of rows)."""
    parts = []
    both_ways = site.form in ("matrix", "stack")
    if site.weight and (rows != "input" or not both_ways):
        parts.append(("", site.fan_out))
    if site.weight and both_ways and rows != "output":
        parts.append((".in", site.fan_in))
    return parts + ([(".bias", site.fan_out)] if site.bias else [])


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


def _block_sites(
    config: Any, name: str, layer: int, module: nn.Module, also: Sequence[str]
) -> Iterator[Site]:
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, Conv1D) or _is_linear(module):
        shape = tuple(own["weight"].shape)
        fan_out, fan_in = shape if isinstance(module, nn.Linear) else shape[::-1]
        bias = "biases" in also and own.get("bias") is not None
        yield Site(name, layer, "matrix", module, fan_in, fan_out, bias=bias)
        return
    if own.keys() <= {"weight", "bias"} and _is_norm(module, own.get("weight")):
        yield from _norm_sites(name, layer, module, also)
        return
    wide = {key: value for key, value in own.items() if value.ndim >= 2}
    experts = {getattr(config, key, None) for key in _EXPERT_COUNTS} - {None}
    for key, value in wide.items():
        if _is_stack(module, key, value, experts):
            yield _stack_site(f"{name}.{key}", layer, module, value)
        elif not (key.endswith("bias") and len(wide) > 1):
            raise ValueError(
                f"{name}: {type(module).__name__} holds weights ({key}) of a layer type that is "
                "not known; only Linear, Conv1D, Embedding and stacked experts are"
            )
    if own and not wide:
        yield from _norm_sites(name, layer, module, also)
    elif "biases" in also and (biases := [key for key in own if key.endswith("bias")]):
        raise ValueError(
            f"{name}: {type(module).__name__} holds {', '.join(biases)}, which are biases of a "
            "kind that is not known: leave biases out of `also`"
        )


def _is_linear(module: nn.Module) -> bool:
    """Say whether a module gives x Wᵀ + b; one that only inherits from Linear is tried."""
    if type(module) is nn.Linear or not isinstance(module, nn.Linear):
        return type(module) is nn.Linear
    weight = module.weight
    x = torch.linspace(-1, 1, 2 * weight.shape[1]).to(weight).view(1, 2, -1)
    with torch.no_grad():
        expected = nn.functional.linear(x, weight, module.bias)
        try:
            found = module(x)
        except (RuntimeError, TypeError, ValueError):
            return False
    bound = 1e-2 * float(expected.abs().max())  # weights may be bfloat16
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=bound)


def _is_norm(module: nn.Module, weight: nn.Parameter | None) -> bool:
    """Say whether a weight (heads, width), such as Cohere's, scales each entry that is read."""
    if weight is None or weight.ndim != 2:
        return False
    x = torch.linspace(-1, 1, weight.numel()).to(weight).view(1, 1, *weight.shape)
    try:
        with torch.no_grad():
            at_0, at_1, at_x = (
                functional_call(module, {"weight": value}, (x,))
                for value in (torch.zeros_like(x[0, 0]), torch.ones_like(x[0, 0]), x[0, 0])
            )
            bound = 1e-2 * float(at_x.abs().max())  # weights may be bfloat16
            affine = torch.allclose(at_x, at_0 + x * (at_1 - at_0), rtol=0, atol=bound)
            return bound > 0 and affine
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, AssertionError):
        return False  # it reads something else


def _is_stack(module: nn.Module, key: str, value: nn.Parameter, experts: set[Any]) -> bool:
    """Say whether a parameter is stacked experts, or the matrix that routes to them."""
    own = {getattr(module, key, None) for key in _EXPERT_COUNTS}  # its name is another by version
    if value.shape[0] not in experts or not own & experts:
        return False
    return value.ndim == 3 or (value.ndim == 2 and key == "weight")


def _stack_site(name: str, layer: int, module: nn.Module, value: nn.Parameter) -> Site:
    transposed = value.ndim == 3 and bool(getattr(module, "is_transposed", False))
    n = value.shape[0] if value.ndim == 3 else 1
    fan_out, fan_in = value.shape[-2:][::-1] if transposed else value.shape[-2:]
    return Site(
        name, layer, "stack", module, n * fan_in, n * fan_out, stack=value, transposed=transposed
    )


def _norm_sites(name: str, layer: int, module: nn.Module, also: Sequence[str]) -> Iterator[Site]:
    weight, bias = "norms" in also, "biases" in also and getattr(module, "bias", None) is not None
    if not weight and not bias:
        return
    own = {key for key, _ in module.named_parameters(recurse=False)}
    if own - {"weight", "bias"} or "weight" not in own:
        raise ValueError(
            f"{name}: {type(module).__name__} holds {', '.join(sorted(own))}; of vectors, only "
            "a norm's weight and bias are known: leave norms and biases out of `also`"
        )
    width = module.get_parameter("weight").numel()
    yield Site(name, layer, "norm", module, width, width, weight=weight, bias=bias)


def _outer_sites(model: Any, prefix: str, n_layers: int, also: Sequence[str]) -> Iterator[Site]:
    """Yield what stands before and after the blocks."""
    head = model.get_output_embeddings()
    tied = False
    for name, module in model.named_modules():
        if name.startswith(f"{prefix}.") or module is head:
            continue
        if "embeddings" in also and isinstance(module, nn.Embedding):
            if type(module) is not nn.Embedding:
                raise ValueError(f"{name}: {type(module).__name__} is no plain Embedding")
            shared = module.weight is head.weight
            tied = tied or shared
            vocab, width = module.weight.shape
            yield Site(name, -1, "embedding", module, width, vocab, tied=shared)
        elif dict(module.named_parameters(recurse=False)).get("weight", head.weight).ndim == 1:
            yield from _norm_sites(name, n_layers, module, also)
    weight = "head" in also and not tied
    bias = "biases" in also and getattr(head, "bias", None) is not None
    if weight and head.weight is model.get_input_embeddings().weight:
        raise ValueError("the head is tied to the embeddings; name embeddings in `also`")
    if weight or bias:
        vocab, width = head.weight.shape
        name = next(name for name, module in model.named_modules() if module is head)
        yield Site(name, n_layers, "head", head, width, vocab, weight=weight, bias=bias)


def _check_apart(sites: Sequence[Site]) -> None:
    owner: dict[int, str] = {}
    for site in sites:
        weight = site.stack if site.stack is not None else site.module.weight
        if (other := owner.setdefault(id(weight), site.name)) != site.name:
            raise ValueError(f"{site.name} and {other} share one weight matrix")
