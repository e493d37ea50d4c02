"""What an experiment is made of, and what is published and known before anything trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.corpus.tokens import count_unigrams
from curate.errors import CurateError
from curate.ranking.lexical import lexical_cross_entropy
from curate.ranking.ngram_lm import pair_cross_entropy
from curate.records import Notify
from curate.settings import VerifySettings
from curate.store.arrays import arrays_are_whole
from curate.store.fingerprint import digest_file, fingerprint
from curate.verification import arithmetic
from curate.verification.arms import Arm
from curate.verification.blocks import IntArray
from curate.verification.published import Look, MeasuredArm, earlier_points
from curate.verification.runs import publish_documents, read_documents
from curate.verification.start import Start
from curate.verification.tasks import Outcomes
from curate.verification.train import TrainSettings

COUNTED = 16_000_000
"""Tokens of an arm whose pairs are counted: 8 s, and 1.4 GB while they are sorted."""

ArmDocuments = Callable[[Arm], Sequence[IntArray]]
"""Token ids of an arm's documents, in no particular order."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is trained, on what it is evaluated, and where the results lie."""

    target: str
    arms: tuple[Arm, ...]  # the mix first
    shards: tuple[str, ...]  # names, in the order of each arm's tokens
    sources: tuple[str, ...]  # of each of those shards
    look: Callable[[Sequence[Mapping[str, float]]], Look]  # at mixtures: shard → share
    select: Sequence[IntArray]  # token ids of the select split
    items: Sequence[IntArray]  # token ids of the eval split, none empty
    control: Sequence[IntArray]  # token ids of the control set, none empty
    n_bytes: int  # UTF-8 bytes of the items
    train: TrainSettings  # of the first seed
    start: Start | None  # a pretrained model; None is from scratch
    documents_key: str  # digest of what decides the documents of the arms
    corpus_key: str  # digest of index, target, measure: what mixtures are compared on
    fingerprint: str
    folder: Path  # of the verification
    device: str  # cpu or cuda
    notes: tuple[str, ...] = ()  # warnings about what it is set up from
    outcomes: Outcomes | None = None  # tasks that every run is asked
    store: str = ""  # address of `folder`, where workers share none with this process


@dataclass(frozen=True, slots=True)
class Prepared:
    """An experiment with the files of its documents, and what is known of the mixtures."""

    experiment: Experiment
    settings: VerifySettings
    documents: Mapping[str, Path]  # of each arm
    items: Path
    control: Path
    pairs: Mapping[str, float]  # nats/token of the select split under each arm's token pairs
    context: str
    earlier: tuple[MeasuredArm, ...]


def prepare(
    experiment: Experiment,
    arm_documents: ArmDocuments,
    settings: VerifySettings,
    *,
    notify: Notify,
) -> Prepared:
    """Publish the documents of arms, items and control set, and look up what is known already."""
    documents = {
        arm.name: _documents_of(experiment, arm, arm_documents, notify=notify)
        for arm in experiment.arms
    }
    mark = experiment.documents_key[:16]
    items = experiment.folder / "arms" / f"items-{mark}.safetensors"
    control = experiment.folder / "arms" / f"control-{mark}.safetensors"
    publish_documents(items, experiment.items)
    publish_documents(control, experiment.control)
    context = fingerprint(
        corpus=experiment.corpus_key,
        train=dataclasses.replace(experiment.train, seed=0),
        start=experiment.start,
        items=digest_file(items),
        **({"arithmetic": arithmetic.TRAINED} if arithmetic.TRAINED else {}),
    )
    own = [digest_file(path) for path in documents.values()]
    return Prepared(
        experiment=experiment,
        settings=settings,
        documents=documents,
        items=items,
        control=control,
        # The eval split has no part in what a forecast is computed from but measured losses.
        pairs={
            name: pair_entropy(
                experiment.select, read_documents(path), vocab=experiment.train.vocab
            )
            for name, path in documents.items()
        },
        context=context,
        earlier=earlier_points(experiment.folder / "measured", context=context, besides=own),
    )


def _documents_of(
    experiment: Experiment, arm: Arm, arm_documents: ArmDocuments, *, notify: Notify
) -> Path:
    """Publish an arm's documents once; return where they are."""
    key = fingerprint(
        documents=experiment.documents_key,
        tokens=arm.tokens,
        role=arm.role,
        worst=arm.name == "worst",
    )
    path = experiment.folder / "arms" / f"{arm.name}-{key[:16]}.safetensors"
    if not arrays_are_whole(path):
        notify(f"read the documents of {arm.name}", 0, 0)
        documents = arm_documents(arm)
        if not sum(map(len, documents)):
            raise CurateError(
                f"arm {arm.name}: no documents are left after decontamination; index more text"
            )
        publish_documents(path, documents)
    return path


def unigram_entropy(
    target: Sequence[IntArray], documents: Sequence[IntArray], *, vocab: int
) -> float:
    """Return the cross-entropy of `target` under the unigrams of `documents`, nats/token."""
    counts = count_unigrams(documents, vocab)
    total = int(counts.sum())
    return lexical_cross_entropy(count_unigrams(target, vocab), counts / total, tokens=total)


def pair_entropy(target: Sequence[IntArray], documents: Sequence[IntArray], *, vocab: int) -> float:
    """Return the cross-entropy of `target` under the token pairs of `documents`, nats/token.

    Of very many documents every second, third, … is counted, `COUNTED` tokens or a little more.
    """
    step = max(1, sum(map(len, documents)) // COUNTED)
    return pair_cross_entropy(target, documents[::step], vocab=vocab)
