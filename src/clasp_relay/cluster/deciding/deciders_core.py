"""What the decider's core has other than that of a relay that is alone: fan-out, ACKs, and the handler of ANNOUNCE."""

from __future__ import annotations

from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.deciding.remote_sessions import RemoteSession
from clasp_relay.cluster.exchange.batches import Announced
from clasp_relay.core.ports import Audience, Frame, Outbox
from clasp_relay.core.relay import Handler, Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.wire.codec import encode
from clasp_relay.wire.messages import Announce, Message

__all__ = ["DecidersRelay", "RulesFanOut", "deciders_handlers"]


class RulesFanOut:
    """The fan-out of the decider's core, where only rules subscribe; all other sessions get changes from the log."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """See ``FanOut``."""
        for outbox in audience.outboxes:
            if outbox is not exclude:
                outbox.send(frame)


class DecidersRelay(Relay):
    """The decider's core: its ACKs go into the batch as fields, which each session's own relay encodes."""

    def ack(
        self,
        session: Session,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
    ) -> None:
        """See ``Relay``."""
        remote = session.outbox
        if isinstance(remote, RemoteSession):
            remote.ack((address, revision, locked, holder))
        else:  # a rule's session, or one that has ended
            super().ack(session, address, revision, locked, holder)


def deciders_handlers(handlers: dict[type[Message], Handler], log: BatchLog) -> dict[type[Message], Handler]:
    """Returns the handlers of a decider's core, in which an ANNOUNCE goes into the log, too."""
    announce = handlers[Announce]

    def announced(relay: Relay, session: Session, message: Announce, qos: int) -> Pieces | None:
        pieces = announce(relay, session, message, qos)
        if pieces is None:
            _note(relay, session, message, log)
            return None
        return _noted_behind(pieces, relay, session, message, log)

    return {**handlers, Announce: announced}


def _noted_behind(pieces: Pieces, relay: Relay, session: Session, message: Announce, log: BatchLog) -> Pieces:
    yield from pieces
    _note(relay, session, message, log)


def _note(relay: Relay, session: Session, message: Announce, log: BatchLog) -> None:
    if message.signals and session.is_live:
        data = encode(message)
        log.add(Announced(session.identity.subject, relay.clock.now_us(), data), len(data))
