"""What a door is to the service that opens and closes it, and what it counts."""

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
        attribute: the name of what says whose message leads to what is encoded.
        meant: its value meanwhile.
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
    """What went through a door since the start.

    Attributes:
        door: what metrics and log lines call it.
        clients: who is connected now; of OSC the sources that are remembered.
        messages: messages that came, whether they were accepted or not.
        refused: messages that were malformed or not allowed, and clients that were turned away.
    """

    door: str
    clients: int = 0
    messages: int = 0
    refused: int = 0


class RequestDoor:
    """Counts the requests of a door over HTTP, and has those that are refused logged.

    Args:
        door: what metrics call it.
        name: what the log calls it.
        tell_refused: is told of a refused request: that name, the client's address, and why.
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
            reason: what its client reads.
        """
        self.counts.refused += 1
        self._tell_refused(self._name, client, reason)


class Counting(Protocol):
    """What has counts of a door or of several."""

    @property
    def counts(self) -> Sequence[DoorCounts]:
        """What went through it."""


class Door(Counting, Protocol):
    """A way in for clients, open or closed."""

    def open(self, tls: ServerTls | None) -> None:
        """Listens, unless it does.

        Args:
            tls: the relay's certificate and key, where there are any.

        Raises:
            StartError: it cannot.
        """

    def close(self) -> Deferred[Any]:
        """Stops to listen; clients that are connected stay. Harmless when it does not listen."""

    def started(self, port: int | None) -> None:
        """The relay runs: logs where the door listens.

        Args:
            port: the relay's WebSocket port; None where that is no port.
        """


@runtime_checkable
class Reloading(Protocol):
    """A door that reads its files again while the relay runs."""

    def reload(self) -> None:
        """Reads them, and logs how that went; where it fails all stays as it is."""


@runtime_checkable
class Watching(Protocol):
    """A door without a port that watches what is written: it begins before anything can be, also by the relay."""

    def begin(self) -> None:
        """Begins to watch, unless it does. The params are loaded; scheduled bundles that are due have not run yet.

        Raises:
            StartError: it cannot.
        """


@runtime_checkable
class AtDecider(Protocol):
    """A door that acts by itself: in a cluster only at the relay that decides, in the core that does."""

    def act_in(self, relay: Relay) -> None:
        """Begins to act in a core, which has the state and has decided nothing yet."""

    def rest(self) -> None:
        """Acts no more, until it is given another core: this relay decides no longer. Harmless when it does not act."""


class Ports:
    """The ports that one door listens on.

    Args:
        name: what the log calls the door.
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
        """Stops to listen."""
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def log(self) -> None:
        """Logs where they listen."""
        for port in self._ports:
            events.DOOR_LISTENING.log(door=self._name, address=address_text(port.getHost()))


def identity_of(relay: Relay, token: str, peer: str, codec: Codec) -> Identity:
    """Returns as whom a client with a token would be let in, before it has a session.

    Args:
        relay: the core.
        token: the client's; empty for none.
        peer: the client's address.
        codec: what it would speak.

    Raises:
        Disconnect: it would not.
    """
    return relay.permissions.admit(token, relay.connect(cast("Outbox", HandedOutbox()), peer, codec))


def refusal_of(relay: Relay, token: str, codec: Codec) -> Disconnect | None:
    """Returns why a client with a token would not be let in; None where it would.

    Args:
        relay: the core.
        token: the client's; empty for none.
        codec: what it would speak.
    """
    try:
        identity_of(relay, token, "", codec)
    except Disconnect as refusal:
        return refusal
    return None
