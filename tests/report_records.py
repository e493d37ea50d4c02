"""Records of a whole job, small and hand-made, that the tests of the report share."""

import dataclasses
import math

from curate.records import (
    ArmResult,
    Comparison,
    Excerpt,
    FileLedger,
    Forecast,
    Index,
    IndexedShard,
    Interval,
    LeftOut,
    Mix,
    MixContents,
    MixPart,
    MixTopic,
    ProbeInfo,
    RankedShard,
    Ranking,
    RecordRange,
    Run,
    Shard,
    StageRun,
    Verification,
)
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    Settings,
    TargetSettings,
    VerifySettings,
)

SOURCES = (
    "scipy-docstrings", "numpy-docstrings", "sympy-docstrings", "networkx-docstrings",
    "pydoc-topics", "stdlib-code", "sympy-code", "sklearn-code", "html-pages", "c-headers",
    "licences", "locale-catalogues", "json-data", "csv-tables", "changelogs",
)  # fmt: skip

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31mC1",
    "a\u202egnp.exe",
    "</script><script>alert(1)</script>",
    "[/][bold]markup[/bold]",
    '"><img src=x onerror=alert(1)>',
    "$x^{_2$ and `tick` | pipe",
    "line one\nline two\ttab",
    "n" * 300,
    "名前" * 50,
    "zero\u200bwidth\ud800",
)


def ledgers() -> tuple[FileLedger, ...]:
    return (
        FileLedger("data/docs.jsonl.zst", "d" * 64, 12_345_678, 1_000, 996, {"bad_json": 4}),
        FileLedger("data/code.jsonl", "e" * 64, 2_000, 50, 47, {"empty": 3}, "cut at byte 1,999"),
        FileLedger("data/law.jsonl", "f" * 64, 1_000, 10, 10, {}),
    )


def index(names: tuple[str, ...] = SOURCES) -> Index:
    shards = tuple(
        IndexedShard(
            Shard(name, name, (RecordRange(name, "d", 0, 9),), 100 + i, 60_000 + 4_000 * i, "s"),
            key=f"key{i}",
        )
        for i, name in enumerate(names)
    )
    return Index(
        folder=".curate/index",
        fingerprint="f" * 64,
        shards=shards,
        probe=ProbeInfo("builtin", "r" * 40, "t" * 64, 4_200_000, 4_096),
        blocks=(),
        corpus=CorpusSettings(inputs=("corpus dir", "hf:org/name"), shard_tokens=250_000),
        embed=EmbedSettings(),
        ledgers=ledgers(),
    )


def ranking(names: tuple[str, ...] = SOURCES, *, target: str = "scipy-held-out") -> Ranking:
    shards = []
    count = len(names)
    for i, name in enumerate(names):
        value = 0.93 - 0.62 * (i / max(count - 1, 1)) ** 0.8
        shards.append(
            RankedShard(
                rank=i + 1,
                shard=name,
                source=name,
                tokens=60_000 + 4_000 * i,
                alignment=value,
                low=value - 0.03,
                high=value + 0.025,
                rank_low=max(1, i),
                rank_high=min(count, i + 3),
                tied_with_next=i in (0, 1, 4) and i + 1 < count,
            )
        )
    places = [
        (name, math.cos(2.4 * i) * (0.4 + 0.13 * i), math.sin(2.4 * i) * (0.3 + 0.06 * i))
        for i, name in enumerate(names)
    ]
    return Ranking(
        target=target,
        method="task2vec",
        measure="scaled",
        ceiling=0.97,
        floor=0.12,
        shards=tuple(shards),
        select_digest="1" * 64,
        index_fingerprint="f" * 64,
        fingerprint="2" * 64,
        warnings=("only 40 items in the select split: intervals are wide",),
        map=(*places, (target, 0.1, 0.05)),
    )


def mix(names: tuple[str, ...] = SOURCES) -> Mix:
    parts = tuple(
        MixPart(name, name, tokens, 1.0, 0.93 - 0.02 * i)
        for i, (name, tokens) in enumerate(
            zip(names[:5], (96_000, 71_000, 60_000, 48_000, 25_000), strict=False)
        )
    )
    tokens = sum(part.tokens for part in parts)
    return Mix(
        folder="mix",
        target="scipy-held-out",
        budget=tokens,
        tokens=tokens,
        alignment=0.912,
        low=0.88,
        high=0.93,
        forecast=Forecast(0.35, 0.2, 0.5, "lexical cross-entropy"),
        parts=parts,
        decontaminated=7,
        duplicates=31,
        ranking_fingerprint="2" * 64,
        fingerprint="3" * 64,
    )


