"""Corpora → pools, held-out slices and arms; all of it files, each made once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from curate.corpus.inputs import InputFile, find_inputs
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.corpus.sketch import sketch
from curate.corpus.targets import load_target
from curate.corpus.words import number_words
from curate.errors import CurateError
from curate.mixing.dedup import Seen, find_copies
from curate.mixing.documents import Filters, select_documents
from curate.mixing.items import Items, index_items
from curate.mixing.weights import ARITHMETIC
from curate.records import Document, Index, Notify, Target, silent
from curate.settings import CorpusSettings, EmbedSettings, TargetSettings
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.publish import publish_bytes
from curate.task2vec.embed import build_index
from curate.task2vec.probe import Probe, encode_texts
from curate.task2vec.reading import load_embedding
from curate.verification.documents import draw_texts
from curate.verification.runs import publish_documents
from evidence.plan import Arm, Settings

Kind = Literal["arms", "slices"]
Files = Mapping[Kind, Mapping[str, str]]  # name → path below the folder of a run

CHARACTERS = 3  # a token, about: only for how much is drawn
PASSAGE = 1_500  # characters of an item of a held-out slice
WHERE: dict[Kind, str] = {"arms": "arms/*/{}.jsonl", "slices": "**/{}.jsonl"}
ONE_SHARD = 1 << 40  # tokens: an arm is one shard, whatever its size


def find_corpora(data: Path, workspace: Path) -> list[InputFile]:
    """Return the files of `data/corpora`, one a corpus.

    Raises:
        CurateError: there are fewer than three.
    """
    found = find_inputs([str(data / "corpora")], workspace=workspace)
    if len(found) < 3:
        raise CurateError(f"{data / 'corpora'}: {len(found)} corpora; the bench needs three")
    return found


def make_pool(corpus: InputFile, out: Path, settings: Settings) -> Path:
    """Draw documents of a corpus, hold some out, and publish `pool/` and `slices/`.

    Near and exact copies are left out first, so that no held-out document has a twin in the
    pool. A held-out document is wholly in the select half or wholly in the eval half.

    Raises:
        CurateError: the corpus is too small.
    """
    key = fingerprint(
        corpus=digest_file(corpus.path),
        pool=settings.pool_tokens,
        slice=settings.slice_tokens,
        seed=settings.seed,
        arithmetic=ARITHMETIC,  # of what drops copies; documents that stay train nothing anew
    )[:12]
    path = out / "pool" / key / f"{corpus.source}.jsonl"
    if path.is_file():
        return path
    documents = ((d.text, len(d.text) // CHARACTERS) for d in _read(corpus))
    wanted = settings.pool_tokens + settings.slice_tokens
    texts = _distinct(draw_texts(documents, tokens=int(1.3 * wanted), seed=settings.seed))
    half = settings.slice_tokens * CHARACTERS // 2
    select, texts = _take(texts, characters=half)
    held_out, texts = _take(texts, characters=half)
    pool, _ = _take(texts, characters=settings.pool_tokens * CHARACTERS)
    if sum(map(len, pool)) < 1.2 * settings.tokens * CHARACTERS:
        raise CurateError(
            f"{corpus.path}: too little text for arms of {settings.tokens:,} tokens; "
            "lower --tokens, or leave the corpus out"
        )
    for name, part in (("select", select), ("eval", held_out)):
        _publish_texts(_slice_path(path, name), _passages(part))
    _publish_texts(path, pool)
    return path


def load_targets(pools: Sequence[Path], data: Path, settings: Settings) -> list[Target]:
    """Load the named targets, then every pool's held-out slice, by the product's own loader."""
    named = [
        load_target(TargetSettings(name=name, data_dir=str(data))) for name in settings.targets
    ]
    slices = [
        load_target(
            TargetSettings(
                name=f"{pool.stem}={_slice_path(pool, 'select')},{_slice_path(pool, 'eval')}"
            )
        )
        for pool in pools
    ]
    return [*named, *slices]


def index_pools(pools: Sequence[Path], out: Path) -> Index:
    """Index the pools, which arms are drawn from: only their documents matter.

    So the embeddings are the least that an index can have.
    """
    return build_index(
        CorpusSettings(inputs=tuple(map(str, pools)), shard_tokens=ONE_SHARD),
        EmbedSettings(batches=1, batch_tokens=256),
        workspace=out / "pools-plain",
    )


def index_arms(arms: Sequence[Path], out: Path, settings: Settings) -> Index:
    """Index the arms' documents, each arm one shard: every method measures what is trained on."""
    return build_index(
        CorpusSettings(inputs=tuple(map(str, arms)), shard_tokens=ONE_SHARD),
        dataclasses.replace(
            EmbedSettings(),
            probe=settings.probe,
            batch_tokens=settings.embed_tokens,
            layers=settings.layers,
            gradients=settings.gradients,
        ),
        workspace=out / "arms-index",
    )


