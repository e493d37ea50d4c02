"""Arrays in one safetensors file that says itself whether it is whole."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from curate.errors import CurateError
from curate.store.publish import publish_bytes, publishing

SMALL_BYTES = 1 << 24
"""Of arrays that are put together in memory; larger ones are written as they stand."""

Arrays = Mapping[str, npt.NDArray[Any]]


def publish_arrays(path: Path, arrays: Arrays, *, note: str = "") -> None:
    """Publish named arrays, sealed with the digest of their names, types, shapes and bytes.

    Args:
        path: of the file.
        arrays: any shapes; every type that safetensors knows.
        note: text that belongs to them; sealed with them.

    Raises:
        CurateError: the file system refused.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # one key: safetensors writes several in no fixed order
    about = msgspec.json.encode([_digest(arrays, note), note]).decode()

    if sum(array.nbytes for array in arrays.values()) <= SMALL_BYTES:
        publish_bytes(path, safetensors.numpy.save(dict(arrays), metadata={"curate": about}))
        return

    def check(written: Path) -> None:
        if _read(written) is None:
            raise OSError(errno.EIO, "what was written reads back changed")

    with publishing(path, check=check) as temporary:
        try:
            safetensors.numpy.save_file(dict(arrays), temporary, metadata={"curate": about})
        except safetensors.SafetensorError as error:  # its way to say what the disk said
            raise OSError(_error_number(str(error)), str(error)) from error


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Read what `publish_arrays` wrote: the arrays and the note.

    Raises:
        CurateError: absent, cut, or changed since it was published.
    """
    found = _read(path)
    if found is None:
        raise CurateError(
            f"{path}: missing or changed since it was published; delete it and run again"
        )
    return found


def arrays_are_whole(path: Path) -> bool:
    """Say whether a file of `publish_arrays` is there, and unchanged."""
    return _read(path) is not None


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], str] | None:
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            seal, note = msgspec.json.decode((file.metadata() or {})["curate"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:  # its word for every reason why a file cannot be opened
        raise OSError(errno.EIO, "cannot be opened", str(path)) from error
    except (safetensors.SafetensorError, msgspec.DecodeError, TypeError, ValueError, KeyError):
        return None
    return (arrays, note) if seal == _digest(arrays, note) else None


def _digest(arrays: Arrays, note: str) -> str:
    state = hashlib.blake2b(digest_size=32)
    named = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    state.update(msgspec.json.encode([note, named], order="sorted"))
    for name in sorted(arrays):
        state.update(arrays[name].reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _error_number(said: str) -> int:
    """Return the system's number in the words of safetensors, `Os { code: 28, … }`."""
    number = said.partition("code: ")[2].partition(",")[0]
    return int(number) if number.isdigit() else errno.EIO
