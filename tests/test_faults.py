"""A small run of every fault suite in a process of its own; the full one by `make faults`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import SUITES
from tests.faults.world import DONE

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found():
    """What each suite found, by its name."""
    command = [sys.executable, "-m", "tests.faults", "--small"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CURATE_FAILPOINT": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(SUITES), done.stderr
    return {line["suite"]: line for line in lines}


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("suite", SUITES)
def test_nothing_is_lost_and_nothing_wrong_is_used(found, suite):
    assert found[suite]["failures"] == []


def test_the_suites_did_what_they_say(found):
    """A suite whose fault never came would pass for ever."""
    kills = found["kill"]
    assert kills["mid_run"] == kills["trials"] >= 8
    assert set(kills["by_command"]) == set(DONE)
    assert found["kill again"]["kills"] >= 1
    refused = found["refuse"]
    assert refused["ended"].get("1", 0) > refused["trials"] / 2
    assert len(refused["by_kind"]) >= 2
    assert set(refused["by_kind"]) <= {"open", "write", "fsync", "rename"}
    assert found["flip"]["flips"] >= 10 and ".safetensors" in found["flip"]["kinds"]
    assert found["out of memory"]["halved"] > 0
    assert found["together"]["codes"]["5"] > 0
    disks = found["small disks"]
    assert "skipped" in disks or set(disks["full_at"]) - {"nowhere"}
