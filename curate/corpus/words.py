"""Texts → words as 64-bit numbers, many texts at once, at the speed of array operations."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

WORD = re.compile(r"\w+|[^\w\s]")
LONGEST = 1_024
"""Characters of a word that its number is made of; the rest counts by its length."""

BLOCK = 1 << 17
"""Characters, or words, that one pass of arrays is made over: they stay in the cache."""

_SPACE, _LETTER, _SIGN, _UNKNOWN = range(4)
_CLASS = np.full(0x110000, _UNKNOWN, np.uint8)  # of each code point, filled as they are met


def _powers(base: int, count: int) -> Values:
    values = np.empty(count, np.uint64)
    values[0] = 1
    np.multiply.accumulate(np.full(count - 1, base, np.uint64), out=values[1:])
    return values


_BASE = 0x9E3779B97F4A7C15
_POWERS = _powers(_BASE, BLOCK + 2 * LONGEST)
_INVERSE = _powers(pow(_BASE, -1, 1 << 64), BLOCK + 2 * LONGEST)


@dataclass(frozen=True, slots=True)
class Words:
    """The words and signs of some texts, one text after the other."""

    text: str  # the texts as they are compared: NFKC, lower case, joined by line ends
    starts: Places  # (n,) first character of each word in `text`
    ends: Places  # (n,) character after its last
    values: Values  # (n,) its number
    bounds: Places  # (n_texts + 1,) words of text t are bounds[t] to bounds[t + 1]

    def spelled(self, first: int, last: int) -> list[str]:
        """Return the words `first` to `last` (not included) as strings."""
        pairs = zip(self.starts[first:last].tolist(), self.ends[first:last].tolist(), strict=True)
        return [self.text[start:end] for start, end in pairs]


def fold(text: str) -> str:
    """Return a text as words are compared: NFKC, lower case."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def split_words(text: str) -> list[str]:
    """Return the words and signs of a text: NFKC, lower case, spaces gone.

    Example:
        >>> split_words("Let  G be: x^2 = 1")
        ['let', 'g', 'be', ':', 'x', '^', '2', '=', '1']
    """
    return WORD.findall(fold(text))


def number_words(texts: Sequence[str]) -> Words:
    r"""Return the words of `texts` as numbers; equal words of any two texts have equal numbers.

    Words are those of `split_words`. A word's number is a polynomial of its characters modulo
    2^64, so that two different words share one with a probability of about 2^-64 (their first
    `LONGEST` characters and their lengths count).

    Example:
        >>> words = number_words(["To be", "be"])
        >>> bool(words.values[1] == words.values[2]), words.bounds.tolist()
        (True, [0, 2, 3])
    """
    folded = [fold(text) for text in texts]
    joined = "\n".join(folded)
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    starts, ends = _edges(_classes(codes))
    offsets = np.cumsum([0, *(len(text) + 1 for text in folded)])
    bounds = np.searchsorted(starts, offsets)
    return Words(joined, starts, ends, _hash_words(codes, starts, ends), bounds)


def window_values(values: Values, length: int) -> Values:
    """Return one number for every window of `length` words: (n - length + 1,).

    Equal windows have equal numbers wherever they stand; all bits of a number are mixed.
    """
    count = max(0, len(values) - length + 1)
    found = np.empty(count, np.uint64)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        part = values[start : start + size + length - 1]
        sums = _sums(part * _POWERS[: len(part)])
        found[start : start + size] = (sums[length:] - sums[:size]) * _INVERSE[:size]
    return mixed(found)


def windows_at(codes: npt.NDArray[np.uint16], places: Places, length: int) -> Values:
    """Return the numbers of the windows of `length` codes that begin at `places`.

    They are those of `window_values`, at the price of the windows that are asked for.
    """
    found = np.zeros(len(places), np.uint64)
    for offset in range(length):
        found += codes[places + offset] * _POWERS[offset]
    return mixed(found)


def text_values(words: Words) -> Values:
    """Return one number for each text from all its words in order: (n_texts,)."""
    found = np.zeros(len(words.bounds) - 1, np.uint64)
    for text, (first, last) in enumerate(
        zip(words.bounds[:-1].tolist(), words.bounds[1:].tolist(), strict=True)
    ):
        value = 0
        for start in range(first, last, BLOCK):
            part = words.values[start : min(start + BLOCK, last)]
            here = int((part * _POWERS[: len(part)]).sum(dtype=np.uint64))
            value = (value * int(_POWERS[BLOCK]) + here) & 0xFFFFFFFFFFFFFFFF
        found[text] = value
    return mixed(found)


def text_of(words: Words) -> Places:
    """Return the number of the text that each word stands in, (n,)."""
    return np.repeat(np.arange(len(words.bounds) - 1), np.diff(words.bounds))


def mixed(values: Values) -> Values:
    """Spread every bit of each number over all its bits (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _classes(codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    found = _CLASS[codes]
    unknown = np.unique(codes[found == _UNKNOWN])
    if len(unknown):
        for code in unknown.tolist():
            sign = chr(code)
            word = re.match(r"\w", sign)
            _CLASS[code] = _LETTER if word else _SPACE if re.match(r"\s", sign) else _SIGN
        found = _CLASS[codes]
    return found


def _edges(classes: npt.NDArray[np.uint8]) -> tuple[Places, Places]:
    """Return where each word begins and ends: a run of letters, or one sign."""
    letter = np.zeros(len(classes) + 2, np.bool_)
    np.equal(classes, _LETTER, out=letter[1:-1])
    sign = classes == _SIGN
    starts = np.flatnonzero((letter[1:-1] & ~letter[:-2]) | sign)
    ends = np.flatnonzero((letter[1:-1] & ~letter[2:]) | sign) + 1
    return starts, ends


def _hash_words(
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32], starts: Places, ends: Places
) -> Values:
    sizes = ends - starts
    stops = starts + np.minimum(sizes, LONGEST)
    values = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        last = int(np.searchsorted(starts, begin + BLOCK))
        end = int(stops[last - 1])
        sums = _sums((codes[begin:end] + np.uint64(1)) * _POWERS[: end - begin])
        here = starts[first:last] - begin
        values[first:last] = (sums[stops[first:last] - begin] - sums[here]) * _INVERSE[here]
        first = last
    return mixed(values + sizes.astype(np.uint64) * np.uint64(_BASE))


def _sums(values: Values) -> Values:
    sums = np.empty(len(values) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums
