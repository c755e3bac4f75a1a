"""Recovery: at the start the relay applies the journal's changes that are not in the state file, in order.

A change that a later one at the same address supersedes is checked, but neither decoded nor applied: a journal is
mostly new values of the same params.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile
from clasp_relay.storage.journal.opening import cannot_use

MAX_LATEST = 250_000
"""How many changes are applied together; until then each takes about 200 bytes."""

LOOKED_AFTER = 1_000
"""After how many rows the number of changes that wait to be applied is checked."""

_WRITE, _RENEWAL = int(ChangeKind.WRITE), int(ChangeKind.RENEWAL)
_MEANINGLESS = frozenset({int(ChangeKind.EVENT), int(ChangeKind.POSITION), int(ChangeKind.ACCOUNTS)})
"""The kinds that alter no state."""


class Recovery(NamedTuple):
    """The result of a recovery."""

    rows: int
    """How many changes of the journal were not in the state file."""
    last_seq: int
    """The last seq in use; new rows get higher ones."""
    warnings: tuple[str, ...]
    """One line for each warning to the operator."""


def recover(file: JournalFile, journal_seq: int, restore: Callable[[Change], None], *, has_state: bool) -> Recovery:
    """Applies the changes that are in a journal and not in the state file, in order.

    Changes that a later one at the same address supersedes may be left out.

    Args:
        file: the open journal.
        journal_seq: the last change that is in the state file; 0 if it has none.
        restore: applies one change.
        has_state: whether there is a state file.

    Raises:
        StartError: changes between the two files are missing, or a row is damaged; neither file was changed.
    """
    journal_seq = max(journal_seq, file.first_seq(has_state=has_state))
    if file.trimmed_seq > journal_seq:
        raise _gap(file, journal_seq, file.trimmed_seq, has_state)
    last_seq = journal_seq
    latest = _Latest()
    try:
        for seq, kind, address in file.rows(journal_seq):
            if seq != last_seq + 1:
                raise _gap(file, last_seq, seq - 1, has_state)
            last_seq = seq
            latest.add(seq, kind, address)
            if seq % LOOKED_AFTER == 0 and len(latest) >= MAX_LATEST:
                latest.release(file, restore)
        latest.release(file, restore)
    except (sqlite3.Error, DamagedRowError) as error:
        raise cannot_use(file.path, error) from error
    warnings: tuple[str, ...] = ()
    if 0 < file.last_seq < journal_seq:
        warnings = (
            f"{file.path}: the journal is older than the state file (it ends with row {file.last_seq}, the state file "
            f"has row {journal_seq}): the relay starts from the state file",
        )
    return Recovery(last_seq - journal_seq, last_seq, warnings)


class _Latest:
    """The changes that no later one supersedes."""

    def __init__(self) -> None:
        self._writes: dict[str, int] = {}
        self._renewals: dict[str, int] = {}
        """Only of params that were not written since."""
        self._others: list[int] = []

    def __len__(self) -> int:
        return len(self._writes) + len(self._renewals) + len(self._others)

    def add(self, seq: int, kind: int, address: str) -> None:
        """Takes the next change."""
        if kind == _WRITE:
            self._writes[address] = seq
            if self._renewals:
                self._renewals.pop(address, None)
        elif kind == _RENEWAL:
            self._renewals[address] = seq
        elif kind not in _MEANINGLESS:
            self._others.append(seq)

    def release(self, file: JournalFile, restore: Callable[[Change], None]) -> None:
        """Applies the changes in order, and discards them."""
        seqs = sorted((*self._writes.values(), *self._renewals.values(), *self._others))
        for kept in (self._writes, self._renewals, self._others):
            kept.clear()
        for change in file.read_some(seqs):
            restore(change)


def _gap(file: JournalFile, last_seq: int, missing_seq: int, has_state: bool) -> StartError:
    state = f"the state file ends with row {last_seq}" if has_state else "there is no state file"
    return StartError(
        f"{file.path}: rows {last_seq + 1} to {missing_seq} are missing ({state}); put back the state file that "
        "belongs to this journal (state.json.1 is the one before), or move the journal away to start without it"
    )
