"""What a run starts from: a size and its seed, or a pretrained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.errors import CurateError
from curate.settings import VerifySettings
from curate.verification import arithmetic

if TYPE_CHECKING:  # a tensor library, which the name of a start does without
    from curate.task2vec.probe import Probe
    from curate.verification.continued import ContinuedModel
    from curate.verification.train import TrainSettings

PRETRAINED = "pretrained"
"""In the place of a size."""

RATES = {"scratch": 1e-2, "all weights": 2e-4, "adapters": 1e-3}
"""Highest learning rate where the settings name none: Muon from scratch, AdamW from a model."""


@dataclass(frozen=True, slots=True)
class Start:
    """A pretrained model whose training goes on."""

    model: str  # builtin, a hub id, a folder or a .gguf file
    revision: str  # of its files
    lora: int  # rank of the adapters that learn; 0: all weights learn
    arithmetic: int = arithmetic.CONTINUED


def find_start(settings: VerifySettings, revision: str) -> Start | None:
    """Return what the runs start from; None is from scratch.

    Args:
        settings: name the model.
        revision: of its files.
    """
    if not settings.model:
        return None
    return Start(settings.model, revision, settings.lora)


def load_start(start: Start | None, settings: TrainSettings) -> ContinuedModel | None:
    """Load the model that a run goes on from, on the CPU; None for a run from scratch.

    Args:
        start: from `find_start`.
        settings: of the run; its seed and the length of its blocks count here.

    Raises:
        CurateError: not there or not the one that was planned, logits of unknown make, peft is
            wanted and not installed, or no layer takes an adapter.
    """
    if start is None:
        return None
    from curate.task2vec.probe import load_probe
    from curate.verification.checks import check_logits
    from curate.verification.continued import ContinuedModel

    probe = load_probe(start.model, device="cpu")
    if probe.info.revision != start.revision:
        raise CurateError(f"{start.model}: changed while the runs went on; run curate verify again")
    check_logits(start.model, probe)
    try:
        return ContinuedModel(
            probe.model,
            lora=start.lora,
            seed=settings.seed,
            block_tokens=settings.block_tokens,
        )
    except ImportError:
        raise CurateError("[verify] lora: peft is not installed; pip install peft") from None
    except ValueError as error:
        raise CurateError(f"[verify] lora: {error}; leave it out: all weights learn") from None


def train_settings(
    settings: VerifySettings, probe: Probe, *, tokens: int, seed: int
) -> TrainSettings:
    """Return what decides a run.

    Args:
        settings: size or model, blocks, learning rate.
        probe: its tokenizer counts; it is the model itself where the settings name one.
        tokens: labels to train on.
        seed: of the run.

    Raises:
        CurateError: the model's tokenizer has no token that stands between documents.
    """
    from curate.verification.train import TrainSettings

    kind = ("adapters" if settings.lora else "all weights") if settings.model else "scratch"
    eos, vocab = _separator(settings, probe)
    return TrainSettings(
        size=PRETRAINED if settings.model else settings.size,
        vocab=vocab,
        eos=eos,
        tokens=tokens,
        block_tokens=settings.block_tokens,
        batch_tokens=settings.batch_tokens,
        learning_rate=settings.learning_rate or RATES[kind],
        seed=seed,
    )


def _separator(settings: VerifySettings, probe: Probe) -> tuple[int, int]:
    """Return the token that stands before each document, and how many tokens there are.

    A model from scratch gets one of its own where the tokenizer has none.
    """
    vocab, tokenizer = probe.info.vocab, probe.tokenizer
    for token in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token), vocab
    if settings.model:
        raise CurateError(
            f"[verify] model {settings.model}: its tokenizer has neither eos nor bos; set one"
        )
    return vocab, vocab + 1
