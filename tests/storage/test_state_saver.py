"""Saving the state when it has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NoReturn

from twisted.internet.defer import Deferred, execute, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from clasp_relay.core.records import StateImage
from clasp_relay.errors import StartError
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_saver import PAUSE_S, DeferToThread, StateSaver, try_thread
from clasp_relay.storage.state_writing import PIECE_PARAMS, encode
from tests.storage.values import image, make_folder, param


class Threads:
    """A thread pool that works when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], int], Deferred[int]]] = []

    def __call__(self, function: Callable[[], int], /) -> Deferred[int]:
        """Puts a call aside."""
        done: Deferred[int] = Deferred()
        self.waiting.append((function, done))
        return done

    def work(self) -> None:
        """Makes the first call that waits."""
        function, done = self.waiting.pop(0)
        execute(function).chainDeferred(done)


class Table:
    """A state that changes."""

    def __init__(self) -> None:
        self.changes = 5
        self.state = image(param("/a"))

    def change(self) -> None:
        """Changes it."""
        self.changes += 1
        self.state = image(param("/a", revision=self.changes))


def capture_log() -> tuple[Logger, list[LogEvent]]:
    """Makes a log and the list of what is said in it."""
    events: list[LogEvent] = []
    return Logger(observer=events.append), events  # type: ignore[arg-type]


class SnapshotWriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a writer over a file, a state and threads that wait."""
        self.state_file = StateFile(make_folder(self) / "state.json")
        self.state_file.load()
        self.table = Table()
        self.threads = Threads()
        self.log, self.events = capture_log()
        self.pauses: list[float] = []
        self.writer = self.make_writer(lambda: self.table.state, self.threads)

    def make_writer(self, capture: Callable[[], StateImage], threads: DeferToThread) -> StateSaver:
        """Makes a writer."""
        return StateSaver(
            self.state_file, capture, lambda: self.table.changes, threads, self.log, sleep=self.pauses.append
        )

    def on_disk(self) -> StateImage | None:
        """Reads the file; None when there is none."""
        loaded = StateFile(self.state_file.path).load()
        return loaded.image if loaded.found else None

    def said(self) -> list[tuple[str, str]]:
        """Returns level and text of what was logged."""
        return [(event["log_level"].name, formatEvent(event)) for event in self.events]

    def test_writer_writes_nothing_when_nothing_changed(self) -> None:
        """What was loaded counts as saved: no thread, no file, no log line."""
        self.assertIs(self.successResultOf(self.writer.save_if_changed()), True)
        self.assertEqual((self.threads.waiting, self.on_disk(), self.events), ([], None, []))

    def test_writer_writes_each_change_once(self) -> None:
        """A change is written, and not written again."""
        self.table.change()
        done = self.writer.save_if_changed()
        self.assertNoResult(done)
        self.threads.work()
        self.assertIs(self.successResultOf(done), True)
        self.assertEqual(self.on_disk(), self.table.state)
        self.assertIs(self.successResultOf(self.writer.save_if_changed()), True)
        self.assertEqual(self.writer.written, 1)

    def test_writer_tells_how_old_what_is_on_disk_is(self) -> None:
        """Since the last time that all that was set was on disk; that nothing has changed counts too."""
        now_s = 100.0
        writer = StateSaver(
            self.state_file,
            lambda: self.table.state,
            lambda: self.table.changes,
            self.threads,
            self.log,
            monotonic=lambda: now_s,
            sleep=self.pauses.append,
        )
        now_s = 160.0
        self.assertEqual(writer.age_s, 60.0)
        writer.save_if_changed()
        self.assertEqual(writer.age_s, 0.0)
        self.table.change()
        writer.save_if_changed()
        now_s = 163.0
        self.assertEqual(writer.age_s, 3.0)
        self.threads.work()
        self.assertEqual((writer.age_s, writer.last_duration_s), (3.0, 3.0))

    def test_writer_captures_in_one_step(self) -> None:
        """What changes while the thread works is not in the file, and is written the next time."""
        self.table.change()
        captured = self.table.state
        done = self.writer.save_if_changed()
        self.table.change()
        self.threads.work()
        self.successResultOf(done)
        self.assertEqual(self.on_disk(), captured)
        done = self.writer.save_if_changed()
        self.threads.work()
        self.successResultOf(done)
        self.assertEqual(self.on_disk(), self.table.state)

    def test_second_call_waits_and_writes_what_is_newer(self) -> None:
        """Two calls never write at once; the second one captures after the first is done."""
        self.table.change()
        first, second = self.writer.save_if_changed(), self.writer.save_if_changed()
        self.assertEqual(len(self.threads.waiting), 1)
        self.table.change()
        self.threads.work()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.threads.work()
        self.assertIs(self.successResultOf(second), True)
        self.assertEqual(self.on_disk(), self.table.state)

    def test_second_call_writes_nothing_when_nothing_is_newer(self) -> None:
        """A call that waited for another one is done with it when nothing changed meanwhile."""
        self.table.change()
        first, second = self.writer.save_if_changed(), self.writer.save_if_changed()
        self.threads.work()
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (True, True))
        self.assertEqual(self.writer.written, 1)

    def test_failed_write_is_told_and_tried_again(self) -> None:
        """A full disk is an error line with its cause; the change does not count as saved."""
        self.table.change()
        obstacle = Path(f"{self.state_file.path}.tmp")
        obstacle.mkdir()
        done = self.writer.save_if_changed()
        self.threads.work()
        self.assertIs(self.successResultOf(done), False)
        ((level, text),) = self.said()
        self.assertEqual(level, "error")
        self.assertIn("snapshot not saved: ", text)
        self.assertIn("state.json.tmp: Is a directory", text)
        obstacle.rmdir()
        done = self.writer.save_if_changed()
        self.threads.work()
        self.assertIs(self.successResultOf(done), True)
        self.assertEqual((self.writer.failed, self.writer.written), (1, 1))
        self.assertEqual(self.on_disk(), self.table.state)

    def test_writer_tells_whether_the_last_attempt_failed(self) -> None:
        """From the first failure until the state is on disk again, by a write or because it is as it was."""
        self.assertFalse(self.writer.is_failing)
        obstacle = Path(f"{self.state_file.path}.tmp")
        for cure in (self.table.change, lambda: setattr(self.table, "changes", self.table.changes - 1)):
            with self.subTest(cure=cure):
                self.table.change()
                obstacle.mkdir()
                self.writer.save_if_changed()
                self.threads.work()
                self.assertTrue(self.writer.is_failing)
                obstacle.rmdir()
                cure()
                done = self.writer.save_if_changed()
                if self.threads.waiting:
                    self.threads.work()
                self.assertIs(self.successResultOf(done), True)
                self.assertFalse(self.writer.is_failing)

    def test_thread_that_cannot_be_started_is_a_failure_with_its_cause(self) -> None:
        """Not a fault with a traceback; the last snapshot of all is written without a thread."""

        def no_thread(_: Callable[[], int], /) -> NoReturn:
            raise RuntimeError("can't start new thread")

        writer = self.make_writer(lambda: self.table.state, no_thread)
        self.table.change()
        self.assertIs(self.successResultOf(writer.save_if_changed()), False)
        self.assertTrue(writer.is_failing)
        ((level, text),) = self.said()
        self.assertEqual(level, "error")
        self.assertIn("can't start new thread", text)
        self.assertIs(self.successResultOf(writer.save_if_changed(may_block=True)), True)
        self.assertEqual((self.on_disk(), writer.is_failing), (self.table.state, False))

    def test_fault_of_ours_is_told_with_its_traceback(self) -> None:
        """Any other exception is logged too, and the next call is made as usual."""
        states: list[StateImage] = []
        writer = self.make_writer(states.pop, self.threads)
        self.table.change()
        self.assertIs(self.successResultOf(writer.save_if_changed()), False)
        (event,) = self.events
        self.assertIs(event["log_failure"].type, IndexError)
        self.assertEqual(writer.failed, 1)
        states.append(self.table.state)
        done = writer.save_if_changed()
        self.threads.work()
        self.assertIs(self.successResultOf(done), True)

    def test_written_snapshot_is_told_in_one_line(self) -> None:
        """The line and the attributes say how many params, how many bytes and how long."""
        clock = Clock()
        writer = StateSaver(
            self.state_file,
            lambda: self.table.state,
            lambda: self.table.changes,
            self.threads,
            self.log,
            monotonic=clock.seconds,
            sleep=lambda _: clock.advance(0.25),
        )
        self.table.change()
        writer.save_if_changed()
        self.threads.work()
        pieces = len(list(encode(self.table.state)))
        size_bytes = self.state_file.path.stat().st_size
        self.assertEqual(self.said(), [("info", f"snapshot saved: 1 params, {size_bytes} bytes in {250 * pieces} ms")])
        self.assertEqual(
            (writer.last_params, writer.last_size_bytes, writer.last_duration_s), (1, size_bytes, pieces / 4)
        )

    def test_writer_pauses_after_each_piece(self) -> None:
        """The thread lets the event loop have its turn again and again."""
        self.table.change()
        self.table.state = image(*(param(f"/p/{number}") for number in range(3 * PIECE_PARAMS)))
        self.writer.save_if_changed()
        self.threads.work()
        self.assertGreaterEqual(len(self.pauses), 3)
        self.assertLessEqual(max(self.pauses), PAUSE_S)


class TryThreadTests(SynchronousTestCase):
    def test_thread_is_tried_and_gone(self) -> None:
        """Nothing of it is left."""
        before = threading.active_count()
        try_thread()
        self.assertEqual(threading.active_count(), before)

    def test_operator_reads_that_there_are_no_threads_left(self) -> None:
        """With the cure."""

        def refuse(_: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", refuse)
        error = self.assertRaises(StartError, try_thread)
        self.assertIn("cannot start a thread (can't start new thread); raise the limit of processes", str(error))


class ThreadTests(TestCase):
    @inlineCallbacks
    def test_snapshot_is_written_off_the_event_loop(self) -> Generator[Deferred[bool], bool, None]:
        """Capturing is done on the event loop, encoding and writing in another thread."""
        state_file = StateFile(make_folder(self) / "state.json")
        state_file.load()
        changes = iter([0, 1])
        captured: list[int] = []
        slept: list[int] = []

        def capture() -> StateImage:
            captured.append(threading.get_ident())
            return image(param("/a"))

        def sleep(_: float) -> None:
            slept.append(threading.get_ident())

        log, _ = capture_log()
        writer = StateSaver(state_file, capture, lambda: next(changes), deferToThread, log, sleep=sleep)
        self.assertTrue((yield writer.save_if_changed()))
        self.assertEqual(captured, [threading.get_ident()])
        self.assertTrue(slept)
        self.assertNotIn(threading.get_ident(), slept)
        self.assertEqual(StateFile(state_file.path).load().image, image(param("/a")))
