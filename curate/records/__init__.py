"""The records that pass between the rooms: frozen, plain, with their units."""

from curate.records.corpus import Document, FileLedger, Group, RecordRange, Shard, ShardText, Target
from curate.records.mixing import Excerpt, Forecast, LeftOut, Mix, MixContents, MixPart, MixTopic
from curate.records.ranking import (
    AlignmentCheck,
    Comparison,
    Contribution,
    Explanation,
    RankedShard,
    Ranking,
    SourceChange,
)
from curate.records.task2vec import (
    Embedding,
    Index,
    IndexedShard,
    IndexPlan,
    PlannedSource,
    ProbeInfo,
    RejectedShard,
    RowBlock,
)
from curate.records.values import NOT_MEASURED, Counts, Floats, Interval, Notify, silent
from curate.records.verification import ArmResult, Run, Verdict, Verification, VerificationPlan
from curate.records.workspace import DemoResult, Finding, NamedTarget, StageRun

__all__ = [
    "NOT_MEASURED",
    "AlignmentCheck",
    "ArmResult",
    "Comparison",
    "Contribution",
    "Counts",
    "DemoResult",
    "Document",
    "Embedding",
    "Excerpt",
    "Explanation",
    "FileLedger",
    "Finding",
    "Floats",
    "Forecast",
    "Group",
    "Index",
    "IndexPlan",
    "IndexedShard",
    "Interval",
    "LeftOut",
    "Mix",
    "MixContents",
    "MixPart",
    "MixTopic",
    "NamedTarget",
    "Notify",
    "PlannedSource",
    "ProbeInfo",
    "RankedShard",
    "Ranking",
    "RecordRange",
    "RejectedShard",
    "RowBlock",
    "Run",
    "Shard",
    "ShardText",
    "SourceChange",
    "StageRun",
    "Target",
    "Verdict",
    "Verification",
    "VerificationPlan",
    "silent",
]
