"""The broker of MQTT clients: their sessions, one connection each, and the kept sessions without one."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.relay import Relay
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.handed_outbox import EndedOutbox
from clasp_relay.doors.mqtt.claims import Arrivals, Claim, Claims, Key
from clasp_relay.doors.mqtt.messages import SharedBatches
from clasp_relay.doors.mqtt.publishing import MqttOptions, Publisher
from clasp_relay.doors.mqtt.session import KeptTotal, MqttSession
from clasp_relay.doors.mqtt.subscribing import Subscribing
from clasp_relay.doors.mqtt.wills import LeftMessage, Wills
from clasp_relay.net.websocket import ClaspFactory

MAX_KEPT_SESSIONS = 1_000
"""Kept sessions; beyond it the oldest one of the client address with most of them is ended."""

MAX_KEPT_MESSAGES = 10_000
"""Messages that wait in all kept sessions together; beyond it each client with more than its share loses its
oldest."""

MAX_KEPT_S = 3_600
"""The longest that a session is kept without a connection, in seconds."""

_ENDED = EndedOutbox()

SignIn: TypeAlias = "Callable[[str, str, str], Deferred[Identity]]"
"""Returns the identity of a user name and a password, given the client's address, too; fails with a Disconnect."""


class Connected(Protocol):
    """A client that is connected. Hashable by identity."""

    def came_before(self, claim: Claim) -> bool:
        """Tells whether the same client has come to another relay since."""

    def taken_over(self) -> None:
        """Ends the connection, since another one has its id, and publishes its will ([5] 3.1.4)."""


