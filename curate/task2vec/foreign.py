"""Files of a model that somebody else wrote: what their readers raise becomes one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import CurateError

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Of a tokenizer or configuration file: it takes about 13 times its size in memory."""


@contextmanager
def one_line_errors(what: str, *, advice: str) -> Iterator[None]:
    """Turn whatever a library raises over files from elsewhere into one line.

    The libraries check little: a damaged configuration or tokenizer surfaces as a type or
    attribute error, a plain Exception, or a panic of compiled code. None of them is a bug here.

    Args:
        what: which thing is read, for the message.
        advice: what to do.

    Raises:
        CurateError: in place of any of them.
    """
    try:
        yield
    except CurateError:
        raise
    except BaseException as error:
        panicked = type(error).__name__ == "PanicException"  # no Exception, and of no module
        if not isinstance(error, Exception) and not panicked:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CurateError(f"{what}: cannot be loaded ({reason}); {advice}") from error


def check_text_sizes(what: str, folder: Path) -> None:
    """Refuse a model folder with a text file that would fill the memory.

    Raises:
        CurateError: names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model", ".jinja") and path.is_file():
            size = path.stat().st_size
            if size > MAX_TEXT_BYTES:
                raise CurateError(
                    f"{what}: {path.name} is {size:,} bytes, more than {MAX_TEXT_BYTES:,}; "
                    "use another probe"
                )
