"""Tokenised training files: raw tokens with document ends, and Megatron's indexed data sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.errors import CurateError
from curate.mixing.arrows import staged

MAGIC = b"MMIDIDX\x00\x00"
"""First bytes of Megatron's `.idx`; then version, type of the tokens, sequences, documents."""

TYPE_CODES = {"uint16": 8, "int32": 4}
BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """The tokenizer of tokenised files."""

    encode: Callable[[list[str]], list[npt.NDArray[np.int32]]]  # importable by name
    end: int  # id that is put after each document
    vocab: int  # largest id + 1


def token_type(vocab: int) -> np.dtype[Any]:
    """Return the type of raw tokens: uint16, or uint32 where the vocabulary needs it."""
    return np.dtype("<u2" if vocab <= 1 << 16 else "<u4")


def write_tokens(path: Path, rows: Any, spec: TokenSpec) -> None:
    """Write rows as raw little-endian tokens, each document followed by the end token.

    `path` (`.ds`) gets uint16, or uint32 where the vocabulary needs it; `path` + `.index` gets
    the end of every document as uint64, counted in tokens. That is the layout of datatrove's
    tokenised files; `numpy.memmap` reads it.

    Args:
        path: ends in `.ds`.
        rows: a table with `text` and `tokens`.
        spec: tokenizer.

    Raises:
        CurateError: a row has not as many tokens as were counted.
    """
    sizes = _write_ids(path, rows, spec, token_type(spec.vocab).str)
    with staged(path.with_name(f"{path.name}.index")) as temporary:
        temporary.write_bytes(np.cumsum(sizes).astype("<u8").tobytes())


def write_megatron(path: Path, rows: Any, spec: TokenSpec) -> None:
    """Write rows as Megatron's `.bin` and `.idx`: one sequence a document, ended by the end token.

    Args:
        path: ends in `.bin`; the index lies beside it.
        rows: a table with `text` and `tokens`.
        spec: tokenizer.

    Raises:
        CurateError: a row has not as many tokens as were counted.
    """
    kind = "uint16" if spec.vocab < 65_500 else "int32"  # the bound of Megatron's own tools
    sizes = _write_ids(path, rows, spec, f"<{np.dtype(kind).str[1:]}")
    width = np.dtype(kind).itemsize
    pointers = (np.cumsum(sizes) - sizes) * width
    head = np.array([len(sizes), len(sizes) + 1], "<u8").tobytes()
    with staged(path.with_suffix(".idx")) as temporary, temporary.open("wb") as stream:
        stream.write(MAGIC + np.array([1], "<u8").tobytes() + bytes([TYPE_CODES[kind]]) + head)
        stream.write(sizes.astype("<i4").tobytes())
        stream.write(pointers.astype("<i8").tobytes())
        stream.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())


def _write_ids(path: Path, rows: Any, spec: TokenSpec, kind: str) -> npt.NDArray[np.int64]:
    """Write the tokens of all rows; return how many each has, its end token included."""
    sizes: list[int] = []
    counted = rows["tokens"].to_numpy()
    with staged(path) as temporary, temporary.open("wb") as stream:
        for start in range(0, len(rows), BATCH_ROWS):
            texts = rows["text"].slice(start, BATCH_ROWS).to_pylist()
            for ids in spec.encode(texts):
                if len(ids) != counted[len(sizes)]:
                    raise CurateError(
                        f"{path.name}: row {len(sizes)} has {len(ids)} tokens, "
                        f"{counted[len(sizes)]} were counted; run curate index again"
                    )
                stream.write(np.append(ids, spec.end).astype(kind).tobytes())
                sizes.append(len(ids) + 1)
    return np.array(sizes, np.int64)
