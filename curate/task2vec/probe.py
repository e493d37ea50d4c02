"""Load the probe: the language model whose Fisher information embeds text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from curate.errors import CurateError
from curate.records import ProbeInfo
from curate.task2vec.foreign import check_text_sizes, one_line_errors
from curate.task2vec.gguf import read_gguf
from curate.task2vec.model_files import BUILTIN, fetch_model, find_revision, revision_of
from curate.task2vec.tokenizer import (
    ADVICE,
    digest_tokenizer,
    encode_with,
    literal,
    vocabulary_size,
)

__all__ = ["BUILTIN", "Probe", "encode_texts", "find_device", "find_revision", "load_probe"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A language model that is never trained, and its tokenizer."""

    model: Any = field(repr=False)  # a transformers causal model, eval mode, no gradients
    tokenizer: Any = field(repr=False)  # a transformers tokenizer
    info: ProbeInfo
    device: torch.device
    max_positions: int  # longest sequence it can read


def load_probe(name: str, *, device: str = "auto") -> Probe:
    """Load a probe in float32; on a GPU its blocks' matrices are bfloat16.

    Args:
        name: "builtin", a hub id with optional @revision, a folder, or a .gguf file.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …

    Returns:
        `model` and `tokenizer` of transformers; `info` with revision and size; `device`.

    Raises:
        CurateError: not there, hub out of reach, weights that are no safetensors, another
            kind of model, or no such device.
    """
    place = find_device(device)
    path = fetch_model(name)
    model, tokenizer = _load(name, path)
    model.eval().requires_grad_(False)
    vocab = int(model.get_output_embeddings().weight.shape[0])
    if (known := vocabulary_size(tokenizer)) > vocab:
        raise CurateError(
            f"{name}: its tokenizer has token ids up to {known - 1}, its model {vocab} tokens; "
            "use a probe whose files belong together"
        )
    info = ProbeInfo(
        name=name,
        revision=revision_of(path),
        tokenizer_digest=digest_tokenizer(tokenizer),
        n_parameters=sum(p.numel() for p in model.parameters()),
        vocab=vocab,
    )
    if place.type == "cuda":
        _narrow(model)
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    return Probe(model.to(place), tokenizer, info, place, int(limit or 1 << 20))


def encode_texts(probe: Probe, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    """Return each text's token ids; markup of special tokens in a text is read as text."""
    return encode_with(probe.tokenizer, texts, name=probe.info.name)


def find_device(device: str) -> torch.device:
    """Return the device of that name; of "auto", a GPU if there is one.

    Raises:
        CurateError: no such name or device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise CurateError(f"device {device}: not known; use auto, cpu or cuda") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise CurateError(f"device {device}: this machine has no such GPU; use --device cpu")
    return place


def _load(name: str, path: Path) -> tuple[Any, Any]:
    where: dict[str, Any] = {"pretrained_model_name_or_path": path}
    if path.is_file():
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    else:
        check_text_sizes(f"probe {name}", path)
    with one_line_errors(f"probe {name}", advice=ADVICE), quietly():
        model, missing = read_gguf(path) if path.is_file() else _read_folder(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            **where, trust_remote_code=False, local_files_only=True
        )
    if missing:
        raise CurateError(
            f"probe {name}: its weights lack {', '.join(sorted(missing)[:3])}; "
            "fetch the model again"
        )
    return model, literal(tokenizer)


def _read_folder(path: Path) -> tuple[Any, set[str]]:
    """Return the model of a folder, and the names of the weights that it lacks."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.float32,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        use_safetensors=True,
    )
    return model, set(report["missing_keys"])


def _narrow(model: Any) -> None:
    """Hold the matrices that autocast would cast at every pass as bfloat16 from the start."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if module is not head and isinstance(module, nn.Linear | Conv1D):
            module.to(torch.bfloat16)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
