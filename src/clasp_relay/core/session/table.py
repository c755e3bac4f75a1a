"""The live sessions, by id and subject."""

from __future__ import annotations

from clasp_relay.core.session.sessions import Session


class SessionTable:
    """Knows which sessions are live."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_subject: dict[str, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._by_id

    def get(self, session_id: str) -> Session | None:
        """Returns the session with an id, if it is live."""
        return self._by_id.get(session_id)

    def of_token(self, subject: str, token: bytes) -> list[Session]:
        """Returns the sessions of one of a user's tokens, given by what it is known by."""
        return [session for session in self._by_subject.get(subject, ()) if session.identity.token == token]

    def of_subject(self, subject: str) -> list[Session]:
        """Returns the sessions of a user; none in open mode, where there are no users."""
        return list(self._by_subject.get(subject, ()))

    def add(self, session: Session) -> None:
        """Adds a session that is live now; its identity stays."""
        self._by_id[session.id] = session
        if session.identity.subject:
            self._by_subject.setdefault(session.identity.subject, {})[session] = None

    def discard(self, session: Session) -> None:
        """Removes a session that has ended, if it ever was live."""
        if self._by_id.pop(session.id, None) is not None:
            sessions = self._by_subject.get(session.identity.subject)
            if sessions is not None:
                del sessions[session]
                if not sessions:
                    del self._by_subject[session.identity.subject]
