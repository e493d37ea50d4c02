"""Damaged files for the reader: every record must be accounted for, whatever is done to a file.

Run by `make fuzz`, and with 1,000 cases by the default tests.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import check_inputs, read_documents
from curate.errors import CurateError

SLOW_S = 10.0
MAX_RSS_MB = 1024
TEXTS = [f"document {n} says ü, \u2028 and {'xyz ' * (n % 9)}" for n in range(60)]
RECORDS = [msgspec.json.encode({"id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS)]
CSV_ROWS = [b"id,text", *(f'd{n},"{text}"'.encode() for n, text in enumerate(TEXTS))]


def columnar(ending: str, values: list[object], *, name: str = "text") -> bytes:
    """Write one column as parquet, an arrow file or an arrow stream."""
    table = pa.table({"id": [f"d{n}" for n in range(len(values))], name: values})
    sink = io.BytesIO()
    if ending == ".parquet":
        pq.write_table(table, sink, row_group_size=20, write_page_checksum=True)
    else:
        opener = pa.ipc.new_file if ending == ".arrow" else pa.ipc.new_stream
        with opener(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    return sink.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    ".jsonl.bz2": bz2.compress,
    ".jsonl.xz": lambda data: lzma.compress(data, preset=0),
    ".csv": bytes,
    ".tsv": lambda data: data.replace(b",", b"\t", 1),
    ".json": lambda data: b"[" + b",".join(data.split(b"\n")[:-1]) + b"]",
    ".md": bytes,
}
COLUMNAR = (".parquet", ".arrow", ".stream")
FORMATS = (*PACK, *COLUMNAR)


def lines_of(ending: str) -> list[bytes]:
    return list(CSV_ROWS if ending in (".csv", ".tsv") else RECORDS)


# --- mutators of a file's bytes ---


def two_places(data: bytes, rng: random.Random) -> tuple[int, int]:
    one, two = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return min(one, two), max(one, two)


def flip_many(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 30)):
        changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return bytes(changed)


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def swap(data: bytes, rng: random.Random) -> bytes:
    (a, b), (c, d) = two_places(data[: len(data) // 2], rng), two_places(data, rng)
    c = max(b, c)
    d = max(c, d)
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def between(data: bytes, rng: random.Random, middle: Callable[[bytes], bytes]) -> bytes:
    start, stop = two_places(data, rng)
    return data[:start] + middle(data[start:stop]) + data[stop:]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "cut_tail": lambda data, rng: data[: -rng.randrange(1, 12)],
    "cut_head": lambda data, rng: data[rng.randrange(1, 40) :],
    "head_only": lambda data, rng: data[: rng.randrange(1, 16)],
    "empty": lambda data, rng: b"",
    "flip_bit": flip_bit,
    "flip_many": flip_many,
    "zeros": lambda data, rng: between(data, rng, lambda part: bytes(len(part))),
    "noise": lambda data, rng: between(data, rng, lambda part: rng.randbytes(len(part))),
    "delete": lambda data, rng: between(data, rng, lambda part: b""),
    "double": lambda data, rng: between(data, rng, lambda part: part * 2),
    "insert": lambda data, rng: between(data, rng, lambda part: rng.randbytes(64) + part),
    "append": lambda data, rng: data + rng.randbytes(rng.randrange(1, 200)),
    "twice": lambda data, rng: data + data,
    "swap": swap,
}


# --- mutators of the records, before they are packed ---


def one_line(lines: list[bytes], rng: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    place = rng.randrange(len(lines))
    lines[place] = change(lines[place])
    return b"\n".join(lines) + b"\n"


DEEP = b'{"a": ' + b"[" * 60_000 + b"]" * 60_000 + b', "text": "x"}'
RECORDS_CHANGED: dict[str, Callable[[list[bytes], random.Random], bytes]] = {
    "bad_utf8": lambda lines, rng: one_line(
        lines, rng, lambda line: line[:-3] + b"\xff" + line[-3:]
    ),
    "bad_json": lambda lines, rng: one_line(lines, rng, lambda line: line[: len(line) // 2]),
    "nul": lambda lines, rng: one_line(lines, rng, lambda line: line + b"\x00" * 50),
    "deep": lambda lines, rng: one_line(lines, rng, lambda line: DEEP),
    "long": lambda lines, rng: one_line(lines, rng, lambda line: line[:-2] + b"y" * 300_000),
    "crlf_blank": lambda lines, rng: b"\xef\xbb\xbf" + b"\r\n\n \n".join(lines) + b"\n",
    "other_kind": lambda lines, rng: rng.choice(
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            b"<!DOCTYPE html><html><body>404</body></html>",
            "text".encode("utf-16"),
            b'{"text": [[[', b"[", b'"', b"PAR1", b"\x28\xb5\x2f\xfd", b"\x1f\x8b",
            b"ARROW1\x00\x00",
        ]
    ),
    "values": lambda lines, rng: one_line(
        lines,
        rng,
        lambda line: rng.choice(
            [b'{"text": null}', b'{"text": 7}', b'{"text": ""}', b'{"body": "x"}', b"[1]", b"7",
             b'{"text": {"a": "b"}}', b'{"text": "\\ud800"}', b'{"text": NaN}', b"," * 9]
        ),
    ),
    "repack": lambda lines, rng: gzip.compress(b"\n".join(lines)),
}  # fmt: skip
MUTATORS = (*BYTES, *RECORDS_CHANGED)


def changed_column(kind: str, ending: str, rng: random.Random) -> bytes:
    """Write a column whose values are wrong in the way that suits the mutator's name."""
    values: list[object] = list(TEXTS)
    place = rng.randrange(len(values))
    if kind == "bad_utf8":
        raw = [text.encode() if n != place else b"\xff\xfe" for n, text in enumerate(TEXTS)]
        return columnar(ending, pa.array(raw, pa.binary()).view(pa.string()))
    if kind in ("bad_json", "other_kind"):
        return columnar(ending, values, name="body")
    if kind in ("deep", "repack"):
        return columnar(ending, [[text] for text in TEXTS])
    values[place] = {"nul": "\x00", "long": "y" * 300_000, "crlf_blank": " \r\n"}.get(kind)
    return columnar(ending, values)


