"""OSC over UDP, and over TCP with SLIP: handles the packets of clients, and sends them changes.

UDP has no connections: a client is the address and port that it sends from, a *source*, and has a session as long as
it sends a packet from time to time (``docs/doors.md``, OSC).
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.session.schedule import MAX_PENDING_BYTES, bundle_bytes
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts, Ports, WhileHandled, refusal_of
from clasp_relay.doors.osc_source import OscOutbox, OscSource, SenderAwareCodec
from clasp_relay.doors.packet_queue import MAX_WAITING_BYTES
from clasp_relay.doors.stream import StreamConnection, StreamFactory
from clasp_relay.errors import CloseCode, DecodeError, Disconnect, RequestError, StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.reading import SLICE_S, share_end_s
from clasp_relay.net.tls import ServerTls
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Bundle, Message, Subscribe
from clasp_relay.wire.osc.mapping import message_of, prefix_of
from clasp_relay.wire.osc.packets import OscBundle, OscMessage, decode_packet, packet_cost, time_tag_us
from clasp_relay.wire.osc.slip import SlipReader, decode_slip, encode_slip

MAX_SOURCES = 256
"""Sources that are remembered; a further one replaces the least recently heard one of the address with most of them."""

IDLE_S = 300.0
"""A source that was not heard for this time is forgotten."""

MAX_AHEAD_US = 3_600_000_000
"""An hour: a time tag further ahead is probably due to a wrong clock."""

MAX_PENDING = 1_000
"""Bundles of one source that wait for their time."""

MAX_DATAGRAM_BYTES = 65_536
"""More than UDP carries."""

MAX_STREAM_PACKET_BYTES = 2 * 65_536
"""Limit of an encoded packet over TCP, where SLIP may double each byte: as long as a datagram may be."""

TARGETS_S = 1.0
"""The interval, in a cluster, of checks that the targets have sessions, which end when the relay is cut off."""

_SUBSCRIPTION = 1

POWER = "--osc-token FILE gives all of them the scopes of one token, «anonymous» in the policy those of nobody"

Peer: TypeAlias = "tuple[str, int]"


class Target(NamedTuple):
    """A client that is always sent changes."""

    host: str
    port: int
    pattern: str = "/**"
    """The part of the namespace, as an OSC address with CLASP's wildcards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OscOptions:
    """The options of the door.

    Attributes:
        namespace: the address prefix of OSC addresses in CLASP; ``/`` for the whole tree.
        allows: tells whether a client address may send, and be sent to.
        token: the token whose scopes clients have; empty for none.
        targets: the clients that are always sent changes.
        rate: limit of values a second, of one address to one client; 0 for none.
    """

    namespace: str
    allows: Callable[[str], bool]
    token: str = ""
    targets: Sequence[Target] = ()
    rate: float = 30.0


