"""MQTT 3.1.1 and 5 over TCP, TLS and WebSocket: what the packets of a client do (``docs/doors.md``, MQTT)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from clasp_relay.core.ports import Codec, Frame
from clasp_relay.core.ports import Outbox as AnyOutbox
from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.core.relay import Relay
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL, HiddenKeys
from clasp_relay.core.session.identity import TOKEN_PREFIX, Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts, Ports, WhileHandled
from clasp_relay.doors.handed import refusal_of
from clasp_relay.doors.mqtt_messages import MqttCodec, Sending, encode_mark, marked, own_bytes
from clasp_relay.doors.mqtt_session import KeptTotal, MqttSession, SharedBatches, Subscribed
from clasp_relay.doors.stream import StreamConnection, StreamFactory
from clasp_relay.errors import CloseCode, DecodeError, Disconnect, ErrorCode, RequestError
from clasp_relay.logs import events
from clasp_relay.net.backlog import Batch
from clasp_relay.net.frames import ControlFrames, wire_bytes
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.tls import ServerTls
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE, Signal
from clasp_relay.wire.messages import Message, Publish, Set, Subscribe
from clasp_relay.wire.mqtt.mapping import filter_pattern, is_filter, payload_value, topic_address
from clasp_relay.wire.mqtt.packets import (
    FORWARDED,
    MAX_PACKET_BYTES,
    PINGRESP,
    V4,
    V5,
    Acknowledge,
    Connect,
    DisconnectPacket,
    Filter,
    PacketReader,
    PacketType,
    PingRequest,
    Prop,
    Properties,
    PublishPacket,
    SubscribePacket,
    UnsubscribePacket,
    decode_packet,
    encode_acknowledge,
    encode_connack,
    encode_disconnect,
    encode_suback,
    encode_unsuback,
)

POWER = "a client's password is its token (clasp-relay token create), «anonymous» in the policy gives scopes to others"

MAX_KEPT_SESSIONS = 1_000
"""Sessions without a connection that are kept; of one more the one that waits longest goes."""

MAX_KEPT_MESSAGES = 10_000
"""Messages that wait for clients without a connection, all together; beyond it the oldest of that client go."""

MAX_KEPT_S = 3_600
"""How long a session is kept without a connection, whatever its client asks for."""

MAX_SUBSCRIPTION_FILTERS = 1_000
"""Filters of one client, those that nothing matches included."""

MAX_CLAIMED = 10_000
"""Of how many clients of a cluster it is known when they have come last."""

MAX_RECEIVED = 1_000
"""Ids of QoS 2 that one client may have in use."""

NOT_AUTHORIZED, BAD_PASSWORD, BAD_VERSION, BAD_CLIENT_ID, BUSY = 0x87, 0x86, 0x84, 0x85, 0x89
_CONNACK_V4 = {NOT_AUTHORIZED: 5, BAD_PASSWORD: 4, BAD_VERSION: 1, BAD_CLIENT_ID: 2, BUSY: 3}

TOPIC_INVALID, RATE_EXCEEDED, QUOTA, BAD_PAYLOAD, UNSPECIFIED = 0x90, 0x97, 0x97, 0x99, 0x80
_REASONS = {
    ErrorCode.ADDRESS: TOPIC_INVALID,
    ErrorCode.SCOPE: NOT_AUTHORIZED,
    ErrorCode.POLICY: NOT_AUTHORIZED,
    ErrorCode.LOCKED: NOT_AUTHORIZED,
    ErrorCode.VALUE: BAD_PAYLOAD,
    ErrorCode.LIMIT: QUOTA,
    ErrorCode.OVERLOADED: QUOTA,
}
"""What an ERROR of the core is in MQTT ([5] 2.4)."""

_CLOSES = {
    CloseCode.GOING_AWAY: 0x8B,
    CloseCode.TRY_AGAIN_LATER: 0x97,
    CloseCode.TOO_BIG: 0x95,
    CloseCode.POLICY_VIOLATION: 0x87,
    CloseCode.PROTOCOL_ERROR: 0x82,
    CloseCode.INTERNAL: 0x80,
}
"""What the end of a session is in MQTT ([5] 3.14.2.1)."""

TOO_FAST = 0x96
LOOK_S = 0.1
"""How often it is looked whether what a client waits for is there: in a cluster its token, or that reads go on."""

TOKEN_LOOKS = 20
"""How often it is looked for a token that another relay may have issued a moment ago."""

PUT_OFF_BYTES = 128
"""What a packet takes besides its bytes that waits until a password was looked at, or a packet before it is done."""

MAX_PUT_OFF_BYTES = 1024 * 1024
"""What may wait so of a client that was let in; it is not read from meanwhile, and one read brings less."""

NAME_MARK = "\0"
"""Between subject and client id in a claim; neither holds one."""

_SHARE = "$share/"
_TAKEN_OVER = 0x8E
_DISCONNECT_WITH_WILL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """What the door is told.

    Attributes:
        namespace: where topics are in CLASP; ``/`` for the whole tree.
        publish_sets: whether every PUBLISH is a SET, as the Rust relay has it.
    """

    namespace: str = "/mqtt"
    publish_sets: bool = False


SignIn: TypeAlias = "Callable[[str, str, str], Deferred[Identity]]"


class Claim(Protocol):
    """That a client has come to some relay of a cluster."""

    @property
    def session_id(self) -> str:
        """The core's session of its connection."""

    @property
    def name(self) -> str:
        """Its subject and id, as ``Broker.claim`` puts them together."""

    @property
    def is_new(self) -> bool:
        """Whether nothing of its session before is kept."""

    @property
    def time_us(self) -> int:
        """When it has come, by the cluster's clock as that relay knows it, in Unix µs."""


