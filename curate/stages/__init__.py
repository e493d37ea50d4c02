"""The stages as plain functions: each finds in the workspace what the one before published."""

from curate.stages.indexing import index, plan, rejected
from curate.stages.mirror import mirrored
from curate.stages.mixing import build_mix, push
from curate.stages.ranking import check, compare, explain, rank
from curate.stages.reporting import open_artefact, write_report
from curate.stages.verifying import export_verification, plan_verification, verify
from curate.stages.workspace import WORKSPACE

__all__ = [
    "WORKSPACE",
    "build_mix",
    "check",
    "compare",
    "explain",
    "export_verification",
    "index",
    "mirrored",
    "open_artefact",
    "plan",
    "plan_verification",
    "push",
    "rank",
    "rejected",
    "verify",
    "write_report",
]
