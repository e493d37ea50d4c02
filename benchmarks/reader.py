"""Reading with an account of every record, against the same libraries without one.

With --shards N: the N shards of one compressed file read one by one, against one straight pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec
import pyarrow as pa

from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.ranges import read_ranges
from curate.corpus.reader import read_documents
from curate.records import RecordRange, Shard
from curate.store.fingerprint import digest_file

CODECS = {".zst": "zstd", ".gz": "gzip"}


class Record(msgspec.Struct):
    """What the library is asked to parse: the fields that the reader keeps of these lines."""

    text: str
    id: str = ""


def write_corpus(path: Path, *, mega: int) -> int:
    """Write Python's own sources as packed JSON lines, a document of about 3,000 characters a line.

    Returns:
        Bytes of unpacked lines.
    """
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [
        text[start : start + 3_000]
        for text in (source.read_text("utf-8", "replace") for source in sources)
        for start in range(0, len(text), 3_000)
    ]
    written = 0
    with (
        pa.OSFile(str(path), "wb") as raw,
        pa.CompressedOutputStream(raw, CODECS[path.suffix]) as stream,
    ):
        while written < mega << 20:
            for text in texts:
                line = msgspec.json.encode({"id": f"d{written}", "text": text}) + b"\n"
                stream.write(line)
                written += len(line)
    return written


def read_by_library(path: Path) -> int:
    """Decompress and parse with pyarrow and msgspec; nothing is checked, counted or kept."""
    decode = msgspec.json.Decoder(Record).decode
    number, rest = 0, b""
    with (
        pa.OSFile(str(path), "rb") as raw,
        pa.CompressedInputStream(raw, CODECS[path.suffix]) as stream,
    ):
        while block := stream.read(1 << 20):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                decode(line)
                number += 1
    return number


def read_by_curate(path: Path) -> int:
    """Read documents: digest of the file, checks, reasons, identity and account included."""
    ledger = LedgerBuilder()
    for _ in read_documents(InputFile(path=path, source="s"), text="text", ledger=ledger):
        pass
    return ledger.accepted


def seconds(read: Callable[[Path], int], path: Path) -> tuple[float, int]:
    """Return the processor seconds of one reading, and its number of documents."""
    began = time.process_time()
    number = read(path)
    return time.process_time() - began, number


def measure(path: Path, n_bytes: int, *, repeats: int) -> dict[str, float]:
    """Read the file with both in turn; the median of the ratios is what counts."""
    ours, theirs = [], []
    for _ in range(repeats):
        spent, number = seconds(read_by_library, path)
        theirs.append(spent)
        spent, accepted = seconds(read_by_curate, path)
        ours.append(spent)
        assert number == accepted, (number, accepted)
    ratios = sorted(their / our for their, our in zip(theirs, ours, strict=True))
    return {
        "unpacked_mb": round(n_bytes / 1e6, 1),
        "packed_mb": round(path.stat().st_size / 1e6, 1),
        "documents": number,
        "repeats": repeats,
        "library_mb_s": round(n_bytes / 1e6 / min(theirs), 1),
        "reader_mb_s": round(n_bytes / 1e6 / min(ours), 1),
        "lowest": round(ratios[0], 3),
        "highest": round(ratios[-1], 3),
        "reader_vs_library": round(median(ratios), 3),
    }


def read_by_shards(path: Path, *, documents: int, shards: int, order: str) -> int:
    """Read a file as the stages read an index: range after range, through `read_ranges`."""
    digest = digest_file(path)
    edges = [documents * number // shards for number in range(shards + 1)]
    found = 0
    for start, stop in list(pairwise(edges))[:: -1 if order == "back" else 1]:
        part = RecordRange(str(path), digest, start, stop)
        shard = Shard(name="s", source="s", ranges=(part,), n_documents=0, n_tokens=0, digest="")
        found += sum(1 for _ in read_ranges(shard, text="text"))
    return found


def measure_shards(path: Path, *, shards: int, repeats: int) -> Iterator[dict[str, object]]:
    """Read a file straight and by shards in turn, and into a fiftieth of the shards backwards."""
    straight, by_shards = [], []
    for _ in range(repeats):
        spent, documents = seconds(read_by_curate, path)
        straight.append(spent)
        in_order = partial(read_by_shards, documents=documents, shards=shards, order="on")
        spent, found = seconds(in_order, path)
        by_shards.append(spent)
        assert found == documents, (found, documents)
    ratios = sorted(part / whole for part, whole in zip(by_shards, straight, strict=True))
    yield {
        "packed_mb": round(path.stat().st_size / 1e6, 1),
        "documents": documents,
        "shards": shards,
        "repeats": repeats,
        "straight_s": round(min(straight), 2),
        "shards_s": round(min(by_shards), 2),
        "shards_vs_straight": round(median(ratios), 3),
    }
    few = max(2, shards // 50)
    backwards = partial(read_by_shards, documents=documents, shards=few, order="back")
    spent, found = seconds(backwards, path)
    assert found == documents, (found, documents)
    yield {"shards": few, "order": "backwards", "vs_straight": round(spent / min(straight), 2)}


def main() -> int:
    """Measure, and print one line, or two with --shards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mega", type=int, default=100, help="MiB of unpacked lines")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shards", type=int, default=0, help="of one file, read one by one")
    parser.add_argument("--codec", choices=CODECS, default=".zst")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus.jsonl{arguments.codec}"
        n_bytes = write_corpus(path, mega=arguments.mega)
        lines: Iterable[Mapping[str, object]] = (
            measure_shards(path, shards=arguments.shards, repeats=arguments.repeats)
            if arguments.shards
            else [measure(path, n_bytes, repeats=arguments.repeats)]
        )
        for found in lines:
            plain = "  ".join(f"{name} {value}" for name, value in found.items())
            print(json.dumps(found) if arguments.json else plain, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
