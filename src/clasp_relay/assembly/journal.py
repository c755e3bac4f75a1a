"""Opens the journal at the start, applies the changes that the state file lacks, maintains it, and closes it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute

from clasp_relay.access.policy_choice import HISTORY_OFF
from clasp_relay.core.records import StateImage
from clasp_relay.core.relay import Relay
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.logs import events
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.history_reader import HistoryReader
from clasp_relay.storage.journal.journal_file import DamagedRowError, JournalFile
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.journal.opening import cannot_use, open_journal, open_to_check
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.storage.journal.rust_journal import is_rust_journal, read_params, take_over
from clasp_relay.storage.state_file import LoadedState

LOST = Disconnect(CloseCode.TRY_AGAIN_LATER, "the relay cannot record changes and is stopping", ErrorCode.OVERLOADED)
"""The reason that sessions are sent when a commit has failed."""

UNUSED = (
    "{path}: --durability snapshot writes no journal; one that is there is read for what the state file does "
    "not have, and --journal can be left out afterwards"
)
"""The warning for ``--journal`` together with ``--durability snapshot``."""

NOT_TAKEN_OVER = (
    "{path}: a journal of the Rust relay, which stays as it is with --durability snapshot; without a state file the "
    "params in it are loaded"
)
"""The warning if the Rust relay's journal is not converted."""

_SURVIVES = {"power": "a loss of power", "kill": "the end of the process"}


