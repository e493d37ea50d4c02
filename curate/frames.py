"""What a result does for the person who holds it: rows, a pandas frame, a line, a notebook's table.

Loaded with the records, so nothing heavy at the top.
"""

from __future__ import annotations

import dataclasses
import html
from abc import ABC, abstractmethod
from typing import Any

from curate.errors import CurateError

_MOST_ROWS = 60


class Frame(ABC):
    """A record that is a table as well: `to_pandas()`, a short repr, HTML in a notebook."""

    __slots__ = ()

    @abstractmethod
    def summary(self) -> str:
        """Return the record in one line."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """Return the lines of the record's table as plain values, in order."""

    def to_pandas(self) -> Any:
        """Return the record's table as a `pandas.DataFrame`.

        Raises:
            CurateError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise CurateError("to_pandas needs pandas: pip install pandas") from None
        return pd.DataFrame(self.to_rows())

    def __repr__(self) -> str:
        from curate.report.text import show

        return f"<{type(self).__name__}: {show(self.summary())}>"

    def _repr_html_(self) -> str:
        """Return the table for a notebook: text from data shown safely and escaped."""
        rows = self.to_rows()
        names = list(rows[0]) if rows else []
        head = "".join(f"<th>{_safe(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_safe(_cell(row[name]))}</td>" for name in names) + "</tr>"
            for row in rows[:_MOST_ROWS]
        )
        more = f"<p>{len(rows) - _MOST_ROWS:,} more rows</p>" if len(rows) > _MOST_ROWS else ""
        return (
            f"<p>{_safe(self.summary())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
        )


def plain(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, one level deep."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def counted(count: int, thing: str) -> str:
    """Return `format_number(count, thing)`, for the lines of records."""
    from curate.report.numbers import format_number

    return format_number(count, thing)


def valued(value: float, *, signed: bool = False) -> str:
    """Return `format_value(value)`, for the lines of records and what is said on the way."""
    from curate.report.numbers import format_value

    return format_value(value, signed=signed)


def portioned(share: float) -> str:
    """Return `format_share(share)`, for the lines of records."""
    from curate.report.numbers import format_share

    return format_share(share)


def _cell(value: Any) -> str:
    from curate.report.numbers import format_count, format_value

    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return format_value(value)
    return format_count(value) if isinstance(value, int) else str(value)


def _safe(text: str) -> str:
    from curate.report.text import show

    return html.escape(show(text, 200))
