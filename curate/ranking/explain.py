"""Stage: why a shard ranks where it does."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from curate.errors import USAGE, CurateError
from curate.ranking.explain_words import reasons_by_words
from curate.ranking.samples import read_samples
from curate.ranking.terms import characteristic_terms, count_words
from curate.records import Explanation, Index, Notify, Ranking, Target, silent
from curate.settings import ALIGNMENTS, RankSettings

LOOKED_AT = 24  # documents of the shard
DOCUMENT = 1_000  # characters of each: of equal length, so that noise treats them alike
SHOWN = 4  # nearest and farthest documents
TERMS = 12


def explain_shard(
    shard: str,
    *,
    index: Index,
    target: Target,
    ranking: Ranking,
    settings: RankSettings,
    workspace: Path,
    device: str = "auto",
    notify: Notify = silent,
) -> Explanation:
    """Say what takes away from the alignment of a shard, and which text it is.

    Args:
        shard: its name.
        index: of the corpus.
        target: that the ranking is for.
        ranking: by alignment, published.
        settings: of that ranking.
        workspace: where text and embeddings are kept.
        device: of the probe, which embeds some documents of the shard one by one.
        notify: progress.

    Raises:
        CurateError: no such shard, a ranking by another method, or an input that changed.
    """
    if ranking.method not in ALIGNMENTS:
        raise CurateError(
            f"a ranking by {ranking.method} has nothing to explain it by; use --method lexical, "
            "ngram-lm or task2vec",
            exit_code=USAGE,
        )
    line = next((line for line in ranking.shards if line.shard == shard), None)
    if line is None:
        names = [line.shard for line in ranking.shards]
        near = difflib.get_close_matches(shard, names, n=1, cutoff=0)
        raise CurateError(
            f"shard {shard}: not in the ranking; did you mean {near[0]}?", exit_code=USAGE
        )
    texts = read_samples(index, seed=settings.seed, workspace=workspace, notify=notify)
    number = next(n for n, entry in enumerate(index.shards) if entry.shard.name == shard)
    documents = _of_one_length(texts[number])
    if ranking.method != "task2vec":
        first = ranking.shards[0].shard
        why = reasons_by_words(
            shard,
            documents,
            index=index,
            target=target,
            first=first,
            seed=settings.seed,
            pairs=ranking.shards[0].alignment if ranking.method == "ngram-lm" else None,
        )
    else:
        from curate.ranking.explain_fisher import reasons_by_fisher  # loads a tensor library

        why = reasons_by_fisher(
            shard,
            documents,
            index=index,
            target=target,
            settings=settings,
            workspace=workspace,
            device=device,
            notify=notify,
        )
    found = [(value, " ".join(text[:200].split())) for value, text in why.documents]
    corpus: Counter[str] = Counter()
    for one in texts:
        corpus.update(count_words(one))
    return Explanation(
        ranking=dataclasses.replace(ranking, map=()),
        shard=line,
        layers=why.layers,
        rows=why.rows,
        nearest=tuple(found[:SHOWN]),
        farthest=tuple(found[::-1][: min(SHOWN, len(found) - SHOWN)] if len(found) > SHOWN else ()),
        documents=len(found),
        shard_terms=_terms(texts[number], corpus),
        target_terms=_terms(target.select, corpus),
    )


def _of_one_length(texts: Sequence[str]) -> list[str]:
    """Return the beginnings of some documents, the short ones left out where there are others."""
    long = [text for text in texts if len(text) >= DOCUMENT // 2] or list(texts)
    return [text[:DOCUMENT] for text in long[:LOOKED_AT] if text.strip()]


def _terms(texts: Sequence[str], corpus: Counter[str]) -> tuple[str, ...]:
    found = characteristic_terms(count_words(texts), corpus, count=TERMS)
    return tuple(term for term, _ in found)
