"""A published mix read back: its record, and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.records import Mix
from curate.store.meta import read_meta
from curate.store.places import noted_path
from curate.store.publish import read_json


def open_mix(workspace: Path) -> Mix:
    """Read the latest mix of a workspace, its files held against their digests.

    Raises:
        CurateError: there is none, or a file is missing or changed.
    """
    latest = workspace / "mix.json"
    if not latest.is_file():
        raise CurateError(f"{workspace}: no mix yet; run curate build-mix --budget N first")
    folder = noted_path(read_json(latest, dict[str, str]).get("folder", ""), workspace)
    if not (folder / "meta.json").is_file():
        raise CurateError(
            f"{folder}: the mix is not there any more; put it back, or run curate build-mix again"
        )
    _, mix = read_meta(folder, kind="mix", body=Mix)
    return dataclasses.replace(mix, folder=str(folder))


def read_mix_texts(mix: Mix) -> Iterator[tuple[str, int]]:
    """Read every row of a mix: its text and its number of tokens."""
    folder = Path(mix.folder)
    manifest = read_json(folder / "manifest.json", dict[str, Any])
    names = [file["path"] for file in manifest["files"]]
    if not names or not names[0].endswith((".parquet", ".jsonl")):
        made = f"as {Path(names[0]).suffix} files" if names else "with --manifest-only"
        raise CurateError(
            f"{folder}: made {made}, it holds no text to read back; run curate build-mix with "
            "--format parquet"
        )
    return read_rows(folder, names)


def read_rows(folder: Path, files: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Read the text and the number of tokens of every row, in the order of the files."""
    for name in files:
        path = folder / name
        if path.suffix == ".jsonl":
            with path.open("rb") as stream:
                for line in stream:
                    row = msgspec.json.decode(line)
                    yield row["text"], row["tokens"]
            continue
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=["text", "tokens"], batch_size=256):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
