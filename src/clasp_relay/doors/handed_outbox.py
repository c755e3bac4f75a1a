"""An outbox that gets its frames one by one, for protocols in which the bytes differ between clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clasp_relay.core.ports import Frame
from clasp_relay.errors import CloseCode
from clasp_relay.logs import events
from clasp_relay.net.backlog import Batch, Close, Snapshot, give_up


class HandedOutbox:
    """Gets its frames from the turn writer one by one, at the end of the turn (``net.turn``).

    The turn writer passes frames to an outbox that has a backlog, instead of writing them to the socket; so this one
    always has one. A door's subclass handles each frame.
    """

    backlog: Any = True
    """Always true: as if there were a backlog, see above."""
    pending: Any = ()
    connection_outbox: object = None
    """The outbox of its connection, if all frames are passed on to that one; else None."""

    def put(self, item: Frame | Batch | Snapshot | Close) -> None:
        """Handles an item of the turn writer. Never raises."""
        try:
            if isinstance(item, Batch):
                self.deliver_batch(item)
            elif isinstance(item, Frame):
                self.deliver(item)
        except Exception:
            events.CONNECTION_FAULT.failure(action="wrote to a session")
            self.abort()

    def deliver_batch(self, batch: Batch) -> None:
        """Handles frames that are shared with other sessions; by default one by one."""
        for frame in batch.frames:
            self.deliver(frame)

    def deliver(self, frame: Frame) -> None:
        """Handles one frame."""
        raise NotImplementedError

    def abort(self) -> None:
        """Ends the session after an internal error. Must not raise."""
        raise NotImplementedError


class EndedOutbox(HandedOutbox):
    """Drops everything: the outbox of an ended session whose own one goes on with another session.

    The core forgets a session in pieces, and until then sends to its outbox what its subscriptions match.
    """

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``."""
        give_up(frames)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``."""

    def discard(self) -> None:
        """See ``core.ports.Outbox``."""

    def put(self, item: Frame | Batch | Snapshot | Close) -> None:
        """See ``HandedOutbox``."""