def run(arm: str, seed: int, level: float) -> Run:
    curve = tuple(
        (
            2_048 * (step + 1),
            level + 3.5 * math.exp(-step / 18) + 0.03 * math.sin(step * (seed + 2)),
        )
        for step in range(146)
    )
    return Run(arm, seed, 300_000, level, level / 2.6, (12.0, 30.5), (4, 9), curve, 11.5)


def verification() -> Verification:
    levels = {
        "mix": (4.212, 0.91), "random": (4.548, 0.67), "worst": (5.106, 0.33),
        "calibration-0": (4.32, 0.84), "calibration-1": (4.44, 0.74),
        "calibration-2": (4.71, 0.55), "calibration-3": (4.90, 0.45),
    }  # fmt: skip
    forecasts = {"mix": 4.23, "random": 4.55, "worst": 5.03}
    arms = tuple(
        ArmResult(arm, loss, loss - 0.04, loss + 0.05, 3, alignment, forecasts.get(arm, math.nan))
        for arm, (loss, alignment) in levels.items()
    )
    return Verification(
        target="scipy-held-out",
        verdict="confirmed",
        sentence="Training on the mix lowers the loss on scipy-held-out by 0.336 nats/token against"
        " a random mix of as many tokens; 0.318 was forecast.",
        drop=Interval(0.336, 0.281, 0.392),
        forecast=Forecast(0.318, 0.21, 0.43, "five calibration arms", "2025-01-01T00:00:00Z"),
        arms=arms,
        runs=tuple(
            run(arm, seed, level) for arm, (level, _) in levels.items() for seed in (0, 1, 2)
        ),
        slope=Interval(-1.52, -1.7, -1.3),
        spearman=0.96,
        unigram_entropy=6.21,
        warnings=(),
        fingerprint="4" * 64,
    )


def comparison(*, what: str = "targets", columns: tuple[str, ...] = ("proofnet", "gsm8k")):
    shards = ranking().shards
    values = tuple(
        tuple(shard.alignment * (1 - 0.3 * number) for shard in shards)
        for number in range(len(columns))
    )
    ranks = tuple(tuple(range(1, len(shards) + 1)) for _ in columns)
    agreement = tuple(
        tuple(1.0 if a == b else 0.5 for b in range(len(columns))) for a in range(len(columns))
    )
    return Comparison(columns, what, columns[0], shards, values, ranks, agreement)


def contents(text: str = "Return the <b>mean</b> of x.") -> MixContents:
    row = Excerpt("numpy-docstrings", "numpy.mean", text)
    return MixContents(
        rows=1_900,
        tokens=300_000,
        examples=(row, Excerpt("scipy-docstrings", "scipy.stats", text)),
        topics=(MixTopic(("array", "axis", text), 0.7, row), MixTopic((), 0.3, row)),
        left_out=(
            LeftOut("leak", "numpy-docstrings", "numpy.var", "select:4", text, 0.0),
            LeftOut("near", "numpy-docstrings", "numpy.std", "numpy-docstrings:3", "", 0.83),
            LeftOut("exact", "licences", text, "licences:1", "", 1.0),
        ),
    )


def history() -> list[StageRun]:
    stages = {
        "index": (index(), "curate index", Settings(corpus=CorpusSettings(inputs=("data/*",)))),
        "rank": (ranking(), "curate rank", Settings(target=TargetSettings(name="proofnet"))),
        "build-mix": (mix(), "curate build-mix --out mix", Settings(mix=MixSettings(300_000))),
        "verify": (verification(), "curate verify", Settings(verify=VerifySettings(seeds=5))),
    }
    return [
        StageRun(
            stage=stage,
            command=command,
            at="2025-01-01T00:00:00+00:00",
            seconds=60.0,
            cpu_seconds=110.0,
            peak_bytes=1_500_000_000,
            ended=True,
            fingerprint=record.fingerprint,
            device="cpu",
            settings=settings,
            versions={"curate": "0.1.0", "torch": "2.13.0"},
        )
        for stage, (record, command, settings) in stages.items()
    ]


def with_a_task(name: str = "lm-eval:arc_easy acc") -> Verification:
    """A verification whose runs were asked a task."""
    whole = verification()
    arms = tuple(
        dataclasses.replace(
            arm, outcomes={name: Interval(0.5 - n / 10, 0.4 - n / 10, 0.6 - n / 10)}
        )
        for n, arm in enumerate(whole.arms)
    )
    return dataclasses.replace(whole, arms=arms, outcomes={name: Interval(0.1, -0.02, 0.22)})
