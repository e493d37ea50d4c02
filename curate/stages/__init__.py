"""The stages as plain functions: each finds in the workspace what the one before published.

Each is loaded when it is first used, so that a command waits for the libraries of no other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.stages.indexing import index, plan, rejected
    from curate.stages.mirror import mirrored
    from curate.stages.mixing import build_mix, push
    from curate.stages.ranking import check, compare, explain, rank
    from curate.stages.reporting import open_artefact, write_report
    from curate.stages.verifying import export_verification, plan_verification, verify
    from curate.stages.workspace import WORKSPACE

__all__ = [
    "WORKSPACE",
    "build_mix",
    "check",
    "compare",
    "explain",
    "export_verification",
    "index",
    "mirrored",
    "open_artefact",
    "plan",
    "plan_verification",
    "push",
    "rank",
    "rejected",
    "verify",
    "write_report",
]

_ROOMS = {
    "indexing": ("index", "plan", "rejected"),
    "mirror": ("mirrored",),
    "mixing": ("build_mix", "push"),
    "ranking": ("check", "compare", "explain", "rank"),
    "reporting": ("open_artefact", "write_report"),
    "verifying": ("export_verification", "plan_verification", "verify"),
    "workspace": ("WORKSPACE",),
}
_PLACES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'curate.stages' has no attribute {name!r}")
    return getattr(import_module(f"curate.stages.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
