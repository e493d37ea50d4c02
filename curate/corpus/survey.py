"""Files → how many documents and tokens they hold, read in part where they are large."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.corpus.columnar import count_rows
from curate.corpus.containers import BrokenFileError, read_head
from curate.corpus.formats import Format, detect_format
from curate.corpus.inputs import InputFile
from curate.corpus.json_rows import json_file
from curate.corpus.ledger import LedgerBuilder, describe_refusal
from curate.corpus.reader import read_documents

HEAD_BYTES = 4 * 1024 * 1024
"""Of unpacked content that is read of each file that is looked into."""

LOOKED_INTO = 64
"""Files of a source, at most; the others count as these do, byte for byte."""

Encode = Callable[[list[str]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Survey:
    """What one file, or one source, is estimated to hold."""

    n_bytes: int  # on disk
    documents: float
    tokens: float
    chars: float
    exact: bool  # everything was counted, nothing estimated
    refused: str = ""  # a sentence on a file of which no record that was seen is a document


def survey_source(
    files: Sequence[InputFile], *, text: str, encode: Encode, samples: list[str]
) -> Survey:
    """Estimate what the files of one source hold.

    Args:
        files: of one source.
        text: field or template.
        encode: texts to token ids.
        samples: receives some of the texts that were read.
    """
    sizes = [file.path.stat().st_size for file in files]
    chosen = np.unique(np.linspace(0, len(files) - 1, min(LOOKED_INTO, len(files))).round())
    looked = [survey_file(files[n], text=text, encode=encode, samples=samples)
              for n in chosen.astype(int).tolist()]  # fmt: skip
    share = sum(sizes) / max(1, sum(one.n_bytes for one in looked))
    return Survey(
        n_bytes=sum(sizes),
        documents=share * sum(one.documents for one in looked),
        tokens=share * sum(one.tokens for one in looked),
        chars=share * sum(one.chars for one in looked),
        exact=len(looked) == len(files) and all(one.exact for one in looked),
        refused=next((one.refused for one in looked if one.refused), ""),
    )


def survey_file(file: InputFile, *, text: str, encode: Encode, samples: list[str]) -> Survey:
    """Estimate what a file holds from its schema and its first 4 MiB; a broken one holds nothing.

    Args:
        file: any input.
        text: field or template.
        encode: texts to token ids.
        samples: receives some of the texts that were read.
    """
    n_bytes = file.path.stat().st_size
    try:
        form = detect_format(file.path)
        texts, share, refused = _head_texts(file, form, text)
    except (BrokenFileError, OSError):
        return Survey(n_bytes=n_bytes, documents=0, tokens=0, chars=0, exact=True)
    samples += texts[:8]
    return Survey(
        n_bytes=n_bytes,
        documents=(1.0 if texts else 0.0) if form.kind == "whole" else len(texts) * share,
        tokens=sum(len(ids) for ids in encode(texts)) * share,
        chars=sum(map(len, texts)) * share,
        exact=share == 1,
        refused=refused,
    )


def _head_texts(file: InputFile, form: Format, text: str) -> tuple[list[str], float, str]:
    """Return the texts of a file's beginning, what to multiply their number by, any refusal."""
    if form.kind in ("parquet", "arrow_file", "arrow_stream", "json"):
        whole = form.kind == "json"  # one value, of which the beginning says nothing
        total = len([*json_file(file.path, form, ())]) if whole else count_rows(file.path, form)
        texts, seen, refused = _some(file, text)
        return texts, total / max(1, seen), refused
    head, times = read_head(file.path, form.compression, limit=HEAD_BYTES)
    if times > 1 and form.kind == "jsonl" and b"\n" not in head:  # its first line is longer
        texts, _, refused = _some(file, text)
        read = sum(len(each.encode("utf-8", "surrogatepass")) for each in texts)
        return texts, max(1.0, len(head) * times / max(read, len(head))), refused
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"head.{'md' if form.kind == 'whole' else form.kind}"
        path.write_bytes(head.decode("utf-8", "ignore").encode() if form.kind == "whole" else head)
        texts, _, refused = _some(InputFile(path=path, source=file.source), text)
    return texts, times, refused.replace(str(path), str(file.path))


def _some(file: InputFile, text: str) -> tuple[list[str], int, str]:
    """Return documents of up to 4 MiB, how many records were seen for them, and any refusal."""
    ledger = LedgerBuilder()
    texts: list[str] = []
    chars = 0
    for document in read_documents(file, text=text, ledger=ledger):
        texts.append(document.text)
        chars += len(document.text)
        if chars >= HEAD_BYTES:
            break
    refused = describe_refusal(ledger.finish(), of="the first") if ledger.seen and not texts else ""
    return texts, ledger.seen, refused
