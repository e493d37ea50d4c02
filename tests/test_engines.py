"""One stage function, wherever it runs: serial, processes, Ray and batch give the same bytes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.engine.run import run_items, working_on
from curate.mixing import build as build_module
from curate.mixing import reading
from curate.mixing.build import build_mix
from curate.mixing.write import Layout
from curate.ranking.rank import rank_shards
from curate.records import Target
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    RankSettings,
    RunSettings,
)
from curate.store.fingerprint import digest_texts
from curate.task2vec.embed import build_index
from curate.verification.experiment import run_experiment
from tests.s3_double import keys_of, names_of
from tests.test_build import WORDS, make_texts
from tests.test_probe import save_probe
from tests.test_verify import SETTINGS, arm_documents, make_experiment, outcome

STAND_IN = """#!/bin/bash
# What a batch system does: run the script once for each task of its array, all at once.
first=$(grep -c . /dev/null); last=$(sed -n 's/^#SBATCH --array=0-//p' "$1"); failed=0
for task in $(seq $first $last); do
  (cd "$(sed -n 's/^#SBATCH --chdir=//p' "$1")" && SLURM_ARRAY_TASK_ID=$task sh "$1") &
done
wait
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three sources of several small shards, a target, a probe of a few thousand weights."""
    folder = tmp_path_factory.mktemp("engines")
    rng = random.Random(0)
    items = make_texts(rng, "math", 24, size=(20, 40))
    target = Target(
        "sums", tuple(items[:12]), tuple(items[12:]),
        digest_texts(items[:12]), digest_texts(items[12:]), "made in code",
    )  # fmt: skip
    (folder / "in").mkdir()
    for kind in WORDS:
        lines = [
            json.dumps({"text": text, "id": f"{kind}{n}"})
            for n, text in enumerate(make_texts(rng, kind, 40))
        ]
        (folder / "in" / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
    script = folder / "sbatch"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    return folder, target, str(save_probe(folder / "probe")), str(script)


@pytest.fixture(scope="module", autouse=True)
def small_items():
    """Cut the work of a tiny mix in several items."""
    with pytest.MonkeyPatch.context() as patch:
        small = Layout(part_tokens=1_000, chunk_chars=2_000)
        patch.setattr(build_module, "_layout", lambda *_: small)
        patch.setitem(reading.divide.__kwdefaults__, "task_tokens", 1_500)
        yield


def tree(*folders):
    return {
        f"{folder.name}/{path.relative_to(folder)}": path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and "batch" not in path.parts
    }


def index_and_mix(world, place, workers):
    folder, target, probe, _ = world
    index = build_index(
        CorpusSettings(inputs=(str(folder / "in"),), shard_tokens=2_000),
        EmbedSettings(probe=probe, batches=2, batch_tokens=256, block_tokens=32),
        workspace=place / "ws",
        device="cpu",
        workers=workers,
    )
    ranking = rank_shards(
        index, target, RankSettings(method="task2vec"), workspace=place / "ws", device="cpu"
    )
    build_mix(
        index, ranking, target, MixSettings(budget=4_001),
        workspace=place / "ws", out=place / "mix", workers=workers,
    )  # fmt: skip
    (place / "ws" / "mix.json").unlink()  # names the folder
    return tree(place / "ws", place / "mix")


def verify(place, workers):
    """Train for a verification; return all but when it was, and the names of its files."""
    folder = place / "verify"
    found = run_experiment(make_experiment(folder), arm_documents, SETTINGS, workers=workers)
    return outcome(found), sorted(tree(folder))


@pytest.fixture(scope="module")
def serial(world, tmp_path_factory):
    place = tmp_path_factory.mktemp("serial")
    return index_and_mix(world, place, 1), verify(place, 1)


@pytest.mark.parametrize(
    "engine",
    [
        "local",
        pytest.param("batch", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(3000)
def test_every_engine_publishes_the_bytes_of_a_serial_run(world, serial, tmp_path, engine, request):
    address = request.getfixturevalue("cluster").address if engine == "ray" else ""
    settings = RunSettings(engine=engine, workers=2, submit=world[3], address=address)
    with working_on(settings, folder=tmp_path / "batch"):
        found, runs = index_and_mix(world, tmp_path, 2), verify(tmp_path, 2)
    assert sorted(found) == sorted(serial[0])
    assert [name for name, data in serial[0].items() if found[name] != data] == []
    assert runs == serial[1]


# --- a Ray cluster of two nodes on this machine, and what may die in it ---


@pytest.fixture(scope="module")
def cluster(server, patient_ray):
    """Start it after the S3 server, whose address its workers find in their environment."""
    utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else its workers wait for all others here
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        found = utils.Cluster()
        add_node(found, include_dashboard=False)
        found.other = add_node(found)
        yield found
        found.shutdown()


def add_node(cluster, **settings):
    """Start a node of one core."""
    return cluster.add_node(num_cpus=1, **settings)


DRIVER = """
import sys
from pathlib import Path
from curate.engine.run import working_on
from curate.settings import CorpusSettings, EmbedSettings, RunSettings
from curate.task2vec.embed import build_index

