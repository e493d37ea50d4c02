"""From rows to files in a staging folder: every step that is done is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.engine.local import count_cores
from curate.engine.run import run_items
from curate.mixing.arrows import is_done
from curate.mixing.binary import TokenSpec
from curate.mixing.drawn import Drawn
from curate.mixing.formats import (
    ENDINGS,
    PART_TOKENS,
    Choice,
    Format,
    Writing,
    WrittenFile,
    write_choices,
    write_lines,
    write_part,
    write_provenance,
    write_selection,
)
from curate.mixing.reading import divide
from curate.mixing.shuffle import (
    CHUNK_CHARS,
    Reading,
    divide_rows,
    read_plan,
    write_chunks,
    write_plan,
)
from curate.mixing.streaming import write_mds_index
from curate.records import Notify, silent

WORKER_TOKENS = {"texts": 100_000_000, "tokens": 20_000_000}
"""Tokens a process that are worth its start, about a second: of texts, of what is tokenised."""

PACKERS = 2
"""Parts that one process packs beside each other: packing leaves the interpreter to others."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are cut; the sizes decide what is in memory, and which file a row is in."""

    fmt: Format = "parquet"
    spec: TokenSpec | None = None  # of tokenised formats
    part_tokens: int = PART_TOKENS
    chunk_chars: int = CHUNK_CHARS


def choose_workers(workers: int, tokens: int, *, tokenises: bool = False) -> int:
    """Return how many processes to use: as asked, or one a core where the work pays for them.

    Args:
        workers: as asked; 0 chooses.
        tokens: of the mix.
        tokenises: whether its texts are tokenised, which is most of the work then.
    """
    each = WORKER_TOKENS["tokens" if tokenises else "texts"]
    return workers or max(1, min(count_cores(), tokens // each))


def write_files(
    drawn: Drawn,
    choices: Sequence[Choice],
    *,
    text: str,
    folder: Path,
    layout: Layout,
    seed: int,
    workers: int = 1,
    notify: Notify = silent,
) -> tuple[list[WrittenFile], list[WrittenFile]]:
    """Write the rows of a mix, shuffled over all files, and where each comes from.

    One chunk or part is in memory at a time and process. The bytes depend on the rows, the
    seed and the layout alone.

    Args:
        drawn: the rows.
        choices: what is known of each of its shards.
        text: field or template of the index.
        folder: `mix/` in it gets the files, `work/` what is between; what is done already
            (by a run with the same arguments that was killed) is taken, if no bit of it changed.
        layout: format and sizes.
        seed: of the shuffle.
        workers: processes.
        notify: progress in tokens.

    Returns:
        The files of the mix, and those of the held-out slice.
    """
    work, mix = folder / "work", folder / "mix"
    work.mkdir(exist_ok=True)
    mix.mkdir(exist_ok=True)
    plan = work / "plan.arrow"
    write_plan(plan, drawn, seed=seed)
    write_lines(
        mix / "decontamination.jsonl", (each for each in drawn.dropped if each.reason == "leak")
    )
    write_lines(mix / "duplicates.jsonl", (each for each in drawn.dropped if each.reason != "leak"))
    if layout.fmt == "manifest":
        write_selection(mix / "selection.parquet", str(plan), choices)
        return [], []
    _write_chunks(drawn, text=text, work=work, layout=layout, workers=workers, notify=notify)
    known = work / "choices.arrow"
    write_choices(known, choices)
    writings = _writings(plan, known, work=work, mix=mix, layout=layout, rows=drawn)
    files: list[WrittenFile] = []
    done, total = 0, int(drawn.rows.tokens.sum() + drawn.held.tokens.sum())
    slots = PACKERS if workers <= 1 and layout.fmt == "parquet" else 1
    for file in run_items(write_part, writings, workers=workers, slots=slots):
        files.append(file)
        done += file.tokens
        notify("write the mix", float(done), float(total))
    write_provenance(mix / "provenance.parquet", work / "chunks", files)
    held = [file for file in files if Path(file.path).stem.startswith("holdout")]
    kept = [file for file in files if file not in held]
    for several in (kept, held) if layout.fmt == "mds" else ():
        if several:
            shards = [(Path(file.path).name, file.rows) for file in several]
            write_mds_index((mix / several[0].path).parent, shards)
    return kept, held


def _write_chunks(
    drawn: Drawn, *, text: str, work: Path, layout: Layout, workers: int, notify: Notify
) -> None:
    chunks = work / "chunks"
    chunks.mkdir(exist_ok=True)
    wanted = np.unique(np.concatenate([drawn.rows.shard, drawn.held.shard])).tolist()
    shards = [drawn.shards[place] for place in wanted]
    readings = [
        Reading(
            plan=str(work / "plan.arrow"),
            shards=tuple(shards[number] for number in group),
            places=tuple(wanted[number] for number in group),
            text=text,
            folder=str(chunks),
            name=f"{name:05d}",
            chunk_chars=layout.chunk_chars,
        )
        for name, group in enumerate(divide(shards))
    ]
    total = float(drawn.rows.tokens.sum() + drawn.held.tokens.sum())
    left = [each for each in readings if not is_done(chunks / f"{each.name}.done")]
    done = 0
    for tokens in run_items(write_chunks, left, workers=workers):
        done += tokens
        notify("read the documents", float(done), total)


def _writings(
    plan: Path,
    choices: Path,
    *,
    work: Path,
    mix: Path,
    layout: Layout,
    rows: Drawn,
) -> list[Writing]:
    count = len(rows.rows.tokens)
    tokens = read_plan(str(plan))["tokens"]
    # A reader of MDS takes all that one folder's index names.
    train, aside = ("train/", "holdout/") if layout.fmt == "mds" else ("", "")
    spans = [
        (f"data/{train}part-{number:05d}", first, last)
        for number, (first, last) in enumerate(
            divide_rows(tokens[:count], part_tokens=layout.part_tokens)
        )
    ]
    held = divide_rows(tokens[count:], part_tokens=layout.part_tokens)
    spans += [
        (f"data/{aside}holdout-{number:05d}", count + first, count + last)
        for number, (first, last) in enumerate(held)
    ]
    return [
        Writing(
            plan=str(plan),
            chunks=str(work / "chunks"),
            choices=str(choices),
            first=first,
            last=last,
            name=f"{name}.{ENDINGS[layout.fmt]}",
            folder=str(mix),
            spec=layout.spec,
        )
        for name, first, last in spans
    ]
