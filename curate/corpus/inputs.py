"""Paths, folders, globs and hub names → the files to read, each with the name of its source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob, has_magic
from pathlib import Path

from curate.corpus.containers import BrokenFileError
from curate.corpus.formats import (
    RECORD_SUFFIXES,
    WHOLE_SUFFIXES,
    detect_format,
    inner_stem,
    inner_suffix,
)
from curate.errors import USAGE, CurateError
from curate.store.meta import kind_of
from curate.store.places import also_there, user_path

_CARDS = ("readme", "license", "licence", "notice", "citation")
_SETTINGS = "curate.toml"  # lies in the folder of a project, and is no document of its corpus
_CARD_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
"""Files that describe the record files they lie beside, and are no documents of theirs."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read."""

    path: Path
    source: str  # unique to the file, except that a tree of one-document files shares one
    grouped: bool = False  # written by regrouping, not by the user


def find_inputs(
    inputs: Sequence[str],
    *,
    workspace: Path,
    skipped: list[Path] | None = None,
    by_folder: bool = False,
) -> list[InputFile]:
    """Expand what the user named into files, sorted by source and path.

    A file's source is its name without endings; where two files would share it, the parent
    folder goes before it. Text and source files (one document each) that are found in a folder
    share one source: the first folder below the one named, or that folder itself.

    Args:
        inputs: paths of files, folders (searched through; hidden entries left out), globs,
            `hf:org/name[:config[:split]][@revision][#records]`, or addresses of the same three on `s3://`,
            `gs://` and `hf://`.
        workspace: hub data sets and the files of addresses are copied into its `sources/`, once;
            `refresh_remote` brings copies up to date.
        skipped: receives what is left out of folders: files that no reader knows, links to
            folders, and mixes that were built there; of globs, the mixes.
        by_folder: a file's source is the folder that it lies in instead.

    Raises:
        CurateError: nothing named, no such path, a glob or folder without any file to read, a
            folder that cannot be looked into, a named file of an unknown kind, or a hub that
            cannot be reached.
    """
    if not inputs:
        raise CurateError("no input named; give files, folders or hf:org/name", exit_code=USAGE)
    if "" in inputs:  # as a path it would be the current folder
        raise CurateError("an input without a name; name it, or . for this folder", exit_code=USAGE)
    found: dict[Path, tuple[Path, str]] = {}
    spooled: dict[Path, str] = {}
    for given in inputs:
        for path, source in _expand(given, workspace=workspace, skipped=skipped):
            found.setdefault(path.resolve(), (path, source))
            if given.startswith("hf:") and "://" not in given:
                spooled[path.resolve()] = given
    _tell_apart(found, spooled)
    _check_names(found)
    return _by_folder(list(found.values())) if by_folder else _named(list(found.values()))


def _expand(
    given: str, *, workspace: Path, skipped: list[Path] | None
) -> Iterator[tuple[Path, str]]:
    """Yield (path, source); the source is "" where the file's own name decides."""
    if "://" in given:
        from curate.corpus.copies import find_copies  # fsspec takes a while to import

        folder, copies = find_copies(given, workspace=workspace, skipped=skipped)
        if folder is not None:
            yield from _folder(folder, skipped)
        else:
            yield from ((_explicit(path), "") for path in copies)
        return
    if given.startswith("hf:"):
        from curate.corpus.hub import spool_dataset  # the hub client takes seconds to import

        yield spool_dataset(given, workspace=workspace)
        return
    path = user_path(given)
    if path.is_dir():
        yield from _folder(path, skipped)
    elif path.exists():
        yield _explicit(path), ""
    elif has_magic(given):
        parts = _outside_mixes(path, [] if skipped is None else skipped)
        if not parts:
            raise CurateError(f"{given}: matches no file")
        for part in parts:
            yield from _folder(part, skipped) if part.is_dir() else [(_explicit(part), "")]
    else:
        raise CurateError(f"{given}: no such file or folder{also_there(given)}")


def _outside_mixes(pattern: Path, skipped: list[Path]) -> list[Path]:
    """Return what a glob matches, without the mixes that it does not name: `m*x` does, `*` not."""
    names = [part for part in pattern.parts if part.strip("*?")]
    mixes: dict[Path, bool] = {}
    kept = []
    for match in sorted(glob(str(pattern), recursive=True)):  # noqa: PTH207 (absolute patterns too)
        part = Path(match)
        for folder in (part if part.is_dir() else part.parent, *part.parents):
            if folder not in mixes:
                named = not folder.name or any(fnmatch(folder.name, name) for name in names)
                mixes[folder] = not named and kind_of(folder) == "mix"
                skipped += [folder] if mixes[folder] else []
            if mixes[folder]:
                break
        else:
            kept.append(part)
    return kept


