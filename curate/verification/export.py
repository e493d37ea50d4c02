"""A verification as two tables: what was mixed, and what came of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from curate.harmless import csv_cell
from curate.records import Run, Verification
from curate.store.publish import publish_bytes

KEYS = ("run", "name", "index")
TABLES = ("ratios.csv", "metrics.csv")


def write_tables(verification: Verification, folder: Path) -> tuple[Path, Path]:
    """Write `ratios.csv` and `metrics.csv`, one row a run in one order; return their paths.

    Both begin with `run`, `name`, `index`, by which tools that fit mixture laws join them.
    `ratios.csv` has the share of each source, sum 1 (one called as a key is `index (source)`);
    `metrics.csv` the loss on the target
    (nats/token), bits per byte, and the loss on the control set where there is one.

    Args:
        verification: any.
        folder: made where it is not there.
    """
    arms = {arm.arm: arm for arm in verification.arms}
    sources = list(verification.arms[0].sources)
    keys = [(f"{run.arm}-seed{run.seed}", run.arm, n) for n, run in enumerate(verification.runs)]
    shares = [[arms[run.arm].sources[name] for name in sources] for run in verification.runs]
    ratios, metrics = (folder / name for name in TABLES)
    columns = [f"{name} (source)" if name in KEYS else name for name in sources]
    publish_bytes(ratios, _csv([*KEYS, *columns], _joined(keys, shares)))
    names = ["loss", "bpb", *(["control_loss"] if verification.runs[0].control_tokens else [])]
    values = [_metrics(run) for run in verification.runs]
    publish_bytes(metrics, _csv([*KEYS, *names], _joined(keys, values)))
    return ratios, metrics


def _metrics(run: Run) -> list[float]:
    found = [run.loss, run.bpb]
    if run.control_tokens:
        found.append(sum(run.control_nats) / sum(run.control_tokens))
    return found


def _joined(keys: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [[*key, *row] for key, row in zip(keys, rows, strict=True)]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode("utf-8")
