"""The chat's rooms and the reports of members, for administrators; each change is in the audit log."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Administrator
from clasp_relay.access.kept_messages import compared, find_kept, pages_of
from clasp_relay.access.refusals import BadInput, Missing
from clasp_relay.access.search import Search
from clasp_relay.access.secret_files import ADMIN_SUBJECT
from clasp_relay.core.history.reading import Asked
from clasp_relay.core.history.replays import Replays
from clasp_relay.core.records import Param, param_bytes
from clasp_relay.core.state.params import Params
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.json_values import to_json, value_from_json
from clasp_relay.wire.messages import NULL, Message, Set, Value
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Reports", "Rooms", "Write"]

Write = Callable[[Administrator, str, Message], Deferred[dict[str, Any]]]
"""Sends a message with an administrator's rights; the address is the client's. The answer is that of the HTTP API."""

MAX_PEOPLE = 1_000
"""The most people, and the most bans, of a room that are listed."""

MAX_HISTORY_PAGES = 64
"""Pages of a room's history that are counted: the chat keeps fewer entries."""

MAX_MESSAGE_PAGES = 512
"""Pages of a room's history in which a reported message is looked for."""

MAX_PAGE_BYTES = 128 * 1024
"""Size of the reports on one page, and of a room's bans that are shown."""

MAX_NAME = 200
"""Characters of a name of a room or a person that are shown; clients may choose names of any length."""

MAX_NOTE = 500
"""Characters of a note or a reason."""

_ROOMS = Pattern.parse("/chat/room/**")
_REPORTS = Pattern.parse("/chat/reports/*")
_NO_ROOM = "There is no such room."
_NO_REPORT = "There is no such report."
_SECRETS = frozenset({"passwordHash", "passwordSalt"})


@dataclass(slots=True)
class _Tally:
    """The counts of a room's params."""

    meta: dict[str, Any] | None = None
    params: list[str] = field(default_factory=list)
    bytes: int = 0
    members: set[str] = field(default_factory=set)
    present: dict[str, str | None] = field(default_factory=dict)
    """Names by id."""
    admins: set[str] = field(default_factory=set)
    banned: dict[str, Value] = field(default_factory=dict)

    def add(self, param: Param) -> None:
        """Counts a param of the room."""
        kind, _, rest = param.address.split("/", 4)[4].partition("/")
        self.params.append(param.address)
        self.bytes += param_bytes(param)
        if kind == "meta" and not rest:
            self.meta = fields_of(param.value)
        elif not rest or "/" in rest:
            return
        elif kind == "members":
            self.members.add(rest)
        elif kind == "presence":
            self.present[rest] = _name_in(fields_of(param.value))
        elif kind == "admin":
            self.admins.add(rest)
        elif kind == "bans":
            self.banned[rest] = param.value