def damaged(ending: str, mutator: str, rng: random.Random) -> bytes:
    """Return the bytes of a file of that ending, damaged."""
    if mutator in RECORDS_CHANGED:
        if ending in COLUMNAR:
            return changed_column(mutator, ending, rng)
        data = RECORDS_CHANGED[mutator](lines_of(ending), rng)
        return data if mutator == "other_kind" else PACK[ending](data)
    if ending in COLUMNAR:
        return BYTES[mutator](columnar(ending, list(TEXTS)), rng)
    return BYTES[mutator](PACK[ending](b"\n".join(lines_of(ending)) + b"\n"), rng)


def read_case(path: Path, ending: str) -> str:
    """Read one file; return what is wrong with how it was read, "" where nothing is."""
    file = InputFile(path=path, source="s")
    with contextlib.suppress(CurateError):  # said before anything is read: as it should be
        check_inputs([file], text="text")
    ledger = LedgerBuilder()
    documents = list(read_documents(file, text="text", ledger=ledger))
    account = ledger.finish()
    if account.seen != account.accepted + sum(account.rejected.values()):
        return "seen is not accepted + rejected"
    if account.accepted != len(documents):
        return "accepted is not what was given"
    if any(not document.text or document.text.isspace() for document in documents):
        return "an empty document was given"
    if [document.record for document in documents] != sorted({d.record for d in documents}):
        return "record numbers do not rise"
    data = path.read_bytes()
    if ending == ".jsonl" and not account.error and data[:1] == b"{":
        lines = sum(bool(line.strip()) for line in data.split(b"\n"))
        if account.seen != lines:
            return f"{lines} lines, {account.seen} records"
    header_only = ending in (".csv", ".tsv") and data.count(b"\n") < 2
    if data.strip() and not account.seen and not account.error and not header_only:
        return "a file of something was read as nothing"
    return ""


