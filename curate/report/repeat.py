"""What repeats a job: its `curate.toml` and its commands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from curate.records import StageRun
from curate.settings import Settings


def repeat_lines(history: Sequence[StageRun], fingerprints: Sequence[str]) -> tuple[str, list[str]]:
    """Return the `curate.toml` and the commands that repeat what the workspace holds.

    Args:
        history: of the workspace, oldest first.
        fingerprints: of what is shown, in the order of the stages; "" for what is not.
    """
    settings, commands = Settings(), []
    for fingerprint in fingerprints:
        runs = [run for run in history if run.ended and fingerprint == run.fingerprint != ""]
        if not runs:
            continue
        commands.append(runs[-1].command)
        for field in dataclasses.fields(Settings):
            used = getattr(runs[-1].settings, field.name)
            if used != getattr(Settings(), field.name):
                settings = dataclasses.replace(settings, **{field.name: used})
    return settings_toml(settings), commands


def settings_toml(settings: Settings) -> str:
    """Return the `curate.toml` of settings: every value that is not its default.

    Example:
        >>> from curate.settings import MixSettings
        >>> print(settings_toml(Settings(mix=MixSettings(budget=8000))), end="")
        [mix]
        budget = 8000
    """
    sections = []
    for section in dataclasses.fields(Settings):
        record = getattr(settings, section.name)
        lines = [
            f"{field.name} = {toml_value(getattr(record, field.name))}"
            for field in dataclasses.fields(record)
            if getattr(record, field.name) != field.default
        ]
        if lines:
            sections.append("\n".join([f"[{section.name}]", *lines, ""]))
    return "\n".join(sections)


def toml_value(value: Any) -> str:
    r"""Return a string, a list of strings, a number or a switch as TOML.

    They are JSON's, but that TOML takes no raw DEL, and no pair of surrogates for one sign.

    Example:
        >>> toml_value(["a\"b", "日本"])
        '["a\\"b", "日本"]'
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
