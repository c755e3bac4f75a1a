"""An outbox that is handed its frames one by one, for protocols in which each client gets bytes of its own."""

from __future__ import annotations

from typing import Any

from clasp_relay.core.ports import Frame
from clasp_relay.logs import events
from clasp_relay.net.backlog import Batch, Close, Snapshot


class HandedOutbox:
    """Gets what the turn writer has for it frame by frame, at the end of the turn (``net.turn``).

    The turn writer puts frames into an outbox where something waits already, instead of writing them to its socket; so
    this one always says that something waits. A door's class says what is done with a frame.
    """

    backlog: Any = True
    """What waits; never nothing, see above."""
    pending: Any = ()
    connection_outbox: object = None
    """The outbox of its connection, where all that it gets goes on to that one."""

    def put(self, item: Frame | Batch | Snapshot | Close) -> None:
        """Takes what the turn writer has. Never raises."""
        try:
            if isinstance(item, Batch):
                self.deliver_batch(item)
            elif isinstance(item, Frame):
                self.deliver(item)
        except Exception:
            events.CONNECTION_FAULT.failure(action="wrote to a session")
            self.abort()

    def deliver_batch(self, batch: Batch) -> None:
        """Takes frames that others get, too; by default one by one."""
        for frame in batch.frames:
            self.deliver(frame)

    def deliver(self, frame: Frame) -> None:
        """Takes one frame."""
        raise NotImplementedError

    def abort(self) -> None:
        """Ends the session after a fault of ours. Must not raise."""
        raise NotImplementedError
