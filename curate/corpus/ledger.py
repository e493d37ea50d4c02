"""The account of what was read: every record of a file accepted, or rejected for a reason."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from curate.corpus.guess import propose_text
from curate.errors import REJECTED, CurateError
from curate.records import FileLedger

_REFUSALS = tuple(
    os.strerror(number)
    for number in (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE)
)
_FEW_RECORDS = 10
"""A file of at least so many records that gives none is an error, whatever the others gave."""

_NO_STRING = (
    "; a field with no string in it is read by a template: --text '{text}' for a list or a number, "
    "'{text.body}' for what is nested in it"
)


@dataclass(slots=True)
class LedgerBuilder:
    """The account of one file while it is read."""

    path: str = ""
    digest: str = ""
    n_bytes: int = 0
    seen: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    error: str = ""

    @staticmethod
    def of(ledger: FileLedger) -> LedgerBuilder:
        """Return a builder that goes on from a finished account."""
        return LedgerBuilder(
            path=ledger.path,
            digest=ledger.digest,
            n_bytes=ledger.n_bytes,
            seen=ledger.seen,
            accepted=ledger.accepted,
            rejected=Counter(ledger.rejected),
            error=ledger.error,
        )

    def reject(self, reason: str) -> None:
        """Count one record that is seen and rejected."""
        self.seen += 1
        self.rejected[reason] += 1

    def withdraw(self, reason: str) -> None:
        """Count a document as rejected that was accepted before."""
        self.accepted -= 1
        self.rejected[reason] += 1

    def finish(self) -> FileLedger:
        """Return the account as a record."""
        return FileLedger(
            path=self.path,
            digest=self.digest,
            n_bytes=self.n_bytes,
            seen=self.seen,
            accepted=self.accepted,
            rejected=dict(sorted(self.rejected.items())),
            error=self.error,
        )


def disk_refused(ledgers: Iterable[FileLedger | LedgerBuilder]) -> bool:
    """Say whether a file was not read for a reason that may be gone now, its content apart."""
    return any(reason in ledger.error for ledger in ledgers for reason in _REFUSALS)


def check_disk(ledger: LedgerBuilder) -> None:
    """Refuse to go on where a file was not read for a reason that may be gone later.

    Raises:
        CurateError: what the disk said, and to run the command again.
    """
    if disk_refused([ledger]):
        raise CurateError(f"{ledger.path}: {ledger.error}; mend it and run the same command again")


def check_ledgers(ledgers: Sequence[FileLedger], max_rejected: float) -> CurateError | None:
    """Return the error with which a run ends that lost too much, or None.

    Args:
        ledgers: one for each file that was read.
        max_rejected: 0 to 1, share of the records seen that may be rejected.

    Returns:
        A CurateError with exit code 3 where a container is broken, a file of many records gave
        none, or more than `max_rejected` of all the records were rejected.
    """
    for ledger in ledgers:
        if ledger.error:
            message = f"{ledger.path}: {ledger.error}; {ledger.accepted} documents were salvaged"
            return CurateError(message, exit_code=REJECTED)
        if ledger.seen >= _FEW_RECORDS and not ledger.accepted and max_rejected < 1:
            return CurateError(describe_refusal(ledger), exit_code=REJECTED)
    seen = sum(ledger.seen for ledger in ledgers)
    rejected = sum(sum(ledger.rejected.values()) for ledger in ledgers)
    if seen and rejected / seen > max_rejected:
        return CurateError(
            f"{rejected} of {seen} records rejected ({_reasons(ledgers)}), more than "
            f"{max_rejected:.2%}; mend the input, or raise --max-rejected",
            exit_code=REJECTED,
        )
    return None


def describe_refusal(ledger: FileLedger, *, of: str = "all") -> str:
    """Return what to say of a file `of` whose records none is a document, and what would be."""
    message = f"{ledger.path}: {of} {ledger.seen} records rejected: {_reasons([ledger])}"
    if "wrong_type" in ledger.rejected:
        message += _NO_STRING
    proposed = propose_text(ledger.path)
    return f"{message}; its first record would be read by {proposed}" if proposed else message


def _reasons(ledgers: Sequence[FileLedger]) -> str:
    total: Counter[str] = Counter()
    for ledger in ledgers:
        total.update(ledger.rejected)
    return ", ".join(f"{reason} {number}" for reason, number in total.most_common(5))