def run(cases: int, seed: int, folder: Path) -> dict[str, object]:
    """Read `cases` damaged files; every mutator meets every format in turn."""
    pairs = [(ending, mutator) for ending in FORMATS for mutator in MUTATORS]
    failures: list[str] = []
    outcomes: dict[str, Counter[str]] = {ending: Counter() for ending in FORMATS}
    slowest = 0.0
    for number in range(cases):
        ending, mutator = pairs[number % len(pairs)]
        rng = random.Random(f"{seed}:{number}")
        path = folder / f"case{ending.replace('.stream', '.arrow')}"
        path.write_bytes(damaged(ending, mutator, rng))
        began = time.monotonic()
        try:
            wrong = read_case(path, ending)
        except Exception:
            wrong = traceback.format_exc(limit=-3)
        took = time.monotonic() - began
        slowest = max(slowest, took)
        if took > SLOW_S:
            wrong = wrong or f"took {took:.1f} s"
        outcomes[ending]["failed" if wrong else "accounted"] += 1
        if wrong:
            failures.append(f"case {number} {ending} {mutator}: {wrong}")
    return {
        "cases": cases,
        "seed": seed,
        "mutators": len(MUTATORS),
        "formats": len(FORMATS),
        "failures": failures,
        "by_format": {ending: dict(found) for ending, found in outcomes.items()},
        "slowest_s": round(slowest, 3),
        "rss_mb": peak_mb(),
    }


def peak_mb() -> int:
    """The most memory that this program had; `ru_maxrss` would count that of its parent too."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def bombs(folder: Path) -> list[Path]:
    """Write small files that unpack to very much, or parse into very much."""
    mega = 1 << 20
    many = '{"text": [' + ",".join(["[]"] * (15 * mega)) + "]}\n"
    plain = {
        "zeros.jsonl.zst": pa.compress(b"\n" * (200 * mega), codec="zstd", asbytes=True),
        "zeros.jsonl.gz": gzip.compress(b" " * (200 * mega), 1),
        "line.jsonl.zst": pa.compress(b"x" * (200 * mega), codec="zstd", asbytes=True),
        "list.jsonl": many.encode(),
        "id.jsonl": many.replace("text", "id").encode(),
        "array.json": b"[" + b",".join([b"{}"] * (30 * mega)) + b"]",
        "string.json": b'[{"text": "' + b"a" * (200 * mega) + b'"}]',
        "field.csv": b'text\n"' + b"a" * (100 * mega),
        "number.jsonl": b'{"text": 1' + b"0" * (10 * mega) + b"}\n",
    }
    for name, data in plain.items():
        (folder / name).write_bytes(data)
    shared = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1000, pa.int32()), pa.array(["x y " * (10 * mega)])
    )
    pq.write_table(pa.table({"text": shared}), folder / "shared.parquet", compression="zstd")
    for name, values in {
        "zeros.parquet": ["\0" * (200 * mega)],
        "twelve.parquet": ["ab" * (20 * mega)] * 12,
    }.items():
        table = pa.table({"text": values})
        pq.write_table(table, folder / name, compression="zstd", use_dictionary=False)
    table = pa.table({"text": ["\0" * (300 * mega)]})
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    for name, opener in {"batch.arrow": pa.ipc.new_file, "batch.stream": pa.ipc.new_stream}.items():
        with opener(str(folder / name), table.schema, options=packed) as writer:
            writer.write_table(table)
    return sorted(path for path in folder.iterdir() if path.is_file())


def main() -> int:
    """Run, print, and say by the exit code whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bomb", type=Path, help="read this one file, and nothing else")
    parser.add_argument("--write-bombs", type=Path, help="write the bombs into this folder")
    arguments = parser.parse_args()
    if arguments.write_bombs:
        arguments.write_bombs.mkdir(parents=True, exist_ok=True)
        print("\n".join(map(str, bombs(arguments.write_bombs))))  # noqa: T201
        return 0
    if arguments.bomb:
        began = time.monotonic()
        wrong = read_case(arguments.bomb, arguments.bomb.suffix + " ")
        found: dict[str, object] = {
            "file": arguments.bomb.name,
            "failures": [wrong] if wrong else [],
            "seconds": round(time.monotonic() - began, 1),
            "rss_mb": peak_mb(),
        }
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = run(arguments.cases, arguments.seed, Path(folder))
    print(json.dumps(found))  # noqa: T201
    return 1 if found["failures"] or int(str(found["rss_mb"])) > MAX_RSS_MB else 0


if __name__ == "__main__":
    sys.exit(main())
