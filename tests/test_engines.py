"""One stage function, wherever it runs: serial, processes, Ray and batch give the same bytes."""

import contextlib
import dataclasses
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from curate.engine.run import working_on
from curate.mixing import build as build_module
from curate.mixing import reading
from curate.mixing.build import build_mix
from curate.mixing.write import Layout
from curate.ranking.rank import rank_shards
from curate.records import Run, Target
from curate.settings import (
    CorpusSettings,
    EmbedSettings,
    MixSettings,
    RankSettings,
    RunSettings,
)
from curate.store.fingerprint import digest_texts
from curate.store.publish import read_json
from curate.task2vec.embed import build_index
from curate.verification.runs import plan_run, publish_documents
from curate.verification.schedule import train_runs
from curate.verification.train import TrainSettings
from tests.s3_double import keys_of
from tests.test_build import WORDS, make_texts
from tests.test_probe import save_probe

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


def train(place, workers):
    rng = np.random.default_rng(0)
    paths = [place / f"{name}.safetensors" for name in ("documents", "items", "control")]
    for path in paths:
        publish_documents(path, [rng.integers(1, 50, 40).astype(np.int32) for _ in range(30)])
    settings = TrainSettings(
        size="tiny", vocab=50, eos=0, tokens=1_024, block_tokens=32, batch_tokens=256,
        learning_rate=1e-2, seed=0,
    )  # fmt: skip
    items = [
        plan_run(
            place / "runs", arm=f"arm{seed}", settings=dataclasses.replace(settings, seed=seed),
            documents=paths[0], items=paths[1], control=paths[2], n_bytes=999, device="cpu",
        )
        for seed in range(3)
    ]  # fmt: skip
    train_runs(items, workers=workers)
    runs = [read_json(item.path, Run) for item in items]
    # The two fields that say when, and how long it took.
    return {run.arm: dataclasses.replace(run, seconds=0, started_at="") for run in runs}


@pytest.fixture(scope="module")
def serial(world, tmp_path_factory):
    place = tmp_path_factory.mktemp("serial")
    return index_and_mix(world, place, 1), train(place, 1)


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
        found, runs = index_and_mix(world, tmp_path, 2), train(tmp_path, 2)
    assert sorted(found) == sorted(serial[0])
    assert [name for name, data in serial[0].items() if found[name] != data] == []
    assert runs == serial[1]


# --- a Ray cluster of two nodes on this machine, and what may die in it ---


@pytest.fixture(scope="module")
def cluster(server):
    """Start it after the S3 server, whose address its workers find in their environment."""
    utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        # Ray waits 30 s for a node, which cannot be set; a busy machine needs more
        node = importlib.import_module("ray._private.node")
        patch.setattr(node, "time", SlowClock())
        found = utils.Cluster()
        add_node(found, include_dashboard=False)
        found.other = add_node(found)
        yield found
        found.shutdown()


def add_node(cluster, **settings):
    """Start a node of one core at known ports: it waits 15 s for agents to name theirs."""
    names = ("metrics_agent", "metrics_export", "runtime_env_agent")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(4)]
        ports = [each.getsockname()[1] for each in sockets]
    named = {f"{name}_port": port for name, port in zip(names, ports, strict=False)}
    return cluster.add_node(num_cpus=1, dashboard_agent_listen_port=ports[3], **named, **settings)


class SlowClock:
    """The module `time`, but ten seconds last a hundred."""

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self):
        return time.monotonic() / 10


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


def workers_of_ray():
    """Return the processes that work on an item now."""
    return [each for each in Path("/proc").glob("[0-9]*") if _named(each).startswith("ray::_work")]


def _named(process):
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


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
            os.kill(int(wait_for(workers_of_ray)[0].name), signal.SIGKILL)
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
import os, sys
from curate.settings import CorpusSettings, EmbedSettings, RunSettings, Settings
from curate.stages import index, mirrored

probe, workspace, address = sys.argv[1:]
settings = Settings(
    corpus=CorpusSettings(inputs=("in",), shard_tokens=300),
    embed=EmbedSettings(probe=probe, batches=2, batch_tokens=256, block_tokens=32, draws=15),
    run=RunSettings(engine="ray" if address else "local", address=address),
)
if address:
    with mirrored(workspace) as place:
        found = index(settings=settings, workspace=place, device="cpu")
else:
    found = index(settings=settings, workspace=workspace, device="cpu")
print(len(found.shards), len(found.rejected))
"""


def start_private_driver(world, private, workspace, address=""):
    """Start a driver whose folder and inputs no other process sees: a file system of its own."""
    folder, _, probe, _ = world
    script = 'mount -t tmpfs none "$0" && cd "$0" && cp -r "$1" in && shift && exec "$@"'
    arguments = [sys.executable, "-c", PRIVATE_DRIVER, probe, workspace, address]
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, str(private), str(folder / "in"), *arguments],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nodes_that_share_no_folder_publish_to_the_store(world, cluster, server, tmp_path):
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("the driver cannot have a file system of its own here")
    server.create_bucket(Bucket="afar")
    private = tmp_path / "private"
    private.mkdir()
    straight = start_private_driver(world, private, str(tmp_path / "serial"))
    said = straight.communicate()[0]
    driver = start_private_driver(world, private, "s3://afar/ws", cluster.address)
    there = wait_for(lambda: driver.poll() is not None or _embedded(keys_of(server, "afar")))
    assert "ws/index/meta.json" not in there
    os.kill(int(wait_for(workers_of_ray)[0].name), signal.SIGKILL)
    assert driver.communicate()[0] == said and said.split()[1] == "0"
    assert list(private.iterdir()) == []  # none but the driver could write there, or read
    serial = {
        f"ws/{path.relative_to(tmp_path / 'serial')}": path.read_bytes()
        for path in (tmp_path / "serial" / "index").rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    found = keys_of(server, "afar")
    assert {name: data for name, data in found.items() if "/index/" in name} == serial


def _embedded(found):
    done = [n for n in found if "/shards/" in n and n.endswith(".json")]
    return found if len(done) >= 3 else None
