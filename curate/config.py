"""curate.toml and its defaults → settings records."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import tomllib
from glob import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from curate.errors import USAGE, CurateError
from curate.report.numbers import parse_share, parse_tokens
from curate.settings import Settings, TargetSettings
from curate.store.places import split_target

CONFIG_NAME = "curate.toml"
S = TypeVar("S")

_TOKEN_FIELDS = {"budget", "tokens", "shard_tokens", "batch_tokens", "block_tokens"}
_SHARE_FIELDS = {"holdout", "max_rejected"}


def read_settings(path: str | Path | None = None) -> Settings:
    """Read settings from a TOML file, or the defaults where there is none.

    Paths in a file that lies in another folder are relative to that folder.

    Args:
        path: the file; None looks for `curate.toml` in the current folder.

    Returns:
        All sections; what the file leaves out has its default.

    Raises:
        CurateError: no such file, not TOML, an unknown key (named with its line and
            the nearest known one), or a value of the wrong kind.
    """
    file = Path(path or CONFIG_NAME)
    if not file.is_file():
        if path is not None:
            raise CurateError(f"{path}: no such file", exit_code=USAGE)
        return Settings()
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors put a mark before it
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of the bytes, the TOML, and too long a number
        raise CurateError(f"{file}: not valid TOML: {error}", exit_code=USAGE) from None
    settings = _settings_from(table, text=text, file=file)
    here = file.resolve().parent == Path.cwd().resolve()
    return settings if here else _seen_from_here(settings, file.parent)


def checked(settings: Settings | None) -> Settings:
    """Return a caller's settings as `curate.toml` would have given them; None is the defaults.

    Python checks no types, and a wrong one would be found out by a stage that is half done:
    "100M" becomes a count, a list a tuple, a path its text, and what is none of them is refused.

    Raises:
        CurateError: which setting, and what it has to be (exit code 2).
    """
    given = Settings() if settings is None else settings
    if not isinstance(given, Settings):
        raise CurateError(
            f"settings: expected curate.settings.Settings, found {type(given).__name__}",
            exit_code=USAGE,
        )
    parts = {}
    for name, kind in get_type_hints(Settings).items():
        section = getattr(given, name)
        if not isinstance(section, kind):
            raise CurateError(
                f"[{name}]: expected {kind.__name__}, found {section!r}", exit_code=USAGE
            )
        parts[name] = _checked_section(name, section)
    return Settings(**parts)


def override(record: S, **values: Any) -> S:
    """Return a settings record with every value that is not None put in place."""
    known = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(record, **known) if known else record  # type: ignore[type-var]


def without_reading(wanted: TargetSettings, target: str | Path | tuple[str, ...]) -> TargetSettings:
    """Drop how items read where the settings say it of another target than this one."""
    named = wanted.names or wanted.name
    if not named or named == (target if isinstance(target, tuple) else str(target)):
        return wanted
    return dataclasses.replace(wanted, name="", names=(), text="", template="")


def data_dir(settings: Settings) -> str:
    """Return the folder of named targets: from the settings, else `CURATE_DATA_DIR`, else ""."""
    return settings.target.data_dir or os.environ.get("CURATE_DATA_DIR", "")


_TARGET = re.compile(r"(?P<name>.*?)(?P<weight>(?::\d+(?:\.\d+)?)?)", re.S)


def _seen_from_here(settings: Settings, folder: Path) -> Settings:
    """Put the paths of a settings file as they are to be read from the current folder.

    An input or folder is a path; of the rest, which may be names too, what lies in `folder` is.
    """

    def path(name: str) -> str:
        return name if name.startswith(("hf:", "~")) or "://" in name else str(folder / name)

    def pattern(name: str) -> str:  # of which the folder is none
        there = os.path.exists(folder / name)  # noqa: PTH110
        return path(name) if path(name) == name or there else str(Path(escape(str(folder)), name))

    def there(name: str) -> bool:
        # not by Path, which raises of a name that is too long
        return name not in ("", "builtin") and os.path.exists(folder / name)  # noqa: PTH110

    def named(name: str) -> str:
        return path(name) if there(name) else name

    def target(name: str) -> str:
        bare, weight = _TARGET.fullmatch(name).group(*_TARGET.groupindex)  # type: ignore[union-attr]
        label, files = split_target(bare, there)
        return f"{label}=" * bool(label) + ",".join(map(named, files)) + weight

    wanted, mix, verify = settings.target, settings.mix, settings.verify
    return dataclasses.replace(
        settings,
        corpus=override(settings.corpus, inputs=tuple(map(pattern, settings.corpus.inputs))),
        embed=override(settings.embed, probe=named(settings.embed.probe)),
        target=override(
            wanted,
            name=target(wanted.name),
            names=tuple(map(target, wanted.names)),
            data_dir=path(wanted.data_dir) if wanted.data_dir else "",
        ),
        rank=override(settings.rank, encoder=named(settings.rank.encoder)),
        mix=override(mix, tokenizer=named(mix.tokenizer), encoder=named(mix.encoder)),
        verify=override(verify, tokenizer=named(verify.tokenizer), model=named(verify.model)),
    )


def _settings_from(table: dict[str, Any], *, text: str, file: Path) -> Settings:
    sections = {field.name: field for field in dataclasses.fields(Settings)}
    parts: dict[str, Any] = {}
    for name, values in table.items():
        if name not in sections:
            raise _unknown(name, known=list(sections), text=text, file=file, header=True)
        if not isinstance(values, dict):
            line = _line_of(name, text)
            raise CurateError(f"{file}:{line}: {name} is a section: write [{name}]", exit_code=2)
        record_type = get_type_hints(Settings)[name]
        parts[name] = _section_from(record_type, values, section=name, text=text, file=file)
    return Settings(**parts)


def _checked_section(name: str, section: Any) -> Any:
    found = {}
    for key, kind in get_type_hints(type(section)).items():
        try:
            found[key] = _value(key, getattr(section, key), kind)
        except ValueError as error:
            raise CurateError(f"[{name}] {key}: {error}", exit_code=USAGE) from None
    return type(section)(**found)


def _section_from(
    record_type: type[Any], values: dict[str, Any], *, section: str, text: str, file: Path
) -> Any:
    hints = get_type_hints(record_type)
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise _unknown(key, known=list(hints), text=text, file=file, section=section)
        try:
            found[key] = _value(key, value, hints[key])
        except ValueError as error:
            line = _line_of(key, text, section=section)
            raise CurateError(f"{file}:{line}: {key}: {error}", exit_code=USAGE) from None
    return record_type(**found)


def _value(key: str, value: Any, kind: Any) -> Any:
    """Return `value` as the type `kind` of the setting `key`; ValueError says what is expected."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{value!r} is not one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        listed = [value] if isinstance(value, str | Path) else value
        if not isinstance(listed, list | tuple) or not all(
            isinstance(item, str | Path) for item in listed
        ):
            raise ValueError("expected a list of strings")
        return tuple(map(str, listed))
    if kind is str and isinstance(value, Path):
        return str(value)
    if kind is int and key in _TOKEN_FIELDS and isinstance(value, str):
        return parse_tokens(value)
    if kind is float and key in _SHARE_FIELDS and isinstance(value, str):
        return parse_share(value)
    is_flag = isinstance(value, bool)  # which Python counts among the integers
    if kind is float and isinstance(value, Real) and not is_flag:
        value = _as_float(value)
    elif kind is int and isinstance(value, Integral) and not is_flag:
        value = int(value)  # of numpy's integers too
    if kind is float and value != value:
        raise ValueError("expected a number, found nan")
    if key in ("seed", "workers") and isinstance(value, int) and value < 0:
        raise ValueError(f"expected 0 or more, found {value}")
    if key in _SHARE_FIELDS and isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError(f"expected a share from 0 to 1, found {value}")
    if key == "gpus" and isinstance(value, float) and not 0 < value < math.inf:
        raise ValueError(f"expected a number above 0, found {value}")
    if not isinstance(value, kind) or (kind is int and is_flag):
        raise ValueError(f"expected {kind.__name__}, found {value!r}")
    return value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number too large to count with") from None


def _unknown(
    key: str,
    *,
    known: list[str],
    text: str,
    file: Path,
    section: str | None = None,
    header: bool = False,
) -> CurateError:
    line = _line_of(key, text, section=section, header=header)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    place = f"in [{section}]" if section else "as a section"
    return CurateError(f"{file}:{line}: unknown key {key!r} {place}; {hint}", exit_code=USAGE)


def _line_of(key: str, text: str, *, section: str | None = None, header: bool = False) -> int:
    """Return the line (from 1) where a key or section header stands; tomllib does not keep it."""
    inside = section is None
    pattern = rf"\s*\[\s*[\"']?{re.escape(key)}\b" if header else rf"\s*[\"']?{re.escape(key)}\b"
    fallback = rf"\s*[\"']?{re.escape(key)}\b"
    for number, line in enumerate(text.split("\n"), start=1):
        if re.match(r"\s*\[", line) and section is not None:
            inside = bool(re.match(rf"\s*\[\s*{re.escape(section)}\s*\]", line))
        elif (inside and re.match(pattern, line)) or (header and re.match(fallback, line)):
            return number
        if header and re.match(pattern, line):
            return number
    return 1
