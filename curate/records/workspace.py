"""What is known about a workspace and this installation."""

from __future__ import annotations

from dataclasses import dataclass

from curate.records.mixing import Mix
from curate.records.ranking import Ranking
from curate.records.task2vec import Index
from curate.records.verification import Verification
from curate.settings import Settings


@dataclass(frozen=True, slots=True)
class StageRun:
    """One run of a stage: what it used and what it cost."""

    stage: str
    command: str  # that repeats it, given these settings in a curate.toml
    at: str  # UTC, ISO 8601: when it started
    seconds: float
    cpu_seconds: float  # of this process and its finished children
    peak_bytes: int  # resident memory at most since the process started
    ended: bool  # False: an error or an interrupt
    fingerprint: str  # of what it published
    device: str  # as asked for
    settings: Settings  # the sections that the stage used; the others at their defaults
    versions: dict[str, str]  # package, python, machine → version


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `curate doctor`."""

    what: str
    found: str
    good: bool
    advice: str = ""  # what to do where it is not good


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """One line of `curate targets`."""

    name: str
    hub: str  # hub id and pinned commit
    select: str  # split that ranking may see
    eval: str  # split that only verification sees
    licence: str
    at_hand: str  # the folder it is read from, or "" where only the hub has it
    about: str = ""
    reach: str = ""  # folder, cache (of the hub client) or hub; "" where it cannot be read now


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found, good or bad."""

    index: Index
    ranking: Ranking
    mix: Mix
    verification: Verification
    expected: tuple[str, ...]  # the sources that a person would name
    found: tuple[str, ...]  # the sources of as many best shards
    report: str
    seconds: float

    @property
    def ranking_found_them(self) -> bool:
        """Say whether the best shards are the ones that a person would name."""
        return set(self.found) == set(self.expected)
