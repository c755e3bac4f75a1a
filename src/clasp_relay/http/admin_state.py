"""The console's calls about the running relay: sessions, doors, metrics, rights and the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from clasp_relay import __version__
from clasp_relay.access.audit import Audit
from clasp_relay.access.people import People
from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.explain import explain_read, explain_write
from clasp_relay.access.refusals import BadInput, Missing
from clasp_relay.access.rooms import Reports
from clasp_relay.access.search import Search
from clasp_relay.access.tokens import TokenTable
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.door import Counting, DoorCounts
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.http.admin_api import Call, Route, page
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.logs.ring import LogRing
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.json_values import value_from_json

__all__ = ["Watched", "relay_routes", "session_routes"]

MAX_SHOWN = 200
"""The most sessions of a door that are shown."""

MAX_PATTERNS = 1_000
"""The most subscriptions of a session that are shown."""

LOOKED_AT_ONCE = 500
"""Sessions that are looked at in one turn."""

MAX_LOG_CHARACTERS = 256 * 1024
"""Characters of the log in one answer; the oldest lines are left out."""

ENDED = Disconnect(CloseCode.POLICY_VIOLATION, "an administrator has ended this session", ErrorCode.TOKEN_EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The parts of the relay that the console shows.

    Args:
        relay: the core.
        factory: the connections.
        tokens: the valid tokens, for names.
        sessions: sends messages.
        streams: begins event streams.
        journal: reads history.
        search: finds params.
        audit: the audit log.
        policy: the application's rules; None for none.
        registry: returns the metrics; None without metrics.
        doors: returns the doors that have counts.
        ring: the last lines of the log.
        name: the relay's name.
        cluster: returns this relay's name and status in its cluster; None without a cluster.
        now_s: Unix seconds.
    """

    relay: Relay
    factory: ClaspFactory
    tokens: TokenTable
    sessions: ApiSessions
    streams: StreamApi
    journal: JournalApi
    search: Search
    audit: Audit
    policy: Policy | None
    registry: Callable[[], CollectorRegistry | None]
    doors: Callable[[], Sequence[Counting]]
    ring: LogRing
    name: str
    cluster: Callable[[], tuple[str, str] | None] = lambda: None
    now_s: Callable[[], float] = time.time


def relay_routes(watched: Watched, people: People, reports: Reports) -> list[Route]:
    """Returns the routes about the relay as a whole.

    Args:
        watched: the parts of the relay.
        people: counts users.
        reports: counts open reports.
    """
    relay, started_s = watched.relay, watched.now_s()

    async def overview(_call: Call) -> object:
        users, disabled = await people.counts()
        member = watched.cluster()
        return {
            "name": watched.name,
            "version": __version__,
            "started_at": int(started_s),
            "now": int(watched.now_s()),
            "users": users,
            "disabled": disabled,
            "sessions": len(relay.sessions),
            "connections": len(watched.factory.connections),
            "params": len(relay.params),
            "state_bytes": relay.params.state_bytes,
            "subscriptions": len(relay.subscriptions),
            "open_reports": await reports.count_open(),
            "cluster": None if member is None else {"relay": member[0], "role": member[1]},
        }

    async def metrics(_call: Call) -> object:
        return {"at": watched.now_s(), "metrics": list(_metrics(watched.registry()))}

    async def log(call: Call) -> object:
        lines = watched.ring.after(call.whole("after", 0, 0, 1 << 53))
        size = sum(len(each.text) for each in lines)
        while size > MAX_LOG_CHARACTERS:
            size -= len(lines.pop(0).text)
        return {
            "items": [
                {"seq": each.seq, "at": each.at_s, "level": each.level, "part": each.part, "line": each.text}
                for each in lines
            ]
        }

    async def explain(call: Call) -> object:
        if watched.policy is None:
            raise RequestError(ErrorCode.NOT_CONFIGURED, "this relay has no policy")
        body = call.body()
        subject, address, action = call.text("user_id"), call.text("address"), call.text("action")
        is_account = body.get("is_account")
        if is_account is None:
            is_account = await people.is_account(subject)
        if not isinstance(is_account, bool):
            raise BadInput("«is_account» is neither true nor false.")
        return _explained(watched, subject, action, address, body.get("value"), is_account=is_account)

    return [
        Route("GET", "overview", overview),
        Route("GET", "metrics", metrics),
        Route("GET", "log", log),
        Route("POST", "explain", explain),
    ]