texts, probe, workspace, engine, address = sys.argv[1:]
with working_on(RunSettings(engine=engine, address=address), folder=Path(workspace, "batch")):
    index = build_index(
        CorpusSettings(inputs=(texts,), shard_tokens=300),
        EmbedSettings(probe=probe, batches=2, batch_tokens=256, block_tokens=32, draws=15),
        workspace=Path(workspace), device="cpu",
    )
print(len(index.shards), len(index.rejected))
"""


def start_driver(world, workspace, engine="ray", address=""):
    folder, _, probe, _ = world
    arguments = [str(folder / "in"), probe, str(workspace), engine, address]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, text=True
    )


def embeddings(workspace):
    return {
        path: path.stat().st_mtime_ns
        for path in (workspace / "index" / "shards").glob("*.safetensors")
        if not path.name.startswith(".")
    }


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def kill_a_worker():
    """Kill a process that works on an item now, of a node that this process has started."""
    while True:
        victim = wait_for(workers_of_ray)[0]
        with contextlib.suppress(ProcessLookupError):  # it may have ended since
            return os.kill(victim, signal.SIGKILL)


def workers_of_ray():
    found = [int(each.name) for each in Path("/proc").glob("[0-9]*") if at_work(each)]
    return [pid for pid in found if parent(parent(pid)) == os.getpid()]  # by way of a raylet


def at_work(process):
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes().startswith(b"ray::_work")
    return False


def parent(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_items_are_spread_over_the_nodes_and_counted_as_they_end(cluster, tmp_path):
    def look(item):
        time.sleep(1)
        return os.getppid()  # the raylet: of its node

    settings, told = RunSettings(engine="ray", address=cluster.address), []
    with working_on(settings, folder=tmp_path):
        found = run_items(look, range(16), what="look", notify=lambda *step: told.append(step))
        raylets = list(found)
    assert len(set(raylets)) == 2 and min(map(raylets.count, raylets)) >= 4
    assert told == [("look", done, 16) for done in range(1, 17)]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_worker_a_node_and_the_driver_may_die(world, cluster, tmp_path):
    straight = start_driver(world, tmp_path / "straight", engine="local")
    n_shards = int(straight.communicate()[0].split()[0])
    for victim in ("worker", "node", "driver"):
        workspace = tmp_path / victim
        driver = start_driver(world, workspace, address=cluster.address)
        wait_for(lambda: len(embeddings(workspace)) >= 5)  # noqa: B023
        before = embeddings(workspace)
        assert len(before) < n_shards - 5, "too fast to be killed"
        if victim == "worker":
            kill_a_worker()
        elif victim == "node":
            cluster.remove_node(cluster.other, allow_graceful=False)
        else:
            driver.kill()
        said = driver.communicate()[0]
        if victim == "driver":
            killed_at = embeddings(workspace)
            again = start_driver(world, workspace, address=cluster.address)
            said = again.communicate()[0]
            after = embeddings(workspace)
            # what was published stays; the two workers lost what they had in hand, at most
            assert all(after[path] == when for path, when in killed_at.items())
        assert said.split() == [str(n_shards), "0"]
        assert all(embeddings(workspace)[path] == when for path, when in before.items())
        assert tree(workspace) == {
            name.replace("straight/", f"{victim}/"): data
            for name, data in tree(tmp_path / "straight").items()
        }
        if victim == "node":
            cluster.other = add_node(cluster)


PRIVATE_DRIVER = """
import contextlib, dataclasses, sys
from curate.errors import CurateError
from curate.settings import (
    CorpusSettings, EmbedSettings, RunSettings, Settings, TargetSettings, VerifySettings,
)
from curate.stages import build_mix, index, mirrored, rank, verify

