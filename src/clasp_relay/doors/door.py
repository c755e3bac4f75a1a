"""The interface of doors, for the service that opens and closes them, and their counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from clasp_relay.core.ports import Codec, Outbox
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.errors import Disconnect
from clasp_relay.logs import events
from clasp_relay.net.listening import address_text
from clasp_relay.net.tls import ServerTls


class WhileHandled:
    """Sets an attribute of a codec while a message is handled, once for each of its pieces (``Relay.accept``).

    Args:
        codec: the codec that all sessions of a door share.
        attribute: the attribute that tells which client's message causes what is encoded.
        meant: its value while the message is handled.
    """

    __slots__ = ("_attribute", "_before", "_codec", "_meant")

    def __init__(self, codec: object, attribute: str, meant: object) -> None:
        self._codec = codec
        self._attribute = attribute
        self._meant = meant
        self._before: object = None

    def __enter__(self) -> None:
        self._before = getattr(self._codec, self._attribute)
        setattr(self._codec, self._attribute, self._meant)

    def __exit__(self, *_: object) -> None:
        setattr(self._codec, self._attribute, self._before)


@dataclass(slots=True)
class DoorCounts:
    """The counts of a door since the start.

    Attributes:
        door: its name in metrics and log lines.
        clients: connected clients; for OSC, the sources that are remembered.
        messages: received messages, accepted or not.
        refused: messages that were malformed or not allowed, and clients that were turned away.
    """

    door: str
    clients: int = 0
    messages: int = 0
    refused: int = 0


class RequestDoor:
    """Counts the requests of a door over HTTP, and logs refused ones.

    Args:
        door: its name in metrics.
        name: its name in the log.
        tell_refused: called with a refused request: that name, the client's address, and the reason.
    """

    def __init__(
        self, door: str, name: str = "", tell_refused: Callable[[str, str, str], None] = lambda *_: None
    ) -> None:
        self.counts = DoorCounts(door)
        """Messages are requests."""
        self._name = name or door
        self._tell_refused = tell_refused

    def came(self) -> None:
        """Counts a request."""
        self.counts.messages += 1

    def refused(self, client: str, reason: str) -> None:
        """Counts a request that was refused.

        Args:
            client: its client's address.
            reason: the reason that its client is sent.
        """
        self.counts.refused += 1
        self._tell_refused(self._name, client, reason)


class Counting(Protocol):
    """An object with the counts of one or several doors."""

    @property
    def counts(self) -> Sequence[DoorCounts]:
        """The counts."""


class Door(Counting, Protocol):
    """A door, open or closed."""

    def open(self, tls: ServerTls | None) -> None:
        """Listens; does nothing if it listens already.

        Args:
            tls: the relay's certificate and key, if there are any.

        Raises:
            StartError: it cannot.
        """

    def close(self) -> Deferred[Any]:
        """Stops listening; connected clients stay. Does nothing if it does not listen."""

    def started(self, port: int | None) -> None:
        """Logs where the door listens, once the relay runs.

        Args:
            port: the relay's WebSocket port; None if it does not listen on one.
        """


@runtime_checkable
class Reloading(Protocol):
    """A door that can reload its files while the relay runs."""

    def reload(self) -> None:
        """Reloads them, and logs the outcome; a failure changes nothing."""


@runtime_checkable
class Watching(Protocol):
    """A door without a port that watches writes: it begins before there can be any, also by the relay."""

    def begin(self) -> None:
        """Begins to watch; called once params are loaded and before due bundles run. May be called again.

        Raises:
            StartError: it cannot.
        """


@runtime_checkable
class AtDecider(Protocol):
    """A door that acts by itself; in a cluster only at the decider, in the decider's core."""

    def act_in(self, relay: Relay) -> None:
        """Begins to act in a core that has the state and has decided nothing yet."""

    def rest(self) -> None:
        """Stops acting until ``act_in``, since this relay is no longer the decider. May be called again."""


class Ports:
    """The ports that one door listens on.

    Args:
        name: the door's name in the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._ports: list[IListeningPort] = []

    def __bool__(self) -> bool:
        return bool(self._ports)

    def add(self, port: IListeningPort) -> None:
        """Adds a port that listens."""
        self._ports.append(port)

    @property
    def numbers(self) -> list[int]:
        """The ports' numbers."""
        return [port.getHost().port for port in self._ports]  # type: ignore[attr-defined]  # TCP and UDP have one

    def close(self) -> Deferred[Any]:
        """Stops listening."""
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def log(self) -> None:
        """Logs the addresses of the ports."""
        for port in self._ports:
            events.DOOR_LISTENING.log(door=self._name, address=address_text(port.getHost()))


def identity_of(relay: Relay, token: str, peer: str, codec: Codec) -> Identity:
    """Returns the identity that a client with a token would have, before it has a session.

    Args:
        relay: the core.
        token: the client's token; empty for none.
        peer: the client's address.
        codec: its codec.

    Raises:
        Disconnect: the client would be refused.
    """
    return relay.permissions.admit(token, relay.connect(cast("Outbox", HandedOutbox()), peer, codec))


def refusal_of(relay: Relay, token: str, codec: Codec) -> Disconnect | None:
    """Returns why a client with a token would be refused; None if it would be admitted.

    Args:
        relay: the core.
        token: the client's token; empty for none.
        codec: its codec.
    """
    try:
        identity_of(relay, token, "", codec)
    except Disconnect as refusal:
        return refusal
    return None
