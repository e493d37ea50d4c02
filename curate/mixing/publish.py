"""A mix's folder: staged beside it, moved file by file, `meta.json` last."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.store.owner import boot_id
from curate.store.publish import publish_bytes, publishing, refused


def clear(out: Path) -> None:
    """Take an earlier mix out of `out`, its `meta.json` first, so that no half looks whole."""
    (out / "meta.json").unlink(missing_ok=True)
    for path in list_content(out):
        if path.is_file():
            path.unlink()


@contextmanager
def staging_folder(out: Path, *, mark: str) -> Iterator[Path]:
    """Give a folder beside `out`, on its file system; it goes when all is done.

    What a killed run with the same `mark` left there since the machine was started is still
    there; of any other run nothing is. The caller holds the lock of `out`. A file system that
    refuses gets its space back.

    Raises:
        CurateError: the file system refused (full, read-only, no permission).
    """
    staging = _staging(out)
    here = f"{mark} {boot_id()}"
    try:
        if not (staging / "mark").is_file() or (staging / "mark").read_bytes() != here.encode():
            _check_own(staging)
            _remove(staging)
            staging.mkdir(parents=True, exist_ok=True)
            publish_bytes(staging / "mark", here.encode())
        yield staging
    except OSError as error:
        _remove(staging)
        raise refused(out, error) from error
    except CurateError as error:
        if isinstance(error.__cause__, OSError):
            _remove(staging)
        raise
    _remove(staging)


def clear_staging(out: Path) -> None:
    """Remove what a run left beside a whole mix that was killed after its `meta.json`."""
    staging = _staging(out)
    if not staging.is_symlink() and (staging / "mark").is_file():
        _remove(staging)


def _staging(out: Path) -> Path:
    return out.parent / f".{out.name}.staging"


def _remove(staging: Path) -> None:
    """Remove a staging folder, its mark last: half removed, it is still known for one."""
    for path in staging.iterdir() if staging.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "mark":
            path.unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)


def _check_own(staging: Path) -> None:
    """Refuse to remove a folder of that name that no run of ours has made."""
    if staging.is_symlink() or (staging.exists() and not (staging / "mark").is_file()):
        left = [path.name for path in staging.iterdir()] if staging.is_dir() else ["a file"]
        # killed before its mark was there: nothing, or a mark that is half written
        if not staging.is_symlink() and all(name.startswith(".mark.") for name in left):
            return
        raise CurateError(f"{staging}: in the way, and nothing that curate made; move it")


def publish_files(staging: Path, out: Path) -> list[str]:
    """Move every staged file to its place under `out`, synced; return their names."""
    paths = (path for path in staging.rglob("*") if path.is_file() and path.suffix != ".tmp")
    names = sorted(str(path.relative_to(staging)) for path in paths)
    for name in names:
        with publishing(out / name, check=_read_back) as temporary:
            _move(staging / name, temporary)
    return names


def _move(staged: Path, temporary: Path) -> None:
    """Give a staged file a name under `out`; its bytes where that is a mount of its own."""
    try:
        staged.replace(temporary)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(staged, temporary)


def _read_back(path: Path) -> None:
    """Read a parquet file's pages against their checksums; other files hold none."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            return
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk refused; of a checksum that differs there is no number
        raise OSError(errno.EIO, f"what was written reads back changed ({error})") from error


def list_content(out: Path) -> list[Path]:
    """Return everything under `out` but its lock."""
    return [path for path in sorted(out.rglob("*")) if path.name != ".lock"] if out.is_dir() else []
