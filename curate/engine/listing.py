"""Work items as text, so that another machine can read them later."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from curate.errors import CurateError

PACKAGE = "curate"
"""What a list may name: functions and records of this package, nothing else."""


def to_text(value: Any) -> str:
    """Write an item as one line of JSON: records, tuples, paths and named functions included.

    Raises:
        ValueError: it holds something else; large things belong in files that the item names.
    """
    return msgspec.json.encode(_plain(value)).decode()


def from_text(line: str) -> Any:
    """Read what `to_text` wrote.

    Raises:
        CurateError: not such a line, or it names what is not in this package.
    """
    try:
        return _whole(msgspec.json.decode(line))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CurateError(f"not a work item of this version: {error}") from None


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which another process finds a function: module:name."""
    return f"{function.__module__}:{function.__qualname__}"


def find_named(name: str) -> Any:
    """Return the function or record of that name.

    Raises:
        CurateError: it is not one of this package.
    """
    module, _, attribute = name.partition(":")
    if module.split(".")[0] != PACKAGE or not attribute.isidentifier():
        raise CurateError(f"{name}: a list of work items may name only what curate has")
    return getattr(importlib.import_module(module), attribute)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_plain(each) for each in value]}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(each) for key, each in value.items()}}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, partial):
        named = {key: _plain(each) for key, each in value.keywords.items()}
        if not value.args:
            return {"partial": name_of(value.func), "with": named}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)
        }
        return {"record": name_of(type(value)), "with": fields}
    raise ValueError(f"{type(value).__name__}: cannot stand in a list of work items")


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_whole(each) for each in value["tuple"])
    if "path" in value:
        return Path(value["path"])
    if "dict" in value:
        return {key: _whole(each) for key, each in value["dict"].items()}
    named = {key: _whole(each) for key, each in value["with"].items()}
    if "partial" in value:
        return partial(find_named(value["partial"]), **named)
    found = find_named(value["record"])
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise CurateError(f"{value['record']}: is no record")
    return found(**named)
