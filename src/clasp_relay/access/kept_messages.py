"""Finds a reported message in the relay's history, and compares the report with it.

A reporter can write anything into a report. History has what was sent: the relay has checked who wrote an entry, and
entries are never changed. In encrypted rooms it has ciphertext, so only the author can be compared there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.access.policy.language.maps import find_field, is_map, text_of
from clasp_relay.core.history.reading import Asked, HistoryEntry, Page
from clasp_relay.core.history.replays import Replays
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ValueType
from clasp_relay.wire.messages import Publish, Value

__all__ = ["KeptMessage", "compared", "find_kept", "pages_of"]

MAX_EDITS = 20
"""The most edits of one message that are shown: the latest ones."""

MAX_TEXT = 4_000
"""Characters of a text that are shown and compared; the app reports no more of one."""

_TRUE = bytes((ValueType.BOOL, 1))


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message, or an edit of one, as history has it.

    Args:
        author: the subject of the token that sent it.
        at_s: when the relay accepted it, in Unix seconds.
        text: its text; None if it is encrypted.
        has_attachment: whether it has a picture or a file.
    """

    author: str
    at_s: int
    text: str | None
    has_attachment: bool


async def pages_of(replays: Replays, asked: Asked, most: int) -> AsyncIterator[Page]:
    """Yields pages of history, one after the other, until all is read or there were ``most``.

    Args:
        replays: reads history.
        asked: the addresses and times that are read.
        most: the most pages.

    Raises:
        RequestError: OVERLOADED when history cannot be read now.
    """
    for _ in range(most):
        done: Deferred[Page | None] = Deferred()
        replays.reader.read(asked, done.callback)
        page = await done
        if page is None:
            raise RequestError(ErrorCode.OVERLOADED, "the relay cannot read its history now; try again later")
        yield page
        if page.is_end:
            return
        if asked.is_backwards:
            asked = asked._replace(before_seq=page.examined_seq)
        else:
            asked = asked._replace(after_seq=page.examined_seq)


async def find_kept(replays: Replays, room_id: str, msg_id: str, most: int) -> list[KeptMessage]:
    """Returns a message of a room and its author's edits of it, the oldest first; nothing if it is not kept.

    Args:
        replays: reads history.
        room_id: the room.
        msg_id: the message's own id.
        most: the most pages of the room's history that are read.

    Raises:
        RequestError: the room's id is not valid, or history cannot be read now.
    """
    asked = Asked(Pattern.parse(f"/chat/room/{room_id}/messages"))
    found: list[KeptMessage] = []
    async for page in pages_of(replays, asked, most):
        for entry in page.entries:
            message = _of(entry, msg_id, is_edit=bool(found))
            if message is not None and (not found or message.author == found[0].author):
                found.append(message)
                del found[1:-MAX_EDITS]
    return found


def compared(message: object, kept: list[KeptMessage]) -> dict[str, bool | None]:
    """Compares a report with the message that is kept.

    Args:
        message: the reported message as the reporter sent it; it may be any value.
        kept: the message and its edits, at least the message.

    Returns:
        ``same_author`` and ``same_text``; None if there is nothing to compare.
    """
    said: Mapping[str, Any] = message if isinstance(message, dict) else {}
    author, text = said.get("userId"), said.get("text")
    texts = [each.text for each in kept]
    readable = isinstance(text, str) and None not in texts
    return {
        "same_author": author == kept[0].author if isinstance(author, str) else None,
        "same_text": text in texts if readable else None,
    }


def _of(entry: HistoryEntry, msg_id: str, *, is_edit: bool) -> KeptMessage | None:
    """Returns an entry as it is shown, if it is the message or (``is_edit``) an edit of it; else None."""
    change = entry.change
    message = None if change is None else change.message
    value = message.value if isinstance(message, Publish) else None
    if change is None or value is None or not is_map(value):
        return None
    if text_of(find_field(value, b"targetId" if is_edit else b"msgId")) != msg_id:
        return None
    kind = text_of(find_field(value, b"type"))
    if kind == "delete" or (kind == "edit") is not is_edit:
        return None
    attached = any(
        find_field(value, key) is not None for key in (b"image", b"encryptedImage", b"file", b"encryptedFile")
    )
    return KeptMessage(change.param.subject, change.param.timestamp_us // 1_000_000, _text(value), attached)


def _text(value: Value) -> str | None:
    if find_field(value, b"encrypted") == _TRUE or find_field(value, b"iv") is not None:
        return None
    return (text_of(find_field(value, b"text")) or "")[:MAX_TEXT]
