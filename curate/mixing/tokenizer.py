"""The tokenizer that counts the budget, without the probe's weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from curate.errors import CurateError
from curate.mixing.binary import TokenSpec
from curate.records import ProbeInfo
from curate.store.fingerprint import digest_bytes
from curate.task2vec.foreign import check_text_sizes, one_line_errors
from curate.task2vec.probe import BUILTIN, Probe, encode_texts

Encode = Callable[[list[str]], list[npt.NDArray[np.int32]]]


def load_encode(name: str, info: ProbeInfo) -> tuple[Encode, str]:
    """Load a tokenizer only.

    Args:
        name: as of a probe: builtin, a hub id[@revision], a folder, or a .gguf file.
        info: of the index's probe; a hub tokenizer of the same name is taken at its revision.

    Returns:
        The function that counts, and the digest of the tokenizer.

    Raises:
        CurateError: not there, or the hub is out of reach.
    """
    tokenizer = _tokenizer(name, info)
    # Counting needs nothing of a probe but its tokenizer.
    bare = Probe(
        model=None, tokenizer=tokenizer, info=info, device=torch.device("cpu"), max_positions=0
    )
    return partial(encode_texts, bare), _digest(tokenizer)


def token_spec(name: str, info: ProbeInfo) -> TokenSpec:
    """Return what tokenised files need to know of a tokenizer.

    Raises:
        CurateError: it has no token that ends a text.
    """
    tokenizer = _tokenizer(name, info)
    if tokenizer.eos_token_id is None:
        raise CurateError(f"tokenizer {name}: has no token that ends a text; name another")
    encode = partial(encode_named, name=name, info=info)
    return TokenSpec(encode, int(tokenizer.eos_token_id), len(tokenizer))


def encode_named(texts: list[str], *, name: str, info: ProbeInfo) -> list[npt.NDArray[np.int32]]:
    """Return the token ids of each text; the tokenizer is loaded once in each process."""
    return _loaded(name, info)(texts)


def count_tokens(texts: list[str], *, name: str, info: ProbeInfo) -> list[int]:
    """Return the tokens of each text; the tokenizer is loaded once in each process."""
    return [len(ids) for ids in _loaded(name, info)(texts)]


@lru_cache(maxsize=2)
def _loaded(name: str, info: ProbeInfo) -> Encode:
    return load_encode(name, info)[0]


def _tokenizer(name: str, info: ProbeInfo) -> Any:
    with one_line_errors(f"tokenizer {name}", advice="name a folder or a hub id"):
        return transformers.AutoTokenizer.from_pretrained(
            **find_place(name, info), trust_remote_code=False
        )


def find_place(name: str, info: ProbeInfo) -> dict[str, Any]:
    """Return what `from_pretrained` needs to find a tokenizer or model."""
    path = BUILTIN if name == "builtin" else Path(name).expanduser()
    if path.is_dir():
        check_text_sizes(f"tokenizer {name}", path)
        return {"pretrained_model_name_or_path": path, "local_files_only": True}
    if path.is_file():
        return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    hub, _, revision = name.partition("@")
    if name == info.name:
        revision = info.revision
    return {"pretrained_model_name_or_path": hub, "revision": revision or "main"}


def _digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return digest_bytes(backend.to_str().encode())
    return digest_bytes(repr(sorted(tokenizer.get_vocab().items())).encode())
