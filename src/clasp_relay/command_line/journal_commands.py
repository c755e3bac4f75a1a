"""``clasp-relay journal``: looks at a journal, exports it as JSON lines, and trims its history.

What a script reads goes to stdout and all else to stderr. ``inspect`` and ``export`` only read, also while the relay
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from clasp_relay.command_line.account_commands import parse_duration
from clasp_relay.command_line.options import CommandParser, fail, settings_of
from clasp_relay.errors import StartError, cause_text
from clasp_relay.settings import Settings
from clasp_relay.storage.folder import FILE_MODE, FileLock, is_plain
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile
from clasp_relay.storage.journal.opening import cannot_use, open_journal, open_to_read
from clasp_relay.storage.journal.upkeep import Facts, entries, forget, inspect
from clasp_relay.storage.state_writing import HEAD_BYTES, read_journal_seq

__all__ = ["COMMAND", "parse_before", "run"]

COMMAND = "journal"
"""The first word of these command lines."""

MOST_KEYS = 20
"""How many keys of history ``inspect`` shows without ``--json``."""

_RELAY_OPTIONS = ("data-dir", "journal", "persist", "config")
"""Options of the relay that say where its journal and its state file are."""

_SEQ = re.compile(r"[0-9]{1,18}")
_DATE = re.compile(r"[0-9]{4}-")


def parse_before(text: str) -> tuple[int | None, int | None]:
    """Returns the seq or the Unix time in µs that ``--before`` names, the other one None.

    A number is a seq, ``30d`` (``90s``, ``15m``, ``12h``) is so long ago, and all else is an ISO 8601 date or time, in
    UTC where it names no zone.

    Raises:
        argparse.ArgumentTypeError: it is none of these.
    """
    if _SEQ.fullmatch(text):
        return int(text), None
    with suppress(ValueError, OverflowError):
        if _DATE.match(text):  # ``fromisoformat`` reads bare digits, too
            when = datetime.fromisoformat(text)
            return None, round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6)
    ago_s = None
    with suppress(argparse.ArgumentTypeError):
        ago_s = parse_duration(text)
    if ago_s is None:
        expected = "a row's number, a time such as 2026-01-31 or 2026-01-31T12:00:00Z, or how long ago, such as 30d"
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return None, time.time_ns() // 1000 - ago_s * 1_000_000


def run(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """Runs one of the commands.

    Args:
        arguments: those behind the word ``journal``.
        out: where what was asked for goes; None for stdout.

    Raises:
        SystemExit: something is wrong (1), or help was asked for (0).
    """
    asked = _parser().parse_args(arguments)
    settings = settings_of(asked, _RELAY_OPTIONS)
    path = settings.journal_file
    try:
        _VERBS[asked.verb](asked, settings, sys.stdout if out is None else out)
    except StartError as error:
        fail(str(error))
    except (sqlite3.Error, DamagedRowError) as error:
        fail(str(cannot_use(path, error)))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=f"clasp-relay {COMMAND}", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    shown = _add(verbs, "inspect", "Check every row of the journal and show what is in it.")
    shown.add_argument("--json", action="store_true", help="as JSON, with all keys of history")
    export = _add(verbs, "export", "Write the SETs and PUBLISHes in the journal as JSON, one a line.")
    export.add_argument("--to", metavar="FILE", type=Path, help="a new file (default: stdout)")
    export.add_argument("--after", metavar="SEQ", type=_seq, default=0, help="only those behind this row")
    export.add_argument("--history", action="store_true", help="only those that history keeps")
    trim = _add(verbs, "trim", "Erase history; what a start needs stays. The relay must not run.")
    trim.add_argument(
        "--before", metavar="TIME|SEQ", type=parse_before, required=True, help="a row, 2026-01-31T12:00:00Z, or 30d"
    )
    return parser


def _add(verbs: argparse._SubParsersAction[CommandParser], verb: str, what: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(verb, description=what, help=what, allow_abbrev=False)
    for name in _RELAY_OPTIONS:
        parser.add_argument(f"--{name}", metavar="PATH", help="as the relay has it")
    return parser


def _seq(text: str) -> int:
    if _SEQ.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected the number of a row")
    return int(text)


@contextmanager
def _opened(file: JournalFile) -> Iterator[JournalFile]:
    try:
        yield file
    finally:
        file.close()


def _inspect(asked: argparse.Namespace, settings: Settings, out: TextIO) -> None:
    with _opened(open_to_read(settings.journal_file)) as file:
        facts = inspect(file)
    state_seq = _state_seq(settings.state_file)
    if asked.json:
        shown = facts._asdict() | {
            "path": str(settings.journal_file),
            "sqlite": sqlite3.sqlite_version,
            "state_seq": state_seq,
            "sizes": facts.sizes._asdict(),
            "history": [kept._asdict() for kept in facts.history],
        }
        print(json.dumps(shown, ensure_ascii=False, indent=2), file=out)
        return
    for line in _lines(facts, settings, state_seq):
        print(line, file=out)


def _lines(facts: Facts, settings: Settings, state_seq: int) -> Iterator[str]:
    yield f"journal   {settings.journal_file}: version {facts.version}, read with SQLite {sqlite3.sqlite_version}"
    yield f"size      {facts.sizes.used_bytes} bytes used, WAL included, and {facts.sizes.free_bytes} free in the file"
    if facts.rows:
        yield f"rows      {facts.rows}, from {facts.first_seq} to {facts.last_seq}, none of them damaged"
        yield f"times     from {_time(facts.first_us)} to {_time(facts.last_us)}"
        yield "kinds     " + ", ".join(f"{name}: {count}" for name, count in facts.kinds.items())
    else:
        yield "rows      none"
    yield f"trimmed   up to row {facts.trimmed_seq}, but for history"
    behind = max(0, facts.last_seq - max(state_seq, facts.trimmed_seq))
    yield f"start     the state file goes up to row {state_seq}; a start applies the {behind} behind it"
    kept = sum(each.entries for each in facts.history)
    yield f"history   {kept} entries under {len(facts.history)} keys"
    for key, count, first_us, last_us in facts.history[:MOST_KEYS]:
        yield f"  {count:>8}  {_time(first_us)} to {_time(last_us)}  {key}"
    if len(facts.history) > MOST_KEYS:
        yield f"  and {len(facts.history) - MOST_KEYS} keys more; --json shows all"


def _state_seq(path: Path) -> int:
    """Returns the last change that the state file has; 0 where there is none."""
    if not is_plain(path):
        return 0
    try:
        with path.open("rb") as file:
            return read_journal_seq(file.read(HEAD_BYTES))
    except OSError:
        return 0


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _export(asked: argparse.Namespace, settings: Settings, out: TextIO) -> None:
    with _opened(open_to_read(settings.journal_file)) as file:
        found = entries(file, asked.after, history_only=asked.history)
        count = _write(found, out) if asked.to is None else _write_new(found, asked.to)
    print(f"{count} entries exported", file=sys.stderr)


def _write(found: Iterator[dict[str, object]], out: TextIO) -> int:
    count = 0
    for entry in found:
        print(json.dumps(entry, ensure_ascii=False), file=out)
        count += 1
    return count


def _write_new(found: Iterator[dict[str, object]], path: Path) -> int:
    """Writes entries to a new file, and removes it if it cannot be written whole."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        fail(f"--to: {path} exists; name a new file")
    except OSError as error:
        fail(f"--to: {cause_text(error)}; name a file in a folder that user {os.geteuid()} may write to")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            return _write(found, out)
    except BaseException as error:
        with suppress(FileNotFoundError):
            path.unlink()
        if isinstance(error, OSError):
            fail(f"--to: {path}: {error.strerror}; make room on its disk")
        raise


def _trim(asked: argparse.Namespace, settings: Settings, _out: TextIO) -> None:
    path = settings.journal_file
    with _opened(open_to_read(path)) as file:
        # So that a file that is not a journal is not made into one, and a damaged journal is not changed.
        file.check_structure()
    lock = FileLock("--data-dir" if settings.journal_path is None else "--journal", path)
    try:
        if lock.warning is not None:
            print(f"clasp-relay: {lock.warning}", file=sys.stderr)
        before_seq, before_us = asked.before
        with _opened(open_journal(path, syncs_each_commit=True)) as file:
            count = forget(file, before_seq=before_seq, before_us=before_us)
    finally:
        lock.release()
    print(f"{count} entries of history erased", file=sys.stderr)


_VERBS = {"inspect": _inspect, "export": _export, "trim": _trim}
