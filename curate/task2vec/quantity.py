"""What an embedding is made of: the settings that name the quantity."""

from __future__ import annotations

from dataclasses import dataclass

from curate.settings import LabelSource, Rows, Square

CONTRAST = 4  # labels a draw and position
COINS = 1  # the way in which labels are drawn; raised whenever the same seed gives others
ALSO = ("norms", "biases", "embeddings", "head")


@dataclass(frozen=True, slots=True)
class FisherSettings:
    """What is computed; every field changes the values."""

    labels: LabelSource = "model"  # true Fisher, or the empirical one
    draws: int = 1  # label draws a sequence, each a backward pass
    contrast: int = CONTRAST  # labels a draw and position: 1, or an even number
    rows: Rows = "output"
    layers: str = "all"  # "all", or "last:K" blocks
    seed: int = 0
    also: tuple[str, ...] = ()  # besides the blocks' matrices: norms, biases, embeddings, head
    signs: int = 0  # random signs a row's sum of squares is estimated with; 0: it is exact
    square: Square = "sequence"  # of the sequence's gradient, or of every position's apart
    gradients: int = 0  # numbers of the projected mean gradient of the text's own labels; 0: none


def check_quantity(settings: FisherSettings) -> None:
    """Refuse settings that name no quantity.

    Raises:
        ValueError: which setting, and what it may be.
    """
    if unknown := set(settings.also) - set(ALSO):
        raise ValueError(f"also names {', '.join(sorted(unknown))}; known: {', '.join(ALSO)}")
    if settings.draws < 1:
        raise ValueError(f"draws is {settings.draws}; it must be at least 1")
    if settings.signs < 0:
        raise ValueError(f"signs is {settings.signs}; it must be 0 (exact) or positive")
    if settings.gradients < 0:
        raise ValueError(f"gradients is {settings.gradients}; it must be 0 (none) or positive")
    if settings.gradients and settings.rows == "input":
        raise ValueError("gradients need rows of output units: rows = 'output' or 'both'")
    if {"embeddings", "head"} & set(settings.also):
        check_by_token(settings, what="rows of the embeddings or the head")


def check_by_token(settings: FisherSettings, *, what: str) -> None:
    """Refuse what rows by token cannot be had with.

    Raises:
        ValueError: which setting they need.
    """
    if settings.square == "position":
        raise ValueError(f"{what} need square = 'sequence'")
    if settings.labels == "data" or settings.contrast == 1:
        raise ValueError(f"{what} need labels = 'model', in contrast")