class Broker:
    """The broker of all MQTT clients.

    Args:
        relay: the core.
        gate: has the reactor and the turn writer.
        options: the options of the door.
        refused: called with each refusal: client address and reason.
        sign_in: returns the identity of an account; None if there are no accounts.
        claims: tells other relays which clients are here; None without a cluster.
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
        self.relay = relay
        self.gate = gate
        self.reactor: Any = gate.reactor
        self.sign_in = sign_in
        self.counts = DoorCounts("mqtt")
        self._tell_refused = refused
        self.publisher = Publisher(relay, options, self.counts, claims)
        self.subscribing = Subscribing(relay, self.publisher, gate.writer)
        self.wills = Wills(self.publisher, claims)
        self.arrivals = Arrivals(claims, relay.clock.now_us)
        if claims is not None:
            claims.when_named = self.named
        self._clients: dict[Key, Connected] = {}
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._kept_total = KeptTotal(MAX_KEPT_MESSAGES, MAX_KEPT_MESSAGES // MAX_KEPT_SESSIONS)
        self._last_id = 0
        self._batches = SharedBatches()
        self._is_stopping = False

    def refuse(self, address: str, reason: str) -> None:
        """Counts and logs a refusal.

        Args:
            address: the client's address.
            reason: the reason.
        """
        self.counts.refused += 1
        self._tell_refused(address, reason)

    # Clients

    def new_client_id(self) -> str:
        """Returns an id for a client that has none."""
        self._last_id += 1
        return f"clasp-{self._last_id}-{self.relay.clock.now_us():x}"

    def new_session(self, key: Key = ("", "")) -> MqttSession:
        """Returns a session without subscriptions; it has no subject while its client is not known."""
        return MqttSession(*key, self.subscribing.choose, self.reactor.seconds, self._batches)

    def enter(self, client: Connected, key: Key, *, clean: bool) -> tuple[MqttSession, bool]:
        """Takes over a client id: ends another connection with it, and finds its kept session.

        Args:
            client: the client.
            key: its subject and id.
            clean: whether it wants a new session.

        Returns:
            The session, and whether it was kept.
        """
        other = self._clients.get(key)
        if other is not None:
            other.taken_over()
        self._clients[key] = client
        kept = self._kept.pop(key, None)
        if kept is not None:
            # A session that the core has ended has missed messages.
            is_over = clean or kept.session.ended is not None
            self._let_go(kept.session)
            kept.end(publish_will=is_over)
            if not is_over:
                return kept.session, True
            self.forget(kept.session)
        return self.new_session(key), False

    def named(self, claim: Claim, is_here: bool) -> None:
        """Handles the claim of a client, here or at another relay: a client is only where it came last."""
        key = self.arrivals.note(claim)
        if is_here:
            return
        client = self._clients.get(key)
        if client is not None and client.came_before(claim):
            client.taken_over()
        kept = self._kept.get(key)
        if kept is not None and kept.session.claimed_us <= claim.time_us:
            if claim.is_new:
                self.drop(kept)
            else:
                kept.rest()

    def leave(self, client: Connected, key: Key) -> None:
        """Forgets a client that has disconnected."""
        if self._clients.get(key) is client:
            del self._clients[key]

    def end_core(self, core: Session, cause: str) -> None:
        """Ends a session of the core whose MQTT session goes on with another one, or waits for its client.

        Args:
            core: the session of the core.
            cause: the cause, as text for people.
        """
        self.relay.disconnect(core, cause)
        # Until the core has forgotten it, each message would come by both.
        core.outbox = _ENDED

    def forget(self, session: MqttSession) -> None:
        """Forgets a session that has ended."""
        self.subscribing.forget(session)
        session.end()

    # Sessions without a connection

    def keep(self, session: MqttSession, core: Session, keep_s: float, will: LeftMessage | None) -> None:
        """Keeps a session without a connection.

        Args:
            session: the session.
            core: the core's session that it had, with its identity and client address.
            keep_s: for how long, in seconds.
            will: a will that is still to be published; None for none.
        """
        if self._is_stopping:
            return
        session.kept_total = self._kept_total
        self._kept_total.add(session.kept_messages)
        kept = self._kept[session.key] = _Kept(self, session, core, min(keep_s, MAX_KEPT_S), will)
        if len(self._kept) > MAX_KEPT_SESSIONS:
            ((most, _),) = Counter(each.lane for each in self._kept.values()).most_common(1)
            self.drop(next(each for each in self._kept.values() if each.lane == most))
        kept.begin()

    def drop(self, kept: _Kept) -> None:
        """Ends a session that was kept."""
        self._kept.pop(kept.session.key, None)
        self._let_go(kept.session)
        kept.end(publish_will=True)
        self.forget(kept.session)

    def _let_go(self, session: MqttSession) -> None:
        """Stops counting the messages of a session as kept."""
        session.uncharge()
        session.kept_total = None
        self._kept_total.add(-session.kept_messages)

    def stop(self) -> None:
        """Ends all kept sessions, and keeps no more."""
        self._is_stopping = True
        for kept in list(self._kept.values()):
            self.drop(kept)

    @property
    def kept_sessions(self) -> int:
        """Number of kept sessions."""
        return len(self._kept)


class _Kept:
    """A kept session: the core goes on sending it messages for its subscriptions.

    Args:
        broker: the broker.
        session: the session.
        before: the core's session that it had.
        keep_s: for how long, in seconds.
        will: a will that is still to be published; None for none.
    """

    def __init__(
        self,
        broker: Broker,
        session: MqttSession,
        before: Session,
        keep_s: float,
        will: LeftMessage | None,
    ) -> None:
        self._broker = broker
        self.session = session
        self.lane = before.lane
        """The lane of its client address, in open mode too."""
        self._origin, self._group = before.origin, before.group
        self._identity = before.identity
        self._will = will
        self._core: Session | None = None
        self._timer: IDelayedCall | None = broker.reactor.callLater(keep_s, self._expired)
        self._will_timer: IDelayedCall | None = None
        if will is not None:
            self._will_timer = broker.reactor.callLater(min(will.delay_s, keep_s), self._publish_will)

    def begin(self) -> None:
        """Begins a session of the core, with the subscriptions."""
        broker, relay, session = self._broker, self._broker.relay, self.session
        core = self._core = relay.connect(session, "", broker.publisher.codec)
        core.door = "mqtt-kept"
        core.identity, core.origin, core.group = self._identity, self._origin, self._group
        core.account = relay.accounts.open(self._identity.subject, core.origin)
        core.name = session.client_id
        relay.admit(core)
        broker.subscribing.attach(session, core)
        session.charge(core.account)
        if self._will is not None:
            core.account.add(MemoryKind.MESSAGES, self._will.kept_bytes)
            broker.wills.leave(core, self._will)
        broker.subscribing.subscribe_again(core, session)

    def rest(self) -> None:
        """Ends the session of the core, since the client is at another relay; waiting messages stay."""
        if self._will_timer is not None:
            self._will_timer.cancel()
            self._will_timer = None
        self._take_will()
        core, self._core = self._core, None
        if core is not None:
            self._broker.end_core(core, "the client is at another relay")

    def end(self, *, publish_will: bool) -> None:
        """Ends the kept session: the client is back, or its time is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._will_timer is not None:
            self._will_timer.cancel()
            self._will_timer = None
            if publish_will:
                self._publish_will()
        self._take_will()
        if self._core is not None:
            self._broker.end_core(self._core, "the client is back, or its session has expired")

    def _expired(self) -> None:
        self._timer = None
        self._broker.drop(self)

    def _publish_will(self) -> None:
        self._will_timer = None
        will, core = self._take_will(), self._core
        if will is not None and core is not None:
            self._broker.wills.publish(core, will)
            self._broker.wills.leave(core, None)

    def _take_will(self) -> LeftMessage | None:
        """Returns the will, which is kept no longer."""
        will, self._will = self._will, None
        if will is not None and self._core is not None:
            self._core.account.add(MemoryKind.MESSAGES, -will.kept_bytes)
        return will
