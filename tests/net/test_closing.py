"""Tests of ``clasp_relay.net.closing``."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.closing import ENDS_S, EndQueue
from tests.core.world import one_turn
from tests.net.helpers import Site, client_frame, keep


class CloseAllTests(SynchronousTestCase):
    def test_stop_closes_in_batches(self) -> None:
        """One turn of the event loop closes no more than a batch."""
        site = Site()
        clients = [site.open() for _ in range(5)]
        site.factory.close_all(batch=2)
        counts = []
        for _ in range(3):
            counts.append(
                sum(client.protocol.outbox is not None and client.protocol.outbox.is_closing for client in clients)
            )
            one_turn(site.reactor)
        self.assertEqual(counts, [2, 4, 5])

    def test_stop_waits_for_queues(self) -> None:
        """A peer that reads within the time gets everything; only then the stop is over."""
        site = Site()
        client = site.open()
        client.pipe.room_bytes = 0
        site.relay.sessions[0].outbox.send(keep(bytes(200_000)))
        client.turn()
        stopped = site.factory.close_all(timeout_s=5)
        client.turn(4)
        self.assertNoResult(stopped)
        client.pipe.drain()
        for _ in range(3):
            client.turn(0.1)
            client.pipe.drain()
        self.assertEqual(self.successResultOf(stopped), 0)
        self.assertEqual(client.closes, [(1001, "going away")])

    def test_stop_aborts_who_does_not_read(self) -> None:
        """The time is bounded, and it is told how many lost something."""
        site = Site()
        slow, quick = site.open(), site.open()
        slow.pipe.room_bytes = 0
        site.relay.sessions[0].outbox.send(keep(bytes(200_000)))
        slow.turn()
        stopped = site.factory.close_all(timeout_s=5)
        again = site.factory.close_all(timeout_s=5)
        for _ in range(60):
            quick.turn(0.1)
        self.assertEqual((self.successResultOf(stopped), self.successResultOf(again)), (1, 1))
        self.assertFalse(slow.pipe.connected)
        self.assertEqual(quick.closes, [(1001, "going away")])
        self.assertEqual(self.successResultOf(site.factory.close_all()), 1)

    def test_stop_is_over_when_the_last_peer_is_gone(self) -> None:
        """Nothing to wait for, no waiting."""
        site = Site()
        client = site.open()
        client.pipe.room_bytes = 0
        site.relay.sessions[0].outbox.send(keep(bytes(200_000)))
        client.turn()
        stopped = site.factory.close_all(timeout_s=5)
        one_turn(site.reactor)
        self.assertNoResult(stopped)
        client.pipe.lose()
        self.assertEqual(self.successResultOf(stopped), 0)
        self.assertEqual(site.reactor.getDelayedCalls(), [])

    def test_stop_without_connections_is_over_at_once(self) -> None:
        """Nobody is there."""
        site = Site()
        stopped = site.factory.close_all()
        site.reactor.advance(0)
        self.assertEqual(self.successResultOf(stopped), 0)

    def test_stop_outlives_a_connection_that_cannot_be_closed(self) -> None:
        """A fault with one connection is logged, and the others are closed."""
        site = Site()
        clients = [site.open(), site.open()]

        def raise_error(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(clients[0].protocol, "close", raise_error)
        stopped = site.factory.close_all()
        clients[1].turn()
        clients[1].turn(0.1)
        self.assertEqual(clients[1].closes, [(1001, "going away")])
        self.assertEqual(self.successResultOf(stopped), 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_takes_the_answers_of_the_peers(self) -> None:
        """A peer that answers its Close is gone in order."""
        site = Site()
        client = site.open()
        site.factory.close_all()
        client.turn()
        client.send(client_frame(b"\x03\xe9", 8))
        client.turn()
        self.assertEqual(client.pipe.options[-1], "closed")


class EndQueueTests(SynchronousTestCase):
    def test_sessions_of_client_addresses_end_in_turn(self) -> None:
        """A crowd that is torn off at once keeps the end of no other one waiting."""
        clock = Clock()
        queue = EndQueue(clock)
        ended: list[str] = []

        def end(name: str) -> Callable[[], None]:
            def work() -> None:
                ended.append(name)
                clock.rightNow += ENDS_S

            return work

        for _ in range(100):
            queue.add(end("crowd"), "192.0.2.66")
        self.assertEqual(ended, ["crowd"])
        for name in ("one", "two", "three"):
            queue.add(end(name), f"address of {name}")
        for _ in range(4):
            one_turn(clock)
        self.assertEqual(ended, ["crowd", "crowd", "one", "two", "three"])
        queue.end_all()
        self.assertEqual(ended.count("crowd"), 100)
        self.assertEqual(clock.getDelayedCalls(), [])
