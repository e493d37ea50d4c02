"""A sentence encoder: one vector a text, from a folder or the hub, by transformers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import transformers

from curate.errors import CurateError
from curate.ranking.samples import read_samples
from curate.records import Index, Notify
from curate.store.arrays import publish_arrays, read_arrays
from curate.store.fingerprint import fingerprint
from curate.store.meta import is_current, publish_meta
from curate.task2vec.foreign import check_text_sizes, one_line_errors
from curate.task2vec.model_files import fetch_model, revision_of
from curate.task2vec.probe import find_device, quietly

if TYPE_CHECKING:
    from curate.records import Floats

MOST_TOKENS = 256  # of a text, where the encoder names no lower limit of its own
BATCH = 32  # texts
PARTS = 8  # sub-batches that texts are dealt to
DOCUMENTS = 64  # of a shard's sample that are encoded: the first ones
CHARACTERS = 12  # of a text that are looked at for each token of the limit

_PADS = "right"  # side of a text on which pads stand
_ADVICE = "use an encoder that transformers knows"

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model that reads a text and gives a vector of length 1."""

    model: Any  # a transformers encoder, eval mode
    tokenizer: Any
    pooling: Pooling
    limit: int  # tokens of a text, at most
    device: torch.device


def find_encoder(name: str) -> str:
    """Return what tells an encoder from others, without loading the model.

    Raises:
        CurateError: as `load_encoder`.
    """
    path = fetch_model(name, what="encoder")
    return fingerprint(files=revision_of(path), parts=_read_parts(name, path), pads=_PADS)


def load_encoder(name: str, *, device: str = "auto") -> Encoder:
    """Load a sentence encoder in float32.

    Its vector is the mean, or the first, of the last hidden states, brought to length 1, as
    `modules.json` of the package sentence-transformers says; the mean where there is none.

    Args:
        name: a folder, or a hub id with optional @revision.
        device: as for `load_probe`.

    Raises:
        CurateError: not there, not of safetensors, or of parts other than these.
    """
    path = fetch_model(name, what="encoder")
    pooling, limit = _read_parts(name, path)
    place = find_device(device)
    check_text_sizes(f"encoder {name}", path)
    with one_line_errors(f"encoder {name}", advice=_ADVICE), quietly():
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, local_files_only=True
        )
        model = transformers.AutoModel.from_pretrained(
            path,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
        )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # a probe may have none
    tokenizer.padding_side = _PADS  # before a text, as many decoders have it, pads count as places
    positions = getattr(model.config, "max_position_embeddings", None) or limit
    model = model.eval().requires_grad_(False).to(place)
    return Encoder(model, tokenizer, pooling, min(limit, positions), place)


def encode(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """Return a vector of length 1 for each text, (n, width) float32.

    A text's vector does not depend on the texts beside it beyond rounding.

    Args:
        encoder: from `load_encoder`.
        texts: each cut at the encoder's limit of tokens.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows: dict[int, Floats] = {}
    for start in range(0, len(order), BATCH):
        which = order[start : start + BATCH].tolist()
        found = _encode_batch(encoder, [texts[n][: encoder.limit * CHARACTERS] for n in which])
        rows.update(zip(which, found, strict=True))
    return np.stack([rows[n] for n in range(len(texts))])


def deal(rows: Floats) -> Floats:
    """Return the means of `PARTS` parts of rows (n, width), of n where there are fewer."""
    parts = min(PARTS, len(rows))
    return np.stack([rows[start::parts].mean(axis=0) for start in range(parts)])


def read_encoded(
    index: Index, name: str, *, seed: int, workspace: Path, device: str, notify: Notify
) -> list[Floats]:
    """Return the sub-batches of every shard, (parts, width) each, from its sampled documents.

    They are encoded once an index and encoder and kept in `workspace/ranking/encoded`, so that
    another target reads no document.

    Raises:
        CurateError: as `load_encoder`, or an input changed since it was indexed.
    """
    folder = workspace / "ranking" / "encoded"
    key = fingerprint(
        index=index.fingerprint, encoder=find_encoder(name), seed=seed, documents=DOCUMENTS
    )
    path = folder / "vectors.safetensors"
    if not is_current(folder, kind="encoded", fingerprint=key):
        shards = read_samples(index, seed=seed, workspace=workspace, notify=notify)
        encoder = load_encoder(name, device=device)
        stacks = []
        for number, documents in enumerate(shards, start=1):
            stacks.append(deal(encode(encoder, documents[:DOCUMENTS])))
            notify("encoding shards", number, len(shards))
        tensors = {"vectors": np.concatenate(stacks), "parts": np.array([len(s) for s in stacks])}
        publish_arrays(path, tensors)
        publish_meta(folder, kind="encoded", fingerprint=key, files=[path.name], body={})
        return stacks
    kept, _ = read_arrays(path)
    return np.split(kept["vectors"], np.cumsum(kept["parts"])[:-1])


def _encode_batch(encoder: Encoder, texts: Sequence[str]) -> Floats:
    inputs = encoder.tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=encoder.limit,
        return_tensors="pt",
    ).to(encoder.device)
    with torch.no_grad():
        states = encoder.model(**inputs).last_hidden_state  # (B, T, width)
    if encoder.pooling == "cls":
        pooled = states[:, 0]
    else:
        mask = inputs["attention_mask"][:, :, None].to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    unit = torch.nn.functional.normalize(pooled.float(), dim=1)
    return np.asarray(unit.cpu().numpy())


def _read_parts(name: str, path: Path) -> tuple[Pooling, int]:
    """Return pooling and limit of tokens from the files of sentence-transformers, if there."""
    parts = _read_json(path / "modules.json") or []
    kinds = [str(part.get("type", "")).rpartition(".")[2] for part in parts]
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise CurateError(
            f"encoder {name}: has a part {', '.join(sorted(unknown))}, which is not known; use "
            "one of a transformer, a pooling and a normalisation"
        )
    limit = int((_read_json(path / "sentence_bert_config.json") or {}).get("max_seq_length") or 0)
    place = next((p["path"] for p in parts if str(p["type"]).endswith("Pooling")), "1_Pooling")
    pooling = _read_json(path / str(place) / "config.json") or {"pooling_mode": "mean"}
    named = {pooling.get("pooling_mode")} if "pooling_mode" in pooling else set()
    named |= {key[13:].removesuffix("_tokens") for key, on in pooling.items()
              if key.startswith("pooling_mode_") and on is True}  # fmt: skip
    if named not in ({"mean"}, {"cls"}):
        raise CurateError(
            f"encoder {name}: pools by {', '.join(sorted(map(str, named)))}; mean and cls are known"
        )
    return ("cls" if named == {"cls"} else "mean"), limit or MOST_TOKENS


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        raise CurateError(f"{path}: is no JSON; fetch the encoder again") from None
