"""The live sessions, by id and by token."""

from __future__ import annotations

from clasp_relay.core.sessions import Session


class SessionTable:
    """Knows which sessions are live."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_token: dict[bytes, dict[Session, None]] = {}

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

    def add(self, session: Session) -> None:
        """Adds a session that is live now; its identity stays."""
        self._by_id[session.id] = session
        if session.identity.token:
            self._by_token.setdefault(session.identity.token, {})[session] = None

    def discard(self, session: Session) -> None:
        """Removes a session that has ended, if it ever was live."""
        token = session.identity.token
        if self._by_id.pop(session.id, None) is not None and token:
            sessions = self._by_token[token]
            del sessions[session]
            if not sessions:
                del self._by_token[token]
