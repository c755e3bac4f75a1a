"""The live sessions, by id, token and subject."""

from __future__ import annotations

from typing import TypeVar

from clasp_relay.core.sessions import Session

K = TypeVar("K", str, bytes)


class SessionTable:
    """Knows which sessions are live."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_token: dict[bytes, dict[Session, None]] = {}
        self._by_subject: dict[str, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._by_id

    def get(self, session_id: str) -> Session | None:
        """Returns the session with an id, if it is live."""
        return self._by_id.get(session_id)

    def of_token(self, token: bytes) -> list[Session]:
        """Returns the sessions of a token, given by what it is known by."""
        return list(self._by_token.get(token, ()))

    def of_subject(self, subject: str) -> list[Session]:
        """Returns the sessions of a user; none in open mode, where there are no users."""
        return list(self._by_subject.get(subject, ()))

    def add(self, session: Session) -> None:
        """Adds a session that is live now; its identity stays."""
        self._by_id[session.id] = session
        who = session.identity
        if who.token:
            self._by_token.setdefault(who.token, {})[session] = None
        if who.subject:
            self._by_subject.setdefault(who.subject, {})[session] = None

    def discard(self, session: Session) -> None:
        """Removes a session that has ended, if it ever was live."""
        if self._by_id.pop(session.id, None) is not None:
            _take_out(self._by_token, session.identity.token, session)
            _take_out(self._by_subject, session.identity.subject, session)


def _take_out(table: dict[K, dict[Session, None]], key: K, session: Session) -> None:
    sessions = table.get(key)
    if sessions is not None:
        del sessions[session]
        if not sessions:
            del table[key]
