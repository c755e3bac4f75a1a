"""Writes the state to its file when it has changed, without blocking the event loop."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, execute, inlineCallbacks, maybeDeferred
from twisted.logger import Logger

from clasp_relay.core.records import StateImage
from clasp_relay.errors import JournalLost, StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode

PAUSE_S = 0.002
"""Seconds, at most, that the writing thread sleeps after each piece: as long as the piece took.

Without it the thread takes the interpreter's lock back after every system call of the event loop: a turn
with 100 of them took up to 135 ms, with it up to 5 ms (``bench/snapshot_pause.py``).
"""


class DeferToThread(Protocol):
    """``twisted.internet.threads.deferToThread``, or a test's replacement."""

    def __call__(self, function: Callable[[], int], /) -> Deferred[int]:
        """Calls the function in a thread; the Deferred fires with its result, on the event loop."""


class Journal(Protocol):
    """The journal that records the changes of the saved state."""

    def recorded(self) -> Deferred[None]:
        """Returns a Deferred that fires once all changes so far are recorded; it fails with ``JournalLost``."""

    def saved(self, seq: int, /) -> None:
        """Notes that the state file has all changes up to a seq; the previous file is kept as ``.1``."""


def try_thread() -> None:
    """Checks that a thread can be started, before one is needed for writing.

    Raises:
        StartError: the system has no threads left for this user or container.
    """
    thread = threading.Thread(target=lambda: None, name="trial")
    try:
        thread.start()
    except RuntimeError as error:
        raise StartError(
            f"cannot start a thread ({error}); raise the limit of processes (ulimit -u, the container's pids limit)"
        ) from error
    thread.join()


class StateSaver:
    """Saves the state when it has changed.

    Create it once the state is loaded: the state at that moment counts as saved.

    Args:
        state_file: the file to write.
        capture: returns the state, taken in one step and by reference, or a Deferred of it; called on the event loop.
        changes: returns a number that differs after every change of the state.
        defer_to_thread: makes a call in a thread.
        log: gets one line for each save.
        journal: the journal; a file is written only once the changes that it includes are recorded there, and no file
            is written after the journal was lost. None without a journal.
        monotonic: returns seconds; measures how long a save takes.
        sleep: pauses the writing thread so that other threads run.
    """

    def __init__(
        self,
        state_file: StateFile,
        capture: Callable[[], StateImage | Deferred[StateImage]],
        changes: Callable[[], int],
        defer_to_thread: DeferToThread,
        log: Logger,
        *,
        journal: Journal | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._state_file = state_file
        self._capture = capture
        self._changes = changes
        self._defer_to_thread = defer_to_thread
        self._log = log
        self._journal = journal
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = DeferredLock()
        self._saved_changes = changes()
        self._saved_s = monotonic()
        self.written = 0
        """How many times the state was saved."""
        self.failed = 0
        """How many times it could not be saved."""
        self.last_params = 0
        """How many params the last save wrote."""
        self.last_size_bytes = 0
        """The size of the last file written, in bytes."""
        self.last_duration_s = 0.0
        """How long the last save took, in seconds."""
        self.is_failing = False
        """Whether the last attempt failed: changes since the last save are not on disk."""

    @property
    def age_s(self) -> float:
        """Seconds since the state was last on disk; more than the save interval if saving fails or takes long."""
        return self._monotonic() - self._saved_s

    def save_if_changed(self, *, may_block: bool = False) -> Deferred[bool]:
        """Saves the state if it has changed since it was last saved.

        A call during another one waits for that one, and then saves what changed meanwhile.

        Args:
            may_block: write on the calling thread if no other one can be started; for the last save, when nothing
                waits for the event loop any more.

        Returns:
            A Deferred that fires with whether the state is on disk now. It does not fail: the cause is logged, and the
            next call tries again.
        """
        return self._lock.run(self._save, may_block)

    @inlineCallbacks
    def _save(self, may_block: bool) -> Generator[Deferred[Any], Any, bool]:
        changes = self._changes()
        started_s = self._monotonic()
        if changes == self._saved_changes:
            self._saved_s = started_s
            self.is_failing = False
            return True
        try:
            image = yield maybeDeferred(self._capture)
            if self._journal is not None:
                yield self._journal.recorded()
            size_bytes = yield self._write(image, may_block)
        except JournalLost:  # logged when it happened
            self._fail()
            return False
        except OSError as error:
            self._fail()
            events.SNAPSHOT_FAILED.log(self._log, cause=cause_text(error))
            return False
        except Exception:
            self._fail()
            events.SNAPSHOT_FAILED.failure(None, self._log, cause="a fault of the relay")
            return False
        self.is_failing = False
        self._saved_changes = changes
        if self._journal is not None:
            self._journal.saved(image.journal_seq)
        self._saved_s = started_s
        self.written += 1
        self.last_params = len(image.params)
        self.last_size_bytes = size_bytes
        self.last_duration_s = self._monotonic() - started_s
        events.SNAPSHOT_SAVED.log(
            self._log,
            params=self.last_params,
            size_bytes=size_bytes,
            duration_ms=round(self.last_duration_s * 1000),
        )
        return True

    def _write(self, image: StateImage, may_block: bool) -> Deferred[int]:
        try:
            return self._defer_to_thread(lambda: self._state_file.save(self._paced(image)))
        except RuntimeError as error:  # raised by starting the thread, not by what runs in it
            if not may_block:
                raise OSError(errno.EAGAIN, str(error)) from error  # the error number of a thread that cannot start
            return execute(self._state_file.save, encode(image))

    def _fail(self) -> None:
        self.failed += 1
        self.is_failing = True

    def _paced(self, image: StateImage) -> Iterator[bytes]:
        started_s = self._monotonic()
        for piece in encode(image):
            yield piece
            self._sleep(min(PAUSE_S, self._monotonic() - started_s))
            started_s = self._monotonic()
