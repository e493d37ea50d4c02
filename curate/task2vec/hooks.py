"""Hooks on a model's layers: what each one read, and the rows that its gradient gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call

from curate.task2vec.batches import Layout
from curate.task2vec.gradients import column_signs, sum_by_group
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.rows import rows_by_token, square_rows, vector_rows
from curate.task2vec.sites import Site
from curate.task2vec.stacks import Groups, stack_means, stack_rows, take_gradient

Entries = tuple[Tensor, Tensor, Tensor]  # sequence (m,), token (m,), vectors (m, width)


@dataclass(slots=True, eq=False)
class Activation:
    """An input that one or more modules read, and what they share about it."""

    value: Tensor  # as the module got it; held so that its identity stays its own
    version: int
    fan_outs: list[int] = field(default_factory=list)
    left: int = 0  # gradients still to come
    split: Tensor | None = None  # (n, L, fan_in)
    shared: list[Tensor] = field(default_factory=list)  # its gram's stripes, or its signs
    number: int = 0  # among the inputs of the forward pass


@dataclass(slots=True, eq=False)
class Recorder:
    """What the hooks of one micro-batch fill: one forward pass, then `passes` backward ones.

    With `groups`, a pass may give mean gradients too, or instead of rows.
    """

    layout: Layout
    settings: FisherSettings
    passes: int
    sites: Sequence[Site]
    groups: Groups | None = None
    activations: dict[int, Activation] = field(default_factory=dict)
    sums: dict[str, list[Tensor]] = field(default_factory=dict)  # site → its parts, (n, width)
    head: Entries | None = None  # what the labels of this draw add to the head's rows
    head_bias: Entries | None = None  # and to its bias: vectors of one number
    means: dict[str, Tensor] = field(default_factory=dict)  # matrix → (n_groups, fan_out, COLUMNS)
    wants_rows: bool = True  # of the pass that runs
    wants_means: bool = False
    muted: bool = False

    def add(self, site: Site, parts: Sequence[Tensor]) -> None:
        """Add one draw's parts of a site."""
        sums = self.sums[site.name]
        if not sums:
            sums.extend(parts)
            return
        for total, part in zip(sums, parts, strict=True):
            total += part

    def end_draw(self) -> None:
        """Add what no hook sees: stacked weights, and a head that is not tied."""
        for site in self.sites:
            if site.form == "stack":
                gradient = take_gradient(site)
                if self.wants_means:
                    self.means[site.name] = self._stack_means(site, gradient)
                if self.wants_rows:
                    self.add(site, stack_rows(gradient, rows=self.settings.rows))
            elif site.form == "head" and self.wants_rows:
                self.add(site, _head_rows(self, site))

    def _stack_means(self, site: Site, gradient: Tensor) -> Tensor:
        assert self.groups is not None
        number = next(n for n, other in enumerate(self.sites) if other is site)
        signs = column_signs(gradient.shape[2], number=number, seed=self.settings.seed)
        return stack_means(gradient, signs, groups=self.groups)


@contextmanager
def recording(
    sites: Sequence[Site],
    *,
    layout: Layout,
    settings: FisherSettings,
    passes: int,
    groups: Groups | None = None,
) -> Iterator[Recorder]:
    """Hook the sites for one forward pass; every backward pass then adds to the sums.

    No weight needs a gradient but stacked ones. Where nothing before a module needs one either,
    its output becomes a leaf, so that the backward pass ends at the first selected block.

    Raises:
        ValueError: a module is used twice, or reads something other than the positions.
    """
    recorder = Recorder(layout, settings, passes, sites, groups)
    hooked = [site for site in sites if site.form in ("matrix", "norm", "embedding")]
    stacks = [site.stack for site in sites if site.stack is not None]
    gradients = [stack.grad for stack in stacks]  # the caller's own
    recorder.sums.update({site.name: [] for site in sites if site not in hooked})
    handles = [
        s.module.register_forward_hook(_forward_hook(recorder, s), with_kwargs=True) for s in hooked
    ]
    for stack in stacks:
        stack.requires_grad_(True)
        stack.grad = None
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
        for stack, gradient in zip(stacks, gradients, strict=True):
            stack.requires_grad_(False)
            stack.grad = gradient
        recorder.activations.clear()