def session_routes(watched: Watched) -> list[Route]:
    """Returns the routes about sessions and doors.

    Args:
        watched: the parts of the relay.
    """
    relay = watched.relay

    async def listed(call: Call) -> object:
        needle, limit, after = call.search().casefold(), call.limit(), call.after(int, str)
        start = None if after is None else (after[0], after[1])
        found: list[tuple[tuple[int, str], Session]] = []
        sessions = iter(relay.sessions.all())
        while some := list(islice(sessions, LOOKED_AT_ONCE)):
            for session in some:
                key = session.connected_us, session.id
                if (start is None or key > start) and _is_meant(watched, session, needle):
                    found.append((key, session))
            found.sort(key=_key_of)
            del found[limit + 1 :]
            await _next_turn(relay)
        shown = [_session(watched, session) for _, session in found[:limit]]
        return page(shown, found[limit - 1][0] if len(found) > limit else None)

    async def one(call: Call) -> object:
        session = _live(relay, call)
        patterns = [
            {"id": each.id, "pattern": each.pattern.text, "max_rate": each.max_rate, "epsilon": each.epsilon}
            for each in islice(session.subscriptions.values(), MAX_PATTERNS)
        ]
        return {**_session(watched, session), "patterns": patterns}

    async def end(call: Call) -> object:
        session = _live(relay, call)
        detail = {"session": session.id}
        entry = watched.audit.entry("admin.session.end", call.who.actor(call.address), session.identity.subject)
        await watched.audit.record(entry._replace(detail=detail))
        if session.is_live:
            relay.end(session, ENDED)
        return {}

    async def doors(_call: Call) -> object:
        by_door: dict[str, list[Session]] = {}
        for session in relay.sessions.all():
            some = by_door.setdefault(_door_of(session).partition("-")[0], [])
            if len(some) < MAX_SHOWN:
                some.append(session)
        return {
            "items": [
                {
                    "door": counts.door,
                    "clients": counts.clients,
                    "messages": counts.messages,
                    "refused": counts.refused,
                    "connected": [_session(watched, each) for each in by_door.get(counts.door, ())],
                }
                for counts in _counts(watched.doors())
            ]
        }

    return [
        Route("GET", "sessions", listed),
        Route("GET", "sessions/{id}", one),
        Route("DELETE", "sessions/{id}", end),
        Route("GET", "doors", doors),
    ]


def _explained(
    watched: Watched, subject: str, action: str, address: str, value: Any, *, is_account: bool
) -> dict[str, Any]:
    policy, params, now_us = watched.policy, watched.relay.params, watched.relay.clock.now_us()
    assert policy is not None, "explained without a policy"
    try:
        if action == "subscribe":
            pattern = Pattern.parse(address)
            literal = address.replace("**", "x").replace("*", "x")
            found = explain_read(policy, subject, literal, params, now_us, pattern=pattern)
        elif action == "read":
            check_address(address)
            found = explain_read(policy, subject, address, params, now_us)
        elif action in ("write", "publish"):
            check_address(address)
            sent = value_from_json(value, address)
            is_publish = action == "publish"
            found = explain_write(
                policy, subject, address, sent, params, now_us, is_publish=is_publish, is_account=is_account
            )
        else:
            raise BadInput("«action» is none of read, subscribe, write, publish.")
    except ValueError as error:
        raise BadInput(f"«user_id»: {error}.") from None
    return {"allowed": found.allowed, "lines": list(found.lines)}


def _metrics(registry: CollectorRegistry | None) -> Iterator[dict[str, Any]]:
    for family in () if registry is None else registry.collect():
        yield {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [
                {"name": sample.name, "labels": dict(sample.labels), "value": sample.value} for sample in family.samples
            ],
        }


def _waiting_bytes(session: Session) -> int:
    """Returns the bytes that were sent to a session and are still in this process, as far as that is known."""
    outbox: object = session.outbox
    if isinstance(outbox, HandedOutbox):
        outbox = outbox.connection_outbox
    if not isinstance(outbox, Outbox):
        return 0
    backlog = outbox.backlog
    return 0 if backlog is None else outbox.sink.buffered_bytes + backlog.size_bytes


def _session(watched: Watched, session: Session) -> dict[str, Any]:
    connected_s = session.connected_us / 1e6
    age_s = max(watched.relay.clock.now_us() / 1e6 - connected_s, 1.0)
    return {
        "id": session.id,
        "subject": session.identity.subject,
        "username": _name_of(watched, session),
        "address": session.peer,
        "client": session.name,
        "door": _door_of(session),
        "connected_at": int(connected_s),
        "subscriptions": len(session.subscriptions),
        "received": session.received,
        "errors": session.errors,
        "rate": round(session.received / age_s, 3),
        "backlog_bytes": _waiting_bytes(session),
        "kept_bytes": session.account.bytes,
    }


def _name_of(watched: Watched, session: Session) -> str | None:
    record = watched.tokens.find(session.identity.token)
    return None if record is None else record.username


def _door_of(session: Session) -> str:
    """Returns the door of a session."""
    return "http" if session.door == "http-single" else session.door or "clasp"


def _is_meant(watched: Watched, session: Session, needle: str) -> bool:
    if not needle:
        return True
    texts = (session.id, session.identity.subject, session.peer, session.name, _door_of(session))
    return any(needle in text.casefold() for text in texts) or needle in (_name_of(watched, session) or "").casefold()


def _live(relay: Relay, call: Call) -> Session:
    session = relay.sessions.get(call.names["id"])
    if session is None:
        raise Missing("There is no such session, or it has ended.")
    return session


def _counts(doors: Sequence[Counting]) -> Iterator[DoorCounts]:
    for door in doors:
        yield from door.counts


def _next_turn(relay: Relay) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    relay.clock.call_later(0, lambda: done.callback(None))
    return done


def _key_of(found: tuple[tuple[int, str], Session]) -> tuple[int, str]:
    return found[0]