class OscClients:
    """The clients of the door over UDP and TCP: makes their sessions and handles their packets.

    Args:
        relay: the core.
        gate: has the reactor and the turn writer.
        options: the options of the door.
        counts: the counts of the door.
        refused: called with each refusal: client address and reason.
    """

    def __init__(
        self,
        relay: Relay,
        gate: ClaspFactory,
        options: OscOptions,
        counts: DoorCounts,
        refused: Callable[[str, str], None],
    ) -> None:
        self._relay = relay
        self._gate = gate
        self.options = options
        self.counts = counts
        self._tell_refused = refused
        self._prefix = prefix_of(options.namespace)
        self.codec = SenderAwareCodec(self._prefix)
        """The codec of all OSC sessions."""
        if self.follows:
            self.codec.followed = self._sender_here
        self._interval_s = 1 / options.rate if options.rate else 0.0
        self._limiters: dict[str, tuple[Limiter, int]] = {}
        self._pending_bytes = 0
        """Memory of the waiting bundles of all sources."""

    @property
    def follows(self) -> bool:
        """Whether another core decides clients' messages, since the relay is in a cluster."""
        return self._relay.committer.is_following

    @property
    def lets_in(self) -> bool:
        """Whether sessions are admitted now."""
        return self._relay.refuses is None

    def _sender_here(self) -> object:
        """Returns the outbox of the session of this relay that has caused the change that is being sent."""
        change = self._relay.committer.followed
        session = None if change is None else self._relay.sessions.get(change.param.writer)
        return None if session is None else session.outbox

    def refuse(self, host: str, reason: str) -> None:
        """Counts and logs a refusal."""
        self.counts.refused += 1
        self._tell_refused(host, reason)

    def begin(self, host: str, send: Callable[[bytes], None], pattern: str = "/**") -> OscSource | None:
        """Begins the session of a client; None if it may have none, which is logged.

        Args:
            host: its address.
            send: sends it a packet.
            pattern: the pattern of its subscription.
        """
        relay = self._relay
        if not self.options.allows(host):
            self.refuse(host, "its address is not in --osc-allow")
            return None
        outbox = OscOutbox(self._gate.reactor, send, self._interval_s)
        session = relay.connect(outbox, host, self.codec)
        session.door = self.counts.door
        try:
            relay.identify(session, self.options.token)
        except Disconnect as refusal:
            self.refuse(host, refusal.reason)
            return None
        session.name = "OSC"
        source = OscSource(session, outbox, self._gate.reactor)
        if self.follows:
            session.when_decided = lambda _revision, refusal: self._decided(source, refusal)
        relay.admit(session)
        relay.observer.began(session)
        if self._may_hear(session, pattern):
            self.subscribe(source, pattern)
        if session.limiter is not None:
            # One for each address, whatever the number of ports that it sends from.
            limiter, users = self._limiters.get(host, (session.limiter, 0))
            session.limiter = limiter
            self._limiters[host] = (limiter, users + 1)
        return source

    def _may_hear(self, session: Session, pattern: str) -> bool:
        """Tells whether a client may be sent all of a pattern; it has not asked for it, so it gets no refusal."""
        try:
            self._relay.permissions.check_subscribe(session.identity, Pattern.parse(self._prefix + pattern))
        except RequestError:
            return False
        return True

    def end(self, source: OscSource, cause: str) -> None:
        """Ends the session of a client."""
        self._pending_bytes -= sum(source.pending.values())
        source.end()
        session = source.session
        if session.when_decided is not None:
            # It holds the source, and the source its session: a reference cycle.
            session.when_decided = self._decided_late
        host = session.peer
        limiter, users = self._limiters.get(host, (None, 0))
        if limiter is not None and users > 1:
            self._limiters[host] = (limiter, users - 1)
        else:
            self._limiters.pop(host, None)
        self._relay.disconnect(session, cause)

    def subscribe(self, source: OscSource, pattern: str) -> None:
        """Subscribes a client to a pattern, in place of its earlier subscription."""
        session = source.session
        errors = session.errors
        self._relay.accept(session, Subscribe(_SUBSCRIPTION, self._prefix + pattern), 0)
        self.counts.refused += session.errors - errors

    def take(self, source: OscSource, data: bytes) -> None:
        """Handles a packet."""
        source.heard_s = self._gate.reactor.seconds()
        self.counts.messages += 1
        self._take(source, data)

    def _take(self, source: OscSource, data: bytes) -> None:
        if not source.waiting.is_on:
            self._guarded(source, partial(self._handle, source, data))
        elif not source.waiting.add(data, MAX_WAITING_BYTES):
            self.refuse(source.session.peer, f"more than {MAX_WAITING_BYTES} bytes of one source wait behind a command")

    def _guarded(self, source: OscSource, call: Callable[[], None]) -> None:
        try:
            call()
        except RequestError as error:
            self.refuse(source.session.peer, error.message)

    def _handle(self, source: OscSource, data: bytes) -> None:
        if not self._relay.pay(source.session, packet_cost(data)):
            self.counts.refused += 1
            return
        packet = decode_packet(data)
        if isinstance(packet, OscBundle):
            self._bundle(source, packet)
        elif _is_command(packet):
            self._command(source, packet)
        else:
            self._accept(source, message_of(self._prefix, packet))

    def _command(self, source: OscSource, command: OscMessage) -> None:
        """Carries out a command, once reads include the source's earlier SETs and all changes of rights."""
        if source.undecided or self._relay.are_reads_held:
            source.waiting.begin(partial(self._go_on, source, command))
        elif command.address in ("/resync", "/clasp/resync"):
            self._resync(source)
        elif command.address == "/clasp/subscribe":
            self._narrow(source, command)
        else:
            raise DecodeError(f"{command.address[:200]} is no command; /clasp/resync and /clasp/subscribe are")

    def _decided(self, source: OscSource, refusal: RequestError | None) -> None:
        """Notes that another core has decided a source's oldest message."""
        source.undecided = max(0, source.undecided - 1)
        self.counts.refused += refusal is not None
        if not source.undecided:
            source.waiting.look_now()

    def _decided_late(self, _revision: int | None, refusal: RequestError | None) -> None:
        """Notes that another core has decided a message of a source that is gone."""
        self.counts.refused += refusal is not None

    def _go_on(self, source: OscSource, command: OscMessage) -> None:
        """Carries out a command that had to wait, and takes the packets behind it."""
        source.waiting.end()
        self._guarded(source, partial(self._command, source, command))
        packet = source.waiting.next()
        while packet is not None:
            self._take(source, packet)
            packet = source.waiting.next()

    def _accept(self, source: OscSource, message: Message) -> None:
        session, counts = source.session, self._relay.counts
        errors, limited = session.errors, counts.limited
        self._relay.accept(session, message, 0, WhileHandled(self.codec, "sender", source.outbox))
        # Of the messages that the rate limit drops only one in a second gets an ERROR.
        refused = counts.limited - limited or session.errors - errors
        self.counts.refused += refused
        if self.follows and not refused:
            source.undecided += 1

    def _resync(self, source: OscSource) -> None:
        """Sends all params of the client's subscription."""
        if self._gate.writer.runs:
            self._gate.writer.flush_runs()
        source.outbox.takes_snapshots = True
        for subscription in list(source.session.subscriptions.values()):
            self._relay.accept(source.session, Subscribe(subscription.id, subscription.pattern.text), 0)
        source.outbox.takes_snapshots = False

    def _narrow(self, source: OscSource, message: OscMessage) -> None:
        if len(message.arguments) != 1 or not isinstance(message.arguments[0], str):
            raise DecodeError("/clasp/subscribe takes one string: a pattern such as /mixer/**")
        try:
            pattern = Pattern.parse(message.arguments[0])
        except RequestError as error:
            raise DecodeError(f"/clasp/subscribe: {error.message}") from None
        self.subscribe(source, pattern.text)

    def _bundle(self, source: OscSource, bundle: OscBundle) -> None:
        """Applies a bundle: messages with the same time together, later ones at their time."""
        now_us = self._relay.clock.now_us()
        parts: dict[int, list[Message]] = {}
        for due_us, message in _flat(bundle, 0):
            if due_us > now_us + MAX_AHEAD_US:
                raise DecodeError("the time tag of a bundle is more than an hour ahead")
            if _is_command(message):
                raise DecodeError("commands cannot stand in a bundle")
            parts.setdefault(due_us if due_us > now_us else 0, []).append(message_of(self._prefix, message))
        bundles = {due_us: Bundle(tuple(messages)) for due_us, messages in parts.items()}
        self._check_room(source, [each for due_us, each in bundles.items() if due_us])
        for due_us, each in bundles.items():
            if due_us:
                self._wait(source, each, (due_us - now_us) / 1e6)
            else:
                self._accept(source, each)

    def _check_room(self, source: OscSource, bundles: Sequence[Bundle]) -> None:
        """Refuses bundles that would have to wait if all of them together exceed a limit."""
        if len(source.pending) + len(bundles) > MAX_PENDING:
            raise DecodeError(f"{MAX_PENDING} bundles of one source may wait")
        size_bytes = sum(map(bundle_bytes, bundles))
        if self._pending_bytes + size_bytes > MAX_PENDING_BYTES:
            raise DecodeError("as many bundles are waiting as the relay can keep")
        source.session.account.check(MemoryKind.BUNDLES, size_bytes)

    def _wait(self, source: OscSource, bundle: Bundle, delay_s: float) -> None:
        call: IDelayedCall

        def run() -> None:
            nonlocal call
            self._pending_bytes -= size_bytes
            source.wait_no_more(call)
            # The reactor's call holds this function, also afterwards: they would be a reference cycle.
            del call
            self._accept(source, bundle)

        size_bytes = bundle_bytes(bundle)
        self._pending_bytes += size_bytes
        call = self._gate.reactor.callLater(delay_s, run)
        source.wait(call, size_bytes)


