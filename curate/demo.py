"""`curate demo`: the whole job on text that every installation has."""

from __future__ import annotations

import time
from pathlib import Path

from curate import stages
from curate.corpus.example import write_example
from curate.records import DemoResult, Notify, silent
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    Settings,
    TargetSettings,
    VerifySettings,
)

BUDGET = 200_000  # tokens: what two CPU cores train a dozen times in two minutes


def demo_settings(inputs: Path, target: str) -> Settings:
    """Return the settings of the demo: small numbers, nothing else is special."""
    return Settings(
        corpus=CorpusSettings(inputs=(str(inputs),)),
        embed=EmbedSettings(batches=4, batch_tokens=2_048),
        target=TargetSettings(name=target),
        mix=MixSettings(budget=BUDGET),
        verify=VerifySettings(size="tiny", seeds=3, calibration=4),
    )


def run_demo(folder: Path, *, device: str = "auto", notify: Notify = silent) -> DemoResult:
    """Write the example, index, rank, build the mix, verify it, and write the report.

    Args:
        folder: where all of it goes; a second run reuses what is unchanged.
        device: auto, cpu or cuda.
        notify: progress.

    Raises:
        CurateError: as the stages.
    """
    started = time.monotonic()
    example = write_example(folder)
    settings = demo_settings(example.inputs, f"example={example.select},{example.eval}")
    place = folder / stages.WORKSPACE
    index = stages.index(settings=settings, workspace=place, device=device, notify=notify)
    ranking = stages.rank(settings=settings, workspace=place, device=device, notify=notify)
    mix = stages.build_mix(settings=settings, workspace=place, out=folder / "mix", notify=notify)
    verification = stages.verify(settings=settings, workspace=place, device=device, notify=notify)
    best = ranking.shards[: len(example.best_sources)]
    return DemoResult(
        index=index,
        ranking=ranking,
        mix=mix,
        verification=verification,
        expected=example.best_sources,
        found=tuple(shard.source for shard in best),
        report=str(stages.write_report(workspace=place, out=folder / "report.html")),
        seconds=time.monotonic() - started,
    )
