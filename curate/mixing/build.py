"""Stage: a ranking and a budget to an aligned training mix of exactly that many tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from curate.corpus.tokens import Encode
from curate.mixing.card import write_card
from curate.mixing.checks import check_out, check_request
from curate.mixing.dedup import Seen
from curate.mixing.documents import cutter
from curate.mixing.draw import draw_rows
from curate.mixing.drawn import Drawn
from curate.mixing.filters import Wish
from curate.mixing.foresight import Foresight, stock_for
from curate.mixing.formats import Choice, Format, WrittenFile
from curate.mixing.look import FACTS, Look, Meaning, write_target
from curate.mixing.manifest import given_tokens, indexed_tokens, manifest_of, mix_of
from curate.mixing.mixture import BY_COUNTS, put_in_words
from curate.mixing.opened import open_mix
from curate.mixing.plan import plan_shards, token_ratio
from curate.mixing.publish import clear, clear_staging, publish_files, staging_folder
from curate.mixing.reading import read_some
from curate.mixing.tokenizer import count_tokens, token_spec
from curate.mixing.trainers import NAMES, check_trainer, trainer_text
from curate.mixing.weights import ARITHMETIC, Spread, settle_selection
from curate.mixing.write import Layout, choose_workers, write_files
from curate.records import Embedding, Index, Mix, Notify, Ranking, Target, silent
from curate.settings import MixSettings
from curate.store.fingerprint import fingerprint
from curate.store.lock import locked
from curate.store.meta import is_current, publish_meta
from curate.store.places import note_path
from curate.store.publish import publish_bytes, publish_json
from curate.task2vec.reading import embedding_path
from curate.task2vec.target import embed_target
from curate.task2vec.tokenizer import encode_as_indexed, find_place, load_encode


def build_mix(
    index: Index,
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    *,
    workspace: Path,
    out: Path,
    fmt: str = "parquet",
    workers: int = 0,
    trainer: str = "",
    notify: Notify = silent,
) -> Mix:
    """Write a training mix of exactly `settings.budget` tokens to `out`, with its forecast.

    A mix with the same index, ranking, target and settings is read back, not made again; what
    a killed run had done is not done again, and the bytes are those of a run without a kill.

    Args:
        index: published in `workspace`.
        ranking: of that index and target.
        target: both its splits are kept out of the mix.
        settings: budget, selection, filters.
        workspace: `mix.json` in it names the latest mix; `facts/` keeps what is known of
            documents for the next one.
        out: the mix's folder; new, empty, or an earlier mix.
        fmt: parquet, jsonl, mds, tokens or megatron; `manifest` writes weights and
            record ranges and copies no text.
        workers: processes; 0 chooses. Their number does not change a byte.
        trainer: gets a file beside the mix that starts it with these files; "" writes none.
        notify: progress in tokens.

    Raises:
        CurateError: settings out of range, index and ranking that do not belong together, a
            folder that holds something else, an input that changed, or a budget that the
            corpus cannot meet (exit code 6).
    """
    check_request(index, ranking, target, settings, fmt=fmt)
    check_trainer(trainer, fmt)
    check_out(out, index)
    selection = settle_selection(settings.selection, ranking.method)
    settings = dataclasses.replace(settings, selection=selection)
    encode, tokenizer_digest = (
        load_encode(settings.tokenizer, index.probe)
        if settings.tokenizer
        else (encode_as_indexed(index), index.probe.tokenizer_digest)
    )
    meaning = meaning_of(settings, index)
    made_by: dict[str, Any] = {"trainer": (trainer, str(out.resolve()))} if trainer else {}
    made_by |= {"meaning": meaning} if meaning else {}
    mark = _mark(index, ranking, target, settings, tokenizer_digest, fmt, made_by)
    with locked(out, notify=notify):
        if is_current(out, kind="mix", fingerprint=mark):
            clear_staging(out)
        else:
            own = _embedding_of(target, index, ranking, workspace, notify)
            tokenises = bool(settings.tokenizer) or fmt in ("tokens", "megatron")
            workers = choose_workers(workers, settings.budget, tokenises=tokenises)
            stock = stock_for(
                index, ranking, target, settings, workspace=workspace, workers=workers,
                notify=notify,
            )  # fmt: skip
            first = ranking.shards[0].shard
            ratio = token_ratio(index, first, encode) if settings.tokenizer else 1.0
            tokens = max(round(settings.budget / ratio), 1)  # as the index counts them
            foresight = Foresight(stock, ranking, target, own, tokens)
            plan = plan_shards(foresight, settings, ratio=ratio)
            settings = plan.settings
            planned = foresight.compare({name: n / ratio for name, n in plan.tokens.items()})
            notify(put_in_words(planned), 0, 0)
            drawn = _draw(
                index, target, settings, plan.spread, tuple(plan.tokens), encode, tokenizer_digest,
                meaning=meaning, workspace=workspace, workers=workers, notify=notify,
            )  # fmt: skip
            with staging_folder(out, mark=mark) as staging:
                files, held = write_files(
                    drawn, _choices(drawn, ranking, settings), text=index.corpus.text,
                    folder=staging, layout=_layout(fmt, settings, index), seed=settings.seed,
                    workers=workers, notify=notify,
                )  # fmt: skip
                given = given_tokens(drawn)
                written = foresight.compare(indexed_tokens(drawn, settings))
                mix = mix_of(ranking, target, settings, drawn, written["mix"], given, mark)
                manifest = manifest_of(mix, index, target, settings, files, held, drawn)
                manifest |= {"planned": planned, "written": written}
                publish_json(staging / "mix" / "manifest.json", manifest)
                card = write_card(
                    mix, index=index, target=target, settings=settings, files=files, held=held
                )
                publish_bytes(staging / "mix" / "README.md", card.encode("utf-8"))
                if trainer:
                    text = _trainer_text(trainer, fmt, settings, index, out=out, files=files)
                    publish_bytes(staging / "mix" / NAMES[trainer], text.encode("utf-8"))
                clear(out)
                names = publish_files(staging / "mix", out)
                publish_meta(out, kind="mix", fingerprint=mark, files=names, body=mix)
    publish_json(workspace / "mix.json", {"folder": note_path(out, workspace)})
    return open_mix(workspace)


def _mark(
    index: Index,
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    tokenizer_digest: str,
    fmt: str,
    made_by: Mapping[str, Any],
) -> str:
    """Return the fingerprint of all that decides a mix's bytes."""
    aim = (target.name, target.select_digest, target.eval_digest, target.template)
    return fingerprint(
        index=index.fingerprint,
        ranking=ranking.fingerprint,
        target=(*aim, *target.spare, *target.templates),
        tokenizer=tokenizer_digest,
        settings=settings,
        format=fmt,
        arithmetic=ARITHMETIC,
        **made_by,
    )


