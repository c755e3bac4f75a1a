"""OSC clients over UDP and TCP: sources, commands, bundles, what comes back, and who may do what."""

from __future__ import annotations

import gc
import struct
import weakref
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.following.following import NOT_READY
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.doors import osc
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.osc import (
    IDLE_S,
    OscClients,
    OscConnection,
    OscDatagrams,
    OscDoor,
    OscOptions,
    Target,
)
from clasp_relay.doors.packet_queue import PACKET_BYTES, PacketQueue
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.errors import CloseCode, StartError
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.listening import TcpPlace
from clasp_relay.net.reading import SLICE_S
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Publish, Set, Subscribe
from clasp_relay.wire.osc.packets import UNIX_EPOCH_S, Argument, OscBundle, OscMessage, decode_packet, encode_message
from clasp_relay.wire.osc.slip import encode_slip
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.cluster.world import Member
from tests.core.guard import Guard
from tests.core.world import one_turn
from tests.doors.site import MemberSite, Site, door_cluster, told

PHONE = ("192.168.0.7", 9000)
DESK = ("192.168.0.8", 9001)


def message(address: str, *arguments: Argument) -> bytes:
    """Returns a packet."""
    return encode_message(OscMessage(address, arguments))


def bundle(time_tag: int, *elements: bytes) -> bytes:
    """Returns a bundle."""
    return b"#bundle\0" + struct.pack(">Q", time_tag) + b"".join(struct.pack(">I", len(e)) + e for e in elements)


class Datagrams:
    """A UDP transport in memory."""

    def __init__(self) -> None:
        self.sent: list[tuple[tuple[str, int], OscMessage]] = []
        self.error: Exception | None = None

    def write(self, packet: bytes, peer: tuple[str, int]) -> None:
        """Notes what is sent to whom."""
        if self.error is not None:
            raise self.error
        found = decode_packet(packet)
        assert isinstance(found, OscMessage)
        self.sent.append((peer, found))


class Hall:
    """A relay with an OSC door in memory."""

    def __init__(
        self,
        permissions: Permissions | None = None,
        message_rate: tuple[float, float] | None = None,
        limits: NetLimits | None = None,
        member: Member | None = None,
        **options: Any,
    ) -> None:
        self.site = MemberSite(member) if member else Site(limits, message_rate=message_rate, permissions=permissions)
        self.counts = DoorCounts("osc")
        self.refusals: list[tuple[str, str]] = []
        given: dict[str, Any] = {
            "namespace": "/osc",
            "allows": lambda host: host.startswith("192.168."),
            "rate": 0.0,
        } | options
        self.clients = OscClients(
            self.site.relay,
            self.site.gate,
            OscOptions(**given),
            self.counts,
            lambda host, why: self.refusals.append((host, why)),
        )
        self.port = OscDatagrams(self.clients, self.site.reactor)
        self.datagrams = Datagrams()
        port: Any = self.port
        port.transport = self.datagrams
        self.port.startProtocol()

    def send(self, *packets: bytes, peer: tuple[str, int] = PHONE) -> None:
        """Has a client send datagrams."""
        for packet in packets:
            self.port.datagramReceived(packet, peer)
        self.site.turn()

    def got(self, peer: tuple[str, int] = PHONE) -> list[tuple[str, tuple[Argument, ...]]]:
        """Returns what a client got, and forgets it."""
        found = [(each.address, each.arguments) for to, each in self.datagrams.sent if to == peer]
        self.datagrams.sent = [each for each in self.datagrams.sent if each[0] != peer]
        return found