def _tell_apart(found: dict[Path, tuple[Path, str]], spooled: Mapping[Path, str]) -> None:
    """Put the organisation before the source of hub data sets that two of them call alike."""
    if len(spooled) < 2:
        return
    from curate.corpus.hub import parse_hub_name  # seconds, which spooling has taken already

    repos = {path: parse_hub_name(given).repo for path, given in spooled.items()}
    for source in {found[path][1] for path in spooled}:
        mine = {path: repo for path, repo in repos.items() if found[path][1] == source}
        for path, repo in mine.items() if len(set(mine.values())) > 1 else ():
            found[path] = found[path][0], "-".join([*repo.split("/")[:-1], source])


def _check_names(paths: Iterable[Path]) -> None:
    """Refuse names whose bytes are no text: no ledger and no manifest could hold them."""
    for path in paths:
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            raise CurateError(f"{path}: its name is not UTF-8; rename it") from None


def _explicit(path: Path) -> Path:
    if not path.is_file():
        raise CurateError(f"{path}: not a regular file")
    try:
        detect_format(path)
    except BrokenFileError as error:
        if "no reader knows" in str(error):
            raise CurateError(
                f"{path}: no reader knows this kind of file; give jsonl, parquet, arrow, csv, "
                "tsv or text"
            ) from None
    except OSError as error:
        raise CurateError(f"{path}: {error.strerror or error}") from None
    return path


def _folder(folder: Path, skipped: list[Path] | None) -> Iterator[tuple[Path, str]]:
    any_found = False
    for here, names, files in os.walk(folder, onerror=_refuse_closed):
        names[:] = sorted(name for name in names if not name.startswith((".", "__pycache__")))
        if skipped is not None:
            skipped.extend(Path(here) / name for name in names if (Path(here) / name).is_symlink())
        if here != str(folder) and kind_of(Path(here)) == "mix":  # drawn from this very corpus
            names.clear()
            if skipped is not None:
                skipped.append(Path(here))
            continue
        paths = [Path(here) / name for name in sorted(files) if not name.startswith((".", "_"))]
        holds_records = any(inner_suffix(path) in RECORD_SUFFIXES for path in paths)
        for path in paths:
            if not _readable(path, beside_records=holds_records):
                if skipped is not None:
                    skipped.append(path)
                continue
            any_found = True
            whole = inner_suffix(path) not in RECORD_SUFFIXES and inner_suffix(path) != ""
            yield path, _tree_source(path, folder) if whole else ""
    if not any_found:
        raise CurateError(f"{folder}: holds no file that can be read")


def _refuse_closed(error: OSError) -> None:
    """Refuse a folder that cannot be looked into: its files would be left out without a word."""
    raise CurateError(
        f"{error.filename}: {error.strerror}; make it readable, or name the inputs beside it"
    ) from error


def _tree_source(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder).parts
    return inside[0] if len(inside) > 1 else folder.resolve().name or "root"


def _readable(path: Path, *, beside_records: bool) -> bool:
    if not path.is_file() or path.name == _SETTINGS:
        return False
    suffix = inner_suffix(path)
    card = suffix not in RECORD_SUFFIXES and path.name.lower().startswith(_CARDS)
    if beside_records and (card or path.name.lower() in _CARD_FILES):
        return False
    if suffix in RECORD_SUFFIXES or suffix in WHOLE_SUFFIXES:
        return True
    try:
        form = detect_format(path)
    except BrokenFileError as error:
        return error.reason != "" or "no reader knows" not in str(error)
    except OSError:
        return True  # the reader says what is wrong with it
    return form.kind != "whole"


def _named(found: list[tuple[Path, str]]) -> list[InputFile]:
    """Give each file the shortest source that no other has; a tree's files share theirs."""
    taken = {source for _, source in found if source}
    own = sorted(path for path, source in found if not source)
    names = {path: inner_stem(path) for path in own}
    for depth in range(1, 64):
        clash = _clashing(names.values(), taken)
        if not clash:
            break
        for path in own:
            if names[path] in clash:
                parents = path.resolve().parent.parts[-depth:]
                names[path] = "-".join([*(part.strip("/") for part in parents), inner_stem(path)])
        if depth == 2:  # same folder, other ending: parents can never tell them apart
            for path in own:
                if names[path] in _clashing(names.values(), taken):
                    names[path] = path.name
    files = [InputFile(path=path, source=source or names[path]) for path, source in found]
    return sorted(files, key=lambda file: (file.source, str(file.path)))


def _by_folder(found: list[tuple[Path, str]]) -> list[InputFile]:
    """Give files their folder's name, with as many parents as tell the folders apart."""
    folders = {path.resolve().parent for path, _ in found}
    names = {folder: folder.name or "root" for folder in folders}
    for depth in range(2, 64):
        clash = _clashing(names.values(), set())
        if not clash:
            break
        for folder in folders:
            if names[folder] in clash:
                names[folder] = "-".join(part.strip("/") for part in folder.parts[-depth:])
    files = [InputFile(path=path, source=names[path.resolve().parent]) for path, _ in found]
    return sorted(files, key=lambda file: (file.source, str(file.path)))


def _clashing(names: Iterable[str], taken: set[str]) -> set[str]:
    counts = Counter(names)
    return {name for name, number in counts.items() if number > 1 or name in taken}
