"""Watches params and signals by a subscription of the relay's own, which counts for no session.

It costs nothing at addresses that its patterns do not match: it is in the same trie as all subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session, SessionState
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.errors import CloseCode, DecodeError
from clasp_relay.logs import events
from clasp_relay.net.backlog import give_up
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Message, ParamFields, Publish, SignalDefinition, Subscribe, Unsubscribe, Value

__all__ = ["Told", "Watcher"]


class Told(bytes):
    """A delivery to the watcher, in place of a frame: the address, and the value (of a PUBLISH perhaps None)."""

    address: str
    value: Value | None


class Watcher:
    """Subscribes to patterns and passes deliveries on, at the end of the turn. Implements ``core.ports.Codec``.

    Args:
        relay: the core.
        identity: the identity by which it watches, which may see everything there.
        name: its name in the log.
        patterns: what is watched.
        signal: the kind of signals: params or events.
        take: called with each delivery; what it raises is logged.
    """

    def __init__(
        self,
        relay: Relay,
        identity: Identity,
        name: str,
        patterns: Sequence[Pattern],
        signal: Signal,
        take: Callable[[str, Value | None], None],
    ) -> None:
        self._relay = relay
        self._identity = identity
        self._name = name
        self._patterns = patterns
        self._signal = signal
        self._take = take
        self._session: Session | None = None

    def open(self) -> None:
        """Begins to watch; existing params are not delivered."""
        if self._session is not None:
            return
        session = self._session = self._relay.connect(_Outbox(self._hear, self.close), "", self)
        session.name = session.door = self._name
        session.identity = self._identity
        session.state = SessionState.LIVE
        for number, pattern in enumerate(self._patterns):
            self._relay.accept(session, Subscribe(number, pattern.text, 1 << self._signal), 0)

    def close(self) -> None:
        """Stops watching."""
        session, self._session = self._session, None
        if session is not None:
            for number in list(session.subscriptions):
                self._relay.accept(session, Unsubscribe(number), 0)
            session.close()

    def _hear(self, told: Told) -> None:
        if self._session is None:
            return
        try:
            self._take(told.address, told.value)
        except Exception:
            events.WATCHER_FAULT.failure(watcher=self._name)

    # core.ports.Codec

    def decode(self, data: bytes, /) -> tuple[Message, int]:  # noqa: ARG002
        """Refuses: nothing is sent as bytes."""
        raise DecodeError("there is nothing to decode")

    def cost(self, data: bytes, /) -> int:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None, /) -> bytes:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return _told(address, value)

    def publish(self, message: Publish, /) -> bytes:
        """See ``core.ports.Codec``."""
        return _told(message.address, message.value)

    def ack(self, *_fields: object) -> bytes:
        """See ``core.ports.Codec``."""
        return b""

    def encode(self, message: Message, /) -> bytes:  # noqa: ARG002
        """See ``core.ports.Codec``; does nothing, since the watcher sends no message that could be refused."""
        return b""

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return iter(())

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:  # noqa: ARG002
        """See ``core.ports.Codec``."""
        return iter(())


class _Outbox(HandedOutbox):
    """The watcher's outbox. Implements ``core.ports.Outbox``."""

    def __init__(self, take: Callable[[Told], None], closed: Callable[[], None]) -> None:
        self._take = take
        self._closed = closed

    def deliver(self, frame: Frame) -> None:
        """Takes a delivery; ignores answers."""
        if isinstance(frame.wire, Told):
            self._take(frame.wire)

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""
        self.deliver(frame)

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``."""
        give_up(frames)

    def close(self, _close_code: CloseCode, _reason: str) -> None:
        """See ``core.ports.Outbox``."""
        self._closed()

    def discard(self) -> None:
        """See ``core.ports.Outbox``; does nothing, since nothing is kept here."""

    def abort(self) -> None:
        """Ends the session after an internal error."""
        self._closed()


def _told(address: str, value: Value | None) -> Told:
    told = Told(b"-")
    told.address, told.value = address, value
    return told
