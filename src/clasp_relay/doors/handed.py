"""An outbox that is handed its frames one by one, for protocols in which each client gets bytes of its own."""

from __future__ import annotations

from typing import Any, cast

from clasp_relay.core.ports import Codec, Frame, Outbox
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.errors import Disconnect
from clasp_relay.logs import events
from clasp_relay.net.backlog import Batch, Close, Snapshot


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