def _forward_hook(recorder: Recorder, site: Site) -> Callable[..., Tensor | None]:
    def forward(
        module: object, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> Tensor | None:
        if recorder.muted:
            return None
        given = [value for value in (*args, *named.values()) if value is not None]
        if len(given) != 1:
            raise ValueError(f"{site.name} reads {len(given)} inputs, where one is known")
        activation = _enter(recorder, site, given[0])
        if not output.requires_grad:
            with torch.enable_grad():  # a clone, because no leaf may be changed in place
                output = output.detach().requires_grad_().clone()
        output.register_hook(lambda grad: _receive(recorder, site, activation, grad))
        return output

    return forward


def _enter(recorder: Recorder, site: Site, value: Tensor) -> Activation:
    n, length = recorder.layout.rows, recorder.layout.length
    width = {"embedding": 1, "matrix": site.fan_in}.get(site.form, 0)
    if width and value.numel() != n * length * width:
        raise ValueError(f"{site.name} reads {tuple(value.shape)}, not {n} × {length} positions")
    if site.name in recorder.sums:
        raise ValueError(f"{site.name} is used twice in one forward pass")
    recorder.sums[site.name] = []
    new = Activation(value, value._version, number=len(recorder.sums))
    found = recorder.activations.setdefault(id(value), new)
    if site.form == "matrix":
        found.fan_outs.append(site.fan_out)
    found.left += recorder.passes
    return found


def _receive(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> None:
    """Add one pass' rows of one site, or its mean gradients, or both."""
    if found.value._version != found.version:
        raise ValueError(f"the input of {site.name} was changed in place after it was read")
    grad = grad.detach()
    if recorder.wants_means and site.form == "matrix":
        recorder.means[site.name] = _matrix_means(recorder, site, found, grad)
    if recorder.wants_rows:
        recorder.add(site, _site_rows(recorder, site, found, grad))
    found.left -= 1
    if not found.left:
        found.shared.clear()
        found.split = None
        recorder.activations.pop(id(found.value), None)


def _site_rows(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> list[Tensor]:
    if site.form == "embedding":
        return [_embedding_rows(recorder, site, found, grad)]
    if site.form == "norm":
        return _norm_rows(recorder, site, found, grad)
    return _matrix_rows(recorder, site, found, grad)


def _matrix_means(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> Tensor:
    """Return the summed gradients of each group, their columns projected."""
    assert recorder.groups is not None
    x, y = _split_pair(recorder, site, found, grad)
    signs = column_signs(site.fan_in, number=found.number, seed=recorder.settings.seed)
    group, n_groups = recorder.groups
    return sum_by_group(x @ signs.to(x), y, group=group, n_groups=n_groups)


def _matrix_rows(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> list[Tensor]:
    x, y = _split_pair(recorder, site, found, grad)
    rows = recorder.settings.rows
    over = ([site.fan_in] if rows != "input" else []) + ([site.fan_out] if rows != "output" else [])
    fan_outs = sum(found.fan_outs)
    parts = square_rows(x, y, settings=recorder.settings, fan_outs=fan_outs, shared=found.shared)
    parts = [part / count for part, count in zip(parts, over, strict=True)]
    return parts + ([vector_rows(y, square=recorder.settings.square)] if site.bias else [])


def _split_pair(
    recorder: Recorder, site: Site, found: Activation, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Return activations (n, L, fan_in) and gradients (n, L, fan_out) of the sequences."""
    layout = recorder.layout
    y = layout.split(grad.reshape(layout.rows, layout.length, site.fan_out))
    if found.split is None:
        whole = found.value.detach().reshape(layout.rows, layout.length, site.fan_in)
        found.split = layout.split(whole).to(y.dtype)
    return found.split, y


def _norm_rows(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> list[Tensor]:
    """Use that a norm's output is affine in its weight, with its normalised input as slope."""
    layout, square = recorder.layout, recorder.settings.square
    wide = torch.promote_types(grad.dtype, torch.float32)
    heads_first = _heads_first(found.value, layout)

    def split(value: Tensor) -> Tensor:  # heads that share one weight add up
        value = value.transpose(1, 2) if heads_first else value
        value = value.reshape(layout.rows, layout.length, -1, site.fan_out).sum(dim=2)
        return layout.split(value)

    parts = []
    if site.weight:
        slope = _output_at(recorder, site, found.value, 1.0).to(wide)
        slope = slope - _output_at(recorder, site, found.value, 0.0).to(wide)
        parts.append(vector_rows(split(grad.to(wide) * slope), square=square))
    return parts + ([vector_rows(split(grad), square=square)] if site.bias else [])


def _heads_first(value: Tensor, layout: Layout) -> bool:
    """Say whether (B, heads, T, d) is what a norm reads, and not (B, T, heads, d)."""
    if value.ndim != 4 or value.shape[2] != layout.length:
        return False
    # as many heads as tokens: a projection gave (B, T, heads·d), whose order memory keeps
    return value.shape[1] != layout.length or value.stride(1) < value.stride(2)


def _output_at(recorder: Recorder, site: Site, value: Tensor, weight: float) -> Tensor:
    parameters = {key: torch.zeros_like(p) for key, p in site.module.named_parameters()}
    parameters["weight"].fill_(weight)
    recorder.muted = True
    try:
        with torch.no_grad():
            return functional_call(site.module, parameters, (value.detach(),))
    finally:
        recorder.muted = False


def _embedding_rows(recorder: Recorder, site: Site, found: Activation, grad: Tensor) -> Tensor:
    layout = recorder.layout
    if grad.numel() != layout.rows * layout.length * site.fan_in:
        raise ValueError(f"{site.name} gives {tuple(grad.shape)}: one for all sequences")
    entries = (layout.owner, found.value.reshape(-1), grad.reshape(-1, site.fan_in))
    if site.tied:
        assert recorder.head is not None
        mine, labels = entries, recorder.head
        wide = labels[2].dtype
        entries = (
            torch.cat([mine[0], labels[0]]),
            torch.cat([mine[1], labels[1]]),
            torch.cat([mine[2].to(wide), labels[2]]),
        )
    return _token_rows(recorder, site, entries)


def _head_rows(recorder: Recorder, site: Site) -> list[Tensor]:
    assert recorder.head is not None and recorder.head_bias is not None
    parts = [_token_rows(recorder, site, recorder.head)] if site.weight else []
    if site.bias:
        sequence, token, c = recorder.head_bias
        n, vocab = recorder.layout.n, site.fan_out
        parts.append(rows_by_token(token, c, sequence=sequence, n=n, vocab=vocab))
    return parts


def _token_rows(recorder: Recorder, site: Site, entries: Entries) -> Tensor:
    sequence, token, vectors = entries
    rows = rows_by_token(token, vectors, sequence=sequence, n=recorder.layout.n, vocab=site.fan_out)
    return rows / site.fan_in
