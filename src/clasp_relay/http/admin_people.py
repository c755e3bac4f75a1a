"""The console's calls about users and guests, registration, invites, and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Console
from clasp_relay.access.people import Kind, People
from clasp_relay.access.refusals import BadInput
from clasp_relay.http.admin_api import TAKEN, Call, Route, page
from clasp_relay.logs import events
from clasp_relay.storage.audit import AuditRow
from clasp_relay.storage.users import Invite

__all__ = ["admission_routes", "audit_routes", "people_routes"]

MAX_USES = 999_999
LEAST_INVITE_S, LONGEST_INVITE_S = 60, 31_536_000
INVITE_S = 7 * 86_400
"""Seconds that an invite is valid if the request does not say."""

LATEST_S = 1 << 53


def people_routes(people: People) -> list[Route]:
    """Returns the routes about users and guests.

    Args:
        people: makes the calls.
    """

    async def listed(call: Call) -> object:
        kind = cast(Kind, call.choice("kind", ("all", "user", "guest")))
        found, following = await people.page(call.search(), kind, _place(call), call.limit())
        return page([each.as_json() for each in found], following)

    async def one(call: Call) -> object:
        user_id = call.names["user_id"]
        info, sign_ins = await people.one(user_id)
        devices = [
            {
                "id": each.sign_in[:8].hex(),
                "device": each.device,
                "created_at": each.created_s,
                "last_seen": people.last_seen(each, user_id),
            }
            for each in sign_ins
        ]
        return {**info.as_json(), "devices": devices}

    async def disable(call: Call) -> object:
        await people.disable(call.who, call.address, call.names["user_id"])
        return {}

    async def enable(call: Call) -> object:
        await people.enable(call.who, call.address, call.names["user_id"])
        return {}

    async def rename(call: Call) -> object:
        await people.rename(call.who, call.address, call.names["user_id"], call.text("username"))
        return {}

    async def reset(call: Call) -> object:
        link = await people.reset_password(call.who, call.address, call.names["user_id"])
        return {"path": link.path, "secret": link.secret, "expires_at": link.expires_s}

    async def delete(call: Call) -> object:
        choice = call.choice("messages", ("", "keep", "erase"))
        if not choice:
            raise BadInput("Say what becomes of the messages: ?messages=keep or ?messages=erase.")
        erases = choice == "erase"
        deleted = await people.delete(call.who, call.address, call.names["user_id"], erases_messages=erases)
        return {"finished": deleted is not None, **({} if deleted is None else deleted.as_json())}

    async def end_device(call: Call) -> object:
        await people.end_sign_in(call.who, call.address, call.names["user_id"], call.names["device_id"])
        return {}

    return [
        Route("GET", "people", listed),
        Route("GET", "people/{user_id}", one),
        Route("DELETE", "people/{user_id}", delete),
        Route("POST", "people/{user_id}/disable", disable),
        Route("POST", "people/{user_id}/enable", enable),
        Route("POST", "people/{user_id}/rename", rename),
        Route("POST", "people/{user_id}/reset-password", reset),
        Route("DELETE", "people/{user_id}/devices/{device_id}", end_device),
    ]


def admission_routes(people: People, console: Console, accounts: Accounts) -> list[Route]:
    """Returns the routes about registration and invites.

    Args:
        people: makes the calls.
        console: tells whether the options or administrators decide who may register.
        accounts: tells who may register.
    """

    async def registration(_call: Call) -> object:
        admission = accounts.admission
        return {"registration": admission.registration, "guests": admission.guests, "source": console.source}

    async def choose(call: Call) -> object:
        body = call.body()
        mode, guests = call.optional("registration"), body.get("guests")
        if body.keys() != {"registration", "guests"} or mode not in (None, "open", "invite", "closed"):
            raise BadInput("The body is {registration: open, invite, closed or null, guests: true, false or null}.")
        if guests is not None and not isinstance(guests, bool):
            raise BadInput("«guests» is neither true nor false.")
        await people.choose_registration(call.who, call.address, mode, guests)
        return await registration(call)

    async def invites(_call: Call) -> object:
        return {"items": [_invite(each) for each in await people.invites()]}

    async def make_invite(call: Call) -> object:
        body = call.body()
        uses = _whole(body.get("uses", 1), "uses", 1, MAX_USES)
        expires_in = body.get("expires_in", INVITE_S)
        if expires_in is not None:
            expires_in = _whole(expires_in, "expires_in", LEAST_INVITE_S, LONGEST_INVITE_S)
        secret, invite = await people.make_invite(call.who, call.address, uses, expires_in)
        return {**_invite(invite), "invite": secret}

    async def revoke_invite(call: Call) -> object:
        await people.revoke_invite(call.who, call.address, call.names["id"])
        return {}

    return [
        Route("GET", "registration", registration),
        Route("PUT", "registration", choose),
        Route("GET", "invites", invites),
        Route("POST", "invites", make_invite),
        Route("DELETE", "invites/{id}", revoke_invite),
    ]


def audit_routes(audit: Audit) -> list[Route]:
    """Returns the routes about the audit log."""

    async def listed(call: Call) -> object:
        after = call.after(int)
        before = None if after is None else after[0]
        rows, following = await audit.page(before, call.limit(), call.query("action"), call.search())
        return page([each.as_json() for each in rows], [following] if following else None)

    async def export(call: Call) -> object:
        from_s, to_s = call.whole("from", 0, 0, LATEST_S), call.whole("to", LATEST_S, 0, LATEST_S)
        request = call.request
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        first = await audit.after(0)
        if gone:
            return TAKEN
        request.responseHeaders.setRawHeaders("Content-Type", ["application/x-ndjson"])
        request.responseHeaders.setRawHeaders("Cache-Control", ["no-store"])
        request.responseHeaders.setRawHeaders("X-Content-Type-Options", ["nosniff"])
        request.responseHeaders.setRawHeaders("Content-Disposition", ['attachment; filename="audit.jsonl"'])
        if request.method == b"HEAD":
            request.finish()
        else:
            _Export(audit, request, from_s, to_s).begin(first)
        return TAKEN

    return [Route("GET", "audit", listed), Route("GET", "audit/export", export)]


@implementer(IPushProducer)
class _Export:
    """Exports the audit log, as fast as the client reads it.

    Args:
        audit: the log.
        request: the request that is answered.
        from_s: begin of the export, in Unix seconds.
        to_s: its end, in Unix seconds; entries of this second are left out.
    """

    def __init__(self, audit: Audit, request: Any, from_s: int, to_s: int) -> None:
        self._audit = audit
        self._request = request
        self._from_s = from_s
        self._to_s = to_s
        self._seq = 0
        self._is_paused = False
        self._is_reading = False
        self._is_over = False

    def begin(self, rows: Sequence[AuditRow]) -> None:
        """Writes the first rows, and goes on with the others."""
        self._request.notifyFinish().addErrback(lambda _: self.stopProducing())
        self._request.registerProducer(self, True)
        self._put(rows)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Pauses: the client does not read."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Goes on: the client reads."""
        self._is_paused = False
        if not self._is_reading and not self._is_over:
            self._is_reading = True
            Deferred.fromCoroutine(self._write()).addErrback(self._fail)

    def stopProducing(self) -> None:
        """Ends: the client is gone."""
        self._is_over = True
        # The request has this object as its producer: without this a reference cycle would stay.
        self._request = None

    async def _write(self) -> None:
        while not self._is_paused:
            rows = await self._audit.after(self._seq)
            if self._is_over:
                return
            if not rows:
                self._end()
                return
            self._put(rows)
        self._is_reading = False

    def _put(self, rows: Sequence[AuditRow]) -> None:
        if rows:
            self._seq = rows[-1].seq
            wanted = [row.as_line() for row in rows if self._from_s <= row.entry.at_s < self._to_s]
            self._request.write(b"".join(line.encode() + b"\n" for line in wanted))

    def _end(self) -> None:
        self._is_over = True
        self._request.unregisterProducer()
        self._request.finish()

    def _fail(self, failure: Failure) -> None:
        """Aborts the connection, so that the client notices that the export is not complete."""
        events.AUTH_FAULT.failure(failure)
        if not self._is_over:
            self._is_over = True
            self._request.unregisterProducer()
            self._request.loseConnection()


def _place(call: Call) -> list[str]:
    """Returns ``after`` of a list of people."""
    after = call.after()
    if after is None:
        return []
    if (after[:1], len(after)) not in ((["user"], 3), (["guest"], 2)):
        raise BadInput("«after» is not the «next» of another page.")
    return after


def _whole(given: Any, name: str, least: int, most: int) -> int:
    if type(given) is not int or not least <= given <= most:
        raise BadInput(f"«{name}» is no whole number from {least} to {most}.")
    return given


def _invite(invite: Invite) -> dict[str, object]:
    return {
        "id": invite.id,
        "uses_left": invite.uses_left,
        "created_at": invite.created_s,
        "expires_at": invite.expires_s,
    }
