"""What the user can mend: one line that says which thing, what is wrong, what to do."""

from __future__ import annotations

from curate.harmless import hide_secrets

FAILED = 1
USAGE = 2
REJECTED = 3
NOT_CONFIRMED = 4
LOCKED = 5
UNREACHABLE = 6


class CurateError(Exception):
    """A mistake that the user can mend; anything else is a bug and keeps its traceback.

    Args:
        message: one line: which thing, what is wrong with it, what to do. Secrets in it are
            hidden here, so that no caller can forget to.
        exit_code: the code the command ends with (docs/commands/index.md).
    """

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(hide_secrets(message))
        self.exit_code = exit_code


class CannotWriteError(CurateError):
    """The file system refused (full, read-only): whatever else is written fares no better."""
