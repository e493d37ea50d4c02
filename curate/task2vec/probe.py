"""Load the probe: the language model whose Fisher information embeds text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import numpy as np
import numpy.typing as npt
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn
from transformers.pytorch_utils import Conv1D

from curate.errors import CurateError
from curate.records import ProbeInfo
from curate.store.fingerprint import digest_bytes, digest_file, fingerprint
from curate.task2vec.foreign import check_text_sizes, one_line_errors
from curate.task2vec.gguf import read_gguf

BUILTIN = Path(__file__).parent / "builtin"
_TOKENIZER_FILES = ("*.json", "*.model", "*.txt")
_ADVICE = "use a causal language model that transformers knows"


@dataclass(frozen=True, slots=True)
class Probe:
    """A language model that is never trained, and its tokenizer."""

    model: Any  # a transformers causal language model, eval mode, no gradients
    tokenizer: Any  # a transformers tokenizer
    info: ProbeInfo
    device: torch.device
    max_positions: int  # longest sequence it can read


def load_probe(name: str, *, device: str = "auto") -> Probe:
    """Load a probe in float32; on a GPU its blocks' matrices are bfloat16.

    Args:
        name: "builtin", a hub id with optional @revision, a folder, or a .gguf file.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …

    Raises:
        CurateError: not there, hub out of reach, weights that are no safetensors, another
            kind of model, or no such device.
    """
    place = find_device(device)
    path = fetch_model(name)
    model, tokenizer = _load(name, path)
    model.eval().requires_grad_(False)
    vocab = int(model.get_output_embeddings().weight.shape[0])
    if len(tokenizer) > vocab:
        raise CurateError(
            f"{name}: its tokenizer knows {len(tokenizer)} tokens, its model {vocab}; "
            "use a probe whose files belong together"
        )
    info = ProbeInfo(
        name=name,
        revision=revision_of(path),
        tokenizer_digest=_digest_tokenizer(tokenizer),
        n_parameters=sum(p.numel() for p in model.parameters()),
        vocab=vocab,
    )
    if place.type == "cuda":
        _narrow(model)
    limit = getattr(model.config, "max_position_embeddings", None)
    return Probe(model.to(place), tokenizer, info, place, int(limit or 1 << 20))


def find_revision(name: str) -> str:
    """Return the revision that `load_probe` would record, without loading the model.

    Raises:
        CurateError: as `load_probe`.
    """
    return revision_of(fetch_model(name))


def encode_texts(probe: Probe, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    """Return each text's token ids; markup of special tokens in a text is read as text."""
    backend = getattr(probe.tokenizer, "backend_tokenizer", None)
    with one_line_errors(f"tokenizer of {probe.info.name}", advice=_ADVICE):
        if backend is None:
            found = probe.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            return [np.asarray(ids, dtype=np.int32) for ids in found]
        encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    return [np.asarray(one.ids, dtype=np.int32) for one in encoded]


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


def fetch_model(name: str, *, what: str = "probe") -> Path:
    """Return the local folder (or .gguf file) of a model, downloading a hub model if need be.

    Args:
        name: as for `load_probe`.
        what: how messages call it.

    Raises:
        CurateError: not there, not to be had, or without safetensors.
    """
    if name == "builtin":
        if not (BUILTIN / "config.json").is_file():
            raise CurateError(
                "probe builtin: its weights are missing from this installation; install again"
            )
        return BUILTIN
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CurateError(f"{what} {name}: the folder has no config.json; is it a saved model?")
        _check_safetensors(f"{what} {name}", path)
        return path
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")):
        raise CurateError(f"{what} {name}: no such file or folder")
    return _download(name, what)


def _download(name: str, what: str) -> Path:
    repository, _, revision = name.partition("@")
    patterns = ["*.safetensors", "*.safetensors.index.json", *_TOKENIZER_FILES]
    try:
        path = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=patterns
            )
        )
    except HFValidationError:
        raise CurateError(
            f"{what} {name}: neither a file, nor a folder, nor a hub id such as org/model"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise CurateError(
            f"{what} {name}: cannot be fetched from the hub ({reason[0] if reason else error}); "
            + (
                "use builtin, or a local folder or .gguf file"
                if what == "probe"
                else "use a local folder"
            )
        ) from None
    _check_safetensors(f"{what} {name}", path)
    return path


def _check_safetensors(which: str, path: Path) -> None:
    if not any(path.glob("*.safetensors")):
        raise CurateError(
            f"{which}: no .safetensors weights (pickled ones are not read); "
            "save the model with save_pretrained, or use another"
        )


def _load(name: str, path: Path) -> tuple[Any, Any]:
    where: dict[str, Any] = {"pretrained_model_name_or_path": path}
    if path.is_file():
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    else:
        check_text_sizes(f"probe {name}", path)
    with one_line_errors(f"probe {name}", advice=_ADVICE), quietly():
        model, missing = read_gguf(path) if path.is_file() else _read_folder(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            **where, trust_remote_code=False, local_files_only=True
        )
    if missing:
        raise CurateError(
            f"probe {name}: its weights lack {', '.join(sorted(missing)[:3])}; "
            "fetch the model again"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
    return model, tokenizer


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


def revision_of(path: Path) -> str:
    """Return the commit of a hub snapshot, or a digest of the files that decide the model."""
    if path.is_file():
        return digest_file(path)
    if path.parent.name == "snapshots":
        return path.name
    patterns = ("*.safetensors", "config.json", "tokenizer*", "vocab*", "merges.txt")
    files = sorted({file for pattern in patterns for file in path.glob(pattern)})
    return fingerprint(files=[(file.name, digest_file(file)) for file in files])


def _digest_tokenizer(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return digest_bytes(backend.to_str().encode())
    return digest_bytes(msgspec.json.encode(sorted(tokenizer.get_vocab().items())))


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
