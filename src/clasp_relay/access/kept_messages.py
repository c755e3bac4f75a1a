"""What the relay's history itself holds of a message that somebody has reported, to be compared with the report.

A report says what its reporter wants it to say. History has what was sent: the relay has proven who wrote an entry, and
nobody changes one. In encrypted rooms it has ciphertext, so that there only the author can be compared.
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
"""Edits of one message that are shown, the latest ones."""

MAX_TEXT = 4_000
"""Characters of a text that are shown and compared; the app reports no more of one."""

_TRUE = bytes((ValueType.BOOL, 1))


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message, or an edit of one, as history has it.

    Args:
        author: whose token sent it.
        at_s: Unix seconds at which the relay accepted it.
        text: what it says; None where it is encrypted.
        has_attachment: whether it has a picture or a file.
    """

    author: str
    at_s: int
    text: str | None
    has_attachment: bool


async def pages_of(replays: Replays, asked: Asked, most: int) -> AsyncIterator[Page]:
    """Yields pages of history, one after the other, until all is read or there were enough.

    Args:
        replays: read history.
        asked: what is read.
        most: how many pages at most.

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
    """Returns a message of a room and its author's edits of it, the oldest first; nothing where it is not kept.

    Args:
        replays: read history.
        room_id: the room.
        msg_id: the message's own id.
        most: how many pages of the room's history are read at most.

    Raises:
        RequestError: the room's id is none, or history cannot be read now.
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
    """Compares what a report says with what is kept.

    Args:
        message: as its reporter sent it: anything may be there.
        kept: the message and its edits, at least the first.

    Returns:
        ``same_author`` and ``same_text``, None where there is nothing to compare.
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
    """Returns an entry as it is shown, if it is the message, or once that is found an edit of it."""
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
