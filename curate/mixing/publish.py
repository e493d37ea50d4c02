"""A mix's folder: staged beside it, moved file by file, `meta.json` last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import CurateError
from curate.store.publish import publishing, sweep


def clear(out: Path) -> None:
    """Take an earlier mix out of `out`, its `meta.json` first, so that no half looks whole."""
    (out / "meta.json").unlink(missing_ok=True)
    sweep(out)
    for path in list_content(out):
        if path.is_file():
            path.unlink()


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, on its file system; it goes when all is done.

    What a killed run left there goes first; the caller holds the lock of `out`.

    Raises:
        CurateError: the file system refused (full, read-only, no permission).
    """
    staging = out.parent / f".{out.name}.staging"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        raise CurateError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish_files(staging: Path, out: Path) -> list[str]:
    """Move every staged file to its place under `out`, synced; return their names."""
    names = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
    for name in names:
        with publishing(out / name) as temporary:
            (staging / name).replace(temporary)
    return names


def list_content(out: Path) -> list[Path]:
    """Return everything under `out` but its lock."""
    return [path for path in sorted(out.rglob("*")) if path.name != ".lock"] if out.is_dir() else []
