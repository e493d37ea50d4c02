"""Numbers as people write and read them; imports nothing heavy."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "t": 1_000_000_000_000}
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)"  # a comma parts thousands, or 1,5M would be 15M
_TOKENS = re.compile(rf"({_WHOLE}(?:\.\d+)?(?:e\d{{1,2}})?)\s*([kmbt]?)", re.IGNORECASE | re.ASCII)
MISSING = "–"


def parse_tokens(text: str) -> int:
    """Return the number of tokens that `text` names.

    Args:
        text: a whole number of tokens: `1500`, `1_500`, `1,500`, `250k`, `1.5M`, `2B`, `1e9`.

    Raises:
        ValueError: not a number, negative, or not a whole number of tokens.

    Example:
        >>> parse_tokens("1.5B")
        1500000000
    """
    match = _TOKENS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number of tokens; write 250k, 100M or 1.5B")
    number, unit = match.groups()
    tokens = Decimal(re.sub("[_,]", "", number)) * _UNITS[unit.lower()]
    if tokens != tokens.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of tokens")
    return int(tokens)


def parse_share(text: str) -> float:
    """Return the share that `text` names: `1%`, `0.01`.

    Raises:
        ValueError: not a number, or not from 0 to 1.

    Example:
        >>> parse_share("12.5%")
        0.125
    """
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a share such as 1% or 0.01")
    return share


def format_tokens(tokens: float) -> str:
    """Return a count with at most three significant digits and a unit.

    Args:
        tokens: any count; NaN and infinities read as missing.

    Example:
        >>> format_tokens(1_500_000), format_tokens(999), format_tokens(999_960)
        ('1.5M', '999', '1M')
    """
    if not math.isfinite(tokens):
        return MISSING
    size = abs(tokens) if abs(tokens) >= 0.05 else 0  # of tenths none
    sign = "−" if tokens < 0 and size else ""
    if round(size) < 1_000:
        whole = size >= 9.95 or size == int(size)
        return f"{sign}{round(size)}" if whole else f"{sign}{size:.1f}"
    units = [(1_000, "k"), (1_000_000, "M"), (1_000_000_000, "B"), (1_000_000_000_000, "T")]
    # 999,960 rounds to 1,000k: the next unit says it shorter
    scale, unit = next(
        ((s, u) for s, u in units if float(f"{size / s:.3g}") < 1_000), (units[-1][0], "T")
    )
    return f"{sign}{_trim(f'{size / scale:.{_decimals(size / scale)}f}')}{unit}"


def format_count(count: int) -> str:
    """Return a whole number with its thousands apart: 12,345."""
    return f"{count:,}"


def format_number(count: int, thing: str) -> str:
    """Return how many there are of a thing.

    Example:
        >>> format_number(1, "file"), format_number(1_200, "record")
        ('1 file', '1,200 records')
    """
    return f"{format_count(count)} {thing}{'' if count == 1 else 's'}"


def with_minus(text: str) -> str:
    """Return a sentence whose negative numbers have the minus sign of `format_value`.

    Example:
        >>> with_minus("a drop of -0.13 (-1.02 to 0.59) in run-2")
        'a drop of −0.13 (−1.02 to 0.59) in run-2'
    """
    return re.sub(r"(?<![^\s(])-(?=\d)", "−", text)


def format_value(value: float, *, decimals: int = 3, signed: bool = False) -> str:
    """Return a loss, drop or alignment; values under 0.01 keep one decimal more.

    Args:
        value: NaN and infinities read as missing.
        decimals: places after the point.
        signed: write + before what is above zero.

    Example:
        >>> format_value(-0.1234), format_value(0.0042), format_value(float("nan"))
        ('−0.123', '0.0042', '–')
    """
    if not math.isfinite(value):
        return MISSING
    places = decimals + 1 if 0 < abs(value) < 0.01 else decimals
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return f"{0:.{decimals}f}"
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed else text


def format_alignment(value: float) -> str:
    """Return an alignment; one that orders shards does not read as 0, however small it is.

    Example:
        >>> format_alignment(0.25), format_alignment(3.1e-6)
        ('0.250', '3e-06')
    """
    return f"{value:.0e}" if 0 < value < 0.00005 else format_value(value)


def format_interval(low: float, high: float, *, decimals: int = 3, signed: bool = False) -> str:
    """Return `low to high`."""
    ends = [format_value(end, decimals=decimals, signed=signed) for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def format_share(share: float) -> str:
    """Return a share (1 is all) in percent; one above 0 never reads as 0, one below 1 never as all.

    Example:
        >>> format_share(0.5), format_share(0.034), format_share(0.00001), format_share(0.9996)
        ('50%', '3.4%', '<0.1%', '>99.9%')
    """
    if not math.isfinite(share):
        return MISSING
    percent = 100 * share
    if percent < 0:
        return f"−{format_share(-share)}" if percent <= -0.1 else "0%"
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.5 <= percent < 100:
        return f"{percent:.1f}%" if percent < 99.95 else ">99.9%"
    return f"{percent:z.0f}%" if percent >= 9.95 or percent == 0 else f"{percent:.1f}%"


def format_ranks(low: int, high: int) -> str:
    """Return the ranks an interval allows: `3`, or `2–5`."""
    return str(low) if low == high else f"{low}–{high}"


def format_seconds(seconds: float) -> str:
    """Return a duration in the two units that matter.

    Example:
        >>> format_seconds(0.2), format_seconds(75), format_seconds(7_300)
        ('<1 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if 0 < seconds <= 0.5:
        return "<1 s"
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_bytes(n_bytes: float) -> str:
    """Return a size in decimal units: 1.5 MB."""
    short = format_tokens(n_bytes)
    unit = {"k": " kB", "M": " MB", "B": " GB", "T": " TB"}.get(short[-1])
    return f"{short[:-1]}{unit}" if unit else f"{short} B"


def _decimals(scaled: float) -> int:
    """Return the places that leave three significant digits of a number in [1, 1000)."""
    return max(0, 2 - math.floor(math.log10(scaled)))


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
