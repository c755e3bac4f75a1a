"""How signals pass through: PUBLISH to those who subscribed, or to one session (P2P). Nothing is stored."""

from __future__ import annotations

from clasp_relay.core.fanout.gestures import Gestures
from clasp_relay.core.fanout.recipients import Deliveries
from clasp_relay.core.pieces import check_publish_fits
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.session.table import SessionTable
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import Params
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import check_address
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Publish, Value

P2P_SIGNAL = "/clasp/p2p/signal/"
"""What is published below goes to the session whose id follows, and to no one else."""

SOMETHING: Value = b"\x0a\x00\x00"
"""An empty array: what samples are to a policy. Nothing would pass where only a null may be published."""


class Publishing:
    """The way of a PUBLISH, from the checks to the fan-out.

    Args:
        sessions: the live sessions, for P2P.
        deliveries: who is told.
        gestures: what coalesces moves.
        permissions: who may publish what.
    """

    def __init__(
        self,
        sessions: SessionTable,
        deliveries: Deliveries,
        gestures: Gestures,
        permissions: Permissions,
    ) -> None:
        self._sessions = sessions
        self._deliveries = deliveries
        self._gestures = gestures
        self._permissions = permissions

    def check(self, session: Session, message: Publish, state: Params | Draft) -> None:
        """Checks one PUBLISH: address, permissions, P2P target, size.

        Raises:
            RequestError: it is refused.
        """
        address = message.address
        check_address(address)
        check_publish_fits(message)
        if not self._permissions.is_open:
            value = SOMETHING if message.value is None and message.samples is not None else message.value
            self._permissions.check_publish(session.identity, address, value, state)
        if address.startswith(P2P_SIGNAL) and address[len(P2P_SIGNAL) :] not in self._sessions:
            raise RequestError(ErrorCode.NO_TARGET, "there is no such session", address)

    def send(self, session: Session, message: Publish) -> None:
        """Sends a PUBLISH that was accepted on."""
        if message.signal is Signal.GESTURE:
            self._gestures.pass_on(session, message)
        else:
            self.deliver(session, message)

    def deliver(self, session: Session, message: Publish) -> None:
        """Sends a PUBLISH to those who get it; its sender never does."""
        address = message.address
        if address.startswith(P2P_SIGNAL):
            target = self._sessions.get(address[len(P2P_SIGNAL) :])
            if target is not None:
                self._deliveries.send_to(target, message)
        else:
            self._deliveries.send_publish(message, exclude=session.outbox)
