"""Artefacts that follow from each other, and the key of what is verified of them."""

from __future__ import annotations

from dataclasses import dataclass

from curate.records import Index, Mix, ProbeInfo, Ranking, Target
from curate.settings import VerifySettings
from curate.store.fingerprint import fingerprint
from curate.verification import arithmetic
from curate.verification.start import find_start


@dataclass(frozen=True, slots=True)
class Chain:
    """Artefacts that follow from each other."""

    index: Index
    ranking: Ranking
    mix: Mix
    target: Target


def learner_of(target: Target, settings: VerifySettings, info: ProbeInfo) -> str:
    """Return the digest of what learns and what it is measured on, whatever it learns from.

    Args:
        target: its eval split measures.
        settings: size or model, blocks, learning rate.
        info: of the model, or of the one whose tokenizer counts.
    """
    return fingerprint(
        target=(target.name, target.eval_digest),
        tokenizer=info.tokenizer_digest,
        start=find_start(settings, info.revision),
        size="" if settings.model else settings.size,
        steps=(settings.block_tokens, settings.batch_tokens, settings.learning_rate),
    )


def key_of(chain: Chain, settings: VerifySettings, *, tokenizer: str, revision: str) -> str:
    """Return the fingerprint of a verification: of all that decides it.

    Args:
        chain: what is verified.
        settings: of the verification.
        tokenizer: digest of the one that counts.
        revision: of the pretrained model, where the settings name one.
    """
    return fingerprint(
        settings=settings,
        index=chain.index.fingerprint,
        ranking=chain.ranking.fingerprint,
        mix=chain.mix.fingerprint,
        target=(chain.target.name, chain.target.select_digest, chain.target.eval_digest),
        tokenizer=tokenizer,
        start=find_start(settings, revision),
        arithmetic=(arithmetic.CONCLUDED, arithmetic.TRAINED),
    )