class OscWritesTests(SynchronousTestCase):
    def test_message_with_arguments_is_set(self) -> None:
        """Below the namespace."""
        hall = Hall()
        hall.send(message("/mixer/fader", 0.5), message("/xy", 1, 2))
        self.assertEqual((hall.site.value("/osc/mixer/fader"), hall.site.value("/osc/xy")), (0.5, [1, 2]))
        self.assertEqual((hall.counts.clients, hall.counts.messages, hall.counts.refused), (1, 2, 0))

    def test_message_without_arguments_is_an_event(self) -> None:
        """Nothing is set."""
        hall = Hall()
        browser = hall.site.clasp()
        hall.site.say(browser, Subscribe(1, "/osc/**"))
        told(browser)
        hall.send(message("/go"), message("/stop", None))
        self.assertEqual(
            told(browser),
            [Publish("/osc/go", Signal.EVENT), Publish("/osc/stop", Signal.EVENT, value=encode_value(None))],
        )
        self.assertIsNone(hall.site.value("/osc/go"))

    def test_bundle_is_applied_as_one(self) -> None:
        """One member that is refused refuses all; what an inner bundle holds is part of it."""
        hall = Hall(Guard())
        hall.clients.options = OscOptions(namespace="/", allows=lambda _host: True, token="ann")
        hall.send(bundle(1, message("/a", 1), bundle(1, message("/b", 2))))
        self.assertEqual((hall.site.value("/osc/a"), hall.site.value("/osc/b")), (1, 2))
        hall = Hall()
        hall.send(bundle(1, message("/a", 1), message("/x/*", 2)))
        self.assertIsNone(hall.site.value("/osc/a"))
        self.assertIn("is a pattern", hall.refusals[0][1])

    def test_message_behind_a_long_bundle_does_not_come_back(self) -> None:
        """Nor do the bundle's own, which are done in pieces; others get them."""
        hall = Hall()
        hall.send(message("/hello", 1), peer=DESK)
        hall.site.turn()
        for packet in (bundle(1, *[message(f"/b/{number}", 1) for number in range(100)]), message("/after", 2)):
            hall.port.datagramReceived(packet, PHONE)
        for _ in range(20):
            hall.site.turn()
        self.assertEqual(hall.site.value("/osc/after"), 2)
        self.assertEqual((hall.got(PHONE), len(hall.got(DESK))), ([], 101))

    def test_bundle_waits_for_its_time(self) -> None:
        """An outer time holds for the inner ones that say «immediately»; the past is now."""
        hall = Hall()
        now_s = hall.site.clock.now_us() / 1e6

        def tag(after_s: float) -> int:
            return int((now_s + after_s + UNIX_EPOCH_S) * 2**32)

        hall.send(
            bundle(tag(2), message("/a", 1), bundle(1, message("/b", 2)), bundle(tag(4), message("/c", 3))),
            bundle(tag(-5), message("/d", 4)),
        )
        self.assertEqual([hall.site.value(f"/osc/{name}") for name in "abcd"], [None, None, None, 4])
        hall.site.turn(3)
        self.assertEqual([hall.site.value(f"/osc/{name}") for name in "abcd"], [1, 2, None, 4])
        hall.site.turn(2)
        self.assertEqual(hall.site.value("/osc/c"), 3)
        self.assertEqual(hall.got(), [])

    def test_bundle_whose_time_has_come_is_kept_by_nothing(self) -> None:
        """Nor its source, by a reference cycle, which the garbage collector might not look at any more."""
        hall = Hall()
        gc.disable()
        self.addCleanup(gc.enable)
        soon = int((hall.site.clock.now_us() / 1e6 + 2 + UNIX_EPOCH_S) * 2**32)
        hall.send(bundle(soon, message("/a", 1)))
        there = weakref.ref(hall.port._sources[PHONE])
        hall.site.turn(3)
        self.assertEqual(hall.site.value("/osc/a"), 1)
        hall.site.turn(2 * IDLE_S)
        self.assertEqual(len(hall.site.relay.sessions), 0)
        self.assertIsNone(there())

    def test_bundles_that_cannot_wait_are_refused(self) -> None:
        """Too far ahead, too many, and commands."""
        hall = Hall()
        self.patch(osc, "MAX_PENDING", 2)
        now = int((hall.site.clock.now_us() / 1e6 + UNIX_EPOCH_S) * 2**32)
        far, soon = now + (4000 << 32), now + (10 << 32)
        for number, (packet, why) in enumerate(
            (
                (bundle(far, message("/a", 1)), "an hour"),
                (bundle(1, message("/clasp/resync")), "commands"),
                (bundle(1, message("/resync")), "commands"),
            )
        ):
            hall.send(packet)
            self.assertIn(why, hall.refusals[number][1])
        hall.send(*[bundle(soon + each, message("/a", each)) for each in range(3)])
        self.assertIn("may wait", hall.refusals[-1][1])
        self.assertEqual(hall.counts.refused, 4)

    def test_damaged_packets_are_counted_and_told(self) -> None:
        """With the client's address; the next packet is heard."""
        hall = Hall()
        hall.send(b"nonsense", message("/clasp/other"), message("/a", 1))
        self.assertEqual([host for host, _ in hall.refusals], [PHONE[0]] * 2)
        self.assertEqual((hall.site.value("/osc/a"), hall.counts.refused), (1, 2))

    def test_fault_of_ours_is_logged(self) -> None:
        """And the port goes on."""
        hall = Hall()
        self.patch(hall.clients, "take", lambda _source, _data: 1 / 0)
        hall.send(message("/a", 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bundles_that_wait_are_bounded_in_bytes(self) -> None:
        """Of a source by what may be kept for a session, of all by what the relay keeps of scheduled ones."""
        hall = Hall()
        relay = hall.site.relay
        relay.accounts._max_bytes = 100_000
        soon = (UNIX_EPOCH_S + hall.site.clock.now_us() // 1_000_000 + 60) << 32
        long = bundle(soon, message("/a", "x" * 40_000))
        hall.send(long, long, long)
        kept = relay.accounts.bytes[MemoryKind.BUNDLES]
        self.assertTrue(80_000 < kept < 100_000, kept)
        self.assertEqual([why[:27] for _, why in hall.refusals], ["too much is kept for you: m"])
        self.patch(osc, "MAX_PENDING_BYTES", 100_000)
        hall.send(long, peer=DESK)
        self.assertEqual(hall.refusals[-1][1], "as many bundles are waiting as the relay can keep")
        hall.site.turn(61)
        self.assertEqual((relay.accounts.bytes[MemoryKind.BUNDLES], hall.clients._pending_bytes), (0, 0))
        hall.send(bundle(soon + (60 << 32), message("/b", 1)))
        self.assertGreater(hall.clients._pending_bytes, 0)
        hall.port.stopProtocol()
        self.assertEqual((relay.accounts.bytes[MemoryKind.BUNDLES], hall.clients._pending_bytes), (0, 0))

    def test_one_address_has_one_message_rate(self) -> None:
        """Whatever the number of ports that it sends from."""
        hall = Hall(message_rate=(1, 4))
        hall.send(*[message("/a", number) for number in range(3)])
        hall.send(*[message("/b", number) for number in range(3)], peer=(PHONE[0], 1))
        hall.send(message("/c", 1), peer=DESK)
        self.assertEqual([hall.site.value(f"/osc/{name}") for name in "abc"], [2, None, 1])
        self.assertEqual(hall.counts.refused, 3)

    def test_what_the_rate_refuses_is_not_read(self) -> None:
        """Many arguments and messages cost what it takes to read them, before they are read."""
        read: list[bytes] = []

        def decode(data: bytes) -> OscMessage | OscBundle:
            read.append(data)
            return decode_packet(data)

        self.patch(osc, "decode_packet", decode)
        hall = Hall(message_rate=(1, 20))
        numbers = message("/a", *range(4_000))
        hall.send(numbers, numbers, numbers)
        self.assertEqual((read, hall.counts.refused, hall.site.relay.counts.limited), ([numbers], 2, 2))
        many = bundle(1, *[message("/b", 1)] * 640)
        hall.send(many, message("/c", 1), peer=DESK)
        self.assertEqual(read, [numbers, many, message("/c", 1)])
        hall.send(many, peer=DESK)
        self.assertEqual(len(read), 3)

    def test_packet_of_too_many_arguments_is_refused(self) -> None:
        """Also without a message rate: it would take 13 ms to read, and as long for each client that is told."""
        hall = Hall()
        hall.send(b"/a\0\0," + b"T" * 59_999 + bytes(4))
        ((_, why),) = hall.refusals
        self.assertEqual(why, "an OSC packet holds more than 4000 arguments and brackets")


class OscBackTests(SynchronousTestCase):
    def test_sources_get_what_others_change(self) -> None:
        """Without their own writes, and without what was there before."""
        hall = Hall()
        browser = hall.site.clasp()
        hall.site.say(browser, Set("/osc/before", encode_value(1)))
        hall.send(message("/hello", 1))
        hall.send(message("/fader", 0.25), peer=DESK)
        hall.site.say(browser, Set("/osc/lamp", encode_value(True)), Set("/elsewhere", encode_value(1)))
        hall.site.say(browser, Publish("/osc/go", Signal.EVENT), Set("/osc/lamp", encode_value(None)))
        rest = [("/lamp", (True,)), ("/go", (None,)), ("/lamp", (None,))]
        self.assertEqual(hall.got(), [("/fader", (0.25,)), *rest])
        self.assertEqual(hall.got(DESK), rest)

    def test_resync_sends_what_is_set(self) -> None:
        """By both names, paced; only when it is asked for."""
        hall = Hall()
        browser = hall.site.clasp()
        hall.site.say(browser, *(Set(f"/osc/{number}", encode_value(number)) for number in range(30)))
        for command in ("/resync", "/clasp/resync"):
            hall.send(message(command))
            self.assertEqual(len(hall.got()), 10)
            for _ in range(3):
                hall.site.reactor.advance(0.02)
            self.assertEqual(len(hall.got()), 20)
        hall.site.say(browser, Set("/osc/0", encode_value("new")))
        self.assertEqual(hall.got(), [("/0", ("new",))])

    def test_resync_sends_nothing_older_behind_something_newer(self) -> None:
        """Of the same turn of the event loop."""
        hall = Hall()
        hall.send(message("/hello", 1))
        browser = hall.site.clasp()
        session: Any = browser.protocol._session
        hall.site.relay.accept(session, Set("/osc/a", encode_value(1)), 0)
        hall.port.datagramReceived(message("/resync"), PHONE)
        hall.site.say(browser, Set("/osc/a", encode_value(2)))
        self.assertEqual([arguments for address, arguments in hall.got() if address == "/a"][-1], (2,))

    def test_source_narrows_what_it_gets(self) -> None:
        """With a pattern of its own addresses; what is none is refused and changes nothing."""
        hall = Hall()
        browser = hall.site.clasp()
        hall.send(message("/clasp/subscribe", "/mixer/**"))
        hall.send(message("/clasp/subscribe", "mixer"), message("/clasp/subscribe", 1))
        self.assertEqual(len(hall.refusals), 2)
        hall.site.say(browser, Set("/osc/mixer/1", encode_value(1)), Set("/osc/lamp", encode_value(1)))
        self.assertEqual(hall.got(), [("/mixer/1", (1,))])

    def test_targets_get_it_always(self) -> None:
        """From the start on, what their pattern matches, as long as their address is allowed."""
        hall = Hall(targets=[Target(*DESK, "/lamp/*"), Target("203.0.113.1", 9000)])
        self.assertEqual(hall.refusals, [("203.0.113.1", "its address is not in --osc-allow")])
        hall.site.turn(2 * IDLE_S)
        browser = hall.site.clasp()
        hall.site.say(browser, Set("/osc/lamp/1", encode_value(1)), Set("/osc/fader", encode_value(1)))
        self.assertEqual(hall.got(DESK), [("/lamp/1", (1,))])
        hall.port.stopProtocol()
        self.assertEqual((len(hall.site.relay.sessions), hall.counts.clients), (1, 0))

    def test_full_buffer_loses_datagrams_only(self) -> None:
        """As UDP does."""
        hall = Hall()
        hall.send(message("/hello", 1))
        browser = hall.site.clasp()
        for error in (BlockingIOError(11, "no room"), MessageLengthError()):
            hall.datagrams.error = error
            hall.site.say(browser, Set("/osc/a", encode_value(1)))
        hall.datagrams.error = None
        hall.site.say(browser, Set("/osc/a", encode_value(2)))
        self.assertEqual(hall.got(), [("/a", (2,))])
        hall.port.transport = None
        hall.site.say(browser, Set("/osc/a", encode_value(3)))
        self.assertEqual(hall.got(), [])


class OscSourcesTests(SynchronousTestCase):
    def test_address_that_is_not_allowed_is_refused(self) -> None:
        """Nothing is set, no session begins, nothing is sent there."""
        hall = Hall()
        hall.send(message("/a", 1), peer=("203.0.113.1", 9000))
        self.assertEqual((hall.site.value("/osc/a"), len(hall.site.relay.sessions)), (None, 0))
        self.assertEqual(hall.refusals, [("203.0.113.1", "its address is not in --osc-allow")])

    def test_sources_have_the_rights_of_the_token(self) -> None:
        """As a CLASP session with it: the same refusals."""
        hall = Hall(Guard(), token="ann")
        hall.send(message("/secret", 1), message("/a", 1))
        self.assertEqual((hall.site.value("/osc/secret"), hall.site.value("/osc/a")), (None, 1))
        self.assertEqual(hall.counts.refused, 1)

    def test_source_that_may_not_hear_everything_is_sent_what_it_asks_for(self) -> None:
        """Nothing is refused that it did not ask for; a target that may not is told of, since an operator did."""
        world = AuthWorld({"anonymous": {"scopes": ["read:/osc/lamp/**", "write:/osc/**"]}})
        hall = Hall(world.relay.permissions, targets=[Target(*DESK), Target(*DESK, "/lamp/*")])
        self.assertEqual(hall.refusals, [(DESK[0], "its scopes do not cover /** of its --osc-target")])
        hall.send(message("/fader", 1))
        self.assertEqual((hall.site.value("/osc/fader"), hall.counts.refused, hall.got()), (1, 1, []))
        hall.send(message("/clasp/subscribe", "/lamp/*"), message("/clasp/subscribe", "/**"))
        self.assertEqual(hall.counts.refused, 2)
        hall.site.say(hall.site.clasp("admin"), Set("/osc/lamp/1", encode_value(1)), Set("/osc/fader", encode_value(2)))
        self.assertEqual((hall.got(), hall.got(DESK)), ([("/lamp/1", (1,))], [("/lamp/1", (1,))]))

    def test_without_a_token_nobody_may_do_anything(self) -> None:
        """Where anonymous ones have no scopes; the reason is told."""
        hall = Hall(Guard())
        hall.send(message("/a", 1))
        self.assertIsNone(hall.site.value("/osc/a"))
        self.assertEqual(len(hall.refusals), 1)

    def test_session_that_was_ended_begins_anew(self) -> None:
        """With the next packet, if it may."""
        hall = Hall(Guard(), token="ann")
        hall.send(message("/a", 1))
        (session,) = hall.site.relay.sessions.of_subject("ann")
        session.outbox.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
        hall.send(message("/a", 2))
        (other,) = hall.site.relay.sessions.of_subject("ann")
        self.assertIsNot(session, other)
        self.assertEqual((hall.site.value("/osc/a"), hall.counts.clients), (2, 1))

    def test_idle_source_is_forgotten(self) -> None:
        """After 5 min; one that has bundles to come is not."""
        hall = Hall()
        hall.send(message("/a", 1))
        later = int((hall.site.clock.now_us() / 1e6 + 2 * IDLE_S + UNIX_EPOCH_S) * 2**32)
        hall.send(bundle(later, message("/later", 1)), peer=DESK)
        hall.site.turn(1.2 * IDLE_S)
        self.assertEqual((len(hall.site.relay.sessions), hall.counts.clients), (1, 1))
        hall.site.turn(IDLE_S)
        self.assertEqual((len(hall.site.relay.sessions), hall.site.value("/osc/later")), (0, 1))

    def test_sources_are_bounded(self) -> None:
        """The one that was heard longest ago goes, with what waits for it."""
        hall = Hall()
        self.patch(osc, "MAX_SOURCES", 2)
        hall.send(message("/a", 1))
        hall.send(message("/a", 1), peer=DESK)
        hall.send(message("/a", 1))
        hall.send(message("/a", 1), peer=("192.168.0.9", 1))
        browser = hall.site.clasp()
        hall.site.say(browser, Set("/osc/b", encode_value(1)))
        self.assertEqual((len(hall.got(DESK)), hall.counts.clients), (1, 2))

    def test_address_that_sends_from_many_ports_takes_no_other_place(self) -> None:
        """Only those of its own sources."""
        hall = Hall()
        self.patch(osc, "MAX_SOURCES", 5)
        hall.send(message("/a", 1))
        hall.send(message("/a", 1), peer=DESK)
        for port in range(20):
            hall.send(message("/a", 1), peer=("192.168.0.66", port + 1))
        hall.got()
        hall.got(DESK)
        hall.site.say(hall.site.clasp(), Set("/osc/b", encode_value(1)))
        self.assertEqual((len(hall.got()), len(hall.got(DESK)), hall.counts.clients), (1, 1, 5))
        hall.site.turn(2 * IDLE_S)
        self.assertEqual((hall.counts.clients, hall.port._sources_at), (0, {}))

    def test_flood_is_taken_in_slices(self) -> None:
        """However short its packets are, empty ones too: other sockets have their turns in between."""
        hall = Hall()
        clock = hall.site.reactor
        took: list[bytes] = []

        def take(_source: object, data: bytes) -> None:
            took.append(data)
            clock.rightNow += SLICE_S / 10

        self.patch(hall.clients, "take", take)
        port = Port(hall.port)
        hall.port.bound_turns(port)
        port.waiting = [b"", message("/a")] * 50
        for count in (10, 20, 30):
            port.doRead()
            self.assertLessEqual(abs(len(took) - count), count // 10)
        while port.waiting:
            port.doRead()
        self.assertEqual(len(took), 100)


class OscTcpTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay whose OSC clients come over TCP."""
        self.hall = Hall(limits=NetLimits(max_sessions=2))
        hall = self.hall
        self.factory = StreamFactory(hall.site.gate, hall.counts, lambda: OscConnection(hall.site.gate, hall.clients))

    def test_packets_stand_between_ends(self) -> None:
        """Both ways; a damaged one is refused and the next one heard."""
        hall = self.hall
        client = hall.site.connect(self.factory, "192.168.0.7")
        client.send(
            encode_slip(message("/a", 1)) + b"\xc0\xdb\xc0" + encode_slip(b"bad") + encode_slip(message("/b", 2))
        )
        self.assertEqual((hall.site.value("/osc/a"), hall.site.value("/osc/b"), hall.counts.refused), (1, 2, 2))
        browser = hall.site.clasp()
        hall.site.say(browser, Set("/osc/lamp", encode_value(1)))
        self.assertEqual(client.heard(), encode_slip(message("/lamp", 1)))
        self.assertEqual(hall.counts.clients, 1)
        hall.site.turn(200)
        self.assertFalse(client.is_closed)
        client.pipe.lose()
        self.assertEqual((len(hall.site.relay.sessions), hall.counts.clients), (1, 0))

    def test_connection_that_may_not_be_is_closed(self) -> None:
        """By its address, by the number of sessions, and by a packet without an end."""
        hall = self.hall
        stranger = hall.site.connect(self.factory, "203.0.113.1")
        self.assertTrue(stranger.is_closed)
        stranger.send(encode_slip(message("/a", 1)))
        self.assertIsNone(hall.site.value("/osc/a"))
        endless = hall.site.connect(self.factory, "192.168.0.7")
        endless.send(bytes(osc.MAX_STREAM_PACKET_BYTES + 1))
        self.assertTrue(endless.is_closed)
        for _ in range(2):
            hall.site.connect(self.factory, "192.168.0.7")
        self.assertTrue(hall.site.connect(self.factory, "192.168.0.7").is_closed)

    def test_connection_ends_with_its_session(self) -> None:
        """At the next packet."""
        hall = self.hall
        client = hall.site.connect(self.factory, "192.168.0.7")
        client.protocol._source.outbox.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
        client.send(encode_slip(message("/a", 1)))
        self.assertTrue(client.is_closed)
        self.assertIsNone(hall.site.value("/osc/a"))


class Port:
    """A port that listens: Twisted's, as far as it reads."""

    maxThroughput = 256 * 1024  # noqa: N815

    def __init__(self, datagrams: OscDatagrams | None = None) -> None:
        self.datagrams = datagrams
        self.waiting: list[bytes] = []

    def doRead(self) -> None:  # noqa: N802
        """Takes what waits, as Twisted does."""
        assert self.datagrams is not None
        read = 0
        while read < self.maxThroughput and self.waiting:
            data = self.waiting.pop(0)
            read += len(data)
            self.datagrams.datagramReceived(data, PHONE)

    def stopListening(self) -> None:  # noqa: N802
        """Listens no longer."""


class OscDoorTests(SynchronousTestCase):
    def door(self, site: Site, **options: Any) -> OscDoor:
        """Returns a door for UDP and TCP."""
        reactor: Any = site.reactor
        self.udp: list[int] = []
        if not hasattr(reactor, "listenUDP"):  # the reactor in memory has none
            reactor.listenUDP = self.listen_udp
        place = TcpPlace("127.0.0.1", 8000)
        given = OscOptions(namespace="/osc", allows=lambda _host: True, **options)
        return OscDoor(site.reactor, place, place, site.relay, site.gate, lambda: given, lambda *_refusal: None)

    def listen_udp(self, port: int, *_arguments: object) -> Any:
        """Notes the port."""
        self.udp.append(port)
        return Port()

    def test_door_listens_on_both_ports(self) -> None:
        """Once, until it is closed."""
        site = Site()
        door = self.door(site)
        for _ in range(2):
            door.open(None)
        self.assertEqual(self.udp, [8000])
        self.assertEqual([each[0] for each in site.reactor.tcpServers], [8000])
        self.successResultOf(door.close())
        self.assertFalse(door.ports)

    def test_port_that_is_taken_is_named(self) -> None:
        """With its option."""
        site = Site()

        def listen_udp(*_arguments: object) -> None:
            raise CannotListenError("127.0.0.1", 8000, OSError(98, "Address already in use"))

        reactor: Any = site.reactor
        reactor.listenUDP = listen_udp
        with self.assertRaises(StartError) as caught:
            self.door(site).open(None)
        self.assertIn("--osc-port: cannot listen on 127.0.0.1:8000 (Address already in use)", str(caught.exception))

    def test_token_that_is_not_valid_stops_the_start(self) -> None:
        """Without any the start says what OSC clients may do."""
        site = Site(permissions=Guard())
        with self.assertRaises(StartError) as caught:
            self.door(site, token="old").open(None)
        self.assertIn("--osc-token: ", str(caught.exception))


class ClusterTests(SynchronousTestCase):
    """Two relays with an OSC door each."""

    def setUp(self) -> None:
        """A relay that decides and one that follows."""
        self.cluster = door_cluster()
        self.halls = {
            member: Hall(member=member, targets=[Target("192.168.0.9", 7000)] if member.name == "one" else [])
            for member in map(self.cluster.add, ("one", "two"))
        }
        self.cluster.advance(4)
        assert self.cluster.decider is not None
        self.decider, (self.follower,) = self.cluster.decider, self.cluster.followers
        self.far, self.near = self.halls[self.decider], self.halls[self.follower]

    def tearDown(self) -> None:
        """No relay had a fault."""
        for hall in self.halls.values():
            hall.port.stopProtocol()
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])

    def test_sources_get_what_others_change_at_any_relay(self) -> None:
        """And not their own."""
        self.far.send(message("/hello", 1), peer=DESK)
        self.near.send(message("/hello", 2))
        self.assertEqual(self.far.got(DESK), [("/hello", (2,))])
        self.near.send(message("/fader", 0.5), message("/go"), bundle(1, message("/a", 1), message("/b", 2)))
        everything = [("/fader", (0.5,)), ("/go", (None,)), ("/a", (1,)), ("/b", (2,))]
        self.assertEqual(self.far.got(DESK), everything)
        self.assertEqual(self.near.got(), [])
        self.assertEqual(self.far.site.value("/osc/b"), 2)

    def test_refusals_of_the_decider_are_counted(self) -> None:
        """OSC has no word for them."""
        owner = self.far.site.clasp()
        self.far.site.say(owner, Set("/osc/a", encode_value(1), lock=True))
        self.near.send(message("/a", 2), message("/b", 2))
        self.assertEqual(
            (self.near.counts.refused, self.near.site.value("/osc/a"), self.near.site.value("/osc/b")), (1, 1, 2)
        )

    def test_source_that_is_forgotten_is_kept_by_nothing(self) -> None:
        """Nor by a reference cycle, which the garbage collector might not look at; refusals that follow still count."""
        gc.disable()
        self.addCleanup(gc.enable)
        owner = self.far.site.clasp()
        self.far.site.say(owner, Set("/osc/a", encode_value(1), lock=True))
        self.near.port.datagramReceived(message("/a", 2), PHONE)
        one_turn(self.near.site.reactor)
        there = weakref.ref(self.near.port._sources[PHONE])
        self.near.port._drop(PHONE, "gone")
        self.assertEqual(self.near.counts.refused, 0)
        self.near.site.turn(1)
        self.assertEqual(self.near.counts.refused, 1)
        self.assertIsNone(there())

    def test_commands_wait_for_what_was_sent_before_them(self) -> None:
        """And what comes behind them for the commands."""
        self.near.port.datagramReceived(message("/a", 1), PHONE)
        for packet in (message("/clasp/resync"), message("/a", 2), message("/clasp/subscribe", "/b/**")):
            self.near.port.datagramReceived(packet, PHONE)
        self.near.site.turn(1)
        self.assertEqual(self.near.got(), [("/a", (1,))])
        self.far.send(message("/b/c", 1), message("/d", 1), peer=DESK)
        self.assertEqual(self.near.got(), [("/b/c", (1,))])

    def test_packets_behind_a_command_are_bounded(self) -> None:
        """The others are counted as refused."""
        self.patch(osc, "MAX_WAITING_BYTES", 2 * (PACKET_BYTES + len(message("/a", 1))))
        for packet in (message("/a", 1), message("/resync"), *(message("/a", number) for number in range(5))):
            self.near.port.datagramReceived(packet, PHONE)
        self.assertEqual(self.near.counts.refused, 3)
        self.near.site.turn(1)
        self.assertEqual(self.far.site.value("/osc/a"), 1)

    def test_one_timer_looks_after_the_commands_of_a_source(self) -> None:
        """However many have waited; it ends with the source."""
        reactor = self.near.site.gate.reactor

        def timers() -> int:
            calls = reactor.getDelayedCalls()
            return sum(getattr(call.func, "__func__", None) is PacketQueue.look_now for call in calls)

        for number in range(5):
            for packet in (message("/a", number), message("/resync")):
                self.near.port.datagramReceived(packet, PHONE)
            self.assertEqual(timers(), 1)
            self.near.site.turn(0)
        self.near.port.datagramReceived(message("/a", 9), PHONE)
        self.near.port.datagramReceived(message("/resync"), PHONE)
        self.near.port._drop(PHONE, "gone")
        self.assertEqual(timers(), 0)

    def test_target_is_served_while_its_relay_is_in_the_cluster(self) -> None:
        """From its joining on, and again after it was cut off."""
        (one,) = [member for member in self.halls if member.name == "one"]
        (other,) = [member for member in self.halls if member.name != "one"]
        target = ("192.168.0.9", 7000)
        self.halls[other].send(message("/a", 1), peer=DESK)
        self.assertEqual(self.halls[one].got(target), [("/a", (1,))])
        one.engine.is_paused = True
        self.cluster.advance(8)
        one.engine.is_paused = False
        self.cluster.advance(4)
        self.halls[one].got(target)
        self.halls[other].send(message("/a", 2), peer=DESK)
        self.assertEqual(self.halls[one].got(target), [("/a", (2,))])
        self.assertEqual(self.halls[one].refusals, [])

    def test_source_is_let_in_once_the_relay_has_caught_up(self) -> None:
        """Before that what it sends is refused."""
        hall = Hall(member=self.cluster.add("three"))
        self.addCleanup(hall.port.stopProtocol)
        hall.send(message("/a", 1))
        self.assertEqual(len(hall.refusals), 1)
        self.cluster.advance(3)
        hall.send(message("/a", 1))
        self.assertEqual(self.far.site.value("/osc/a"), 1)

    def test_commands_wait_while_rights_are_not_known(self) -> None:
        """With accounts nothing is read at a relay that may have missed that a right has ended."""
        self.far.send(message("/a", 1), peer=DESK)
        self.near.send(message("/b", 1))
        self.near.got()
        self.patch(self.near.site.relay.permissions, "is_open", False)
        self.patch(self.follower.relay, "refuses", NOT_READY)
        self.near.send(message("/resync"))
        self.assertEqual(self.near.got(), [])
        self.patch(self.near.site.relay.permissions, "is_open", True)
        self.cluster.advance(1)
        self.assertEqual(self.near.got(), [("/a", (1,)), ("/b", (1,))])
