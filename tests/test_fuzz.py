"""A thousand damaged files in a process of their own; ten thousand and the bombs by `make fuzz`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz

ROOT = Path(__file__).parents[1]


def fuzz_process(*words, timeout=280):
    command = [sys.executable, "-m", "tests.fuzz", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=timeout, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


def test_there_are_24_mutators_and_each_changes_a_file():
    assert len(fuzz.MUTATORS) == 24
    whole = {ending: fuzz.PACK[ending](b"\n".join(fuzz.lines_of(ending)) + b"\n")
             for ending in fuzz.PACK}  # fmt: skip
    for mutator in fuzz.MUTATORS:
        assert fuzz.damaged(".jsonl", mutator, fuzz.random.Random(1)) != whole[".jsonl"], mutator


def test_every_damage_to_every_format_is_accounted_for(tmp_path):
    """In this process, so that what is changed in the reader is seen by it."""
    found = fuzz.run(len(fuzz.MUTATORS) * len(fuzz.FORMATS), 1, tmp_path)
    assert found["failures"] == []


def test_every_record_of_a_thousand_damaged_files_is_accounted_for():
    found = json.loads(fuzz_process("--cases", 1000))
    assert found["failures"] == []
    assert found["slowest_s"] < fuzz.SLOW_S
    assert found["rss_mb"] < fuzz.MAX_RSS_MB
    assert sum(sum(counts.values()) for counts in found["by_format"].values()) == 1000


@pytest.mark.slow
@pytest.mark.timeout(1200)  # fifteen processes, one after the other
def test_no_bomb_fills_the_memory(tmp_path):
    names = fuzz_process("--write-bombs", tmp_path).split()
    assert len(names) == 14
    for name in names:
        found = json.loads(fuzz_process("--bomb", name))
        assert found["failures"] == []
        assert found["rss_mb"] < fuzz.MAX_RSS_MB, found
        assert found["seconds"] < fuzz.SLOW_S, found
