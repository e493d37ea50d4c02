"""The one way by which text from data reaches a person's screen."""

from __future__ import annotations

from rich.cells import cell_len

from curate.harmless import hide_secrets, without_controls

_ELLIPSIS = "…"


def show(text: str, width: int | None = None) -> str:
    r"""Return text from data (names, paths, documents, messages) made safe to display.

    Every character of Unicode category C (controls, escape, bidirectional and other
    invisible formatting, surrogates, unassigned) becomes U+FFFD, a line break or tab a space;
    secrets are hidden.
    The result still has to be escaped for HTML, and printed without markup.

    Args:
        text: anything.
        width: most terminal cells that the result takes, >= 1; None for no limit. What is
            longer ends in an ellipsis.

    Example:
        >>> show("red\x1b[31m\nname")
        'red�[31m name'
        >>> show("a long name", width=6)
        'a lon…'
    """
    clean = without_controls(hide_secrets(text))
    return clean if width is None else _cut(clean, width)


def show_middle(text: str, width: int) -> str:
    """Return `show(text)` cut in its middle: the end of a path or shard name tells most."""
    clean = show(text)
    if cell_len(clean) <= width:
        return clean
    head = (width - 1) // 2
    tail, start = width - 1 - head, len(clean)
    while start > 0 and cell_len(clean[start - 1 :]) <= tail:
        start -= 1
    return _take(clean, head) + _ELLIPSIS + clean[start:]


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else _take(text, width - 1) + _ELLIPSIS


def _take(text: str, cells: int) -> str:
    """Return the longest start of `text` that takes at most `cells` terminal cells."""
    used, taken = 0, text
    for position, char in enumerate(text):
        used += cell_len(char)
        if used > cells:
            taken = text[:position]
            break
    while cell_len(taken) > cells:  # a variation selector widens the character before it
        taken = taken[:-1]
    return taken
