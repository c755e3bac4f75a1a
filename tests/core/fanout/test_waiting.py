"""Tests of clasp_relay.core.fanout.waiting: the memory of waiting SNAPSHOTs and RESULTs."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout import waiting
from clasp_relay.core.fanout.waiting import ENTRY_BYTES, WAITING_BYTES
from clasp_relay.core.handlers import reads
from clasp_relay.core.ports import Frame
from clasp_relay.core.records import Param
from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.state import tree
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    NULL,
    Announce,
    Error,
    Get,
    Hello,
    Message,
    Query,
    Result,
    Set,
    SignalDefinition,
    Snapshot,
    Subscribe,
)
from tests.core.world import CODEC, Client, World, heard, value


class Untaken:
    """An outbox of a session that reads nothing: everything waits, including snapshots."""

    def __init__(self) -> None:
        self.items: list[Frame | Iterator[bytes]] = []
        self.closed: tuple[CloseCode, str] | None = None

    def send(self, frame: Frame) -> None:
        """Keeps a frame."""
        self.items.append(frame)

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """Keeps frames."""
        self.items.append(frames)

    def discard(self) -> None:
        """Drops all that waits, as ``net`` does."""
        items, self.items = self.items, []
        for item in items:
            if not isinstance(item, Frame):
                item.close()  # type: ignore[attr-defined]

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Keeps the code and the reason of the close."""
        self.closed = (close_code, reason)

    def take(self) -> list[Message]:
        """Takes all that waits."""
        items, self.items = self.items, []
        wires: list[bytes] = []
        for item in items:
            wires += [item.wire] if isinstance(item, Frame) else item
        return [CODEC.decode(wire)[0] for wire in wires if wire]


class WaitingCase(SynchronousTestCase):
    """A writer, and a reader that reads nothing until a test tells it to."""

    def setUp(self) -> None:
        """Joins both; a session may keep 10,000 bytes."""
        self.world = World(RelayOptions(session_memory_bytes=10_000))
        self.writer = self.world.join()
        self.reader = self.world.join()
        self.outbox = self.slow(self.reader)
        self.table = self.world.relay.snapshots.waiting

    def slow(self, client: Client) -> Untaken:
        """Makes a client read nothing from now on."""
        outbox = client.outbox = client.session.outbox = Untaken()  # type: ignore[assignment]
        return outbox

    def write(self, address: str, obj: object) -> None:
        """Sets a value."""
        self.writer.send(Set(address, value(obj)))

    @property
    def kept_bytes(self) -> int:
        """The bytes that are counted for all that waits."""
        return self.world.relay.accounts.bytes[MemoryKind.SNAPSHOTS]

    def params_alive(self, address: str) -> int:
        """Returns the number of ``Param`` objects of an address in memory; other tests must not use it."""
        gc.collect()
        return sum(isinstance(each, Param) and each.address == address for each in gc.get_objects())


