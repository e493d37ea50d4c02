"""A short run on the mix itself, before a verification: would it test more than word statistics?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.verification.blocks import IntArray
from curate.verification.evaluate import item_nats
from curate.verification.outcome import loss_at, tokens_to_reach
from curate.verification.prepared import unigram_entropy
from curate.verification.start import Start, load_start
from curate.verification.train import Progress, TrainSettings, train_model

SECONDS = 10.0
"""Of the pilot, about; a run that is shorter is trained whole."""

SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Of the pilot, after which items are evaluated."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a short run tells of the whole ones, nats/token on some eval items."""

    tokens: int  # trained on
    unigram_entropy: float  # under the word frequencies of the mix alone
    loss: float  # expected at the end of a whole run
    enough_tokens: float  # a run, to get 1 nat/token below word frequencies; infinite: none
    start_loss: float  # of the pretrained model before its first step; NaN without one


def run_pilot(
    documents: Sequence[IntArray],
    items: Sequence[IntArray],
    settings: TrainSettings,
    start: Start | None,
    *,
    seconds_a_token: float,
    device: str,
) -> Pilot:
    """Train a model for some seconds and draw its loss out in log tokens.

    The rate falls to a tenth within the pilot, as it would in a whole run of so few tokens.

    Args:
        documents: token ids of a part of the mix.
        items: token ids of some eval items, none empty.
        settings: of a whole run.
        start: a pretrained model that the runs go on from: it is only evaluated.
        seconds_a_token: of training, measured.
        device: cpu or cuda.
    """
    entropy = unigram_entropy(items, documents, vocab=settings.vocab)
    n_tokens = sum(map(len, items))
    known = {"eos": settings.eos, "block_tokens": settings.block_tokens}
    if (model := load_start(start, settings)) is not None:
        model.to(device)
        loss = float(item_nats(model, items, **known).sum()) / n_tokens
        return Pilot(0, entropy, loss, 0.0 if loss < entropy - 1 else math.inf, loss)
    tokens = min(settings.tokens, max(settings.batch_tokens * 16, round(SECONDS / seconds_a_token)))
    points: list[tuple[float, float]] = []

    def on_step(progress: Progress) -> None:
        if progress.step in {max(1, round(share * progress.steps)) for share in SHARES}:
            nats = float(item_nats(progress.model, items, **known).sum())
            points.append((progress.tokens, nats / n_tokens))

    train_model(
        documents, dataclasses.replace(settings, tokens=tokens), device=device, on_step=on_step
    )
    curve = np.array(points)
    expected = points[-1][1] if tokens == settings.tokens else loss_at(curve, settings.tokens)
    return Pilot(tokens, entropy, expected, tokens_to_reach(curve, entropy - 1), math.nan)
