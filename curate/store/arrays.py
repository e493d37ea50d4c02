"""Arrays in one safetensors file that says itself whether it is whole."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from curate.errors import CurateError
from curate.store.fingerprint import digest_bytes
from curate.store.publish import publish_bytes, publishing

SMALL_BYTES = 1 << 24
"""Of arrays that are put together in memory; larger ones are written as they stand."""

Arrays = Mapping[str, npt.NDArray[Any]]


def publish_arrays(path: Path, arrays: Arrays, *, note: str = "") -> None:
    """Publish named arrays, each with a digest of its type, shape and bytes; those are sealed.

    Args:
        path: of the file.
        arrays: any shapes; every type that safetensors knows.
        note: text that belongs to them; sealed with them.

    Raises:
        CurateError: the file system refused.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    digests = {name: _digest(arrays[name]) for name in sorted(arrays)}
    # one key: safetensors writes several in no fixed order
    about = msgspec.json.encode([_seal(note, digests), note, digests]).decode()

    if sum(array.nbytes for array in arrays.values()) <= SMALL_BYTES:
        publish_bytes(path, safetensors.numpy.save(dict(arrays), metadata={"curate": about}))
        return

    def check(written: Path) -> None:
        if find_arrays(written) is None:
            raise OSError(errno.EIO, "what was written reads back changed")

    with publishing(path, check=check) as temporary:
        try:
            safetensors.numpy.save_file(dict(arrays), temporary, metadata={"curate": about})
        except safetensors.SafetensorError as error:  # its way to say what the disk said
            raise OSError(_error_number(str(error)), str(error)) from error


def read_arrays(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Read what `publish_arrays` wrote: the arrays and the note.

    Args:
        path: of the file.
        names: only these are read, and held against their digests; None reads all.

    Raises:
        CurateError: absent, cut, or changed since it was published.
    """
    found = find_arrays(path, names)
    if found is None:
        raise CurateError(
            f"{path}: missing or changed since it was published; delete it and run again"
        )
    return found


def arrays_are_whole(path: Path) -> bool:
    """Say whether a file of `publish_arrays` is there, and unchanged."""
    return find_arrays(path) is not None


def find_arrays(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], str] | None:
    """As `read_arrays`; None where the file is absent, cut, changed, or lacks a name."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            seal, note, digests = msgspec.json.decode((file.metadata() or {})["curate"])
            if seal != _seal(note, digests) or set(file.keys()) != set(digests):
                return None
            wanted = digests if names is None else names
            arrays = {name: file.get_tensor(name) for name in wanted}
    except FileNotFoundError as error:  # its word for every reason why a file cannot be opened
        raise OSError(errno.EIO, "cannot be opened", str(path)) from error
    except (safetensors.SafetensorError, msgspec.DecodeError, TypeError, ValueError, KeyError):
        return None
    whole = all(_digest(array) == digests[name] for name, array in arrays.items())
    return (arrays, note) if whole else None


def _seal(note: str, digests: Mapping[str, str]) -> str:
    return digest_bytes(msgspec.json.encode([note, digests]))


def _digest(array: npt.NDArray[Any]) -> str:
    state = hashlib.blake2b(f"{array.dtype} {array.shape} ".encode(), digest_size=32)
    state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _error_number(said: str) -> int:
    """Return the system's number in the words of safetensors, `Os { code: 28, … }`."""
    number = said.partition("code: ")[2].partition(",")[0]
    return int(number) if number.isdigit() else errno.EIO
