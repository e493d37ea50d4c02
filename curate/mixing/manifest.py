"""What a mix is on record: its parts, its manifest, the shares that trainers draw by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.mixing.drawn import Drawn
from curate.mixing.formats import WrittenFile
from curate.mixing.mixture import Mixture
from curate.records import Index, Mix, MixPart, Ranking, Target
from curate.settings import MixSettings


def mix_of(
    ranking: Ranking,
    target: Target,
    settings: MixSettings,
    drawn: Drawn,
    own: Mixture,
    given: Mapping[str, int],
    mark: str,
) -> Mix:
    """Return the record of a mix that has been drawn; its folder is filled in when it is read."""
    leaks = sum(each.reason == "leak" for each in drawn.dropped)
    return Mix(
        folder="",
        target=target.name,
        budget=settings.budget,
        tokens=int(drawn.rows.tokens.sum()),
        alignment=own.alignment,
        low=own.low,
        high=own.high,
        forecast=own.forecast,
        parts=_parts(ranking, given, _held_tokens(drawn) if settings.tokenizer else {}),
        decontaminated=leaks,
        duplicates=len(drawn.dropped) - leaks,
        ranking_fingerprint=ranking.fingerprint,
        fingerprint=mark,
        held_out=int(drawn.held.tokens.sum()) if settings.holdout else None,
        items=len(target.select),
    )


def manifest_of(
    mix: Mix,
    index: Index,
    target: Target,
    settings: MixSettings,
    files: list[WrittenFile],
    held: list[WrittenFile],
    drawn: Drawn,
) -> dict[str, Any]:
    """Return what `manifest.json` says of a mix: what it was made from, and what it holds."""
    return {
        "budget": mix.budget,
        "tokens": mix.tokens,
        "settings": settings,
        "tokenizer": settings.tokenizer or index.embed.probe,
        "probe": index.probe,
        "target": {
            "name": target.name,
            "origin": target.origin,
            "licence": target.licence,
            "select_digest": target.select_digest,
            "eval_digest": target.eval_digest,
            "items": len(target.select) + len(target.eval),
        },
        "index": index.fingerprint,
        "ranking": mix.ranking_fingerprint,
        "inputs": {ledger.path: ledger.digest for ledger in index.ledgers},
        "sources": mix.sources,
        "parts": mix.parts,
        "decontaminated": mix.decontaminated,
        "duplicates": mix.duplicates,
        "near_unchecked": drawn.unchecked,
        "rows": {
            "all": len(drawn.rows.tokens),
            "cut": int((drawn.rows.end >= 0).sum()),
            "repeated": int((drawn.rows.epoch > 0).sum()),
        },
        "weights": {shard: tokens / mix.tokens for shard, tokens in given_tokens(drawn).items()},
        "interleave": _interleave(drawn),
        "files": files,
        "holdout": {"tokens": sum(file.tokens for file in held), "files": held},
    }


def given_tokens(drawn: Drawn) -> dict[str, int]:
    """Return the tokens of each shard in the mix."""
    tokens = np.bincount(drawn.rows.shard, drawn.rows.tokens, minlength=len(drawn.shards))
    return {
        shard.name: int(count) for shard, count in zip(drawn.shards, tokens, strict=True) if count
    }


def indexed_tokens(drawn: Drawn, settings: MixSettings) -> dict[str, float]:
    """Return the tokens of each shard in the mix as the index counts them."""
    held = _held_tokens(drawn) if settings.tokenizer else {}
    sizes = {shard.name: float(shard.n_tokens) for shard in drawn.shards}
    return {
        name: count * sizes[name] / max(held.get(name, sizes[name]), 1.0)
        for name, count in given_tokens(drawn).items()
    }


def _interleave(drawn: Drawn) -> dict[str, float]:
    """Return the probabilities by source with which `interleave_datasets` draws documents.

    It draws documents, a mix is planned in tokens: the probability is the share of tokens
    divided by the mean length, which is the share of documents.
    """
    rows: dict[str, int] = {}
    counts = np.bincount(drawn.rows.shard, minlength=len(drawn.shards))
    for shard, count in zip(drawn.shards, counts.tolist(), strict=True):
        rows[shard.source] = rows.get(shard.source, 0) + count
    return {source: count / sum(rows.values()) for source, count in rows.items() if count}


def _held_tokens(drawn: Drawn) -> dict[str, float]:
    """Return the tokens of each shard by the tokenizer that counted its documents."""
    return {
        shard.name: float(facts.tokens.mean()) * shard.n_documents
        for shard, facts in zip(drawn.shards, drawn.facts, strict=True)
        if len(facts.tokens)
    }


def _parts(
    ranking: Ranking, given: Mapping[str, int], held: Mapping[str, float]
) -> tuple[MixPart, ...]:
    return tuple(
        MixPart(
            shard=line.shard,
            source=line.source,
            tokens=given[line.shard],
            epochs=given[line.shard] / max(held.get(line.shard, line.tokens), 1),
            alignment=line.alignment,
        )
        for line in ranking.shards
        if given.get(line.shard)
    )
