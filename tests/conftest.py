"""Small, real fixtures: a corpus of three kinds of text and a target of one of them."""

import contextlib
import inspect
import json
import os
import random
import socket
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import s3_double

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test of the default suite asks the hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("CURATE_WORKSPACE", None)
torch.set_num_threads(1)  # several test processes share few cores; waiting threads only spin


def write_jsonl(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": f"{path.stem}-{n}", "text": t}) for n, t in enumerate(texts))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def numpy_docstrings():
    found = {name: inspect.getdoc(getattr(np, name)) for name in sorted(dir(np))[:]}
    texts = [doc for name, doc in found.items() if doc and len(doc) > 400 and name.islower()]
    return list(dict.fromkeys(texts))


def python_sources():
    import argparse
    import ast
    import http.client
    import tarfile

    pieces = []
    for module in (argparse, ast, http.client, tarfile):
        source = inspect.getsource(module)
        pieces += [source[n : n + 1500] for n in range(0, len(source), 1500)]
    return pieces


def licence_prose():
    """Legal prose that Python itself carries, cut into paragraphs."""
    from pydoc_data import topics

    return [textwrap.dedent(text)[:1500] for text in topics.topics.values() if len(text) > 500]


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """Three sources: numpy's docstrings (half of them), Python code, Python's reference manual."""
    folder = tmp_path_factory.mktemp("corpus")
    write_jsonl(folder / "docstrings.jsonl", numpy_docstrings()[::2][:120])
    write_jsonl(folder / "code.jsonl", python_sources()[:120])
    write_jsonl(folder / "manual.jsonl", licence_prose()[:90])
    return folder


@pytest.fixture(scope="session")
def target_files(tmp_path_factory):
    """How the other half of numpy's docstrings begin, as select and eval split.

    Each run of a verification reads the eval split seven times: its length is what a run costs.
    """
    folder = tmp_path_factory.mktemp("target")
    rest = [text[:600] for text in numpy_docstrings()[1::2]]
    select = write_jsonl(folder / "select.jsonl", rest[:40])
    return select, write_jsonl(folder / "eval.jsonl", rest[40:80])


CONFIG = """
[corpus]
inputs = ["{corpus}"]
shard_tokens = 30000

[embed]
batches = 2
batch_tokens = 64
block_tokens = 32

[target]
name = "t={select},{eval}"

[rank]
bootstrap = 50
"""


@pytest.fixture
def job(corpus_folder, target_files, tmp_path, monkeypatch):
    """A folder with a curate.toml, which is the current one."""
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.chdir(folder)
    text = CONFIG.format(corpus=corpus_folder, select=target_files[0], eval=target_files[1])
    Path("curate.toml").write_text(text)
    return folder


class SlowClock:
    """The module `time`, but ten seconds last a hundred."""

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self):
        return time.monotonic() / 10


@pytest.fixture(scope="module")
def patient_ray():
    """Let nodes of Ray that start here take minutes, as on a busy machine they do.

    Ray waits 30 s for a node, and the node 15 s for each agent to write down its port; neither
    can be set. So the clock is slow, and the ports are written down before.
    """
    node = pytest.importorskip("ray._private.node")
    raylet = pytest.importorskip("ray._raylet")
    real, names = node.Node.start_raylet, ("metrics_agent", "metrics_export", "runtime_env_agent")

    def start_raylet(self, *given, **named):
        ports = free_ports(4)
        for name, port in zip(("dashboard_agent_listen", *names), ports, strict=True):
            setattr(self._ray_params, f"{name}_port", port)
        raylet.persist_port(
            self._session_dir, self._node_id, raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME, ports[0]
        )
        return real(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "time", SlowClock())
        patch.setattr(node.Node, "start_raylet", start_raylet)
        yield


def free_ports(count):
    """Return ports below those that the system hands out: nobody takes one before Ray has."""
    found = []
    for port in random.Random(os.getpid() + time.monotonic_ns()).sample(range(20_000, 32_000), 99):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def server():
    """A client of a local S3 server."""
    with s3_double.running() as client:
        yield client


@pytest.fixture
def bucket(server, request):
    name = "b-" + str(abs(hash(request.node.name)))
    server.create_bucket(Bucket=name)
    return name
