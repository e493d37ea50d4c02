"""`curate doctor`: what is installed, what will be used, what is missing."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from pathlib import Path

import faiss
import torch

from curate.records import Finding

_NEEDED = ["torch", "transformers", "datasets", "faiss-cpu", "scikit-learn", "pyarrow", "numpy"]


def examine() -> list[Finding]:
    """Look at this installation; nothing is downloaded or changed."""
    return [
        Finding("curate", metadata.version("curate"), good=True),
        Finding("python", platform.python_version(), good=True),
        *map(_package, _NEEDED),
        _device(),
        _search(),
        _probe(),
        _gguf(),
        _targets(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name), good=True)
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", good=False, advice=f"pip install {name}")


def _device() -> Finding:
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Finding("device", f"{card.name}, {card.total_memory / 2**30:.0f} GiB", good=True)
    threads = torch.get_num_threads()
    return Finding("device", f"CPU, {threads} thread{'' if threads == 1 else 's'}", good=True)


def _search() -> Finding:
    if torch.cuda.is_available():
        return Finding("search", "exact on the GPU with torch; FAISS on the CPU", good=True)
    return Finding("search", f"FAISS {faiss.__version__} on the CPU", good=True)


def _probe() -> Finding:
    folder = Path(__file__).parent / "task2vec" / "builtin"
    there = (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()
    advice = "" if there else "install curate again: its wheel carries the probe"
    return Finding("built-in probe", "present" if there else "missing", good=there, advice=advice)


def _gguf() -> Finding:
    there = util.find_spec("gguf") is not None
    advice = "" if there else "only for --probe FILE.gguf: pip install 'curate[gguf]'"
    return Finding("gguf", "present" if there else "absent", good=True, advice=advice)


def _targets() -> Finding:
    folder = os.environ.get("CURATE_DATA_DIR", "")
    if not folder:
        advice = "curate targets says which can be reached"
        return Finding("named targets", "from the hub", good=True, advice=advice)
    there = Path(folder).is_dir()
    advice = "" if there else "CURATE_DATA_DIR names no folder"
    return Finding("named targets", f"from {folder}", good=there, advice=advice)
