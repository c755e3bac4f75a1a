"""SUBSCRIBE and UNSUBSCRIBE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clasp_relay.core.fanout.subscriptions import Subscription
from clasp_relay.core.pieces import judged_frames, snapshot_frames
from clasp_relay.core.records import Param
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Subscribe, Unsubscribe

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session

MAX_SUBSCRIPTIONS = 1_000
"""How many one session may have."""


def subscribe(relay: Relay, session: Session, message: Subscribe, _qos: int) -> None:
    """Adds a subscription; the params that match now go out as a SNAPSHOT before any later change."""
    pattern = Pattern.parse(message.pattern)
    relay.permissions.check_subscribe(session.identity, pattern)
    if len(session.subscriptions) >= MAX_SUBSCRIPTIONS and message.id not in session.subscriptions:
        text = f"a session may have {MAX_SUBSCRIPTIONS} subscriptions"
        raise RequestError(ErrorCode.LIMIT, text, message.pattern)
    max_rate = message.max_rate or None
    # NaN and what is not positive keep nothing back.
    epsilon = message.epsilon if message.epsilon is not None and message.epsilon > 0 else None
    subscription = Subscription(session, message.id, pattern, message.types, max_rate, epsilon)
    relay.subscribe(session, subscription)
    if subscription.wants(Signal.PARAM):
        params = list(relay.params.match(pattern))
        if params:
            relay.snapshot(session, ("subscription", message.id), _frames(relay, session, params, pattern))


def _frames(relay: Relay, session: Session, params: list[Param], pattern: Pattern) -> Iterator[bytes]:
    if relay.permissions.is_open:
        return snapshot_frames(params)
    return judged_frames(relay.visibility.show_in_pieces(params, session, pattern), even_if_empty=False)


def unsubscribe(relay: Relay, session: Session, message: Unsubscribe, _qos: int) -> None:
    """Forgets a subscription."""
    relay.unsubscribe(session, message.id)