class WaitingSnapshotTests(WaitingCase):
    """SNAPSHOTs that wait for a session that does not read."""

    def test_params_that_were_written_again_are_let_go_of(self) -> None:
        """However many SNAPSHOTs waited between the writes; the newest values are sent."""
        for number in range(20):
            self.write("/generation", f"{number}")
            self.reader.send(Subscribe(number % 3, "/*"))
        self.assertGreaterEqual(self.params_alive("/generation"), 5)
        self.world.advance(1)
        self.assertEqual(self.params_alive("/generation"), 1)
        messages = self.outbox.take()
        self.assertEqual(heard(messages)[-1], ("/generation", "19"))

    def test_untaken_snapshots_are_refused_beyond_the_limit(self) -> None:
        """A SNAPSHOT that is sent or dropped makes room."""
        self.write("/a", 1)
        each = WAITING_BYTES + ENTRY_BYTES
        self.reader.send(Subscribe(1, "/*"))
        self.assertEqual(self.kept_bytes, each)
        for number in range(2, 9):
            self.reader.send(Subscribe(number, "/*"))
        count = len(self.table)
        self.assertEqual(self.kept_bytes, count * each)
        *_, error = self.outbox.take()
        assert isinstance(error, Error), error
        self.assertEqual((error.error, error.address), (ErrorCode.LIMIT, "/*"))
        self.assertIn("too much is kept for you", error.message)
        self.assertEqual(self.kept_bytes, 0)
        self.reader.send(Subscribe(1, "/*"))
        self.outbox.discard()
        self.assertEqual((self.kept_bytes, len(self.table)), (0, 0))

    def test_refused_subscription_does_not_replace_the_one_before(self) -> None:
        """The earlier subscription stays."""
        self.reader.send(Subscribe(1, "/a"))
        self.world.relay.accounts._max_bytes = 1_500
        self.write("/b", 1)
        self.reader.send(Subscribe(1, "/b"))
        self.write("/a", 2)
        error, *rest = self.outbox.take()
        assert isinstance(error, Error), error
        self.assertEqual(heard(rest), [("/a", 2)])

    def test_answers_to_gets_count_once_their_params_are_replaced(self) -> None:
        """They cannot be released: with too many of them their session is ended."""
        for number in range(4):
            self.write(f"/{number}", "x" * 1_500)
            self.reader.send(Get(f"/{number}"))
        self.world.advance(1)
        self.assertEqual(self.kept_bytes, 4 * (WAITING_BYTES + ENTRY_BYTES))
        for number in range(3):
            self.write(f"/{number}", "y")
        self.world.advance(1)
        self.assertIsNone(self.outbox.closed)
        self.assertEqual(self.kept_bytes, 4 * (WAITING_BYTES + ENTRY_BYTES) + 3 * 1_503)
        self.write("/3", "y")
        self.world.advance(1)
        self.assertEqual(self.outbox.closed, (CloseCode.TRY_AGAIN_LATER, "too slow"))
        (error,) = self.outbox.take()
        assert isinstance(error, Error), error
        self.assertEqual(error.error, ErrorCode.OVERLOADED)
        self.assertEqual((self.kept_bytes, len(self.table)), (0, 0))

    def test_answer_to_a_get_is_what_was_set_then(self) -> None:
        """Whatever was written since then."""
        self.write("/a", 1)
        self.reader.send(Get("/a"))
        self.write("/a", 2)
        self.world.advance(1)
        self.assertEqual(heard(self.outbox.take()), [("/a", 1)])

    def test_much_that_is_written_is_let_go_of_without_a_sweep(self) -> None:
        """At the next SNAPSHOT."""
        self.patch(waiting, "MUCH_BYTES", 100)
        self.write("/generation", "x" * 200)
        self.reader.send(Subscribe(1, "/*"))
        self.write("/generation", "y")
        self.assertEqual(self.params_alive("/generation"), 2)
        self.reader.send(Subscribe(2, "/*"))
        self.world.clock.clock.advance(0.1)
        self.assertEqual(self.params_alive("/generation"), 1)

    def test_others_have_their_turn_while_what_waits_is_looked_through(self) -> None:
        """A bounded number of params in each turn, until all were examined or sent."""
        self.patch(waiting, "LOOKED_AT_ONCE", 16)
        for number in range(40):
            self.write(f"/{number}", 1)
        self.reader.send(Subscribe(1, "/*"))
        for number in range(40):
            self.write(f"/{number}", 2)
        for step in range(4):
            with self.subTest(step=step):
                self.table.look_through()
                self.assertLessEqual(self.params_alive("/39"), 2)
                self.world.clock.clock.advance(waiting.PAUSE_S)
        self.world.advance(1)
        self.assertEqual(self.params_alive("/39"), 1)
        self.assertEqual([found for _, found in heard(self.outbox.take())], [2] * 40)


class SharedTests(WaitingCase):
    """One capture for many sessions."""

    def greet(self) -> Untaken:
        """Connects a session that has not taken its first SNAPSHOT."""
        client = self.world.connect()
        outbox = self.slow(client)
        client.send(Hello(1, 0, "slow"))
        return outbox

    def test_first_one_pays_and_then_another(self) -> None:
        """Until all have taken it."""
        self.write("/a", 1)
        one, other = self.greet(), self.greet()
        self.assertEqual(self.kept_bytes, 2 * WAITING_BYTES + ENTRY_BYTES)
        one.take()
        self.assertEqual(self.kept_bytes, WAITING_BYTES + ENTRY_BYTES)
        other.take()
        self.assertEqual(self.kept_bytes, 0)

    def test_newcomer_gets_what_is_set_when_it_takes_it(self) -> None:
        """Earlier values are not kept for it, and the list that a save reads is not altered."""
        for address in ("/a", "/b", "/c"):
            self.write(address, 1)
        image = self.world.relay.params.image()
        outbox = self.greet()
        self.write("/a", 2)
        self.writer.send(Set("/b", NULL))
        self.world.advance(1)
        self.assertEqual([param.revision for param in image.params], [1, 1, 1])
        self.assertEqual(heard(outbox.take()), [("/a", 2), ("/c", 1)])

    def test_what_takes_long_to_find_is_let_go_of_too(self) -> None:
        """If all params are compared with the pattern."""
        self.patch(tree, "FIND_COST", 0)
        for address in ("/a", "/long", "/c"):
            self.write(address, 1)
        self.reader.send(Subscribe(1, "/*"))
        self.write("/long", 2)
        self.world.advance(1)
        self.assertEqual(self.params_alive("/long"), 1)
        self.assertEqual(heard(self.outbox.take()), [("/a", 1), ("/c", 1), ("/long", 2)])

    def test_first_one_pays_though_another_has_taken_it(self) -> None:
        """Until it has taken it, too; a second ``close`` changes nothing."""
        self.write("/a", 1)
        one, other = self.greet(), self.greet()
        other.take()
        self.assertEqual(self.kept_bytes, WAITING_BYTES + ENTRY_BYTES)
        waits = [item for item in one.items if not isinstance(item, Frame)]
        one.discard()
        for item in waits:
            item.close()  # type: ignore[attr-defined]
        self.assertEqual(self.kept_bytes, 0)

    def test_each_capture_is_looked_through_once(self) -> None:
        """However many sessions wait for it; a waiting RESULT has none."""
        self.write("/a", 1)
        outboxes = [self.greet(), self.greet()]
        self.reader.send(Query("/**"))
        self.write("/a", 2)
        self.world.advance(1)
        self.assertEqual([heard(outbox.take()) for outbox in outboxes], [[("/a", 2)]] * 2)

    def test_params_that_are_sent_as_they_are_seen(self) -> None:
        """In pieces; params that are overwritten meanwhile are left out."""
        for number in range(5):
            self.write(f"/{number}", "x" * 30_000)
        snapshots = self.world.relay.snapshots
        params = list(self.world.relay.params.all())
        frames = snapshots.encode(self.reader.session, params)
        self.write("/1", "y")
        self.world.advance(1)
        self.outbox.send_snapshot("", frames)
        self.assertEqual([where for where, _ in heard(self.outbox.take())], ["/0", "/2", "/3", "/4"])
        frames = snapshots.encode(self.reader.session, params[:1])
        self.outbox.send_snapshot("", frames)
        self.assertEqual([where for where, _ in heard(self.outbox.take())], ["/0"])


