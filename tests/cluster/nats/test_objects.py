"""The object store over a real nats-server."""

from __future__ import annotations

import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats import objects as module
from clasp_relay.cluster.nats.engine import NatsEngine
from clasp_relay.cluster.nats.objects import PIECE_BYTES, ObjectStore
from tests.cluster.reactor import Loop
from tests.integration.nats import Nats
from tests.integration.test_sent_files import some_bytes

T = TypeVar("T")
MIB = 1024 * 1024
FILE = "a" * 32


class Away(Exception):
    """The engine does not answer."""


class Full(Exception):
    """It has no room."""


def reading(data: bytes) -> Callable[[int, int], Awaitable[bytes]]:
    """Returns what reads from some bytes."""
    return lambda start, count: succeed(data[start : start + count])


def all_called(waiting: Iterable[Deferred[Any]]) -> bool:
    """Tells whether all have a result."""
    return all(each.called for each in waiting)


class ObjectStoreTests(SynchronousTestCase):
    """One server, one bucket."""

    def setUp(self) -> None:
        """Starts the server."""
        self.nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        self.nats.start()
        self.loop = Loop()
        self.engine = NatsEngine(self.loop, (self.nats.url,), "test", None, "one")
        self.addCleanup(self.stop)
        self.engine.start(lambda _: None, lambda _: None)
        self.loop.until(lambda: self.engine.is_connected)

    def stop(self) -> None:
        """Ends the engine."""
        ended: list[bool] = []
        self.engine.stop(lambda: ended.append(True))
        self.loop.until(lambda: bool(ended))

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Makes a call on the loop."""
        timer = threading.Timer(delay_s, self.loop.callFromThread, (call,))
        timer.daemon = True
        timer.start()

    def store(self, max_bytes: int = 256 * MIB) -> ObjectStore:
        """Returns the store as one relay has it."""
        return ObjectStore("test", max_bytes, lambda: self.engine, time.monotonic, self.call_later, Away, Full)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns what a coroutine returns, or raises what it raises."""
        done: Deferred[T] = Deferred.fromCoroutine(work)
        outcome: list[Any] = []
        done.addBoth(outcome.append)
        self.loop.until(lambda: bool(outcome))
        if hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        found: T = outcome[0]
        return found

    def put(self, data: bytes, file_id: str = FILE, store: ObjectStore | None = None) -> None:
        """Stores an object."""
        self.assertTrue(self.wait((store or self.store()).put(file_id, len(data), reading(data))))

    def get(self, file_id: str = FILE) -> bytes | None:
        """Returns an object; None where it is not whole."""
        pieces: list[bytes] = []

        def write(data: bytes) -> Awaitable[None]:
            pieces.append(data)
            return succeed(None)

        is_whole = self.wait(self.store().get(file_id, write))
        self.assertLessEqual(max(map(len, pieces), default=0), PIECE_BYTES)
        return b"".join(pieces) if is_whole else None

    def config(self) -> dict[str, Any]:
        """Returns how the bucket was made."""
        client = self.nats.client()
        self.addCleanup(client.close)
        config: dict[str, Any] = client.request("$JS.API.STREAM.INFO.OBJ_test")["config"]
        return config

    def test_object_comes_back_as_it_was(self) -> None:
        """Of one byte, of whole pieces, of more; those of others are between its pieces."""
        for number, size in enumerate((1, PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES + 5)):
            with self.subTest(size=size):
                data, file_id = some_bytes(number, size), f"{number:032x}"
                both = [self.store().put(each, size, reading(data)) for each in (file_id, FILE[:-1] + str(number))]
                waiting = [Deferred.fromCoroutine(each) for each in both]
                self.loop.until(partial(all_called, waiting))
                self.assertEqual(self.get(file_id), data)
        self.assertEqual(len(self.wait(self.store().names())), 8)

    def test_object_is_removed(self) -> None:
        """Also one of which there are pieces only; what is not there needs no removal."""
        store = self.store()
        self.assertEqual((self.wait(store.names()), self.get()), ({}, None))
        self.wait(store.remove(FILE))
        self.put(b"hello")
        self.put(b"world", "b" * 32)

        def broken(start: int, count: int) -> Awaitable[bytes]:
            return succeed(b"x" * count if not start else b"")

        self.assertRaises(OSError, self.wait, store.put("c" * 32, 2 * PIECE_BYTES, broken))
        self.assertEqual(self.wait(store.names()), {FILE: 1, "b" * 32: 1, "c" * 32: None})
        self.assertIsNone(self.get("c" * 32))
        for file_id in (FILE, "c" * 32):
            self.wait(store.remove(file_id))
        self.assertEqual((self.wait(store.names()), self.get(), self.get("b" * 32)), ({"b" * 32: 1}, None, b"world"))

    def test_names_come_in_pages(self) -> None:
        """The server gives so many at once."""
        for number in range(3):
            self.put(b"x", f"{number:032x}")
        asked: list[dict[str, Any]] = []
        request = self.engine.request

        def paged(subject: str, payload: bytes, headers: Any, done: Callable[[Any], None]) -> None:
            def one(answer: Any) -> None:
                asked.append(answer)
                subjects = dict(sorted(answer["state"]["subjects"].items()))
                offset = len(asked) - 1
                answer["state"]["subjects"] = dict(list(subjects.items())[offset : offset + 1])
                answer["total"] = len(subjects)
                done(answer)

            request(subject, payload.replace(b'"offset": %d' % len(asked), b'"offset": 0'), headers, one)

        self.patch(self.engine, "request", paged)
        self.assertEqual(self.wait(self.store().names()), {f"{number:032x}": 1 for number in range(3)})
        self.assertEqual(len(asked), 6)

    def test_damaged_object_is_no_object(self) -> None:
        """Whether a piece is missing, is another one, or nothing says what they are."""
        data = some_bytes(1, 3 * PIECE_BYTES)
        client = self.nats.client()
        self.addCleanup(client.close)
        for file_id in (FILE, "b" * 32, "c" * 32):
            self.put(data, file_id)
        last = client.last_sequence("OBJ_test")
        client.delete("OBJ_test", last - 10)
        self.assertIsNone(self.get())
        about = f"$O.test.M.{urlsafe_b64encode(b'b' * 32).decode()}"
        for text in (b"nonsense", b"{}", b'{"size": 5, "digest": "", "metadata": {}}'):
            self.wait(self.store()._ask(about, text, {"Nats-Rollup": "sub"}))
            self.assertIsNone(self.get("b" * 32))
        self.wait(self.store()._ask(f"$O.test.C.{'c' * 32}", b"more"))
        client.delete("OBJ_test", last - 1)
        self.assertIsNone(self.get("c" * 32))

    def test_object_of_which_a_part_is_lost_is_put_back(self) -> None:
        """A piece, or what says what they are: the names tell, and it is stored again at once."""
        store, data = self.store(), some_bytes(1, 2 * PIECE_BYTES + 5)
        self.assertEqual([store.pieces(size) for size in (1, PIECE_BYTES, len(data))], [1, 1, 3])
        client = self.nats.client()
        self.addCleanup(client.close)
        self.put(b"x", "b" * 32)
        for place, left in ((2, 2), (0, None)):
            with self.subTest(left=left):
                self.put(data, store=store)
                self.assertEqual(self.wait(store.names(FILE)), {FILE: 3})
                client.delete("OBJ_test", client.last_sequence("OBJ_test") - place)
                self.assertEqual(self.wait(store.names()), {FILE: left, "b" * 32: 1})
                self.assertEqual((self.wait(store.names(FILE)), self.get()), ({FILE: left}, None))
                self.wait(store.remove(FILE))
                self.put(data, store=store)
                self.assertEqual((self.wait(store.names(FILE)), self.get()), ({FILE: 3}, data))
                self.wait(store.remove(FILE))

    def test_relays_that_put_back_the_same_object_at_once_do_not_mix_it(self) -> None:
        """One does it; who removes what another one is storing stops that one."""
        data = some_bytes(1, 3 * PIECE_BYTES)
        both = [self.store().put(FILE, len(data), reading(data)) for _ in range(2)]
        waiting = [Deferred.fromCoroutine(each) for each in both]
        self.loop.until(partial(all_called, waiting))
        self.assertEqual(sorted(self.successResultOf(each) for each in waiting), [False, True])
        self.assertEqual((self.wait(self.store().names()), self.get()), ({FILE: 3}, data))
        self.assertFalse(self.wait(self.store().put(FILE, len(data), reading(data))))
        self.wait(self.store().remove(FILE))

        async def removing(start: int, count: int) -> bytes:
            if start:
                await self.store().remove(FILE)
            return data[start : start + count]

        self.assertFalse(self.wait(self.store().put(FILE, len(data), removing)))
        self.assertEqual(self.wait(self.store().names()), {})

    def test_piece_that_is_sent_twice_is_there_once(self) -> None:
        """As when the answer to the first time was lost."""
        data = some_bytes(1, 2 * PIECE_BYTES)
        request = self.engine.request
        lost: list[str] = []

        def losing(subject: str, payload: bytes, headers: Any, done: Callable[[Any], None]) -> None:
            def answered(answer: Any) -> None:
                is_lost = len(payload) == PIECE_BYTES and len(lost) < 2
                lost.extend([subject] if is_lost else [])
                done(None if is_lost else answer)

            request(subject, payload, headers, answered)

        self.patch(self.engine, "request", losing)
        self.put(data)
        self.assertEqual((len(lost), self.get()), (2, data))

    def test_answer_that_holds_for_a_moment_only_is_as_good_as_none(self) -> None:
        """The first time of a piece is on its way yet, or the servers elect a leader."""
        data = some_bytes(1, 2 * PIECE_BYTES)
        request = self.engine.request
        codes = [10158, 10008, 10009]

        def refusing(subject: str, payload: bytes, headers: Any, done: Callable[[Any], None]) -> None:
            def answered(answer: Any) -> None:
                done({"error": {"err_code": codes.pop()}} if len(payload) == PIECE_BYTES and codes else answer)

            request(subject, payload, headers, answered)

        self.patch(self.engine, "request", refusing)
        self.put(data)
        self.assertEqual((codes, self.get()), ([], data))

    def test_engine_that_is_away_is_waited_for_some_seconds(self) -> None:
        """Then whoever asks is told."""
        self.patch(module, "WAITS_S", 0.3)
        store = self.store()
        self.put(b"hello", store=store)
        self.nats.servers[0].kill()
        for work in (store.put("b" * 32, 5, reading(b"world")), store.remove(FILE), store.names()):
            self.assertRaises(Away, self.wait, work)
        self.nats.start()
        self.loop.until(lambda: self.engine.is_connected)
        self.patch(module, "WAITS_S", 60.0)
        self.put(b"world", "b" * 32, store)
        self.assertEqual((self.get(), self.get("b" * 32)), (b"hello", b"world"))

    def test_what_is_under_way_ends_with_the_relay(self) -> None:
        """Whether it waits for an answer or for the next try; nothing is asked afterwards."""
        asked: list[Callable[[Any], None]] = []
        self.patch(self.engine, "request", lambda *request: asked.append(request[-1]))
        store = self.store()
        waiting = [Deferred.fromCoroutine(store.names()) for _ in range(2)]
        asked[0](None)
        store.stop()
        for each in waiting:
            self.failureResultOf(each, Away)
        asked[1]({})
        self.assertRaises(Away, self.wait, store.remove(FILE))
        self.assertEqual((len(asked), store._waiting), (2, set()))

    def test_full_bucket_refuses(self) -> None:
        """It removes nothing to make room, and the log of the cluster has room of its own."""
        self.patch(module, "LEAST_BYTES", PIECE_BYTES)
        store = self.store(4 * PIECE_BYTES)
        self.put(some_bytes(1, 3 * PIECE_BYTES), store=store)
        self.assertRaises(Full, self.wait, store.put("b" * 32, 2 * PIECE_BYTES, reading(bytes(2 * PIECE_BYTES))))
        self.wait(store.remove("b" * 32))
        self.assertEqual(self.get(), some_bytes(1, 3 * PIECE_BYTES))
        self.wait(store.remove(FILE))
        self.put(some_bytes(2, 3 * PIECE_BYTES), "b" * 32, store)

    def test_bucket_is_as_big_as_there_is_room_for(self) -> None:
        """And grows when more is asked for later."""
        self.put(b"x", "1" * 32, self.store(64 * MIB))
        self.assertEqual(self.config()["max_bytes"], 64 * MIB)
        self.put(b"x", "2" * 32, self.store(128 * MIB))
        self.assertEqual((self.config()["max_bytes"], self.config()["num_replicas"]), (128 * MIB, 1))
        self.put(b"x", "3" * 32, self.store(1 << 50))
        self.put(b"x", "4" * 32, self.store(64 * MIB))
        self.assertEqual(self.config()["max_bytes"], 128 * MIB)
        client = self.nats.client()
        client.request("$JS.API.STREAM.DELETE.OBJ_test")
        client.close()
        self.put(b"x", "5" * 32, self.store(1 << 33))
        self.assertEqual(self.config()["max_bytes"], 1 << 30)

    def test_relays_make_the_bucket_at_once(self) -> None:
        """However big each wants it to be: the first one's it is, and what they send is there."""
        files = [(f"{number:032x}", self.store((64 + number) * MIB)) for number in range(4)]
        waiting = [Deferred.fromCoroutine(store.put(each, 5, reading(b"hello"))) for each, store in files]
        self.loop.until(partial(all_called, waiting))
        for (file_id, _), each in zip(files, waiting, strict=True):
            self.successResultOf(each)
            self.assertEqual(self.get(file_id), b"hello")

    def test_no_room_at_all_is_said(self) -> None:
        """A bucket with next to nothing helps nobody."""
        self.patch(module, "LEAST_BYTES", 1 << 40)
        self.assertRaises(Full, self.wait, self.store(1 << 50).put(FILE, 5, reading(b"hello")))

    def test_stream_that_takes_no_such_messages_refuses(self) -> None:
        """Somebody has made another one of that name."""
        client = self.nats.client()
        client.request("$JS.API.STREAM.CREATE.OBJ_test", {"name": "OBJ_test", "subjects": ["$O.test.>"]})
        client.close()
        self.assertRaises(Away, self.wait, self.store().put(FILE, 5, reading(b"hello")))