def _is_command(message: OscMessage) -> bool:
    return message.address.startswith("/clasp/") or message.address == "/resync"


def _flat(bundle: OscBundle, outer_us: int) -> Iterator[tuple[int, OscMessage]]:
    """Yields the messages of a bundle with their times; inner bundles with «immediately» have the outer one's."""
    due_us = time_tag_us(bundle.time_tag) or outer_us
    for element in bundle.elements:
        if isinstance(element, OscMessage):
            yield due_us, element
        else:
            yield from _flat(element, due_us)


class OscDatagrams(DatagramProtocol):
    """The UDP port: a source for each address and port that sends.

    Args:
        clients: makes sessions and handles packets.
        reactor: for its clock.
    """

    noisy = False

    def __init__(self, clients: OscClients, reactor: Any) -> None:
        self._clients = clients
        self._reactor = reactor
        self._sources: OrderedDict[Peer, OscSource] = OrderedDict()
        self._sources_at: Counter[str] = Counter()
        """Number of sources of each address."""
        self._port: Any = None
        self._end_s = math.inf
        """When this turn's time for packets ends."""
        self._targets: dict[Target, OscSource | None] = {}
        """The sessions of the targets; None for one that may have none."""
        self._look: IDelayedCall | None = None
        self._sweep: IDelayedCall | None = None

    def startProtocol(self) -> None:
        """Begins the targets' sessions, since the port listens."""
        for target in self._clients.options.targets:
            self._serve(target)
        if self._clients.follows and self._clients.options.targets:
            self._look = self._reactor.callLater(TARGETS_S, self._look_after_targets)
        self._sweep = self._reactor.callLater(IDLE_S / 10, self._forget_idle)

    def stopProtocol(self) -> None:
        """Ends all sessions, since the port is closed."""
        for call in (self._sweep, self._look):
            if call is not None:
                call.cancel()
        self._sweep = self._look = None
        for source in (*self._sources.values(), *self._targets.values()):
            if source is not None:
                self._clients.end(source, "the relay stops")
                self._clients.counts.clients -= 1
        self._sources.clear()
        self._sources_at.clear()
        self._targets.clear()

    def _serve(self, target: Target) -> None:
        """Begins the session of a target."""
        if not self._clients.lets_in:
            return
        host, port, pattern = target
        source = self._targets[target] = self._clients.begin(host, self._sender((host, port)), pattern)
        if source is not None:
            if not source.session.subscriptions:
                self._clients.refuse(host, f"its scopes do not cover {pattern} of its --osc-target")
            self._clients.counts.clients += 1

    def _look_after_targets(self) -> None:
        """Begins the sessions of targets that have none, after the relay has joined its cluster (again)."""
        self._look = self._reactor.callLater(TARGETS_S, self._look_after_targets)
        for target in self._clients.options.targets:
            source = self._targets.get(target)
            if source is not None and source.outbox.closed is not None:
                del self._targets[target]
                self._clients.end(source, source.outbox.closed)
                self._clients.counts.clients -= 1
            if target not in self._targets:
                self._serve(target)

    def bound_turns(self, port: Any) -> None:
        """Limits the time in each turn for which a port takes packets: Twisted would take thousands of short ones.

        Args:
            port: the listening port.
        """
        self._port = port
        read, most_bytes = port.doRead, port.maxThroughput

        def do_read() -> None:
            port.maxThroughput = most_bytes
            self._end_s = share_end_s(self._reactor, SLICE_S)
            read()

        port.doRead = do_read

    def datagramReceived(self, datagram: bytes, addr: Peer) -> None:
        """Takes a packet."""
        try:
            self._take(datagram, (addr[0], addr[1]))
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled an OSC packet")
        if self._reactor.seconds() >= self._end_s:
            self._port.maxThroughput = 0

    def _take(self, datagram: bytes, peer: Peer) -> None:
        source = self._sources.get(peer)
        if source is not None and source.outbox.closed is not None:
            self._drop(peer, source.outbox.closed)
            source = None
        if source is None:
            source = self._clients.begin(peer[0], self._sender(peer))
            if source is None:
                return
            self._sources[peer] = source
            self._sources_at[peer[0]] += 1
            self._clients.counts.clients += 1
            if len(self._sources) > MAX_SOURCES:
                # So that a client that sends from many ports replaces no other one.
                most = max(self._sources_at.values())
                oldest = next(each for each in self._sources if self._sources_at[each[0]] == most)
                self._drop(oldest, "other sources took its place")
        self._sources.move_to_end(peer)
        self._clients.take(source, datagram)

    def _sender(self, peer: Peer) -> Callable[[bytes], None]:
        def send(packet: bytes) -> None:
            if self.transport is None:
                return
            try:
                self.transport.write(packet, peer)
            except (OSError, MessageLengthError):
                # The packet is lost: the buffer is full, there is no route, or it is longer than a datagram may be.
                self._clients.counts.refused += 1

        return send

    def _drop(self, peer: Peer, cause: str) -> None:
        self._clients.end(self._sources.pop(peer), cause)
        self._sources_at[peer[0]] -= 1
        if not self._sources_at[peer[0]]:
            del self._sources_at[peer[0]]
        self._clients.counts.clients -= 1

    def _forget_idle(self) -> None:
        self._sweep = self._reactor.callLater(IDLE_S / 10, self._forget_idle)
        last_s = self._reactor.seconds() - IDLE_S
        for peer in [peer for peer, each in self._sources.items() if each.heard_s < last_s and not each.pending]:
            self._drop(peer, f"nothing was received for {IDLE_S:.0f} s")


