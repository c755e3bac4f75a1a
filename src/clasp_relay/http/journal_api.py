"""History for the operator's tools, below ``/api/journal`` (``docs/openapi.yaml``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.core.history.reading import MAX_SEQ, NEWEST, POSITION, Asked, HistoryEntry, Page
from clasp_relay.core.history.replays import DEFAULT_LIMIT, MAX_LIMIT, MAX_READ_BYTES, Replays
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.storage.journal.upkeep import entry_to_json
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, MessageCode, Signal

__all__ = ["PATHS", "JournalApi"]

PATHS = ("query", "since", "latest", "snapshot")
"""The paths below ``/api/journal``."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Size at which an answer ends: the client gets the rest with ``since``."""

_SIGNALS = {signal.name.lower(): signal for signal in Signal}

Arguments = Mapping[bytes, list[bytes]]
"""The query of a request."""


class JournalApi:
    """Answers requests of administrators.

    Args:
        relay: the core.
        sessions: admits the administrator.
    """

    def __init__(self, relay: Relay, sessions: ApiSessions) -> None:
        self._relay = relay
        self._sessions = sessions

    def handle(self, path: str, arguments: Arguments, token: str | None, address: str) -> Deferred[Any]:
        """Answers one request.

        Args:
            path: one of ``PATHS``.
            arguments: the query.
            token: the presented token; None for none.
            address: the client's.

        Returns:
            a Deferred of the answer, as ``json.dumps`` takes it; it fails with a RequestError.

        Raises:
            RequestError: UNAUTHENTICATED, SCOPE, LIMIT, NOT_CONFIGURED or MESSAGE.
        """
        self._sessions.admit_admin(token, address)
        replays = self._relay.replays
        if replays is None:
            raise RequestError(ErrorCode.NOT_CONFIGURED, "this relay keeps no history")
        limit = _whole(arguments, b"limit", DEFAULT_LIMIT, MAX_LIMIT) or DEFAULT_LIMIT
        if path == "latest":
            return _settled(replays).addCallback(lambda seq: {"seq": seq})
        if path == "since":
            after_seq = _whole(arguments, b"seq", 0, MAX_SEQ)
            return self._read(replays, Asked(Pattern.parse("/**"), after_seq=after_seq), limit)
        if path == "snapshot":
            return self._snapshot(_pattern(arguments), token, address, limit)
        return self._query(replays, arguments, limit)

    def _query(self, replays: Replays, arguments: Arguments, limit: int) -> Deferred[Any]:
        asked = Asked(_pattern(arguments), _types(arguments))
        start = _whole(arguments, b"from", 0, NEWEST)
        end = _whole(arguments, b"to", MAX_SEQ, NEWEST)
        asked = asked._replace(before_seq=end & MAX_SEQ) if end & POSITION else asked._replace(to_us=end)
        if start == NEWEST:
            newest = _Reading(replays, asked._replace(is_backwards=True), limit)
            return newest.done.addCallback(
                lambda entries: self._read(
                    replays, asked._replace(after_seq=entries[-1].seq - 1 if entries else MAX_SEQ), limit
                )
            )
        asked = asked._replace(after_seq=start & MAX_SEQ) if start & POSITION else asked._replace(from_us=start)
        return self._read(replays, asked, limit)

    def _read(self, replays: Replays, asked: Asked, limit: int) -> Deferred[Any]:
        return _Reading(replays, asked, limit).done.addCallback(lambda entries: [_shown(each) for each in entries])

    def _snapshot(self, pattern: Pattern, token: str | None, address: str, limit: int) -> Deferred[Any]:
        """Returns the params that are set now, as entries without a seq."""
        listed = self._sessions.find(token, address, pattern, limit, "")

        def shown(told: dict[str, Any]) -> list[dict[str, Any]]:
            if "error" in told:
                raise RequestError(ErrorCode(told["code"]), told["error"])
            return [
                {
                    "seq": 0,
                    "timestamp": each["timestamp"],
                    "author": each["writer"] or "",
                    "address": each["address"],
                    "signal_type": "param",
                    "value": each["value"],
                    "revision": each["revision"],
                    "msg_type": int(MessageCode.SET),
                }
                for each in told["params"]
            ]

        return listed.addCallback(shown)


class _Reading:
    """Reads entries page by page.

    Args:
        replays: has the reader.
        asked: the addresses and times that are read.
        limit: the most entries.
    """

    def __init__(self, replays: Replays, asked: Asked, limit: int) -> None:
        self._replays = replays
        self._asked = asked
        self._limit = limit
        self._found: list[HistoryEntry] = []
        self._bytes = self._read_bytes = 0
        self.done: Deferred[list[HistoryEntry]] = Deferred()
        _settled(replays).addCallbacks(self._begin, self.done.errback)

    def _begin(self, seq: int) -> None:
        self._asked = self._asked._replace(before_seq=min(self._asked.before_seq, seq + 1))
        self._replays.reader.read(self._asked, self._got)

    def _got(self, page: Page | None) -> None:
        if page is None:
            self.done.errback(_unreadable())
            return
        self._read_bytes += page.examined_bytes
        for entry in page.entries:
            self._bytes += entry.bytes
            if len(self._found) == self._limit or (self._found and self._bytes > MAX_ANSWER_BYTES):
                break
            self._found.append(entry)
        else:
            if not page.is_end and self._read_bytes < MAX_READ_BYTES:
                if self._asked.is_backwards:
                    self._asked = self._asked._replace(before_seq=page.examined_seq)
                else:
                    self._asked = self._asked._replace(after_seq=page.examined_seq)
                self._replays.clock.call_later(0, lambda: self._replays.reader.read(self._asked, self._got))
                return
        self.done.callback(self._found)


def _settled(replays: Replays) -> Deferred[int]:
    """Returns a Deferred of the last seq, once all changes so far are recorded."""
    done: Deferred[int] = Deferred()

    def tell(seq: int | None) -> None:
        if seq is None:
            done.errback(_unreadable())
        else:
            done.callback(seq)

    replays.reader.settle(tell)
    return done


def _unreadable() -> RequestError:
    return RequestError(ErrorCode.OVERLOADED, "the relay cannot read its history now; try again later")


def _shown(entry: HistoryEntry) -> dict[str, Any]:
    assert entry.change is not None, "an entry without its change"
    return entry_to_json(entry.seq, entry.change)


def _text(arguments: Arguments, name: bytes) -> str | None:
    given = arguments.get(name)
    if not given:
        return None
    try:
        return given[0].decode("utf-8")
    except UnicodeDecodeError:
        raise DecodeError("the query is not UTF-8") from None


def _pattern(arguments: Arguments) -> Pattern:
    return Pattern.parse(_text(arguments, b"pattern") or "/**")


def _whole(arguments: Arguments, name: bytes, default: int, most: int) -> int:
    text = _text(arguments, name)
    if text is None:
        return default
    if re.fullmatch("[0-9]{1,20}", text) is None or int(text) > most:
        raise DecodeError(f"{name.decode()} is no whole number from 0 to {most}")
    return int(text)


def _types(arguments: Arguments) -> int:
    text = _text(arguments, b"types")
    if not text:
        return ALL_TYPES
    mask = 0
    for word in text.split(","):
        if word not in _SIGNALS:
            raise DecodeError(f"types: {word[:40]!r} is none of {', '.join(_SIGNALS)}")
        mask |= 1 << _SIGNALS[word]
    return mask
