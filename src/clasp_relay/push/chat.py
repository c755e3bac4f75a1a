"""Decides which people of the chat are told of what, and who of them is away (``docs/chat-operations.md``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from clasp_relay.access.policy.language.maps import find_field, get_field
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.errors import RequestError
from clasp_relay.push.sender import Notice
from clasp_relay.push.subscriptions import Subscriptions
from clasp_relay.rules.watcher import Watcher
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Value
from clasp_relay.wire.values import PyValue, decode_value

__all__ = ["ChatNotices"]

EVERY_S = 30
"""Minimum interval between two notices to a person about one room, in seconds."""

MAX_MENTIONS = 20
"""Maximum number of mentions of a message that cause notices."""

MAX_CALLED = 50
"""Calls in rooms with more members than this cause no notices."""

CALL_S = 60
MESSAGE_S = 86_400
"""How long a notice is useful, in seconds."""

_MAX_TOLD = 20_000
_MESSAGES = Pattern.parse("/chat/room/*/messages")
_CALLS = Pattern.parse("/chat/room/*/video/presence/*")
_NOT_NEW = ("edit", "delete")
_VALUE_BYTES = 32 * 1024
"""Longer messages cause no notices."""

_FIELD_BYTES = 4 * 1024
"""Longer fields are ignored. Only the fields of interest are decoded: decoding the whole of a message or a meta of the
maximum size takes 10 ms, and the meta is read for each message."""


class ChatNotices:
    """Watches rooms and calls, and sends notices to the browsers of people who are away.

    Args:
        relay: the core.
        identity: the identity that it subscribes with, which may see everything.
        subscriptions: the browsers.
        may_enter: tells whether a subject may enter a room, and so read it.
        send: sends a notice to one browser.
    """

    def __init__(
        self,
        relay: Relay,
        identity: Identity,
        subscriptions: Subscriptions,
        may_enter: Callable[[str, str], bool],
        send: Callable[[Subscription, Notice], None],
    ) -> None:
        self._params = relay.params
        self._now_us = relay.clock.now_us
        self._subscriptions = subscriptions
        self._may_enter = may_enter
        self._send = send
        self._told_us: OrderedDict[tuple[str, str], int] = OrderedDict()
        """When each person was last told of each room, the oldest first."""
        self._watchers = (
            Watcher(relay, identity, "push messages", [_MESSAGES], Signal.EVENT, self._said),
            Watcher(relay, identity, "push calls", [_CALLS], Signal.PARAM, self._joined),
        )
        self._in_call: dict[str, set[str]] = {}
        """The addresses of the occupied places in the call of each room."""

    def open(self) -> None:
        """Begins to watch; does nothing if it watches already."""
        self._in_call.clear()
        for param in self._params.match(_CALLS):
            self._in_call.setdefault(_room(param.address), set()).add(param.address)
        for watcher in self._watchers:
            watcher.open()

    def close(self) -> None:
        """Stops watching."""
        for watcher in self._watchers:
            watcher.close()

    def _said(self, address: str, value: Value | None) -> None:
        if value is None or not self._subscriptions or len(value) > _VALUE_BYTES:
            return
        sender = _field(value, b"userId")
        if not isinstance(sender, str) or _field(value, b"kind") in _NOT_NEW or _field(value, b"type") in _NOT_NEW:
            return
        room = _room(address)
        people = self._people_of(room)
        for person in people:
            self._tell(person, sender, Notice(room, "dm", MESSAGE_S))
        mentioned = None if people else _field(value, b"mentions")
        if isinstance(mentioned, list):
            for person in dict.fromkeys(each for each in mentioned[:MAX_MENTIONS] if isinstance(each, str)):
                self._tell(person, sender, Notice(room, "mention", MESSAGE_S))

    def _joined(self, address: str, value: Value | None) -> None:
        room = _room(address)
        places = self._in_call.setdefault(room, set())
        was_empty = not places
        if value in (None, NULL):
            places.discard(address)
        else:
            places.add(address)
        if not places:
            del self._in_call[room]
        elif was_empty and self._subscriptions:
            param = self._params.get(address)
            if param is not None:
                self._ring(room, param.subject)

    def _ring(self, room: str, caller: str) -> None:
        """Tells the people of a room that a call has begun there."""
        people: Iterable[str] = self._people_of(room)
        if not people:
            found = self._params.find(Pattern.parse(f"/chat/room/{room}/members/*"))
            if found is None or len(found) > MAX_CALLED:
                return
            people = [param.address.rpartition("/")[2] for param in found]
        for person in people:
            self._tell(person, caller, Notice(room, "call", CALL_S))

    def _people_of(self, room: str) -> tuple[str, ...]:
        """Returns the two people of a direct-message room; none for any other room."""
        meta = self._params.get(f"/chat/room/{room}/meta")
        users = None if meta is None else _field(meta.value, b"dmUsers", get_field)
        if not isinstance(users, dict | list) or len(users) != 2:
            return ()
        return tuple(user for user in users if isinstance(user, str))

    def _tell(self, person: str, sender: str, notice: Notice) -> None:
        if (
            person == sender
            or not self._subscriptions.has_any(person)
            or not self._is_to_be_told(person, sender, notice)
        ):
            return
        key, now_us = (person, notice.room), self._now_us()
        if now_us - self._told_us.get(key, -EVERY_S * 1_000_000) < EVERY_S * 1_000_000:
            return
        self._told_us[key] = now_us
        self._told_us.move_to_end(key)
        if len(self._told_us) > _MAX_TOLD:
            self._told_us.popitem(last=False)
        for subscription in self._subscriptions.of(person):
            self._send(subscription, notice)

    def _is_to_be_told(self, person: str, sender: str, notice: Notice) -> bool:
        """Tells whether a person gets a notice.

        They do if they are a member and may read the room, no page of theirs is visible, and they have neither muted
        the room or all notices nor blocked the sender.
        """
        try:
            visible = Pattern.parse(f"/chat/user/{person}/visible/*")
        except RequestError:
            return False  # no user has such an id
        room = f"/chat/room/{notice.room}"
        if not self._is_set(f"{room}/members/{person}") or self._is_set(f"{room}/bans/{person}"):
            return False
        if self._is_set(f"/chat/user/{person}/blocked/{sender}") or self._is_quiet(person, notice.room):
            return False
        pages = self._params.find(visible)
        if pages is None or any(param.value != NULL for param in pages):
            return False
        return self._may_enter(notice.room, person)

    def _is_quiet(self, person: str, room: str) -> bool:
        """Tells whether a person has muted a room or all notices, in the settings that their devices share."""
        if self._field_at(f"/chat/user/{person}/sync/{room}", b"muted") is True:
            return True
        status = self._field_at(f"/chat/user/{person}/profile", b"status")
        return isinstance(status, str) and status == "dnd"

    def _field_at(self, address: str, key: bytes) -> PyValue:
        param = self._params.get(address)
        return None if param is None else _field(param.value, key, get_field)

    def _is_set(self, address: str) -> bool:
        param = self._params.get(address)
        return param is not None and param.value != NULL


def _field(value: Value, key: bytes, field_of: Callable[[Value, bytes], Value | None] = find_field) -> PyValue:
    """Returns a field of a map; None if it is missing or too long."""
    found = field_of(value, key)
    return None if found is None or len(found) > _FIELD_BYTES else decode_value(found)


def _room(address: str) -> str:
    return address.split("/", 4)[3]
