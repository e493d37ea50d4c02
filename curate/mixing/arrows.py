"""What lies between two steps of a mix: Arrow files that are read in place, and what is done."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from curate.store.failpoint import failpoint


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it becomes `path`, whole or not at all.

    Unlike `publishing` it does not sync: what is staged is of use to the next run after this
    process is killed, not after the machine has lost its power (`staging_folder`). On failure
    the temporary file goes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    failpoint("stage.open")
    try:
        yield temporary
        failpoint("stage.rename")
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file: any flipped bit and any cut of it change that."""
    with pa.memory_map(str(path)) as file:
        return zlib.crc32(file.read_buffer())


def note_done(path: Path, files: Mapping[Path, int]) -> None:
    """Say in `path` that a step is done: the files that it wrote, with their checksums."""
    with staged(path) as temporary:
        temporary.write_bytes(msgspec.json.encode({str(file): c for file, c in files.items()}))


def is_done(path: Path) -> bool:
    """Say whether a step is done, and each file that it wrote is as it was then.

    A killed run has left these files: the next one takes no byte of them on trust.
    """
    try:
        files = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        return all(checksum(Path(file)) == known for file, known in files.items())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def write_arrow(path: Path, table: Any) -> None:
    """Write a table as one Arrow file of one batch."""
    whole = table.combine_chunks()
    with (
        staged(path) as temporary,
        pa.OSFile(str(temporary), "wb") as stream,
        pa.ipc.new_file(stream, whole.schema) as writer,
    ):
        writer.write_table(whole)


def open_arrow(path: Path) -> Any:
    """Return a written table; its columns lie in the file and cost no memory until read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