class JournalKeeper:
    """Keeps the journal of one relay.

    Args:
        settings: the settings.
        relay: the relay whose changes it has.
        log: records the changes; None for ``--durability snapshot``, where an older journal is read once.
        on_lost: called when a commit has failed, after the sessions were ended.
        reader: reads the history in it; None where there are no history rules.
    """

    def __init__(
        self,
        settings: Settings,
        relay: Relay,
        log: JournalLog | None,
        on_lost: Callable[[], None],
        reader: HistoryReader | None = None,
    ) -> None:
        self.log = log
        self._reader = reader
        self._settings = settings
        self._relay = relay
        self._on_lost = on_lost
        self._last_seq = 0
        self._loaded_seq = 0
        self._was_low = False
        self.applied_seq: Callable[[], int] | None = None
        """Returns the last row whose change is applied; set in a cluster, where rows are recorded before that."""
        if log is not None:
            log.on_lost = self._lost

    @property
    def trouble(self) -> str:
        """Why changes cannot be recorded now, for an operator; empty where they can."""
        if self.log is None:
            return ""
        if self.log.lost:
            return "a commit of the journal failed"
        return "the disk of the journal is almost full" if self.log.is_disk_low else ""

    @property
    def is_lost(self) -> bool:
        """Whether a commit has failed."""
        return self.log is not None and bool(self.log.lost)

    @property
    def keeps_bundles(self) -> bool:
        """Whether scheduled bundles survive a restart."""
        return self.log is not None

    @property
    def changes(self) -> int:
        """The number of changes in the journal that the state file did not have at the start."""
        return 0 if self.log is None else self.log.appended_seq - self._loaded_seq

    def capture(self) -> Deferred[StateImage]:
        """Captures the state and the row of its last change in one step, as soon as no bundle is half applied."""
        captured: Deferred[StateImage] = Deferred()

        def take() -> None:
            execute(self._image).chainDeferred(captured)

        self._relay.bundles.when_whole(take)
        return captured

    def _image(self) -> StateImage:
        image = self._relay.params.image()
        if self.log is None:
            return image._replace(journal_seq=self._last_seq)
        seq = self.log.appended_seq if self.applied_seq is None else self.applied_seq()
        return image._replace(journal_seq=seq, scheduled=self._relay.schedule.image())

    def open(self, state: LoadedState, previous_seq: int) -> None:
        """Applies the changes that the state file lacks, and begins to record.

        Args:
            state: the state file, which the relay has loaded.
            previous_seq: the last change in the previous generation of the state file.

        Raises:
            StartError: the journal cannot be used.
        """
        settings, log, committer = self._settings, self.log, self._relay.committer
        self._last_seq = self._loaded_seq = state.image.journal_seq
        path = settings.journal_file
        if log is None and settings.journal_path is not None:
            events.JOURNAL_WARNING.log(text=UNUSED.format(path=path))
        if log is None and not path.exists():
            return
        for change in state.image.scheduled if log is not None else ():
            committer.restore(change)
        if is_rust_journal(path) and not self._take_over(path, has_state=state.found):
            return
        self._recover(path, state)
        if log is None:
            return
        file = open_journal(path, syncs_each_commit=settings.durability == "power")
        log.load_floors(previous_seq, state.image.journal_seq)
        try:
            self._begin_history(file)
        except BaseException:
            file.close()
            raise
        log.open(file, self._last_seq)
        if self._reader is not None:
            self._reader.open()
        events.JOURNAL_OPENED.log(
            path=str(path), sqlite=sqlite3.sqlite_version, survives=_SURVIVES[settings.durability]
        )

    def _recover(self, path: Path, state: LoadedState) -> None:
        """Applies the changes after the state file; nothing is written to the journal before all of them are read.

        Raises:
            StartError: the journal cannot be used.
        """
        file = open_to_check(path)
        if file is None:
            return
        began_s = time.monotonic()
        with closing(file):
            found = recover(file, state.image.journal_seq, self._relay.committer.restore, has_state=state.found)
        self._last_seq = found.last_seq
        for warning in found.warnings:
            events.JOURNAL_WARNING.log(text=warning)
        if found.rows:
            took_ms = round((time.monotonic() - began_s) * 1000)
            events.JOURNAL_RECOVERED.log(path=str(path), rows=found.rows, duration_ms=took_ms)

    def _take_over(self, path: Path, *, has_state: bool) -> bool:
        """Converts a journal of the Rust relay, or only reads its params; returns whether it was converted."""
        now_us = self._relay.clock.now_us()
        if self.log is None:
            left_out = "" if has_state else read_params(path, now_us, self._relay.committer.restore)
            events.JOURNAL_WARNING.log(text=NOT_TAKEN_OVER.format(path=path))
        else:
            taken = take_over(path, now_us, self.log.judge, has_state=has_state)
            left_out = taken.left_out
            events.JOURNAL_TAKEN_OVER.log(
                path=str(path),
                entries=taken.entries,
                kept=taken.kept,
                params=taken.params,
                old=taken.old_path.name,
            )
        if left_out:
            events.JOURNAL_WARNING.log(text=f"{path}: left out {left_out}")
        return self.log is not None

    def _begin_history(self, file: JournalFile) -> None:
        """Puts the history rules in force; entries that they do not keep are removed.

        Raises:
            StartError: an entry cannot be read.
        """
        keeping = self._relay.keeping
        if keeping is None and self._settings.history != HISTORY_OFF:
            return
        try:
            if keeping is None:
                gone = file.history.begin((), "", lambda _: None)
            else:
                gone = file.history.begin(keeping.rules.limits, keeping.rules.fingerprint, keeping.key_of)
                keeping.begin(file.history.last_us)
        except (sqlite3.Error, DamagedRowError) as error:
            raise cannot_use(file.path, error) from error
        if gone:
            events.HISTORY_CHANGED.log(path=str(file.path), gone=gone)

    def maintain(self) -> Deferred[Any] | None:
        """Does the maintenance that is due once a second."""
        if self.log is None:
            return None
        return self.log.maintain().addCallback(self._tell_disk)

    def close(self) -> None:
        """Closes the journal, once everything appended is written."""
        if self._reader is not None:
            self._reader.close()
        if self.log is not None:
            self.log.close()

    def _tell_disk(self, _: object) -> None:
        log = self.log
        assert log is not None, "looked after nothing"
        if log.is_disk_low != self._was_low:
            self._was_low = log.is_disk_low
            path = str(Path(self._settings.journal_file))
            if self._was_low:
                events.JOURNAL_DISK_LOW.log(path=path, min_free_bytes=self._settings.min_free_bytes)
            else:
                events.JOURNAL_DISK_OK.log(path=path)

    def _lost(self) -> None:
        for session in self._relay.sessions.all():
            self._relay.end(session, LOST)
        self._on_lost()