class Claims(Protocol):
    """What tells the MQTT doors of a cluster's other relays that a client is here now."""

    when_named: Callable[[Any, bool], None]
    """Is told of each ``Claim``, in the order in which all relays hear of them, and whether it was made here; to be set
    by the door."""

    when_marked: Callable[[Change, bytes], None]
    """Is told of each change that a client of any relay has sent, and of ``encode_mark``; to be set by the door."""

    @property
    def knows_token(self) -> Callable[[str], bool]:
        """What tells whether a token is known here, be it as one that has ended."""

    def claim(self, session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """Has a session take a name, which one session of the cluster has at a time."""

    def leave(self, session: Session, will: Message | None, more: bytes = b"", mark: bytes = b"") -> None:
        """Says what a session leaves when it is lost, be it with its relay; None for nothing."""

    def lose(self, session: Session) -> None:
        """Has a session that is about to end count as lost."""


class Broker:
    """What all MQTT clients share. Implements ``net.websocket.RelayPort`` for those over WebSocket.

    Args:
        relay: the core.
        gate: for the reactor and what waits to be written.
        options: what the door is told.
        refused: is told of what was refused: client address and reason.
        sign_in: finds out as whom a user name and a password speak, given the client's address, too; it fails with a
            Disconnect. None where there are no accounts.
        claims: tells other relays who is here; None for a relay that is alone.
    """

    def __init__(
        self,
        relay: Relay,
        gate: ClaspFactory,
        options: MqttOptions,
        refused: Callable[[str, str], None],
        sign_in: SignIn | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.sign_in = sign_in
        self._claims = claims
        self.relay = relay
        self.gate = gate
        self.reactor: Any = gate.reactor
        self.options = options
        self.counts = DoorCounts("mqtt")
        self.tell_refused = refused
        self.prefix = "" if options.namespace == "/" else options.namespace
        self.codec = MqttCodec(self.prefix, relay.params.get)
        if claims is not None:
            claims.when_named, claims.when_marked = self.named, self._marked
            self.codec.followed = self._sent_elsewhere
        self._clients: dict[tuple[str, str], MqttClient] = {}
        self._claimed_us: OrderedDict[tuple[str, str], int] = OrderedDict()
        """When clients have come last, to any relay of a cluster."""
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._groups: dict[tuple[str, str], deque[MqttSession]] = {}
        self._last_id = 0
        self._batches = SharedBatches()
        self._kept_total = KeptTotal(MAX_KEPT_MESSAGES)
        self._is_stopping = False

    # net.websocket.RelayPort

    def connect(self, outbox: AnyOutbox, peer: str, _codec: Codec) -> MqttClient:
        """Begins the connection of a client over WebSocket."""
        assert isinstance(outbox, Outbox), "a connection's way out is that of net"
        self.counts.clients += 1
        return MqttClient(self, outbox, peer, wire_bytes, "websocket")

    def receive(self, client: MqttClient, data: bytes) -> None:
        """Takes what came in one WebSocket message: a piece of the stream ([5] 6)."""
        try:
            client.feed(data)
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled an MQTT packet")
            client.close(CloseCode.INTERNAL, "internal error")

    def disconnect(self, client: MqttClient, cause: str) -> None:
        """The connection of a client over WebSocket is gone."""
        self.counts.clients -= 1
        client.gone(cause)

    # Sessions

    def new_client_id(self) -> str:
        """Returns an id for a client that has none."""
        self._last_id += 1
        return f"clasp-{self._last_id}-{self.relay.clock.now_us():x}"

    def enter(self, client: MqttClient, key: tuple[str, str], *, clean: bool) -> tuple[MqttSession, bool]:
        """Makes a client the one with its id: ends another connection with it, and finds the session that was kept.

        Args:
            client: who enters.
            key: its subject and id.
            clean: whether it wants a new session.

        Returns:
            The session, and whether it was there before.
        """
        other = self._clients.get(key)
        if other is not None:
            other.taken_over()
        self._clients[key] = client
        kept = self._kept.pop(key, None)
        if kept is not None:
            # What the core has ended has missed messages since.
            is_over = clean or kept.session.ended is not None
            self._let_go(kept.session)
            kept.end(self, publish_will=is_over)
            if not is_over:
                return kept.session, True
            self.forget(kept.session)
        return MqttSession(*key, self.choose, self.reactor.seconds, self._batches), False

    def awaits(self, token: str) -> bool:
        """Tells whether another relay may have issued a token of which this one does not know yet."""
        return self._claims is not None and token.startswith(TOKEN_PREFIX) and not self._claims.knows_token(token)

    @property
    def holds_reads(self) -> bool:
        """Whether nothing is read for anybody now: with accounts, where the relay may lack that a right has ended."""
        return self.relay.refuses is not None and not self.relay.permissions.is_open

    def claim(self, core: Session, session: MqttSession, *, is_new: bool) -> None:
        """Tells other relays that a client is here, so that it is nowhere else."""
        if self._claims is not None:
            key = session.subject, session.client_id
            # Whatever the clocks say, it has come behind all that is known.
            session.claimed_us = max(self.relay.clock.now_us(), self._claimed_us.get(key, 0) + 1)
            self._claims.claim(core, NAME_MARK.join(key), session.claimed_us, is_new=is_new)

    def leave_will(self, core: Session, will: tuple[Sending, Message] | None) -> None:
        """Says in a cluster what is to be published when a client is lost, be it with this relay; None for nothing."""
        if self._claims is not None:
            if will is None:
                self._claims.leave(core, None)
            else:
                sending, message = will
                self._claims.leave(core, message, sending.own, sending.mark)

    def lose(self, core: Session) -> bool:
        """Has a client whose connection is lost leave its will, if that is the decider's to do."""
        if self._claims is not None:
            self._claims.lose(core)
        return self._claims is not None

    def named(self, claim: Claim, is_here: bool) -> None:
        """Is told that a client has come to this relay or to another one: it is where it came last, and only there.

        Claims may be told late, as of a relay that was cut off: so the times count, and not their order in the log.
        """
        subject, _, client_id = claim.name.partition(NAME_MARK)
        key = subject, client_id
        self._claimed_us[key] = max(claim.time_us, self._claimed_us.pop(key, 0))
        if len(self._claimed_us) > MAX_CLAIMED:
            self._claimed_us.popitem(last=False)
        client = self._clients.get(key)
        if is_here:
            return
        if client is not None and client.came_before(claim):
            client.taken_over()
        kept = self._kept.get(key)
        if kept is not None and kept.session.claimed_us <= claim.time_us:
            if claim.is_new:
                self.drop(kept)
            else:
                kept.rest()

    def leave(self, client: MqttClient, key: tuple[str, str]) -> None:
        """A client is not connected any more."""
        if self._clients.get(key) is client:
            del self._clients[key]

    def keep(
        self,
        session: MqttSession,
        identity: Identity,
        keep_s: float,
        will: tuple[Sending, Message] | None,
        delay_s: float,
    ) -> None:
        """Keeps a session without a connection.

        Args:
            session: which.
            identity: as whom it subscribed.
            keep_s: for how long.
            will: what is to be published meanwhile; None for nothing.
            delay_s: when.
        """
        if self._is_stopping:
            return
        session.kept_total = self._kept_total
        self._kept_total.add(session.kept_messages)
        key = (session.subject, session.client_id)
        kept = self._kept[key] = _Kept(self, session, identity, min(keep_s, MAX_KEPT_S), will, delay_s)
        if len(self._kept) > MAX_KEPT_SESSIONS:
            self.drop(next(iter(self._kept.values())))
        kept.begin()

    def drop(self, kept: _Kept) -> None:
        """Ends a session that was kept."""
        self._kept.pop((kept.session.subject, kept.session.client_id), None)
        self._let_go(kept.session)
        kept.end(self, publish_will=True)
        self.forget(kept.session)

    def _let_go(self, session: MqttSession) -> None:
        """Counts the messages of a session no longer as kept."""
        session.uncharge()
        session.kept_total = None
        self._kept_total.add(-session.kept_messages)

    def forget(self, session: MqttSession) -> None:
        """Takes a session that has ended out of its groups."""
        for subscribed in session.subscriptions.values():
            self.leave_group(session, subscribed)
        session.end()

    def stop(self) -> None:
        """Ends all sessions that are kept, and keeps none any more."""
        self._is_stopping = True
        for kept in list(self._kept.values()):
            self.drop(kept)

    @property
    def kept_sessions(self) -> int:
        """How many sessions have no connection."""
        return len(self._kept)

    # Shared subscriptions

    def join_group(self, session: MqttSession, group: tuple[str, str]) -> None:
        """Adds a session to those that share a subscription."""
        members = self._groups.setdefault(group, deque())
        if session not in members:
            members.append(session)

    def leave_group(self, session: MqttSession, subscribed: Subscribed) -> None:
        """Takes a session out of its group."""
        members = self._groups.get(subscribed.group or ("", ""))
        if subscribed.group is not None and members is not None and session in members:
            members.remove(session)
            if not members:
                del self._groups[subscribed.group]

    def choose(self, group: tuple[str, str]) -> object:
        """Returns who gets the next message of a group: in turn, those that are connected first."""
        members = self._groups.get(group)
        if not members:
            return None
        for _ in range(len(members)):
            members.rotate(-1)
            if members[-1].link is not None:
                break
        return members[-1]

    # The core

    def subscribe_all(self, core: Session, session: MqttSession) -> None:
        """Subscribes a new session of the core to all that a kept session has subscribed to, without retained ones."""
        limiter, core.limiter = core.limiter, None
        session.holding = []
        for subscribed in session.subscriptions.values():
            if subscribed.pattern is not None:
                self.relay.accept(core, Subscribe(subscribed.id, subscribed.pattern.text), 0)
        held, session.holding = session.holding, None
        for _, frames in held:
            _give_up(frames)
        core.limiter = limiter

    def view_of(self, core: Session, address: str) -> HiddenKeys:
        """Returns how a session sees an address now; what waited for it may have been hidden since."""
        relay = self.relay
        if relay.permissions.is_open:
            return FULL
        if not relay.permissions.is_current(core.identity) or not relay.permissions.can_read(core.identity, address):
            return None
        rule = relay.visibility.place(address).live
        if rule is None:
            return FULL
        patterns = [each.pattern for each in core.subscriptions.values() if each.pattern.matches(address)]
        views = [relay.visibility.view(rule, core, address, pattern, Reads()) for pattern in patterns]
        return min((hidden for hidden in views if hidden is not None), key=len, default=None)

    def publish(self, core: Session, sending: Sending, message: Message) -> tuple[int, bool]:
        """Has the core handle a message.

        Returns:
            The reason code of version 5, 0 where it was accepted; and whether an answer will tell that it is recorded.
        """
        codec, relay = self.codec, self.relay
        codec.refusal = None
        limited = relay.counts.limited
        relay.accept(core, message, 1, _WhileSent(codec, core, sending))
        if relay.counts.limited > limited:
            return RATE_EXCEEDED, False
        refusal = codec.refusal
        if refusal is None:
            return 0, isinstance(message, Set) or self.follows
        return _REASONS.get(ErrorCode(refusal.error), UNSPECIFIED), False

    @property
    def follows(self) -> bool:
        """Whether another core decides about what clients send, so that every message has an answer of its own."""
        return self.relay.committer.is_following

    def _marked(self, change: Change, mark: bytes) -> None:
        """Notes with which QoS a retained message was sent at any relay."""
        param = change.param
        if change.kind is ChangeKind.WRITE:
            self.codec.keep(param.address, param.revision, marked(change, mark, None)._replace(own=param.sent_as))

    def _sent_elsewhere(self, address: str) -> Sending | None:
        """Returns what a client of any relay has sent that is told now; None where it is CLASP's own."""
        committer = self.relay.committer
        change = committer.followed
        if change is None or change.param.address != address:
            return None
        session = self.relay.sessions.get(change.param.writer)
        sender = session.outbox if session is not None and isinstance(session.outbox, MqttSession) else None
        if sender is None and not committer.followed_with and not change.param.sent_as:
            return None
        return marked(change, committer.followed_with, sender)

    def message(
        self, topic: str, payload: bytes, qos: int, *, retain: bool, properties: Properties, sender: object
    ) -> tuple[Sending, Message]:
        """Returns what a PUBLISH or a will is for the core.

        Raises:
            RequestError: its topic has no address, or its payload no value.
        """
        address = topic_address(self.prefix, topic)
        if address is None:
            raise RequestError(ErrorCode.ADDRESS, f"the topic {topic[:200]!r} has no address in CLASP")
        is_set = retain or self.options.publish_sets
        value = payload_value(payload, is_retained=is_set)
        forwarded: Properties = {number: properties[number] for number in FORWARDED if number in properties}
        expiry = properties.get(Prop.MESSAGE_EXPIRY)
        if isinstance(expiry, int):
            forwarded[Prop.MESSAGE_EXPIRY] = expiry
        own = own_bytes(value, payload) if is_set else b""
        sending = Sending(address, value, payload, qos, sender, forwarded, own)
        if self.follows:
            sending = sending._replace(mark=encode_mark(sending, is_set=is_set))
        if not is_set:
            return sending, Publish(address, Signal.EVENT, value=value)
        ttl = expiry if isinstance(expiry, int) and 0 < expiry < TTL_ABSOLUTE else None
        return sending, Set(address, value, ttl=None if ttl is None else ttl | TTL_ABSOLUTE)


class _WhileSent(WhileHandled):
    """Has codec and core know a client's message while it is handled."""

    __slots__ = ("_core", "_sending")

    def __init__(self, codec: MqttCodec, core: Session, sending: Sending) -> None:
        super().__init__(codec, "sending", sending)
        self._core = core
        self._sending = sending

    def __enter__(self) -> None:
        super().__enter__()
        self._core.sent_as, self._core.sent_with = self._sending.own, self._sending.mark

    def __exit__(self, *how: object) -> None:
        self._core.sent_as = self._core.sent_with = b""
        super().__exit__(*how)


class _Kept:
    """A session without a connection: the core goes on sending it what it subscribed to."""

    def __init__(
        self,
        broker: Broker,
        session: MqttSession,
        identity: Identity,
        keep_s: float,
        will: tuple[Sending, Message] | None,
        delay_s: float,
    ) -> None:
        self._broker = broker
        self.session = session
        self._identity = identity
        self._will = will
        self._core: Session | None = None
        self._timer: IDelayedCall | None = broker.reactor.callLater(keep_s, self._expired)
        self._will_timer: IDelayedCall | None = None
        if will is not None:
            self._will_timer = broker.reactor.callLater(min(delay_s, keep_s), self._publish_will)

    def begin(self) -> None:
        """Begins a session of the core that listens."""
        broker, session = self._broker, self.session
        core = self._core = broker.relay.connect(session, "", broker.codec)
        core.door = "mqtt-kept"
        core.identity = self._identity
        core.account = broker.relay.accounts.open(self._identity.subject, core.origin)
        core.name = session.client_id
        broker.relay.admit(core)
        session.view_of = lambda address: broker.view_of(core, address)
        session.charge(core.account)
        if self._will is not None:
            broker.leave_will(core, self._will)
        broker.subscribe_all(core, session)

    def rest(self) -> None:
        """Listens no more, since the client is at another relay; what waits for it stays until it comes back."""
        if self._will_timer is not None:
            self._will_timer.cancel()
            self._will_timer = None
        core, self._core = self._core, None
        if core is not None:
            self._broker.relay.disconnect(core, "the client is at another relay")

    def end(self, broker: Broker, *, publish_will: bool) -> None:
        """Ends it: the client is back, or will not come any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._will_timer is not None:
            self._will_timer.cancel()
            self._will_timer = None
            if publish_will:
                self._publish_will()
        if self._core is not None:
            broker.relay.disconnect(self._core, "the client is back, or its session has expired")

    def _expired(self) -> None:
        self._timer = None
        self._broker.drop(self)

    def _publish_will(self) -> None:
        if self._will_timer is not None and not self._will_timer.active():
            self._will_timer = None
        will, core = self._will, self._core
        self._will = None
        if will is not None and core is not None:
            _publish_will(self._broker, core, will)
            self._broker.leave_will(core, None)


class _Answer:
    """The answer to a PUBLISH, which leaves when what it answers is recorded, behind the answers before it."""

    __slots__ = ("is_recorded", "packet", "wire")

    def __init__(self, packet: PublishPacket | None = None) -> None:
        self.packet = packet
        self.wire: bytes | None = None
        """None until it is known; empty where QoS 0 has none."""
        self.is_recorded = False


class MqttClient:
    """A client's connection: its packets, whatever they come over. Implements ``mqtt_session.Link``.

    Args:
        broker: what all clients share.
        outbox: its way out.
        address: the client's.
        wrap: puts bytes into the transport's message.
        transport: what makes its bytes different from those of the same version elsewhere.
    """

    def __init__(
        self, broker: Broker, outbox: Outbox, address: str, wrap: Callable[[bytes], bytes], transport: str
    ) -> None:
        self._broker = broker
        self._outbox = outbox
        self._address = address
        self.wrap = wrap
        self._transport = transport
        self.version = V4
        self.key: object = None
        self.receive_maximum = 65_535
        self.max_packet_bytes = 1 << 28
        self._reader = PacketReader()
        self._core: Session | None = None
        self._session: MqttSession | None = None
        self._connect: Connect | None = None
        self._put_off: list[bytes] | None = None
        """Packets that came while the password is looked at or a PUBLISH is at work; None while they are taken."""
        self._put_off_bytes = 0
        self._put_off_subscribe: SubscribePacket | None = None
        """A SUBSCRIBE that waits for the PUBLISHes before it, in front of those packets."""
        self._expiry_s = 0
        self._timer: IDelayedCall | None = None
        self._awaited: deque[_Answer] = deque()
        self._controls = ControlFrames(broker.reactor, _nothing)
        self._aliases: dict[int, str] = {}
        self._is_closing = False
        self._will: tuple[Sending, Message] | None = None

    # net.websocket.SessionPort

    @property
    def id(self) -> str:
        """What its session is called in the log."""
        return "" if self._core is None else self._core.id

    @property
    def is_live(self) -> bool:
        """Whether its CONNECT was accepted."""
        return self._core is not None

    @property
    def is_busy(self) -> bool:
        """See ``net.websocket.SessionPort``."""
        return self._core is not None and (self._core.is_busy or self._put_off is not None)

    # From the transport

    def feed(self, data: bytes) -> None:
        """Takes a piece of the client's stream."""
        try:
            for packet in self._reader.feed(data):
                if self._is_closing:
                    return
                self._broker.counts.messages += 1
                if self._put_off is None:
                    self._take(decode_packet(packet, self.version))
                else:
                    self._wait(self._put_off, packet)
        except DecodeError as error:
            self._malformed(error)

    def _malformed(self, error: DecodeError) -> None:
        self._refuse(error.message)
        self._end(0x95 if "bytes; the longest" in error.message else 0x81, CloseCode.PROTOCOL_ERROR, error.message)

    def gone(self, cause: str) -> None:
        """The connection is gone; what the client left is done."""
        self._is_closing = True
        self._stop_timer()
        core, session, connect = self._core, self._session, self._connect
        self._core = self._session = None
        if core is None or session is None or connect is None:
            return
        broker = self._broker
        broker.leave(self, (session.subject, session.client_id))
        if session.link is self:
            session.link = None
        will, identity = self._will, core.identity
        keeps = bool(self._expiry_s) and session.ended is None and broker.relay.permissions.is_current(identity)
        delay = 0 if connect.will is None else connect.will.properties.get(Prop.WILL_DELAY, 0)
        delay_s = delay if isinstance(delay, int) and keeps else 0
        if will is not None and not delay_s and core.is_live:
            if not broker.lose(core):
                _publish_will(broker, core, will)
            will = None
        if core.when_decided is not None:
            core.when_decided = _not_told
        broker.relay.disconnect(core, cause)
        if keeps:
            broker.keep(session, identity, self._expiry_s, will, delay_s)
        else:
            broker.forget(session)

    def came_before(self, claim: Claim) -> bool:
        """Tells whether the same client has come to another relay since."""
        return self._session is None or (self._session.claimed_us, self.id) < (claim.time_us, claim.session_id)

    def taken_over(self) -> None:
        """Another connection came with the same id ([5] 3.1.4)."""
        self._end(_TAKEN_OVER, CloseCode.POLICY_VIOLATION, "another connection took over the session")
        self.gone("another connection took over the session")

    # mqtt_session.Link

    def send(self, frame: Frame) -> None:
        """See ``Link``."""
        self._outbox.send(frame)

    def send_batch(self, batch: Batch) -> None:
        """See ``Link``."""
        self._outbox.put(batch)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``Link``."""
        self._outbox.send_snapshot(key, frames)

    def recorded(self) -> None:
        """See ``Link``: answers leave in the order of what they answer."""
        answer = self._oldest_awaited()
        if answer is not None:
            answer.is_recorded = True
        self._send_answers()

    def _oldest_awaited(self) -> _Answer | None:
        return next((answer for answer in self._awaited if not answer.is_recorded), None)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``Link``."""
        self._end(_CLOSES.get(close_code, 0x80), close_code, reason)

    def discard(self) -> None:
        """See ``Link``."""
        self._outbox.discard()

    # Packets

    def _take(self, packet: object) -> None:
        if self._core is None or self._session is None:
            if not isinstance(packet, Connect):
                raise DecodeError("the first MQTT packet is no CONNECT")
            self._begin(packet)
            return
        self._wait_for_life()
        if isinstance(packet, PublishPacket):
            self._publish(self._core, self._session, packet)
        elif isinstance(packet, Acknowledge):
            self._acknowledge(self._session, packet)
        elif isinstance(packet, SubscribePacket) and self._has_to_wait:
            self._put_off, self._put_off_subscribe = [], packet
            self._look_later(self._subscribe_put_off)
        elif isinstance(packet, SubscribePacket):
            self._subscribe(self._core, self._session, packet)
        elif isinstance(packet, UnsubscribePacket | PingRequest) and self._controls.count(True) is not None:
            # What the message rate does not count.
            self._end(TOO_FAST, CloseCode.POLICY_VIOLATION, "too many PINGREQs and UNSUBSCRIBEs in a second")
        elif isinstance(packet, UnsubscribePacket):
            self._unsubscribe(self._core, self._session, packet)
        elif isinstance(packet, PingRequest):
            self._write(PINGRESP)
        elif isinstance(packet, DisconnectPacket):
            self._leave(packet)
        else:
            raise DecodeError("a second MQTT CONNECT")

    def _begin(self, connect: Connect) -> None:
        broker, relay = self._broker, self._broker.relay
        if connect.version not in (V4, V5):
            self._turn_away(BAD_VERSION, "only MQTT 3.1.1 and 5 are spoken here")
            return
        self.version = connect.version
        self.key = (self.version, self._transport)
        if relay.refuses is not None:
            self._turn_away(BUSY, relay.refuses.reason)
            return
        if not connect.client_id and not connect.clean and self.version == V4:
            self._turn_away(BAD_CLIENT_ID, "a session that is kept needs a client id")
            return
        token = (connect.password or b"").decode("utf-8", "replace")
        # The core's session comes first: who has no token is a subject of its own in each of them.
        core = relay.connect(MqttSession("", "", broker.choose, broker.reactor.seconds), self._address, broker.codec)
        core.door, core.hears_itself = "mqtt", True
        if broker.awaits(token):
            self._put_off = []
            self._await_token(connect, core, token, TOKEN_LOOKS)
        else:
            self._identify(connect, core, token)

    def _await_token(self, connect: Connect, core: Session, token: str, looks: int) -> None:
        """Lets a client in once its token is known, or refuses it."""
        if self._is_closing:
            return
        if looks and self._broker.awaits(token):
            self._look_later(partial(self._await_token, connect, core, token, looks - 1))
            return
        try:
            self._identify(connect, core, token)
        except DecodeError as error:
            self._malformed(error)
        self._go_on()

    def _look_later(self, call: Callable[[], None]) -> None:
        self._broker.reactor.callLater(LOOK_S, call)

    def _identify(self, connect: Connect, core: Session, token: str) -> None:
        broker, relay = self._broker, self._broker.relay
        try:
            relay.identify(core, token)
        except Disconnect as refusal:
            if broker.sign_in is None or not connect.user or not token or token.startswith(TOKEN_PREFIX):
                self._turn_away(BAD_PASSWORD if token else NOT_AUTHORIZED, refusal.reason)
            else:
                self._sign_in(connect, core, broker.sign_in(connect.user, token, self._address))
            return
        self._enter(connect, core)

    def _sign_in(self, connect: Connect, core: Session, found: Deferred[Identity]) -> None:
        """Waits until the password of an account has been looked at; what the client sends meanwhile waits, too."""
        self._put_off = []

        def enter(identity: Identity) -> None:
            if self._is_closing:
                return
            if self._broker.relay.refuses is not None:
                raise self._broker.relay.refuses
            core.identity = identity
            core.account = self._broker.relay.accounts.open(identity.subject, core.origin)
            self._enter(connect, core)

        def refuse(failure: Failure) -> None:
            refusal = failure.value
            if self._is_closing:
                return
            if isinstance(refusal, DecodeError):
                self._malformed(refusal)
                return
            if not isinstance(refusal, Disconnect):
                events.CONNECTION_FAULT.failure(failure, action="signed an MQTT client in")
                refusal = Disconnect(CloseCode.INTERNAL, "internal error", ErrorCode.INTERNAL)
            is_wrong = refusal.code is ErrorCode.UNAUTHENTICATED
            self._turn_away(BAD_PASSWORD if is_wrong else BUSY, refusal.reason)

        found.addCallback(enter).addErrback(refuse).addCallback(lambda _: self._go_on())

    def _wait(self, put_off: list[bytes], packet: bytes) -> None:
        put_off.append(packet)
        self._put_off_bytes += PUT_OFF_BYTES + len(packet)
        if self._put_off_bytes > (MAX_PACKET_BYTES if self._core is None else MAX_PUT_OFF_BYTES):
            text = f"too many MQTT packets before the {'CONNACK' if self._core is None else 'answer to one of them'}"
            self._refuse(text)
            self._end(TOO_FAST, CloseCode.POLICY_VIOLATION, text)

    def _go_on(self) -> None:
        """Takes the packets that came while the password was looked at, or while a PUBLISH was at work."""
        packets, self._put_off, self._put_off_bytes = self._put_off or [], None, 0
        try:
            for at, packet in enumerate(packets):
                if self._is_closing:
                    return
                if self._put_off is not None:
                    for each in packets[at:]:
                        self._wait(self._put_off, each)
                    return
                self._take(decode_packet(packet, self.version))
        except DecodeError as error:
            self._malformed(error)
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled an MQTT packet")
            self.close(CloseCode.INTERNAL, "internal error")

    def _enter(self, connect: Connect, core: Session) -> None:
        """Begins the session of a client whose identity is known."""
        broker, relay = self._broker, self._broker.relay
        self._connect = connect
        properties = self._read_limits(connect)
        client_id = connect.client_id
        if not client_id:
            client_id = broker.new_client_id()
            properties[Prop.ASSIGNED_CLIENT_ID] = client_id
        if core.identity.ends_with_session:
            self._expiry_s = 0
        key = core.identity.subject, client_id
        session, was_there = broker.enter(self, key, clean=connect.clean)
        core.outbox, core.name = session, client_id
        self._core = core
        if broker.follows:
            core.when_decided = self._decided
        relay.admit(core)
        broker.claim(core, session, is_new=connect.clean)
        relay.observer.began(core)
        self._session = session
        session.view_of = lambda address: broker.view_of(core, address)
        self._read_will(connect, session)
        if self._will is not None:
            broker.leave_will(core, self._will)
        self._write(encode_connack(self.version, 0, was_there, properties))
        if was_there:
            broker.subscribe_all(core, session)
        session.resume(self)
        self._wait_for_life()

    def _read_limits(self, connect: Connect) -> Properties:
        """Reads what a client asks for, and returns what CONNACK says to it."""
        asked = connect.properties
        answer: Properties = {}
        if self.version == V4:
            self._expiry_s = 0 if connect.clean else MAX_KEPT_S
            return answer
        expiry = asked.get(Prop.SESSION_EXPIRY, 0)
        self._expiry_s = min(expiry, MAX_KEPT_S) if isinstance(expiry, int) else 0
        if self._expiry_s != expiry:
            answer[Prop.SESSION_EXPIRY] = self._expiry_s
        for number, name in ((Prop.RECEIVE_MAXIMUM, "receive_maximum"), (Prop.MAXIMUM_PACKET_SIZE, "max_packet_bytes")):
            value = asked.get(number)
            if value == 0:
                raise DecodeError("a maximum of an MQTT CONNECT is 0")
            if isinstance(value, int):
                setattr(self, name, value)
        answer[Prop.MAXIMUM_PACKET_SIZE] = MAX_PACKET_BYTES
        answer[Prop.TOPIC_ALIAS_MAXIMUM] = 16
        return answer

    def _read_will(self, connect: Connect, session: MqttSession) -> None:
        will = connect.will
        if will is None:
            return
        try:
            self._will = self._broker.message(
                will.topic, will.payload, will.qos, retain=will.retain, properties=will.properties, sender=session
            )
        except RequestError as error:
            self._refuse(error.message)

    def _publish(self, core: Session, session: MqttSession, packet: PublishPacket) -> None:
        topic = self._topic_of(packet)
        if packet.qos == 2 and packet.id in session.received:
            self._answer(Acknowledge(PacketType.PUBREC, packet.id))
            return
        answer, errors = _Answer(packet), core.errors
        self._awaited.append(answer)
        try:
            sending, message = self._broker.message(
                topic, packet.payload, packet.qos, retain=packet.retain, properties=packet.properties, sender=session
            )
            reason, is_awaited = self._broker.publish(core, sending, message)
            if reason:
                self._broker.counts.refused += 1
                refusal = self._broker.codec.refusal
                if refusal is not None and self._cannot_say(packet, refusal.error, refusal.message):
                    return
        except RequestError as error:
            self._refuse(error.message)
            reason, is_awaited = _REASONS.get(error.code, UNSPECIFIED), False
        if core.is_busy:
            # It waits for a long bundle; what comes meanwhile waits behind it.
            self._put_off = []
            self._await_decision(core, session, packet, answer, errors)
        else:
            self._published(session, packet, answer, reason, is_awaited=is_awaited)

    def _await_decision(
        self, core: Session, session: MqttSession, packet: PublishPacket, answer: _Answer, errors: int
    ) -> None:
        """Answers a PUBLISH once it has been decided, and takes the packets behind it."""
        if self._is_closing:
            return
        if core.is_busy:
            again = partial(self._await_decision, core, session, packet, answer, errors)
            self._broker.reactor.callLater(0, again)
            return
        is_refused = core.errors > errors
        self._broker.counts.refused += is_refused
        try:
            self._published(session, packet, answer, UNSPECIFIED if is_refused else 0, is_awaited=not is_refused)
        except DecodeError as error:
            self._malformed(error)
        self._go_on()

    def _published(
        self, session: MqttSession, packet: PublishPacket, answer: _Answer, reason: int, *, is_awaited: bool
    ) -> None:
        """Answers a PUBLISH, once what it did is recorded."""
        kind = PacketType.PUBREC if packet.qos == 2 else PacketType.PUBACK
        answer.is_recorded = answer.is_recorded or not is_awaited
        if packet.qos == 2 and reason < 0x80:
            session.received.add(packet.id)
            if len(session.received) > MAX_RECEIVED:
                raise DecodeError(f"more than {MAX_RECEIVED} MQTT messages with QoS 2 at once")
        answer.wire = self._encoded(Acknowledge(kind, packet.id, reason)) if packet.qos else b""
        self._send_answers()

    def _decided(self, _revision: int | None, refusal: RequestError | None) -> None:
        """Is told what became of the oldest PUBLISH about which another core decides: the answer leaves."""
        answer = self._oldest_awaited()
        session = self._session
        if answer is None or answer.packet is None or session is None:
            return
        packet = answer.packet
        answer.is_recorded = True
        if refusal is not None:
            self._broker.counts.refused += 1
            if self._cannot_say(packet, refusal.code, refusal.message):
                return
            session.received.discard(packet.id)
            kind = PacketType.PUBREC if packet.qos == 2 else PacketType.PUBACK
            reason = _REASONS.get(refusal.code, UNSPECIFIED)
            answer.wire = self._encoded(Acknowledge(kind, packet.id, reason)) if packet.qos else b""
        self._send_answers()
        if self._put_off_subscribe is not None and not self._has_to_wait:
            self._subscribe_put_off()

    @property
    def _has_to_wait(self) -> bool:
        """Whether a SUBSCRIBE has to: it is to find what the client has set before, and to show nothing it must not."""
        return self._broker.follows and (self._oldest_awaited() is not None or self._broker.holds_reads)

    def _subscribe_put_off(self) -> None:
        """Subscribes to what had to wait, once it can, and takes the packets behind it."""
        packet, core, session = self._put_off_subscribe, self._core, self._session
        if packet is None or core is None or session is None or self._is_closing:
            return
        if self._has_to_wait:
            self._look_later(self._subscribe_put_off)
            return
        self._put_off_subscribe = None
        try:
            self._subscribe(core, session, packet)
        except DecodeError as error:
            self._malformed(error)
            return
        self._go_on()

    def _cannot_say(self, packet: PublishPacket, code: int, reason: str) -> bool:
        """Ends the connection where a message was not taken and version 3.1.1 has no way to say so.

        There an acknowledgement says that it was; a client that connects again sends it again.

        Returns:
            whether it did.
        """
        if code != ErrorCode.OVERLOADED or self.version == V5 or not packet.qos or not self._broker.follows:
            return False
        self._end(BUSY, CloseCode.TRY_AGAIN_LATER, reason)
        return True

    def _topic_of(self, packet: PublishPacket) -> str:
        """Returns the topic of a PUBLISH, which may be an alias ([5] 3.3.2.3.4)."""
        alias = packet.properties.get(Prop.TOPIC_ALIAS)
        if not isinstance(alias, int):
            return packet.topic
        if not 1 <= alias <= 16:
            raise DecodeError("the topic alias of an MQTT PUBLISH is not one of 1 to 16")
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise DecodeError("the topic alias of an MQTT PUBLISH is not known")
        return self._aliases[alias]

    def _acknowledge(self, session: MqttSession, packet: Acknowledge) -> None:
        if packet.type is PacketType.PUBREL:
            session.received.discard(packet.id)
            self._answer(Acknowledge(PacketType.PUBCOMP, packet.id))
        else:
            session.acknowledged(packet)

    def _subscribe(self, core: Session, session: MqttSession, packet: SubscribePacket) -> None:
        writer = self._broker.gate.writer
        if writer.runs:
            # What was told before must not follow the retained messages.
            writer.flush_runs()
        session.holding = []
        reasons, wanted = [], []
        for options in packet.filters:
            is_new = options.text not in session.subscriptions
            reason, subscribed = self._subscribe_to(core, session, options, packet.subscription_id)
            reasons.append(reason if self.version == V5 or reason < 0x80 else 0x80)
            if subscribed is not None and subscribed.group is None:
                handling = options.retain_handling
                if handling == 0 or (handling == 1 and is_new):
                    wanted.append(("subscription", subscribed.id))
        held, session.holding = session.holding, None
        self._write(encode_suback(self.version, packet.id, reasons))
        for key, frames in held:
            if key in wanted:
                session.send_snapshot(key, frames)
            else:
                _give_up(frames)

    def _subscribe_to(
        self, core: Session, session: MqttSession, options: Filter, subscription_id: int
    ) -> tuple[int, Subscribed | None]:
        """Adds one subscription; returns its reason code, and the subscription where it was granted."""
        broker = self._broker
        group, text = None, options.text
        if text.startswith(_SHARE):
            name, _, text = text.removeprefix(_SHARE).partition("/")
            if not name or not text or "+" in name or "#" in name or options.no_local:
                raise DecodeError("a shared subscription of MQTT is not valid")
            group = (name, text)
        if not is_filter(text):
            raise DecodeError(f"{options.text[:200]!r} is no MQTT topic filter")
        before = session.subscriptions.get(options.text)
        if before is None and len(session.subscriptions) >= MAX_SUBSCRIPTION_FILTERS:
            return QUOTA, None
        pattern_text = filter_pattern(broker.prefix, text)
        pattern = None if pattern_text is None else Pattern.parse(pattern_text)
        number = session.new_subscription_id() if before is None else before.id
        subscribed = Subscribed(number, options, pattern, subscription_id, group)
        if pattern is not None:
            codec, limited = broker.codec, broker.relay.counts.limited
            codec.refusal = None
            broker.relay.accept(core, Subscribe(number, pattern.text), 0)
            if broker.relay.counts.limited > limited:
                return RATE_EXCEEDED, None
            if codec.refusal is not None:
                broker.counts.refused += 1
                return _REASONS.get(ErrorCode(codec.refusal.error), UNSPECIFIED), None
        session.add(subscribed)
        if group is not None:
            broker.join_group(session, group)
        return options.qos, subscribed

    def _unsubscribe(self, core: Session, session: MqttSession, packet: UnsubscribePacket) -> None:
        reasons = []
        for text in packet.filters:
            removed = session.remove(text)
            reasons.append(0 if removed is not None else 0x11)
            if removed is not None:
                self._broker.leave_group(session, removed)
                # It costs nothing and must not be refused: the client would go on getting messages.
                self._broker.relay.unsubscribe(core, removed.id)
        self._write(encode_unsuback(self.version, packet.id, reasons))

    def _leave(self, packet: DisconnectPacket) -> None:
        if packet.reason != _DISCONNECT_WITH_WILL:
            self._will = None
        expiry = packet.properties.get(Prop.SESSION_EXPIRY)
        if isinstance(expiry, int) and self._expiry_s:
            self._expiry_s = min(expiry, MAX_KEPT_S)
        self._is_closing = True
        self._outbox.close(CloseCode.NORMAL, "closed by the client")

    # Answers

    def _answer(self, packet: Acknowledge) -> None:
        """Answers a packet behind the answers before it."""
        answer = _Answer()
        answer.wire, answer.is_recorded = self._encoded(packet), True
        self._awaited.append(answer)
        self._send_answers()

    def _encoded(self, packet: Acknowledge) -> bytes:
        return encode_acknowledge(self.version, packet)

    def _send_answers(self) -> None:
        while self._awaited and self._awaited[0].is_recorded and self._awaited[0].wire is not None:
            wire = self._awaited.popleft().wire
            if wire:
                self._write(wire)

    def _write(self, data: bytes) -> None:
        self._outbox.send(Frame(self.wrap(data)))

    def _refuse(self, reason: str) -> None:
        self._broker.counts.refused += 1
        self._broker.tell_refused(self._address, reason)

    def _turn_away(self, reason: int, text: str) -> None:
        self._refuse(text)
        properties: Properties = {Prop.REASON: text} if self.version == V5 else {}
        code = reason if self.version == V5 else _CONNACK_V4[reason]
        self._write(encode_connack(self.version, code, False, properties))
        self._is_closing = True
        self._outbox.close(CloseCode.POLICY_VIOLATION, text)

    def _end(self, reason: int, close_code: CloseCode, text: str) -> None:
        """Ends the connection, with a DISCONNECT where the version has one."""
        if self._is_closing:
            return
        self._is_closing = True
        if self.version == V5 and self._core is not None:
            self._write(encode_disconnect(reason, text))
        self._outbox.close(close_code, text)

    # Time

    def _wait_for_life(self) -> None:
        """Begins the keep-alive interval anew ([5] 3.1.2.10)."""
        connect = self._connect
        if connect is None or not connect.keep_alive_s or self._is_closing:
            return
        if self._timer is None:
            self._timer = self._broker.reactor.callLater(1.5 * connect.keep_alive_s, self._is_silent)
        else:
            self._timer.reset(1.5 * connect.keep_alive_s)

    def _is_silent(self) -> None:
        self._timer = None
        self._end(0x8D, CloseCode.POLICY_VIOLATION, "nothing came within the keep-alive interval")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _publish_will(broker: Broker, core: Session, will: tuple[Sending, Message]) -> None:
    """Publishes a will, checked as the client's own write at this moment."""
    reason, _ = broker.publish(core, *will)
    if reason:
        broker.counts.refused += 1


def _not_told(_revision: int | None, _refusal: RequestError | None) -> None:
    """Nobody waits any more for what becomes of a message."""


def _nothing(_payload: bytes) -> None:
    """MQTT has no pongs that could be coalesced."""


def _give_up(frames: Iterator[bytes]) -> None:
    close = getattr(frames, "close", None)
    if close is not None:
        close()


class MqttConnection(StreamConnection):
    """A client over TCP or TLS."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.gate, broker.counts, broker.codec)
        self._broker = broker
        self._client: MqttClient | None = None

    @property
    def is_live(self) -> bool:
        """See the base class."""
        return self._client is not None and self._client.is_live

    @property
    def is_busy(self) -> bool:
        """See the base class."""
        return self._client is not None and self._client.is_busy

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._client is None else self._client.id

    def begin(self, outbox: Outbox) -> None:
        """See the base class."""
        self._client = MqttClient(self._broker, outbox, self.address, bytes, "tcp")

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class: which version the client speaks is not known yet."""

    def take(self, data: bytes) -> None:
        """See the base class."""
        if self._client is not None:
            self._client.feed(data)

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class: a client that has sent no CONNECT is told nothing ([5] 3.1.4)."""

    def gone(self, cause: str) -> None:
        """See the base class."""
        client, self._client = self._client, None
        if client is not None:
            client.gone(cause)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the session, with a DISCONNECT where the version has one."""
        if self._client is not None:
            self._client.close(close_code, reason)
        super().close(close_code, reason)

    def look_after(self, silent_s: float) -> None:
        """Does nothing: the keep-alive interval is the client's choice, and TCP's own finds a dead peer."""


class MqttDoor:
    """Listens for MQTT. Implements ``door.Door``.

    Args:
        reactor: accepts the connections.
        plain: where to listen for TCP; None for nowhere.
        tls: where to listen for TLS; None for nowhere.
        broker: what all clients share.
    """

    def __init__(self, reactor: Any, plain: TcpPlace | None, tls: TcpPlace | None, broker: Broker) -> None:
        self._reactor = reactor
        self._plain = plain
        self._tls = tls
        self.broker = broker
        """What all clients share."""
        self.counts = (broker.counts,)
        """See ``Door``."""
        self.ports = Ports("MQTT")
        """Where it listens."""
        self._tls_ports = Ports("MQTT over TLS")
        self._is_powerless = False

    def open(self, tls: ServerTls | None) -> None:
        """See ``Door``."""
        if self.ports or self._tls_ports:
            return
        self._is_powerless = refusal_of(self.broker.relay, "", self.broker.codec) is not None
        self.broker.codec.load(self.broker.relay.params.all())
        factory = StreamFactory(self.broker.gate, self.broker.counts, lambda: MqttConnection(self.broker))
        if self._plain is not None:
            self.ports.add(listen(self._reactor, self._plain, factory, "--mqtt-port"))
        if self._tls is not None:
            self._tls_ports.add(listen(self._reactor, self._tls._replace(tls=tls), factory, "--mqtts-port"))

    def close(self) -> Deferred[Any]:
        """See ``Door``."""
        self.broker.stop()
        return self.ports.close().addCallback(lambda _: self._tls_ports.close())

    def started(self, _port: int | None) -> None:
        """See ``Door``."""
        self.ports.log()
        self._tls_ports.log()
        if self._is_powerless:
            events.DOOR_POWERLESS.log(door="MQTT", remedy=POWER)
