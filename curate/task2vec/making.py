"""An index while it is made: one pass over the corpus, shards handed to whoever embeds."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from curate.corpus.afar import bring, drop, hand_over
from curate.corpus.prints import keep_prints
from curate.corpus.regroup import Corpus, drop_old_groups, open_corpus
from curate.corpus.shards import read_shards
from curate.engine.ahead import ahead
from curate.engine.local import count_cores
from curate.engine.outcome import Failure
from curate.engine.run import engine_here, run_items, visible_gpus
from curate.errors import CurateError
from curate.records import (
    FileLedger,
    Index,
    IndexedShard,
    Notify,
    ProbeInfo,
    RejectedShard,
    RowBlock,
    Shard,
    ShardText,
)
from curate.settings import CorpusSettings, EmbedSettings
from curate.store.fingerprint import fingerprint
from curate.store.meta import publish_meta
from curate.task2vec.embedding import check_probe
from curate.task2vec.items import (
    Embedded,
    EmbedItem,
    draw_tokens,
    embed_item,
    publish_tokens,
    shared_probe,
)
from curate.task2vec.model_files import find_revision
from curate.task2vec.probe import Probe, encode_texts
from curate.task2vec.vectors import StoredEmbedding, check_embedding, read_stored, shard_key

HOPELESS = 20
"""So many shards that fail before one succeeds are no accident of the shards."""

LOOKAHEAD = 64
"""Shards that are read and drawn before a worker is free for them: 30 MB of files by default."""

READ_AHEAD = 2
"""Shards that are tokenised (which leaves the interpreter to others) while one is drawn from."""

LARGE_BYTES = 256 * 1024 * 1024
"""Of input; below it the start of worker processes costs more than they save."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who embeds."""

    workers: int
    device: str  # cpu or cuda
    here: bool  # in this process


@dataclass(slots=True)
class Making:
    """An index while it is made."""

    folder: Path
    corpus: CorpusSettings
    embed: EmbedSettings
    info: ProbeInfo
    device: str
    here: bool = False  # this process embeds what it reads
    store: str = ""  # address of the index, where workers share no folder with this process
    run: str = ""  # name of this run, where others may hand over to the same store
    shards: list[Shard] = field(default_factory=list)  # their keys would double what they take
    ledgers: list[FileLedger] = field(default_factory=list)
    owners: dict[int, int] = field(default_factory=dict)  # start of a vector's digest → shard
    rejected: dict[int, RejectedShard] = field(default_factory=dict)  # by number of the shard
    first: BaseException | None = None  # that a shard was rejected for
    n_embedded: int = 0
    n_tokens: int = 0


def make_index(
    corpus: CorpusSettings,
    embed: EmbedSettings,
    *,
    workspace: Path,
    device: str,
    workers: int,
    store: str,
    notify: Notify,
) -> Index:
    """Make an index in a workspace that is locked; takes the arguments of `build_index`."""
    opened = open_corpus(corpus, workspace=workspace, notify=notify)
    crew = choose_crew(opened, device, workers)
    revision = find_revision(embed.probe)
    probe = shared_probe(embed.probe, revision, crew.device if crew.here else "cpu")
    blocks = check_probe(probe, embed)
    making = Making(
        workspace / "index", corpus, embed, probe.info, device=crew.device, here=crew.here,
        store=f"{store}/index" if store and not crew.here else "",
        run=secrets.token_hex(8) if store else "",
    )  # fmt: skip
    embed_all(making, opened, probe, crew, notify)
    found = publish_index(making, blocks, opened)
    drop_old_groups(workspace, opened)
    return found


def choose_crew(opened: Corpus, device: str, workers: int) -> Crew:
    """Take worker processes where the input pays for their start, one a GPU or core."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    large = sum(file.path.stat().st_size for file in opened.files) >= LARGE_BYTES
    if not workers:
        most = len(visible_gpus()) if device.startswith("cuda") else count_cores()
        workers = most if large else 1
    here = workers == 1 and not (large and device == "cuda") and engine_here() == "local"
    return Crew(workers, device, here)


def embed_all(making: Making, opened: Corpus, probe: Probe, crew: Crew, notify: Notify) -> None:
    """Read the corpus once; embed what is not embedded yet, while more is read."""
    texts = read_shards(
        opened.files,
        making.corpus,
        encode=lambda texts: encode_texts(probe, texts),
        ledgers=making.ledgers,
        grouped=opened.ledgers,
        notify=notify,
    )
    # A device of its own idles while this process reads; the cores of this one do not.
    apart = not crew.here or crew.device != "cpu"
    with ExitStack() as held:
        read = held.enter_context(closing(ahead(texts, most=READ_AHEAD))) if apart else texts
        prepared = (_prepare(making, number, text) for number, text in enumerate(read))
        early = ahead(prepared, most=LOOKAHEAD) if apart else prepared
        held.enter_context(closing(early))
        done = run_items(
            embed_item,
            _missing(making, early, notify),
            workers=crew.workers,
            device=crew.device,
            slots=2 if crew.device == "cuda" else 1,
            apart=not crew.here,
            anywhere=bool(making.store),
            reject=lambda failure: _reject(making, failure),
        )
        for one in done:
            _take(making, one, notify)
            if not making.here:
                _drop_tokens(making, _items_path(making, _key(making, one.number)))
    if not making.shards:
        raise CurateError(
            f"{', '.join(making.corpus.inputs)}: no document in it; check the text setting "
            f"({making.corpus.text})"
        )
    if not making.n_embedded:
        assert making.first is not None
        raise making.first


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A shard that has been read: to be embedded, or with what describes its embedding."""

    shard: Shard
    item: EmbedItem
    stored: StoredEmbedding | None


