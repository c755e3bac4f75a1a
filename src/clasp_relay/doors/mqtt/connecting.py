"""Handles a client's CONNECT: its version, its identity, and the options that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.core.session.identity import TOKEN_PREFIX, Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.mqtt.broker import MAX_KEPT_S, Broker
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.publishing import MAX_TOPIC_ALIAS
from clasp_relay.doors.mqtt.reasons import Reason
from clasp_relay.doors.packet_queue import PacketQueue
from clasp_relay.errors import CloseCode, DecodeError, Disconnect, ErrorCode
from clasp_relay.logs import events
from clasp_relay.wire.mqtt.packets import MAX_PACKET_BYTES, V4, V5, Connect, Prop, Properties

MAX_CLIENT_ID_BYTES = 256
"""Limit of a client id, which is stored with its session, and by the other relays of a cluster."""

TOKEN_LOOKS = 20
"""Interval of the checks for a token that another relay may have issued just now, in seconds."""


class Connecting:
    """Finds the identity of a client, and accepts or refuses it.

    Args:
        broker: the broker.
        link: the outgoing side of its connection.
        address: the client's address.
        waiting: the queue of its packets meanwhile.
        enter: begins the session of a client whose session in the core has its identity.
        go_on: handles the waiting packets.
    """

    def __init__(
        self,
        broker: Broker,
        link: MqttLink,
        address: str,
        waiting: PacketQueue,
        enter: Callable[[Connect, Session], None],
        go_on: Callable[[Callable[[], None]], None],
    ) -> None:
        self._broker = broker
        self._link = link
        self._address = address
        self._waiting = waiting
        self._enter = enter
        self._go_on = go_on

    def begin(self, connect: Connect) -> None:
        """Handles a CONNECT."""
        broker, relay, link = self._broker, self._broker.relay, self._link
        if connect.version not in (V4, V5):
            link.turn_away(Reason.UNSUPPORTED_VERSION, "only MQTT 3.1.1 and 5 are spoken here")
            return
        link.speak(connect.version)
        if relay.refuses is not None:
            link.turn_away(Reason.SERVER_BUSY, relay.refuses.reason)
            return
        if not connect.client_id and not connect.clean and link.version == V4:
            link.turn_away(Reason.CLIENT_ID_NOT_VALID, "a session that is kept needs a client id")
            return
        if len(connect.client_id.encode()) > MAX_CLIENT_ID_BYTES:
            link.turn_away(Reason.CLIENT_ID_NOT_VALID, f"a client id has at most {MAX_CLIENT_ID_BYTES} bytes")
            return
        token = (connect.password or b"").decode("utf-8", "replace")
        # First the core's session: a client without a token is a subject of its own in each of its sessions.
        core = relay.connect(broker.new_session(), self._address, broker.publisher.codec)
        core.door, core.hears_itself = "mqtt", True
        self._identify(connect, core, token, TOKEN_LOOKS)

    def _identify(self, connect: Connect, core: Session, token: str, looks: int) -> None:
        """Finds the identity of a token, once it is known at this relay, too."""
        broker = self._broker
        if looks and broker.arrivals.awaits(token):
            again = partial(self._identify, connect, core, token, looks - 1)
            self._waiting.begin(partial(self._go_on, again))
            return
        try:
            broker.relay.identify(core, token)
        except Disconnect as refusal:
            if broker.sign_in is None or not connect.user or not token or token.startswith(TOKEN_PREFIX):
                reason = Reason.BAD_USER_OR_PASSWORD if token else Reason.NOT_AUTHORIZED
                self._link.turn_away(reason, refusal.reason)
            else:
                self._sign_in(connect, core, broker.sign_in(connect.user, token, self._address))
            return
        self._enter(connect, core)

    def _sign_in(self, connect: Connect, core: Session, found: Deferred[Identity]) -> None:
        """Waits until the password of an account was checked."""
        self._waiting.begin()

        def enter(identity: Identity) -> None:
            relay = self._broker.relay
            if relay.refuses is not None:
                self._link.turn_away(Reason.SERVER_BUSY, relay.refuses.reason)
                return
            core.identity = identity
            core.account = relay.accounts.open(identity.subject, core.origin)
            self._enter(connect, core)

        def refuse(failure: Failure) -> None:
            refusal = failure.value
            if not isinstance(refusal, Disconnect):
                events.CONNECTION_FAULT.failure(failure, action="signed an MQTT client in")
                refusal = Disconnect(CloseCode.INTERNAL, "internal error", ErrorCode.INTERNAL)
            is_wrong = refusal.code is ErrorCode.UNAUTHENTICATED
            self._link.turn_away(Reason.BAD_USER_OR_PASSWORD if is_wrong else Reason.SERVER_BUSY, refusal.reason)

        found.addCallbacks(
            lambda identity: self._go_on(partial(enter, identity)),
            lambda failure: self._go_on(partial(refuse, failure)),
        )


def read_limits(connect: Connect, link: MqttLink) -> tuple[int, Properties]:
    """Reads the options of a CONNECT, and applies those of the outgoing side.

    Args:
        connect: the CONNECT.
        link: the outgoing side.

    Returns:
        How long its session is kept without a connection, in seconds, and the properties of the CONNACK.

    Raises:
        DecodeError: a maximum is 0.
    """
    if link.version == V4:
        return 0 if connect.clean else MAX_KEPT_S, {}
    asked = connect.properties
    answer: Properties = {}
    expiry = asked.get(Prop.SESSION_EXPIRY, 0)
    expiry_s = min(expiry, MAX_KEPT_S) if isinstance(expiry, int) else 0
    if expiry_s != expiry:
        answer[Prop.SESSION_EXPIRY] = expiry_s
    link.receive_maximum = _maximum(asked.get(Prop.RECEIVE_MAXIMUM), link.receive_maximum)
    link.max_packet_bytes = _maximum(asked.get(Prop.MAXIMUM_PACKET_SIZE), link.max_packet_bytes)
    answer[Prop.MAXIMUM_PACKET_SIZE] = MAX_PACKET_BYTES
    answer[Prop.TOPIC_ALIAS_MAXIMUM] = MAX_TOPIC_ALIAS
    return expiry_s, answer


def _maximum(asked: object, default: int) -> int:
    if asked == 0:
        raise DecodeError("a maximum of an MQTT CONNECT is 0")
    return asked if isinstance(asked, int) else default
