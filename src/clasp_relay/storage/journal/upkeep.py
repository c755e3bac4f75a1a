"""What operators do with a journal: inspect it, export its entries as JSON, and erase a part of its history."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.storage.journal.journal_file import JournalFile, Sizes
from clasp_relay.wire.constants import MessageCode, Signal
from clasp_relay.wire.json_values import to_json
from clasp_relay.wire.messages import Publish

ERASED_AT_ONCE = 2_000
"""How many entries of history one transaction erases."""


class KeptKey(NamedTuple):
    """A summary of the entries under one key of history."""

    key: str
    entries: int
    first_us: int
    """Unix µs of its oldest entry."""
    last_us: int


class Facts(NamedTuple):
    """A summary of a journal."""

    version: int
    """The version of its schema."""
    rows: int
    first_seq: int
    """0 if there is no row, like the last seq and the times."""
    last_seq: int
    trimmed_seq: int
    """Up to this seq there are only rows that history keeps."""
    first_us: int
    last_us: int
    kinds: dict[str, int]
    """How many rows there are of each kind."""
    history: tuple[KeptKey, ...]
    """The keys of history, the one with most entries first."""
    sizes: Sizes


def inspect(file: JournalFile) -> Facts:
    """Reads a journal from the first row to the last and checks each.

    Raises:
        DamagedRowError: a row is damaged.
        sqlite3.Error: the file cannot be read, or its structure is damaged.
    """
    file.check_structure()
    kinds = Counter[int]()
    first_seq = last_seq = 0
    for seq, kind, _ in file.rows(0):
        kinds[kind] += 1
        first_seq, last_seq = first_seq or seq, seq
    times = dict(file.ask("SELECT seq, time_us FROM entries WHERE seq IN (?, ?)", (first_seq, last_seq)))
    history = file.ask(
        "SELECT key, count(*), min(time_us), max(time_us) FROM history JOIN entries USING (seq)"
        " GROUP BY key ORDER BY count(*) DESC, key"
    )
    ((version,),) = file.ask("PRAGMA user_version")
    return Facts(
        version=version,
        rows=kinds.total(),
        first_seq=first_seq,
        last_seq=last_seq,
        trimmed_seq=file.trimmed_seq,
        first_us=times.get(first_seq, 0),
        last_us=times.get(last_seq, 0),
        kinds={kind.name.lower(): kinds[kind] for kind in ChangeKind if kinds[kind]},
        history=tuple(KeptKey(*row) for row in history),
        sizes=file.sizes(),
    )


def entries(file: JournalFile, after_seq: int, *, history_only: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the SETs and PUBLISHes of a journal as ``json.dumps`` takes them, in order.

    Args:
        file: the open journal.
        after_seq: only rows after this one.
        history_only: whether to yield only entries that history keeps.

    Raises:
        DamagedRowError: a row cannot be read.
        sqlite3.Error: the file cannot be read.
    """
    for seq, change in file.read(after_seq, history_only=history_only):
        # An erased signal leaves an empty row until that is trimmed.
        if change.kind is ChangeKind.WRITE or (change.message is not None and change.kind is ChangeKind.EVENT):
            yield entry_to_json(seq, change)


def entry_to_json(seq: int, change: Change) -> dict[str, Any]:
    """Returns a SET or a kept PUBLISH as ``json.dumps`` takes it, with the keys of the Rust relay's entries."""
    param, message = change.param, change.message
    entry = {
        "seq": seq,
        "timestamp": param.timestamp_us,
        "author": param.subject or param.writer,
        "address": param.address,
    }
    if isinstance(message, Publish):
        entry |= {"signal_type": message.signal.name.lower(), "value": _published(message)}
        return entry | {"revision": None, "msg_type": int(MessageCode.PUBLISH)}
    entry |= {"signal_type": Signal.PARAM.name.lower(), "value": to_json(param.value)}
    return entry | {"revision": param.revision, "msg_type": int(MessageCode.SET)}


def _published(message: Publish) -> Any:
    """Returns the value of a signal, or the samples of a stream."""
    if message.samples is not None:
        return [number for (number,) in struct.iter_unpack(">d", message.samples)]
    return None if message.value is None else to_json(message.value)


def forget(file: JournalFile, *, before_seq: int | None = None, before_us: int | None = None) -> int:
    """Erases entries of history from before a row or a time. Rows that a start needs stay in the journal.

    Args:
        file: the open journal; nobody else writes to it.
        before_seq: rows before this one are erased.
        before_us: rows from before this Unix time in µs are erased.

    Returns:
        how many entries were erased.

    Raises:
        sqlite3.Error: the file cannot be written; some entries may be erased already.
    """
    test, bound = ("history.seq < ?", before_seq) if before_us is None else ("entries.time_us < ?", before_us)
    query = f"SELECT key, seq FROM history JOIN entries USING (seq) WHERE {test} LIMIT {ERASED_AT_ONCE}"  # noqa: S608 - constants
    erased = 0
    while rows := file.ask(query, (bound,)):
        with file.transaction():
            file.history.remove(rows, empties=True)
        erased += len(rows)
    if erased:
        file.give_back(0)
    return erased