class Rooms:
    """The rooms of the chat.

    Args:
        params: what is set.
        search: finds and ends params.
        replays: read history; None where none is kept.
        audit: the audit log.
        write: writes with an administrator's rights.
        now_ms: Unix ms.
    """

    def __init__(
        self,
        params: Params,
        search: Search,
        replays: Replays | None,
        audit: Audit,
        write: Write,
        now_ms: Callable[[], int],
    ) -> None:
        self._params = params
        self._search = search
        self._replays = replays
        self._audit = audit
        self._write = write
        self._now_ms = now_ms

    async def page(self, search: str, after: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """Returns rooms in the order of their ids.

        Args:
            search: only rooms that have this text in the id or name, irrespective of case; empty for all.
            after: only rooms whose id comes after this one.
            limit: the most rooms.

        Returns:
            the rooms, and ``after`` of the next page; None at the end.
        """
        needle = search.casefold()
        seen: set[str] = set()
        found: list[str] = []

        def look(param: Param) -> None:
            segments = param.address.split("/", 4)
            room_id = segments[3]
            if len(segments) < 5 or room_id <= after or room_id in seen:
                return
            seen.add(room_id)
            if not needle or needle in room_id.casefold() or needle in self._name_of(room_id).casefold():
                insort(found, room_id)
                del found[limit + 1 :]

        await self._search.each(_ROOMS, look, lambda _param: bool(needle))
        shown: list[dict[str, Any]] = []
        for room_id in found[:limit]:
            tally = await self._tally(room_id)
            if tally is not None:
                shown.append(self._shown(room_id, tally, None))
        return shown, found[limit - 1] if len(found) > limit else None

    def _name_of(self, room_id: str) -> str:
        meta = self._params.get(f"/chat/room/{room_id}/meta")
        name = None if meta is None else fields_of(meta.value).get("name")
        return name if isinstance(name, str) else ""

    async def one(self, room_id: str) -> dict[str, Any]:
        """Returns one room with its people.

        Raises:
            Missing: there is no such room.
        """
        tally = await self._existing(room_id)
        meta = tally.meta or {}
        creator = meta.get("creatorId")
        people = sorted({*tally.members, *tally.present, *tally.admins} - {""})[:MAX_PEOPLE]
        shown = self._shown(room_id, tally, await self._history(room_id))
        return {
            **shown,
            "meta": {name: to_json_value(value) for name, value in meta.items() if name not in _SECRETS},
            "people": [
                {
                    "user_id": each,
                    "name": tally.present.get(each),
                    "role": "creator" if each == creator else "admin" if each in tally.admins else "member",
                    "member": each in tally.members,
                    "present": each in tally.present,
                }
                for each in people
            ],
            "bans": list(_bans(tally.banned)),
        }

    async def delete(self, who: Administrator, address: str, room_id: str) -> None:
        """Ends all params of a room; the end of its ``meta`` erases its history.

        Raises:
            Missing: there is no such room.
        """
        tally = await self._existing(room_id)
        detail = {"name": _name_in(tally.meta or {}), "params": len(tally.params)}
        await self._audit.record(self._audit.entry("admin.room.delete", who.actor(address), room_id, detail=detail))
        meta = f"/chat/room/{room_id}/meta"
        if self._params.get(meta) is None:
            # Only the end of a param that is set erases the history.
            await self._send(who, address, Set(meta, value_from_json({})))
        await self._send(who, address, Set(meta, NULL))
        await self._search.end([each for each in tally.params if each != meta])
        registry = f"/chat/registry/rooms/{room_id}"
        if self._params.get(registry) is not None:
            await self._search.end([registry])

    async def ban(self, who: Administrator, address: str, room_id: str, user_id: str, reason: str | None) -> None:
        """Bans somebody from a room, and ends their presence there.

        Raises:
            Missing: there is no such room.
            BadInput: the user id is not valid, or the reason is too long.
        """
        if reason is not None and len(reason) > MAX_NOTE:
            raise BadInput(f"The reason may have {MAX_NOTE} characters.")
        tally = await self._existing(room_id)
        target = f"/chat/room/{room_id}/bans/{user_id}"
        _check_segment(target, user_id)
        entry = self._audit.entry("admin.room.ban", who.actor(address), room_id, detail={"user_id": user_id})
        await self._audit.record(entry)
        value = {"bannedBy": who.user_id, "timestamp": self._now_ms(), "name": tally.present.get(user_id) or ""}
        value |= {"reason": reason} if reason else {}
        await self._send(who, address, Set(target, value_from_json(value)))
        presence = f"/chat/room/{room_id}/presence/{user_id}"
        if self._params.get(presence) is not None:
            await self._send(who, address, Set(presence, NULL))

    async def unban(self, who: Administrator, address: str, room_id: str, user_id: str) -> None:
        """Lifts a ban.

        Raises:
            Missing: there is no such ban.
        """
        target = f"/chat/room/{room_id}/bans/{user_id}"
        if self._params.get(target) is None:
            raise Missing("There is no such ban.")
        entry = self._audit.entry("admin.room.unban", who.actor(address), room_id, detail={"user_id": user_id})
        await self._audit.record(entry)
        await self._send(who, address, Set(target, NULL))

    async def _existing(self, room_id: str) -> _Tally:
        """Counts one room.

        Raises:
            Missing: there is no such room.
        """
        tally = await self._tally(room_id)
        if tally is None:
            raise Missing(_NO_ROOM)
        return tally

    async def _tally(self, room_id: str) -> _Tally | None:
        """Counts one room, and collects its addresses; None if nothing of it is set."""
        tally = _Tally()
        if room_id and not set("/*") & set(room_id):
            look = Pattern.parse(f"/chat/room/{room_id}/**")
            prefix = f"/chat/room/{room_id}/"
            await self._search.each(
                look,
                lambda param: tally.add(param) if param.address.startswith(prefix) else None,
                lambda _param: True,
            )
        return tally if tally.params else None

    async def _history(self, room_id: str) -> dict[str, int] | None:
        """Counts the entries of a room's messages in history; None if there is no history."""
        if self._replays is None:
            return None
        entries = size_bytes = 0
        asked = Asked(Pattern.parse(f"/chat/room/{room_id}/messages"), is_backwards=True)
        async for page in pages_of(self._replays, asked, MAX_HISTORY_PAGES):
            entries += len(page.entries)
            size_bytes += sum(entry.bytes for entry in page.entries)
        return {"entries": entries, "bytes": size_bytes}

    def _shown(self, room_id: str, tally: _Tally, history: dict[str, int] | None) -> dict[str, Any]:
        meta = tally.meta or {}
        creator = meta.get("creatorId")
        return {
            "room_id": room_id,
            "name": _name_in(meta),
            "creator_id": creator if isinstance(creator, str) else None,
            "is_public": self._params.get(f"/chat/registry/rooms/{room_id}") is not None,
            "is_dm": isinstance(meta.get("dmUsers"), dict),
            "has_password": bool(meta.get("passwordHash")),
            "is_encrypted": meta.get("encrypted") is True,
            "members": len(tally.members),
            "present": len(tally.present),
            "banned": len(tally.banned),
            "params": len(tally.params),
            "bytes": tally.bytes,
            "history": history,
        }

    async def _send(self, who: Administrator, address: str, message: Message) -> None:
        raise_refusal(await self._write(who, address, message))


class Reports:
    """The reports of members.

    Args:
        params: what is set.
        search: finds params.
        audit: the audit log.
        write: writes with an administrator's rights.
        now_ms: Unix ms.
        replays: read history; None where none is kept.
    """

    def __init__(
        self,
        params: Params,
        search: Search,
        audit: Audit,
        write: Write,
        now_ms: Callable[[], int],
        replays: Replays | None = None,
    ) -> None:
        self._replays = replays
        self._params = params
        self._search = search
        self._audit = audit
        self._write = write
        self._now_ms = now_ms

    async def page(self, state: str, after: tuple[int, str] | None, limit: int) -> tuple[list[Any], Any]:
        """Returns reports, the latest first.

        Args:
            state: ``open``, ``resolved`` or ``all``.
            after: time and id of the last report of the page before.
            limit: the most reports.

        Returns:
            the reports, and ``after`` of the next page; None at the end.
        """
        found: list[tuple[int, str, Param]] = []

        def look(param: Param) -> None:
            key = (_reported_s(param), _id_of(param))
            is_wanted = state == "all" or _is_resolved(param) == (state == "resolved")
            if is_wanted and (after is None or key < after):
                found.append((*key, param))
                if len(found) > 4 * limit:
                    found.sort(key=lambda each: each[:2], reverse=True)
                    del found[limit + 1 :]

        await self._search.each(_REPORTS, look, _may_be_resolved)
        found.sort(key=lambda each: each[:2], reverse=True)
        shown: list[Any] = []
        size_bytes = 0
        for _, _, param in found[:limit]:
            size_bytes += len(param.value)
            if shown and size_bytes > MAX_PAGE_BYTES:
                break
            shown.append(_report(param))
        return shown, found[len(shown) - 1][:2] if len(shown) < len(found) else None

    async def count_open(self) -> int:
        """Returns how many reports are open."""
        found: list[None] = []
        await self._search.each(
            _REPORTS,
            lambda param: None if _is_resolved(param) else found.append(None),
            _may_be_resolved,
        )
        return len(found)

    async def resolve(self, who: Administrator, address: str, report_id: str, note: str | None) -> None:
        """Marks a report as resolved.

        Raises:
            Missing: there is no such report.
            BadInput: the note is too long.
        """
        if note is not None and len(note) > MAX_NOTE:
            raise BadInput(f"The note may have {MAX_NOTE} characters.")
        param = self._find(report_id)
        detail = {"note": note} if note else {}
        await self._audit.record(
            self._audit.entry("admin.report.resolve", who.actor(address), report_id, detail=detail)
        )
        resolved = {"at": self._now_ms() // 1000, "by": who.user_id, "note": note or None}
        fields = fields_of(param.value) | {"resolved": resolved, "reportedBy": _reporter(param)}
        fields.setdefault("reportedAt", param.timestamp_us // 1_000_000)
        value = value_from_json({name: to_json_value(each) for name, each in fields.items()})
        raise_refusal(await self._write(who, address, Set(param.address, value)))

    async def delete(self, who: Administrator, address: str, report_id: str) -> None:
        """Deletes a report.

        Raises:
            Missing: there is no such report.
        """
        param = self._find(report_id)
        await self._audit.record(self._audit.entry("admin.report.delete", who.actor(address), report_id))
        raise_refusal(await self._write(who, address, Set(param.address, NULL)))

    async def kept(self, report_id: str) -> dict[str, Any]:
        """Returns the reported message as the relay's history has it, and how the report compares with it.

        Raises:
            Missing: there is no such report.
            RequestError: history cannot be read now.
        """
        fields = fields_of(self._find(report_id).value)
        room_id, message = fields.get("roomId"), fields.get("message")
        msg_id = message.get("msgId") if isinstance(message, dict) else None
        asked = f"/chat/room/{room_id}/messages"
        if self._replays is None or not self._replays.keeping.spot(asked).signals:
            return {"state": "off", "messages": [], "same_author": None, "same_text": None}
        try:
            check_address(asked)
            is_named = isinstance(room_id, str) and isinstance(msg_id, str)
            kept = await find_kept(self._replays, str(room_id), str(msg_id), MAX_MESSAGE_PAGES) if is_named else []
        except RequestError as error:
            if error.code is not ErrorCode.ADDRESS:
                raise
            kept = []
        if not kept:
            return {"state": "missing", "messages": [], "same_author": None, "same_text": None}
        return {"state": "kept", "messages": [asdict(each) for each in kept], **compared(message, kept)}

    def _find(self, report_id: str) -> Param:
        param = self._params.get(f"/chat/reports/{report_id}") if "/" not in report_id else None
        if param is None:
            raise Missing(_NO_REPORT)
        return param


def raise_refusal(answer: dict[str, Any]) -> None:
    """Raises the error of an answer that is an ERROR.

    Raises:
        RequestError: the message was refused.
    """
    if "error" in answer:
        raise RequestError(ErrorCode(answer["code"]), answer["error"])


def fields_of(value: Value) -> dict[str, Any]:
    """Returns the decoded fields of a map; none for any other value."""
    decoded = decode_value(value)
    return decoded if isinstance(decoded, dict) else {}


def to_json_value(value: Any) -> Any:
    """Returns a decoded value as ``json.dumps`` takes it."""
    return to_json(encode_value(value))


def _name_in(fields: Mapping[str, Any]) -> str | None:
    """Returns the first ``MAX_NAME`` characters of the name in a value; None if it has none."""
    name = fields.get("name")
    return name[:MAX_NAME] if isinstance(name, str) else None


def _bans(banned: Mapping[str, Value]) -> Iterator[dict[str, Any]]:
    """Yields bans in the order of the user ids, as many as a page may have."""
    size_bytes = 0
    for user_id in sorted(banned)[:MAX_PEOPLE]:
        size_bytes += len(banned[user_id])
        if size_bytes > MAX_PAGE_BYTES:
            return
        yield {"user_id": user_id, "value": to_json(banned[user_id])}


def _reporter(param: Param) -> str:
    """Returns the user id of the reporter: the writer, or the one in the value if an administrator wrote it since."""
    named = fields_of(param.value).get("reportedBy")
    return named if param.subject == ADMIN_SUBJECT and isinstance(named, str) else param.subject


def _may_be_resolved(param: Param) -> bool:
    """Tells whether an administrator wrote a report last: nobody else can have marked it as resolved."""
    return param.subject == ADMIN_SUBJECT


def _is_resolved(param: Param) -> bool:
    return _may_be_resolved(param) and isinstance(fields_of(param.value).get("resolved"), dict)


def _reported_s(param: Param) -> int:
    """Returns the time of a report in Unix seconds; of a resolved one the time that an administrator wrote into it."""
    reported_s = fields_of(param.value).get("reportedAt") if _is_resolved(param) else None
    return reported_s if isinstance(reported_s, int) else param.timestamp_us // 1_000_000


def _id_of(param: Param) -> str:
    return param.address.rpartition("/")[2]


def _report(param: Param) -> dict[str, Any]:
    """Returns a report in the form of the API."""
    fields = fields_of(param.value)
    resolved = fields.get("resolved")

    def text(name: str) -> str | None:
        found = fields.get(name)
        return found if isinstance(found, str) else None

    return {
        "id": _id_of(param),
        "room_id": text("roomId") or "",
        "message": to_json_value(fields.get("message")),
        "reason": text("reason"),
        "reporter": _reporter(param),
        "reporter_name": text("from"),
        "created_at": _reported_s(param),
        "resolved": to_json_value(resolved) if _is_resolved(param) else None,
    }


def _check_segment(address: str, segment: str) -> None:
    """Checks that an address is valid, and that its last segment is the user id that a request named.

    Raises:
        BadInput: the id is not one segment of a valid address.
    """
    try:
        check_address(address)
    except RequestError:
        raise BadInput("This is no user id.") from None
    if not segment or "/" in segment:
        raise BadInput("This is no user id.")
