"""Tests of clasp_relay.core.handlers.connection: HELLO, PING, PONG and SYNC."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.relay import RelayOptions
from clasp_relay.wire.constants import PROTOCOL_VERSION, Feature
from clasp_relay.wire.messages import Hello, Ping, Pong, Set, Snapshot, Sync, Welcome
from tests.core.world import START_US, World, heard, value


class HelloTests(SynchronousTestCase):
    def test_of_a_long_name_the_beginning_is_kept(self) -> None:
        """A frame has room for 65,000 characters, which would be kept during the session."""
        world = World()
        world.connect().send(Hello(1, 0, "n" * 60_000))
        (session,) = world.relay.sessions.all()
        self.assertEqual(session.name, "n" * 128)

    def test_welcome_comes_first_and_then_all_params(self) -> None:
        """Session id, server name and real time; an empty SNAPSHOT when nothing is set."""
        world = World(RelayOptions("The Relay"))
        client = world.connect()
        welcome, snapshot = client.ask(Hello(1, 0xE0, "test"))
        features = Feature.PARAM | Feature.EVENT | Feature.STREAM | Feature.GESTURE | Feature.TIMELINE
        self.assertEqual(welcome, Welcome(PROTOCOL_VERSION, features, START_US, client.session.id, "The Relay"))
        self.assertEqual(snapshot, Snapshot())
        client.send(Set("/a", value(1)))
        client.send(Set("/b", value(2)))
        _, snapshot = world.connect().ask(Hello(1, 0, "next"))
        self.assertEqual(heard([snapshot]), [("/a", 1), ("/b", 2)])

    def test_every_version_is_welcome(self) -> None:
        """All versions that clients send mean the same bytes."""
        for version in (0, 1, 2, 3, 255):
            welcome, _ = World().connect().ask(Hello(version, 0, "x"))
            self.assertIsInstance(welcome, Welcome)

    def test_large_state_comes_in_several_snapshots(self) -> None:
        """Nothing is lost between them."""
        world = World()
        writer = world.join()
        for number in range(2000):
            writer.send(Set(f"/{number}", value(number)))
        _, *snapshots = world.connect().ask(Hello(1, 0, "x"))
        self.assertEqual(len(snapshots), 3)
        self.assertEqual(heard(snapshots), [(f"/{number}", number) for number in range(2000)])

    def test_snapshot_shows_what_is_set_when_it_is_taken(self) -> None:
        """The session gets no changes while its SNAPSHOT waits."""
        world = World()
        writer = world.join()
        writer.send(Set("/a", value(1)))
        reader = world.connect()
        waiting = []
        reader.outbox.send_snapshot = lambda _key, frames: waiting.append(frames)  # type: ignore[method-assign]
        reader.send(Hello(1, 0, "slow"))
        writer.send(Set("/a", value(2)))
        reader.outbox.frames.clear()
        type(reader.outbox).send_snapshot(reader.outbox, "", waiting[0])
        self.assertEqual(heard(reader.hear()), [("/a", 2)])


class LiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def test_ping_is_answered_after_what_came_before(self) -> None:
        """So a client knows that its earlier messages were handled."""
        self.client.send(Set("/a", value(1)), 1)
        self.client.send(Ping())
        *_, last = self.client.hear()
        self.assertEqual(last, Pong())

    def test_pong_is_taken_as_it_is(self) -> None:
        """It shows that the client is alive, and is not answered."""
        self.assertEqual(self.client.ask(Pong()), [])

    def test_sync_tells_the_time_of_the_server(self) -> None:
        """In µs, beside the client's own."""
        self.world.clock.clock.advance(1.5)
        now_us = START_US + 1_500_000
        self.assertEqual(self.client.ask(Sync(77)), [Sync(77, now_us, now_us)])
