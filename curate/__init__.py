"""Which of my data should I train on, to be good at this target, and is it true?

The stages are functions (`index`, `rank`, `build_mix`, `verify`, …); they are loaded when first
used, so that `import curate` costs nothing. Results have `to_pandas()`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.config import read_settings
    from curate.errors import CurateError
    from curate.settings import Settings
    from curate.stages import (
        build_mix,
        check,
        compare,
        explain,
        index,
        mirrored,
        open_artefact,
        plan,
        push,
        rank,
        verify,
        write_report,
    )
    from curate.task2vec.embedding import embed_texts
    from curate.task2vec.probe import load_probe

__version__ = version("curate")

_STAGES = (
    "index", "plan", "rank", "compare", "explain", "check", "build_mix", "push", "verify",
    "write_report", "open_artefact", "mirrored",
)  # fmt: skip
_PLACES = dict.fromkeys(_STAGES, "curate.stages") | {
    "embed_texts": "curate.task2vec.embedding",
    "load_probe": "curate.task2vec.probe",
    "read_settings": "curate.config",
    "Settings": "curate.settings",
    "CurateError": "curate.errors",
}

__all__ = [
    "CurateError",
    "Settings",
    "build_mix",
    "check",
    "compare",
    "embed_texts",
    "explain",
    "index",
    "load_probe",
    "mirrored",
    "open_artefact",
    "plan",
    "push",
    "rank",
    "read_settings",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
