"""Text to token ids by a model's tokenizer, without the model: a tensor library is not loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from curate.corpus.tokens import Encode
from curate.errors import CurateError
from curate.records import Index, ProbeInfo
from curate.store.fingerprint import digest_bytes
from curate.store.places import user_path
from curate.task2vec.foreign import check_text_sizes, one_line_errors
from curate.task2vec.model_files import BUILTIN, fetch_tokenizer

ADVICE = "use a causal language model that transformers knows"


def encode_with(tokenizer: Any, texts: list[str], *, name: str) -> list[npt.NDArray[np.int32]]:
    """Return each text's token ids; markup of special tokens in a text is read as text.

    Args:
        tokenizer: of `transformers` or of `tokenizers`, made `literal`.
        texts: (n,).
        name: of its model, for the message.

    Raises:
        CurateError: the tokenizer is damaged.
    """
    backend = backend_of(tokenizer)
    with one_line_errors(f"tokenizer of {name}", advice=ADVICE):
        if backend is None:
            found = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            return [np.asarray(ids, dtype=np.int32) for ids in found]
        encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    return [np.asarray(one.ids, dtype=np.int32) for one in encoded]


def literal(tokenizer: Any) -> Any:
    """Let a tokenizer cut nothing off, fill nothing up, and read markup as text; return it."""
    backend = backend_of(tokenizer)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
    return tokenizer


def digest_tokenizer(tokenizer: Any) -> str:
    """Return the digest of what a tokenizer made `literal` does to text."""
    backend = backend_of(tokenizer)
    if backend is not None:
        return digest_bytes(backend.to_str().encode())
    return digest_bytes(msgspec.json.encode(sorted(tokenizer.get_vocab().items())))


def backend_of(tokenizer: Any) -> Any:
    """Return the compiled tokenizer, which may be itself; None of one in Python."""
    if hasattr(tokenizer, "encode_batch_fast"):
        return tokenizer
    return getattr(tokenizer, "backend_tokenizer", None)


def vocabulary_size(tokenizer: Any) -> int:
    """Return the largest id of a tokenizer of `transformers`, and 1: ids may have gaps."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def load_encode(name: str, info: ProbeInfo) -> tuple[Encode, str]:
    """Return the function that counts, and the digest of its tokenizer.

    Takes the arguments of `open_tokenizer`.

    Raises:
        CurateError: as `open_tokenizer`.
    """
    found = open_tokenizer(name, info)
    return partial(encode_with, found, name=name), digest_tokenizer(found)


def encode_as_indexed(index: Index) -> Encode:
    """Return the function that tokenises as the text of an index was tokenised.

    Raises:
        CurateError: the probe's tokenizer is another than then, or as `open_tokenizer`.
    """
    encode, digest = load_encode(index.embed.probe, index.probe)
    if digest != index.probe.tokenizer_digest:
        raise CurateError(
            f"probe {index.embed.probe}: its tokenizer changed since the index was made, and what "
            "it counts no longer compares; put it back, or run curate index"
        )
    return encode


def open_tokenizer(name: str, info: ProbeInfo) -> Any:
    """Load a tokenizer only, made `literal`; of `tokenizers` or of `transformers`.

    That of the index's probe is read from its file alone where this gives the tokenizer that the
    index was made with, by its digest: a hundredth of a second. `transformers`, which knows
    every kind, takes seconds to load.

    Args:
        name: as of a probe: builtin, a hub id[@revision], a folder, or a .gguf file.
        info: of the index's probe; a hub tokenizer of the same name is taken at its revision.

    Raises:
        CurateError: not there, or the hub is out of reach.
    """
    return _from_file(name, info) or literal(load_tokenizer(name, info))


def digest_of_file(name: str, info: ProbeInfo) -> str:
    """Return the digest of a tokenizer whose file alone tells it, "" where it has to be loaded.

    Takes the arguments of `open_tokenizer`.
    """
    return info.tokenizer_digest if _from_file(name, info) is not None else ""


def load_tokenizer(name: str, info: ProbeInfo) -> Any:
    """Load a tokenizer by `transformers`.

    Raises:
        CurateError: as `open_tokenizer`.
    """
    place = find_place(name, info)
    if "revision" in place:
        # transformers would ask for each file apart, and without a network again for a minute
        path = fetch_tokenizer("@".join(filter(None, place.values())))
        check_text_sizes(f"tokenizer {name}", path)
        place = {"pretrained_model_name_or_path": path, "local_files_only": True}
    import transformers  # seconds

    with one_line_errors(f"tokenizer {name}", advice="name a folder or a hub id"):
        return transformers.AutoTokenizer.from_pretrained(**place, trust_remote_code=False)


def find_place(name: str, info: ProbeInfo) -> dict[str, Any]:
    """Return what `from_pretrained` needs to find a tokenizer or model.

    Raises:
        CurateError: a file in its folder is larger than any tokenizer.
    """
    path = BUILTIN if name == "builtin" else user_path(name)
    if path.is_dir():
        check_text_sizes(f"tokenizer {name}", path)
        return {"pretrained_model_name_or_path": path, "local_files_only": True}
    if path.is_file():
        return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    hub, _, revision = name.partition("@")
    if name == info.name:
        revision = info.revision
    return {"pretrained_model_name_or_path": hub, "revision": revision}


def _from_file(name: str, info: ProbeInfo) -> Any:
    """Return the tokenizer of the index's probe as its file has it; None where that is another."""
    place = find_place(name, info) if name == info.name else {}
    path = Path(place.get("pretrained_model_name_or_path", ""), "tokenizer.json")
    if "local_files_only" not in place or not path.is_file():
        return None
    import tokenizers

    try:
        with one_line_errors(f"tokenizer {name}", advice=ADVICE):
            found = literal(tokenizers.Tokenizer.from_file(str(path)))
    except CurateError:
        return None
    return found if digest_tokenizer(found) == info.tokenizer_digest else None