class OscConnection(StreamConnection):
    """A client over TCP: packets between SLIP's ENDs (OSC 1.1)."""

    def __init__(self, gate: ClaspFactory, clients: OscClients) -> None:
        super().__init__(gate, clients.counts, clients.codec)
        self._clients = clients
        self._source: OscSource | None = None
        self._reader = SlipReader(MAX_STREAM_PACKET_BYTES)

    @property
    def is_live(self) -> bool:
        """See the base class: the client is identified by its address and the relay's options."""
        return self._source is not None

    @property
    def is_busy(self) -> bool:
        """See the base class."""
        return self._source is not None and (self._source.session.is_busy or self._source.waiting.is_on)

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._source is None else self._source.session.id

    def begin(self, outbox: Outbox) -> None:
        """See the base class."""
        self._source = self._clients.begin(self.address, lambda packet: outbox.send(Frame(encode_slip(packet))))
        if self._source is None:
            outbox.close(CloseCode.POLICY_VIOLATION, "not allowed")

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class: OSC has no message for it."""

    def take(self, data: bytes) -> None:
        """See the base class."""
        source, outbox = self._source, self.outbox
        if source is None or outbox is None:
            return
        try:
            packets = self._reader.feed(data)
        except DecodeError as error:
            self._clients.refuse(self.address, error.message)
            outbox.close(CloseCode.TOO_BIG, error.message)
            return
        for framed in packets:
            if source.outbox.closed is not None:
                outbox.close(CloseCode.POLICY_VIOLATION, source.outbox.closed)
                return
            try:
                self._clients.take(source, decode_slip(framed))
            except DecodeError as error:
                self._clients.refuse(self.address, error.message)

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class: never called, since a client is live at once or gone."""

    def gone(self, cause: str) -> None:
        """See the base class."""
        source, self._source = self._source, None
        if source is not None:
            self._clients.end(source, cause)

    def look_after(self, silent_s: float) -> None:
        """Does nothing: TCP's own keep-alive finds a dead peer, and an OSC client may be silent for long."""


