"""GET, SUBSCRIBE, UNSUBSCRIBE, REPLAY, ANNOUNCE and QUERY."""

from __future__ import annotations

from collections.abc import Iterator

from clasp_relay.core.decide import check_param_fits, check_signal_fits
from clasp_relay.core.ports import NOT_YET
from clasp_relay.core.records import no_param, text_bytes
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session, Subscription
from clasp_relay.core.work import Pieces
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.constants import MessageCode, Signal
from clasp_relay.wire.messages import Announce, Get, Query, Replay, SignalDefinition, Subscribe, Unsubscribe

MAX_SUBSCRIPTIONS = 1_000
"""Subscriptions that one session may have."""

JUDGED_AT_ONCE, FIND_COST, JUDGE_COST = 128, 8, 24
"""Announced signals that a QUERY judges in one piece, about half a millisecond of work; and the cost, in signals, of
finding a rule or making a decision that is not cached."""


ANNOUNCED_AT_ONCE = 32
"""Announced signals that are checked or registered in one piece."""

ANNOUNCE_US = 10
"""Estimated cost in µs of checking one definition, and of registering one."""

RESULT_BYTES = 48 * 1024
"""A RESULT is sent once it has this many bytes, so that its session keeps no long list of found signals."""

RESULT_DEFINITIONS = 256
"""A RESULT is sent once it has this many definitions: it is encoded in one piece, which takes a millisecond."""

RESULT_ENTRY_BYTES = 10
"""Bytes of an entry of a RESULT, without its texts."""


def get(relay: Relay, session: Session, message: Get, _qos: int) -> None:
    """Answers with a SNAPSHOT of one param; null with revision 0 if it is not set or the session may not see it.

    A GET renews a sliding life time if its session sees the param.
    """
    address = message.address
    check_address(address)
    relay.permissions.check_get(session.identity, address)
    param = relay.params.get(address)
    shown = [] if param is None else relay.visibility.show([param], session, Pattern.parse(address))
    if shown:
        relay.committer.renew(address)
    else:
        nothing = no_param(address, "", "", relay.clock.now_us())
        check_param_fits(nothing)
        shown = [nothing]
    frames = relay.snapshots.answer(session, shown[0])
    relay.send_snapshot(session, ("get", address), frames)


def subscribe(relay: Relay, session: Session, message: Subscribe, _qos: int) -> None:
    """Adds a subscription; sends the params that match now as a SNAPSHOT, before any later change."""
    pattern = Pattern.parse(message.pattern)
    subscription = _allowed(relay, session, message, pattern)
    relay.check_subscription(session, subscription)
    frames = relay.snapshots.of(session, subscription) if subscription.wants(Signal.PARAM) else None
    relay.subscribe(session, subscription)
    if frames is not None:
        relay.send_snapshot(session, ("subscription", message.id), frames)


def listen(relay: Relay, session: Session, message: Subscribe, pattern: Pattern) -> None:
    """Adds a subscription that a client had in an earlier session, without a SNAPSHOT.

    It is not refused for its memory: until the earlier session is forgotten, the subscriptions of both count.

    Raises:
        RequestError: the session may not have the subscription now.
    """
    relay.subscribe(session, _allowed(relay, session, message, pattern))


def _allowed(relay: Relay, session: Session, message: Subscribe, pattern: Pattern) -> Subscription:
    """Returns the subscription that a session asks for, not yet added.

    Raises:
        RequestError: the session may not have it.
    """
    relay.permissions.check_subscribe(session.identity, pattern)
    if len(session.subscriptions) >= MAX_SUBSCRIPTIONS and message.id not in session.subscriptions:
        text = f"a session may have {MAX_SUBSCRIPTIONS} subscriptions"
        raise RequestError(ErrorCode.LIMIT, text, message.pattern)
    max_rate = message.max_rate or None
    # NaN, 0 and negative numbers mean no limit.
    epsilon = message.epsilon if message.epsilon is not None and message.epsilon > 0 else None
    return Subscription(session, message.id, pattern, message.types, max_rate, epsilon)


def unsubscribe(relay: Relay, session: Session, message: Unsubscribe, _qos: int) -> None:
    """Forgets a subscription."""
    relay.unsubscribe(session, message.id)