class ResultTests(WaitingCase):
    """RESULTs that wait."""

    def test_untaken_results_are_refused_beyond_the_limit(self) -> None:
        """Each waiting QUERY counts."""
        for _ in range(12):
            self.reader.send(Query("/**"))
        self.assertEqual(self.kept_bytes, 8 * WAITING_BYTES)
        answers = self.outbox.take()
        self.assertEqual([type(answer) for answer in answers].count(Result), 8)
        self.assertEqual([one.error for one in answers if isinstance(one, Error)], [ErrorCode.LIMIT] * 4)
        self.assertEqual(self.kept_bytes, 0)

    def test_there_is_no_empty_result_behind_others(self) -> None:
        """Only if nothing was found."""
        self.patch(reads, "RESULT_BYTES", 1)
        self.writer.send(Announce("s", (SignalDefinition("/a", Signal.PARAM), SignalDefinition("/b", Signal.PARAM))))
        for pattern, counts in (("/*", [1, 1]), ("/x/*", [0])):
            with self.subTest(pattern):
                self.reader.send(Query(pattern))
                results = [answer for answer in self.outbox.take() if isinstance(answer, Result)]
                self.assertEqual([len(result.signals) for result in results], counts)

    def test_long_results_are_sent_as_they_are_found(self) -> None:
        """All definitions, without the fields that a RESULT lacks."""
        for start in range(0, 3_000, 1_000):
            found = tuple(
                SignalDefinition(f"/s/{number:050}", Signal.PARAM, "f32", description="x" * 10)
                for number in range(start, start + 1_000)
            )
            for definitions in (found[:300], found[300:600], found[600:]):
                self.writer.send(Announce("s", definitions))
                self.world.settle()
        self.reader.send(Query("/s/*"))
        results = [answer for answer in self.outbox.take() if isinstance(answer, Result)]
        self.assertGreater(len(results), 2)
        addresses = [one.address for result in results for one in result.signals]
        self.assertEqual(addresses, [f"/s/{number:050}" for number in range(3_000)])
        self.assertEqual({type(answer) for answer in results}, {Result})


class LargeValueTests(WaitingCase):
    """A piece stays in memory until it is sent, so it is small."""

    def test_few_large_values_are_gone_through_at_once(self) -> None:
        """Also for a subscription that finds many of them."""
        self.world.relay.accounts._max_bytes = 0
        for number in range(10):
            self.write(f"/{number}", "x" * 30_000)
        self.reader.send(Subscribe(1, "/*"))
        (frames,) = (item for item in self.outbox.items if not isinstance(item, Frame))
        next(iter(frames))
        for number in range(10):
            self.write(f"/{number}", "y")
        self.world.advance(1)
        old = [number for number in range(10) if self.params_alive(f"/{number}") > 1]
        self.assertLessEqual(len(old), 4)
        snapshots = [message for message in self.outbox.take() if isinstance(message, Snapshot)]
        self.assertLessEqual(sum(len(each.params) for each in snapshots), 4)
