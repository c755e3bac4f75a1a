"""What the relay does with its journal when it starts: the changes behind the state file, applied in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from clasp_relay.core.records import Change
from clasp_relay.errors import StartError
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile
from clasp_relay.storage.journal.opening import cannot_use


class Recovery(NamedTuple):
    """What was found in a journal."""

    rows: int
    """How many changes were applied."""
    last_seq: int
    """New rows count above this."""
    warnings: tuple[str, ...]
    """One line for each thing that the operator should know."""


def recover(file: JournalFile, journal_seq: int, restore: Callable[[Change], None], *, has_state: bool) -> Recovery:
    """Applies the changes that are in a journal and not in the state file, one at a time.

    Args:
        file: the open journal.
        journal_seq: the last change that is in the state file; 0 where it has none.
        restore: applies one change.
        has_state: whether there is a state file.

    Raises:
        StartError: changes are missing between the two, or a row is damaged; neither file was changed.
    """
    if file.trimmed_seq > journal_seq:
        raise _gap(file, journal_seq, file.trimmed_seq, has_state)
    rows, last_seq = 0, journal_seq
    try:
        for seq, change in file.read(journal_seq):
            if seq != last_seq + 1:
                raise _gap(file, last_seq, seq - 1, has_state)
            restore(change)
            rows, last_seq = rows + 1, seq
    except (sqlite3.Error, DamagedRowError) as error:
        raise cannot_use(file.path, error) from error
    warnings: tuple[str, ...] = ()
    if 0 < file.last_seq < journal_seq:
        warnings = (
            f"{file.path}: the journal is older than the state file (it ends with row {file.last_seq}, the state file "
            f"has row {journal_seq}): the relay starts from the state file",
        )
    return Recovery(rows, last_seq, warnings)


def _gap(file: JournalFile, last_seq: int, missing_seq: int, has_state: bool) -> StartError:
    state = f"the state file ends with row {last_seq}" if has_state else "there is no state file"
    return StartError(
        f"{file.path}: rows {last_seq + 1} to {missing_seq} are missing ({state}); put back the state file that "
        "belongs to this journal (state.json.1 is the one before), or move the journal away to start without it"
    )
