"""Artefacts that follow from each other, and the key of what is verified of them."""

from __future__ import annotations

from dataclasses import dataclass

from curate.records import Index, Mix, Ranking, Target
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