class OscDoor:
    """Listens for OSC. Implements ``door.Door``.

    Args:
        reactor: accepts datagrams and connections.
        udp: the address and port for datagrams; None for none.
        tcp: the address and port for SLIP over TCP; None for none.
        relay: the core.
        gate: admits connections.
        options: returns the options of the door; called at the start, since it reads the token's file.
        refused: called with each refusal: door, client address, reason.
    """

    def __init__(
        self,
        reactor: Any,
        udp: TcpPlace | None,
        tcp: TcpPlace | None,
        relay: Relay,
        gate: ClaspFactory,
        options: Callable[[], OscOptions],
        refused: Callable[[str, str, str], None],
    ) -> None:
        self._reactor = reactor
        self._udp = udp
        self._tcp = tcp
        self._relay = relay
        self._gate = gate
        self._options = options
        self._refused = refused
        self._counts = DoorCounts("osc")
        self.counts = (self._counts,)
        """See ``Door``."""
        self.ports = Ports("OSC")
        """Its ports."""
        self._is_powerless = False

    def open(self, _tls: ServerTls | None) -> None:
        """See ``Door``."""
        if self.ports:
            return
        options = self._options()
        refusal = refusal_of(self._relay, options.token, SenderAwareCodec(""))
        # A relay of a cluster may learn of the token only when it joins.
        if refusal is not None and options.token and self._relay.refuses is None:
            raise StartError(f"--osc-token: {refusal.reason}; put a valid token into the file")
        self._is_powerless = refusal is not None
        counts = self._counts
        clients = OscClients(
            self._relay, self._gate, options, counts, lambda host, why: self._refused("OSC", host, why)
        )
        if self._udp is not None:
            host, port = self._udp.host, self._udp.port
            try:
                datagrams = OscDatagrams(clients, self._reactor)
                listening = self._reactor.listenUDP(port, datagrams, host, MAX_DATAGRAM_BYTES)
                datagrams.bound_turns(listening)
            except CannotListenError as error:
                cause = cause_text(error.socketError)
                raise StartError(
                    f"--osc-port: cannot listen on {host}:{port} ({cause}); give another --osc-port or --host"
                ) from error
            self.ports.add(listening)
        if self._tcp is not None:
            factory = StreamFactory(self._gate, counts, lambda: OscConnection(self._gate, clients))
            self.ports.add(listen(self._reactor, self._tcp, factory, "--osc-tcp-port"))

    def close(self) -> Deferred[Any]:
        """See ``Door``."""
        return self.ports.close()

    def started(self, _port: int | None) -> None:
        """See ``Door``."""
        self.ports.log()
        if self._is_powerless:
            events.DOOR_POWERLESS.log(door="OSC", remedy=POWER)