def _prepare(making: Making, number: int, text: ShardText) -> _Prepared:
    """Keep what later steps need of a shard's tokens, and let go of its text."""
    keep_prints(making.folder / "prints", text, setting=making.corpus.text)
    key = shard_key(text.shard.digest, making.embed, making.info)
    path = making.folder / "shards" / f"{key}.safetensors"
    stored = check_embedding(path)
    tokens, held = _items_path(making, key), None
    if stored is None:
        drawn = draw_tokens(text, making.embed, vocab=making.info.vocab)
        if making.here:
            held = drawn
        else:
            publish_tokens(tokens, drawn)
            if making.store:
                hand_over(making.store, making.folder, tokens.relative_to(making.folder).as_posix())
    item = EmbedItem(
        number=number, name=text.shard.name, tokens=tokens, path=path, settings=making.embed,
        revision=making.info.revision, device=making.device, held=held, store=making.store,
    )  # fmt: skip
    return _Prepared(text.shard, item, stored)


def _missing(making: Making, prepared: Iterable[_Prepared], notify: Notify) -> Iterator[EmbedItem]:
    """Yield the shards that have to be embedded; take those that are there already."""
    for one in prepared:
        making.shards.append(one.shard)
        if one.stored is None:
            yield one.item
        else:
            _take(making, Embedded(one.item.number, one.stored), notify)


def _take(making: Making, one: Embedded, notify: Notify) -> None:
    shard = making.shards[one.number]
    _check_distinct(making, one)
    making.n_embedded += 1
    making.n_tokens += shard.n_tokens
    notify("tokens indexed", making.n_tokens, 0)  # of the shards, of which samples were embedded


def _reject(making: Making, failure: Failure) -> None:
    """Leave a shard out; where the first twenty fail, it is not the shards."""
    number = failure.item.number
    making.rejected[number] = RejectedShard(making.shards[number], failure.reason)
    making.first = making.first or failure.error
    _drop_tokens(making, failure.item.tokens)
    if not making.n_embedded and len(making.rejected) >= HOPELESS:
        raise failure.error


def _drop_tokens(making: Making, path: Path) -> None:
    path.unlink(missing_ok=True)
    if making.store:
        drop(making.store, path.relative_to(making.folder).as_posix())


def _items_path(making: Making, key: str) -> Path:
    return making.folder / "items" / making.run / f"{key}.safetensors"


def _key(making: Making, number: int) -> str:
    return shard_key(making.shards[number].digest, making.embed, making.info)


def _check_distinct(making: Making, one: Embedded) -> None:
    """Refuse a probe that gives different texts one embedding.

    Of a million shards only the first 64 bits of each digest are held; where they are equal,
    what was published decides.
    """
    number = making.owners.setdefault(int(one.stored.vectors_digest[:16], 16), one.number)
    if number == one.number:
        return
    path = making.folder / "shards" / f"{_key(making, number)}.safetensors"
    if making.store and not path.is_file():
        bring(making.store, making.folder, path.relative_to(making.folder).as_posix())
    other = read_stored(path)
    if other is None or other.vectors_digest != one.stored.vectors_digest:
        return
    if other.text_digest != one.stored.text_digest:
        names = [making.shards[each].name for each in (number, one.number)]
        raise CurateError(
            f"shards {names[0]} and {names[1]}: different text, identical embedding; this probe "
            "does not tell text apart"
        )


def publish_index(making: Making, blocks: tuple[RowBlock, ...], opened: Corpus) -> Index:
    """Publish `meta.json`, last of all."""
    folder, embed = making.folder, making.embed
    rejected = tuple(making.rejected[number] for number in sorted(making.rejected))
    shards = tuple(
        IndexedShard(shard, shard_key(shard.digest, embed, making.info))
        for number, shard in enumerate(making.shards)
        if number not in making.rejected
    )
    ledgers = tuple(sorted(making.ledgers, key=lambda ledger: ledger.path))
    mark = fingerprint(
        shards=shards, probe=making.info, corpus=making.corpus, embed=embed, ledgers=ledgers
    )
    index = Index(
        "", mark, shards, making.info, blocks, making.corpus, embed, ledgers, opened.groups,
        rejected,
    )  # fmt: skip
    # Each file of a shard holds its own digest, or has it beside it: none is listed once more.
    publish_meta(folder, kind="index", fingerprint=mark, files=[], body=index)
    if (folder / "items").is_dir():
        shutil.rmtree(folder / "items")
    if making.store:
        drop(making.store, forgotten="items")
    return dataclasses.replace(index, folder=str(folder))