def _embedding_of(
    target: Target, index: Index, ranking: Ranking, workspace: Path, notify: Notify
) -> Embedding | None:
    if ranking.method in BY_COUNTS:
        return None
    return embed_target(target, index, workspace=workspace, notify=notify)


def _draw(
    index: Index,
    target: Target,
    settings: MixSettings,
    spread: Spread,
    names: tuple[str, ...],
    encode: Encode,
    tokenizer_digest: str,
    *,
    meaning: Meaning | None,
    workspace: Path,
    workers: int,
    notify: Notify,
) -> Drawn:
    """Choose the rows of a mix; what is found about documents is kept in the workspace."""
    facts = workspace / FACTS
    ranked = set(names)  # a shortlist, where the index holds very many
    embeddings = {
        each.shard.name: embedding_path(Path(index.folder), each.key)
        for each in index.shards
        if each.shard.name in ranked
    }
    known = tokenizer_digest == index.probe.tokenizer_digest  # the index has counted
    name = settings.tokenizer or index.embed.probe
    look = Look(
        text=index.corpus.text,
        seed=settings.seed,
        target=write_target(facts, target) if settings.decontaminate else "",
        ngram=settings.ngram,
        kept=str(Path(index.folder) / "prints"),
        meaning=meaning,
        count=None if known else partial(count_tokens, name=name, info=index.probe),
        counted_by="index" if known else tokenizer_digest,
    )
    wish = Wish(
        budget=settings.budget,
        names=names,
        spread=spread,
        max_epochs=settings.max_epochs,
        seen=Seen(limit=settings.near_documents) if settings.dedup else None,
        priority=settings.priority,
        holdout=settings.holdout,
        whole=settings.whole_documents,
        seed=settings.seed,
    )

    return draw_rows(
        {each.shard.name: each.shard for each in index.shards},
        wish,
        look,
        embedding=lambda shard: embeddings[shard.name] if known else None,
        read=partial(read_some, text=index.corpus.text),
        cut=cutter(encode),
        folder=facts,
        workers=workers,
        notify=notify,
    )


def meaning_of(settings: MixSettings, index: Index) -> Meaning | None:
    """Return how a mix tells items in other words, None where it does not."""
    if not (settings.decontaminate and settings.paraphrases):
        return None
    from curate.ranking.encoder import find_encoder  # loads a tensor library

    name = settings.encoder or index.embed.probe
    return Meaning(name, find_encoder(name), settings.cosine)


def _choices(drawn: Drawn, ranking: Ranking, settings: MixSettings) -> list[Choice]:
    lines = {line.shard: line for line in ranking.shards}
    return [
        Choice(
            shard=shard.name,
            source=shard.source,
            ranges=shard.ranges,
            alignment=lines[shard.name].alignment,
            reason=f"{settings.selection}: rank {lines[shard.name].rank}",
        )
        for shard in drawn.shards
    ]


def _layout(fmt: str, settings: MixSettings, index: Index) -> Layout:
    (found,) = (known for known in get_args(Format) if known == fmt)
    if fmt in ("tokens", "megatron"):
        return Layout(found, spec=token_spec(settings.tokenizer or index.embed.probe, index.probe))
    return Layout(cast(Format, found))


def _trainer_text(
    trainer: str,
    fmt: str,
    settings: MixSettings,
    index: Index,
    *,
    out: Path,
    files: list[WrittenFile],
) -> str:
    name = settings.tokenizer or index.embed.probe
    spec = token_spec(name, index.probe)
    place = find_place(name, index.probe)["pretrained_model_name_or_path"]
    if isinstance(place, Path):  # the trainer may be started from another folder
        place = place.resolve()
    return trainer_text(
        trainer,
        out=out.resolve(),
        fmt=fmt,
        files=[file.path for file in files],
        tokenizer=str(place),
        vocab=spec.vocab,
        end=spec.end,
    )