probe, workspace, address = sys.argv[1:]
here = Settings(
    corpus=CorpusSettings(inputs=("in",), shard_tokens=600),
    embed=EmbedSettings(probe=probe, batches=2, batch_tokens=256, block_tokens=32, draws=8),
    target=TargetSettings(name="sums=select.jsonl,eval.jsonl"),
    verify=VerifySettings(
        size="tiny", tokens=2048, seeds=1, calibration=2, block_tokens=32, batch_tokens=256,
        eval_items=20, control_items=0,
    ),
)
there = dataclasses.replace(here, run=RunSettings(engine="ray", address=address))
far = there if address else here
with mirrored(workspace) if address else contextlib.nullcontext(workspace) as place:
    found = index(settings=far, workspace=place, device="cpu")
print(len(found.shards), len(found.rejected))
with mirrored(workspace) if address else contextlib.nullcontext(workspace) as place:
    rank(settings=here, workspace=place, device="cpu")
    if address:
        try:
            build_mix(3000, settings=there, workspace=place)
        except CurateError as error:
            print(error, file=sys.stderr)
    build_mix(3000, settings=here, workspace=place)
    print(verify(settings=far, workspace=place, device="cpu").runs[0].loss)
"""


def start_private_driver(world, private, workspace, address=""):
    """Start a driver whose folder and inputs no other process sees: a file system of its own."""
    folder, target, probe, _ = world
    for split in ("select", "eval"):
        lines = [json.dumps({"text": text}) + "\n" for text in getattr(target, split)]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    script = """mount -t tmpfs none "$0" && cd "$0" && cp -r "$1"/in "$1"/*.jsonl .
        shift && exec "$@" """
    arguments = [sys.executable, "-c", PRIVATE_DRIVER, probe, workspace, address]
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, str(private), str(folder), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nodes_that_share_no_folder_publish_to_the_store(world, cluster, server, tmp_path):
    """An index, a worker killed in it, and the runs of a verification; a mix is refused."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("the driver cannot have a file system of its own here")
    server.create_bucket(Bucket="afar")
    private = tmp_path / "private"
    private.mkdir()
    said, errors = start_private_driver(world, private, str(tmp_path / "ws")).communicate()
    assert said.split()[1] == "0" and len(said.split()) == 3, errors
    driver = start_private_driver(world, private, "s3://afar/ws", cluster.address)
    there = wait_for(lambda: driver.poll() is not None or _embedded(names_of(server, "afar")))
    assert there is not True, driver.communicate()
    assert "ws/index/meta.json" not in there
    kill_a_worker()
    far, errors = driver.communicate()
    assert far == said, errors  # shards, and the loss to its last digit
    assert f"does not see {private}/.curate/stores/s3/afar/ws/batch; share that" in errors
    assert list(private.iterdir()) == []  # none but the driver could write there, or read
    serial = {
        f"ws/{path.relative_to(tmp_path / 'ws')}": path.read_bytes()
        for path in (tmp_path / "ws").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    own = {"ws/history.jsonl", "ws/mix.json"}  # of a machine
    found = keys_of(server, "afar")
    assert sorted(found) == sorted(set(serial) - own)
    timed = [name for name in found if name.startswith("ws/verify/")]  # they say when
    placed = "ws/target.json"  # it says where the target's files are from the workspace
    assert [n for n in found if n not in (*timed, placed) and found[n] != serial[n]] == []
    runs = [name for name in timed if "/runs/" in name]
    assert len(runs) == 5 and [_without_times(found[n]) for n in runs] == [
        _without_times(serial[n]) for n in runs
    ]


def _without_times(run):
    return {k: v for k, v in json.loads(run).items() if k not in TIMED}


TIMED = {"blake2b", "seconds", "started_at", "forecast"}


def _embedded(found):
    done = [n for n in found if "/shards/" in n and n.endswith(".safetensors")]
    return found if len(done) >= 3 else None
