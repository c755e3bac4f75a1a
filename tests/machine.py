"""What a service needs to live in memory: a reactor, and a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock

from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.core.ports import Frame
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.messages import Hello, Message


class Machine(MemoryReactorClock):
    """A reactor in memory whose threads run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False
        """Whether the port is in use."""
        self.stopped_ports = 0

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N802
        """Listens, unless somebody does already."""
        if self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        listening = super().listenTCP(port, factory, backlog, interface)
        listening.stopListening = self._stop_listening
        return listening

    def getThreadPool(self) -> Any:  # noqa: N802
        """Returns itself as the pool."""
        return self

    def callInThreadWithCallback(  # noqa: N802
        self, on_result: Callable[[bool, object], None], function: Callable[[], object]
    ) -> None:
        """Makes the call."""
        on_result(True, function())

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:  # noqa: N802
        """Makes the call."""
        function(*arguments)

    def _stop_listening(self) -> None:
        self.stopped_ports += 1


class Wire:
    """An outbox that keeps what is sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.closed: tuple[CloseCode, str] | None = None

    def send(self, frame: Frame) -> None:
        """Keeps it."""
        self.frames.append(frame)

    def send_snapshot(self, key: object, frames: Any) -> None:
        """Keeps them."""
        self.frames += [Frame(data) for data in frames]

    def discard(self) -> None:
        """Drops what was kept."""
        self.frames.clear()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Keeps it."""
        self.closed = (close_code, reason)

    def messages(self) -> list[Message]:
        """Returns what was sent."""
        return [decode(decode_frame(frame.wire).payload) for frame in self.frames]


def live(service: RelayService, token: str = "") -> Session:
    """Returns a session past HELLO."""
    session = service.relay.connect(Wire(), "127.0.0.1", ClaspCodec())
    say(session, service, Hello(1, 0xF8, "test", token))
    return session


def say(session: Session, service: RelayService, message: Message) -> None:
    """Has a session send a message."""
    service.relay.receive(session, encode_frame(encode(message)))