def replay(relay: Relay, session: Session, message: Replay, _qos: int) -> None:
    """Answers from history, in order with the session's other answers."""
    pattern = Pattern.parse(message.pattern)
    relay.permissions.check_subscribe(session.identity, pattern)
    if relay.replays is None:
        text = f"this relay keeps no history of {message.pattern}"
        raise RequestError(ErrorCode.NOT_CONFIGURED, text, message.pattern)
    relay.pay_error(session)
    relay.replays.ask(session, pattern, message)


def announce(relay: Relay, session: Session, message: Announce, qos: int) -> Pieces | None:
    """Registers signal definitions, all or none; many of them in pieces."""
    pieces = _announce(relay, session, message, qos)
    if len(message.signals) > ANNOUNCED_AT_ONCE:
        return pieces
    for _ in pieces:
        """A few are no work."""
    return None


def _announce(relay: Relay, session: Session, message: Announce, qos: int) -> Pieces:
    signals, now_us = message.signals, relay.clock.now_us()
    subject, origin = session.identity.subject, session.origin
    some = [signals[start : start + ANNOUNCED_AT_ONCE] for start in range(0, len(signals), ANNOUNCED_AT_ONCE)]
    for definitions in some:
        for definition in definitions:
            _check_announced(relay, session, definition)
        yield ANNOUNCE_US * len(definitions)
    if signals and session.is_live:
        relay.signals.check(signals, now_us, subject, origin)
        for definitions in some:
            relay.signals.register(definitions, now_us, subject, origin)
            yield ANNOUNCE_US * len(definitions)
    if qos and session.is_live:
        relay.ack(session, message.namespace)


def _check_announced(relay: Relay, session: Session, definition: SignalDefinition) -> None:
    """Refuses a definition that is not valid or not allowed. An address with wildcards defines all that match."""
    address = definition.address
    if "*" in address:
        pattern = Pattern.parse(address)
        check_signal_fits(definition)
        relay.permissions.check_announce_all(session.identity, pattern)
    else:
        check_address(address)
        check_signal_fits(definition)
        relay.permissions.check_announce(session.identity, address)


def query(relay: Relay, session: Session, message: Query, _qos: int) -> None:
    """Answers with the announced signals that match; also if there are none, since clients wait for a RESULT."""
    pattern = Pattern.parse(message.pattern)
    relay.permissions.check_subscribe(session.identity, pattern)
    waiting = relay.snapshots.waiting
    waiting.check(session, None, message.pattern)
    relay.pay_error(session)
    relay.counts.sent[MessageCode.RESULT] += 1
    # A key of its own, so that every QUERY is answered.
    session.outbox.send_snapshot(object(), waiting.add(session, None, _results(relay, session, pattern)))


def _results(relay: Relay, session: Session, pattern: Pattern) -> Iterator[bytes]:
    """Yields the RESULTs of a QUERY, and ``NOT_YET`` where it should pause."""
    found: list[SignalDefinition] = []
    size_bytes = 0
    is_owed = True
    visibility = relay.visibility
    cost, found_cost = 0, visibility.cost(FIND_COST, JUDGE_COST)
    for definition in relay.signals.match(pattern, relay.clock.now_us()):
        if definition is None:
            yield NOT_YET
            continue
        if visibility.is_shown(session, definition.address, pattern):
            # Only the fields that a RESULT has, so that little is kept until it is sent.
            address, datatype, access = definition.address, definition.datatype, definition.access
            found.append(SignalDefinition(address, definition.signal, datatype, access))
            size_bytes += RESULT_ENTRY_BYTES + text_bytes(address) + len(datatype or "") + len(access or "")
        if size_bytes >= RESULT_BYTES or len(found) >= RESULT_DEFINITIONS:
            yield from session.codec.result(found)
            found, size_bytes, is_owed = [], 0, False
        before, found_cost = found_cost, visibility.cost(FIND_COST, JUDGE_COST)
        cost += 1 + found_cost - before
        if cost >= JUDGED_AT_ONCE:
            cost = 0
            yield NOT_YET
            found_cost = visibility.cost(FIND_COST, JUDGE_COST)
    if found or is_owed:
        yield from session.codec.result(found)
