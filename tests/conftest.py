"""Small, real fixtures: a corpus of three kinds of text and a target of one of them."""

import inspect
import json
import os
import textwrap

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
