"""A file at its final path is complete: written beside it, synced, read back, then renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from curate.errors import CannotWriteError, CurateError
from curate.store.failpoint import failpoint
from curate.store.fingerprint import digest_bytes, digest_stream
from curate.store.leftovers import temporary_name

T = TypeVar("T")

_SEAL = re.compile(rb'\{\n "blake2b": "([0-9a-f]{64})",?\n')
_EMPTY = b"{\n}\n"


@contextmanager
def publishing(path: Path, *, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it becomes `path`.

    The bytes are synced and, by `check`, read back before the rename, and the folder is synced
    after it, so that after a power loss the file is either absent or whole. On failure the
    temporary file goes. Until the rename only the user can read it.

    Args:
        path: the final one.
        check: reads the temporary file back; raises OSError where it is not what was written.

    Raises:
        CannotWriteError: the file system refused (full, read-only, no permission, unsound).
    """
    folder = str(path.parent)
    temporary = temporary_name(path, folder)
    renamed = False
    try:
        failpoint("publish.open")
        descriptor, mode = _create(temporary, folder)
        os.close(descriptor)
        yield Path(temporary)
        failpoint("publish.after_tmp")
        _sync(temporary)
        failpoint("publish.check")
        if check is not None:
            check(Path(temporary))
        renamed = _rename(temporary, path, folder, mode)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        if not renamed:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - text, not a path: see `publish_bytes`


def refused(path: Path, error: OSError) -> CannotWriteError:
    """Return the one line for a file system that did not take a file: why, what is free, what then.

    Args:
        path: where the file was to be.
        error: what it said.
    """
    why, then = error.strerror or str(error), "mend it"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            why = f"{why} ({shutil.disk_usage(path.parent).free:,} bytes are free)"
        then = "make room"
    return CannotWriteError(
        f"{path}: cannot be written: {why}; {then} and run the same command again"
    )


def publish_bytes(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Publish bytes at `path`, whole or not at all.

    As `publishing`, through one descriptor and with names as text: an index publishes two small
    files a shard, and of a million shards such steps add up.

    Args:
        path: the final one.
        parts: one after the other, all of it.
        durable: sync it. False is for what carries its digest and is made again where that does
            not agree: a kill leaves the file whole or absent, a power loss may leave it cut.
    """
    folder = str(path.parent)
    temporary = temporary_name(path, folder)
    descriptor, renamed = -1, False
    try:
        failpoint("publish.open")
        descriptor, mode = _create(temporary, folder, durable=durable)
        failpoint("publish.write")
        for part in parts:
            _write(descriptor, part)
        failpoint("publish.after_tmp")
        if durable:
            failpoint("publish.fsync")
            os.fsync(descriptor)
        failpoint("publish.check")
        if not _reads_back(descriptor, parts):
            raise OSError(errno.EIO, "what was written reads back changed")
        renamed = _rename(temporary, path, folder, mode, durable=durable)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        if not renamed:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108


def publish_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Publish a record (or plain data) as indented JSON with sorted keys, sealed.

    The seal is a first key `blake2b` with the digest of the text without it, so that one
    changed bit anywhere is noticed when it is read. `value` encodes to an object. `durable` is
    that of `publish_bytes`.
    """
    encoded = msgspec.json.encode(value, order="sorted")
    text = msgspec.json.format(encoded, indent=1) + b"\n" if encoded != b"{}" else _EMPTY
    publish_bytes(path, _sealed(text), durable=durable)


def _sealed(text: bytes) -> bytes:
    return _seal_of(text) + memoryview(text)[2:]


def _seal_of(text: bytes) -> bytes:
    """Return what stands in place of the first line of a text, which is of a brace alone."""
    comma = "," if text != _EMPTY else ""
    return f'{{\n "blake2b": "{digest_bytes(text)}"{comma}\n'.encode()


def read_json(path: Path, kind: type[T]) -> T:
    """Read a published record.

    Raises:
        CurateError: absent, cut, changed since it was published, or of another shape.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CurateError(f"{path}: not there; run the command that makes it first") from None
    seal = _SEAL.match(data)
    text = b"{\n" + memoryview(data)[seal.end() :] if seal else b""
    if seal is None or _seal_of(text) != seal[0]:
        why = "changed since it was published" if seal else "not what this version writes"
        raise CurateError(f"{path}: {why}; delete it and run the command that makes it again")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CurateError(
            f"{path}: not what this version writes ({error}); delete it and run again"
        ) from None


def read_json_if_whole(path: Path, kind: type[T]) -> T | None:
    """Read a published record; None where it is absent, changed, or of another version."""
    if not path.is_file():
        return None
    try:
        return read_json(path, kind)
    except CurateError:
        return None


def begins_sealed(path: Path) -> bool:
    """Say whether a file begins as a published record does; False where there is none.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _SEAL.match(stream.read(100)) is not None


def publish_sealed(path: Path, data: bytes | memoryview) -> None:
    """Publish bytes that end themselves (an Arrow stream, a .npy), and after them their digest.

    Whoever reads the format stops at its end, and the last 65 bytes say whether all before them
    is what was written: one file where a digest beside it would be two.
    """
    publish_bytes(path, data, _end_seal(digest_bytes(data)))


def is_sealed(path: Path) -> bool:
    """Say whether a file of `publish_sealed` is there, byte for byte."""
    if not path.is_file():
        return False
    length = path.stat().st_size - len(_end_seal("0" * 64))
    if length < 0:
        return False
    with path.open("rb") as stream:
        digest = digest_stream(stream, length)
        return stream.read() == _end_seal(digest)


def _end_seal(digest: str) -> bytes:
    return digest.encode() + b"\n"


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and those above it; sync each new one in the folder that holds it.

    Without that a power loss may take the folder, and with it what was synced inside.

    Raises:
        OSError: the file system refused.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(new if durable else []):
        _sync_folder(str(each.parent))


def _create(temporary: str, folder: str, *, durable: bool = True) -> tuple[int, int]:
    """Create a new file that only the user can read; return it open, and the mode files get."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        make_folder(Path(folder), durable=durable)
        descriptor = os.open(temporary, flags, 0o666)
    try:
        mode = os.fstat(descriptor).st_mode & 0o777
        os.fchmod(descriptor, 0o600)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, mode


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while len(left):
        left = left[os.write(descriptor, left) :]


def _reads_back(descriptor: int, parts: Sequence[bytes | memoryview]) -> bool:
    place, block = 0, 1 << 20
    for part in parts:
        for start in range(0, len(part), block):
            wanted = part[start : start + block]
            if os.pread(descriptor, len(wanted), place) != wanted:
                return False
            place += len(wanted)
    return os.fstat(descriptor).st_size == place


def _rename(temporary: str, path: Path, folder: str, mode: int, *, durable: bool = True) -> bool:
    """Give a file that was written, synced and read back its name; the file is published."""
    os.chmod(temporary, mode)  # noqa: PTH101
    failpoint("publish.before_rename")
    os.replace(temporary, path)  # noqa: PTH105
    failpoint("publish.after_rename")
    if durable:
        _sync_folder(folder)
    failpoint("publish.done")
    return True


def _sync(path: str) -> None:
    failpoint("publish.fsync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    """Sync the names in a folder, where the file system can (SMB and some of FUSE cannot)."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