def log_embeddings(index: Index, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the logarithms (arms, dim) of the arms' mean embeddings, as `verify` takes them."""
    keys = {each.shard.name: each.key for each in index.shards}
    means = [load_embedding(Path(index.folder), keys[name]).vectors.mean(axis=0) for name in names]
    return np.log(np.maximum(np.array(means, np.float64), 1e-300))


def make_arms(
    arms: Sequence[Arm],
    pools: Index,
    named: Sequence[Target],
    tokenizer: Probe,
    out: Path,
    settings: Settings,
    *,
    notify: Notify = silent,
) -> dict[str, Path]:
    """Publish the documents of arms: exactly `tokens` tokens, none that leaks a named target.

    Args:
        arms: with their shares of the pools.
        pools: index of the pools.
        named: targets whose items, of both splits, no document may hold.
        tokenizer: that of the small models.
        out: gets `arms/KEY/NAME.jsonl` and, beside it, the token ids.
        settings: tokens and seed.
        notify: progress.

    Returns:
        arm → its file.
    """
    paths = {arm.name: _arm_path(arm, pools, named, tokenizer, out, settings) for arm in arms}
    missing = [arm for arm in arms if not paths[arm.name].is_file()]
    items: Items | None = None  # seconds to make: only where an arm is missing
    for number, arm in enumerate(missing):
        splits = {f"{t.name}-{n}": part for t in named for n, part in enumerate((t.select, t.eval))}
        items = items or index_items(splits)
        chosen = select_documents(
            pools,
            {name: share * settings.tokens for name, share in arm.shares.items()},
            budget=settings.tokens,
            encode=lambda texts: encode_texts(tokenizer, texts),
            filters=Filters(items=items, seen=Seen()),
            seed=settings.seed,
        )
        texts = [each.text for each in chosen]
        publish_documents(token_path(paths[arm.name]), encode_texts(tokenizer, texts))
        _publish_texts(paths[arm.name], texts)
        notify("draw documents", number + 1, len(missing))
    return paths


def _arm_path(
    arm: Arm, pools: Index, named: Sequence[Target], tokenizer: Probe, out: Path, settings: Settings
) -> Path:
    """Return where an arm's documents are, by all that decides them."""
    key = fingerprint(
        shares=arm.shares,
        pools=[(each.shard.name, each.shard.digest) for each in pools.shards],
        targets=[(target.select_digest, target.eval_digest) for target in named],
        tokens=settings.tokens,
        tokenizer=tokenizer.info.tokenizer_digest,
        seed=settings.seed,
        arithmetic=ARITHMETIC,
    )[:12]
    return out / "arms" / key / f"{arm.name}.jsonl"


def token_path(arm: Path) -> Path:
    """Return where the token ids of an arm's documents are."""
    return arm.with_suffix(".safetensors")


def eval_items(target: Target, tokenizer: Probe, settings: Settings) -> list[str]:
    """Return items of the eval split, drawn by the seed, of about `eval_tokens` in all."""
    order = np.random.default_rng(settings.seed).permutation(len(target.eval)).tolist()
    chosen, left = [], settings.eval_tokens
    for number in order:
        if left <= 0:
            break
        ids = encode_texts(tokenizer, [target.eval[number]])[0]
        if len(ids):
            chosen.append(number)
            left -= len(ids)
    return [target.eval[number] for number in sorted(chosen)]


def note_files(out: Path, arms: Mapping[str, Path], pools: Sequence[Path]) -> Files:
    """Return where a run's training sets and slices lie in its folder, which may hold other runs'.

    Args:
        out: the folder.
        arms: name → file.
        pools: of `make_pool`.
    """
    halves = {
        f"{p.stem}-{half}": _slice_path(p, half) for p in pools for half in ("select", "eval")
    }
    kinds: tuple[tuple[Kind, Mapping[str, Path]], ...] = (("arms", arms), ("slices", halves))
    return {
        kind: {name: path.relative_to(out).as_posix() for name, path in paths.items()}
        for kind, paths in kinds
    }


def read_result(out: Path) -> tuple[dict[str, Any], Files]:
    """Return the details of `result.json`, and where its texts lie, if it says so."""
    found = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return found["details"], found.get("bench", {}).get("files", {})


def find_file(out: Path, files: Files, kind: Kind, name: str) -> Path | None:
    """Return the file of a name; of a result that does not say, the only one below the folder.

    Raises:
        CurateError: it does not say, and there are several: any may be another run's.
    """
    if files:
        return out / files[kind][name] if name in files[kind] else None
    found = sorted(out.glob(WHERE[kind].format(name)))
    if len(found) > 1:
        raise CurateError(f"{out}: {len(found)} files of {name}; run alignment_vs_loss.py again")
    return found[0] if found else None


def _slice_path(pool: Path, half: str) -> Path:
    return pool.parent / "slices" / f"{pool.stem}-{half}.jsonl"


def _read(corpus: InputFile) -> Iterator[Document]:
    ledger = LedgerBuilder()
    yield from read_documents(corpus, text="text", ledger=ledger)
    if ledger.error:
        raise CurateError(f"{corpus.path}: {ledger.error}")


def _distinct(texts: list[str]) -> list[str]:
    """Leave out texts that repeat an earlier one, word for word or nearly."""
    kept = find_copies(*sketch(number_words(texts)), seen=Seen()).kept
    return [text for number, text in enumerate(texts) if kept[number] == number]


def _take(texts: list[str], *, characters: int) -> tuple[list[str], list[str]]:
    """Split off the first texts that hold so many characters, the last of them cut."""
    taken: list[str] = []
    for number, text in enumerate(texts):
        if characters <= 0:
            return taken, texts[number:]
        taken.append(text[:characters])
        characters -= len(text)
    return taken, []


def _passages(texts: Sequence[str]) -> list[str]:
    parts = (text[at : at + PASSAGE] for text in texts for at in range(0, len(text), PASSAGE))
    return [part for part in parts if part.strip()]


def _publish_texts(path: Path, texts: Sequence[str]) -> None:
    lines = (
        msgspec.json.encode({"id": f"{path.stem}-{number}", "text": text})
        for number, text in enumerate(texts)
    )
    publish_bytes(path, b"\n".join(lines) + b"\n")
