"""Which live sessions are present at an address, so that closing one tab does not end another's presence.

Only addresses that a policy asks about are tracked (``Permissions.tracks_presence``).
"""

from __future__ import annotations

from itertools import islice


class Presence:
    """For each tracked address: the sessions that set it, until somebody ends it or they end themselves."""

    def __init__(self) -> None:
        self._subjects: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._subjects.values()))

    def is_present(self, address: str, subject: str) -> bool:
        """Tells whether a live session of a subject is present at an address."""
        sessions = self._subjects.get(address)
        return sessions is not None and subject in sessions.values()

    def enter(self, address: str, session_id: str, subject: str) -> None:
        """Notes that a session set an address."""
        self._subjects.setdefault(address, {})[session_id] = subject
        self._addresses.setdefault(session_id, {})[address] = None

    def end(self, address: str) -> None:
        """Notes a null: it ends the presence of every session, whoever wrote it."""
        for session_id in self._subjects.pop(address, ()):
            self._forget(address, session_id)

    def leave(self, address: str, session_id: str) -> None:
        """Notes that a session which was present at an address has ended."""
        sessions = self._subjects[address]
        del sessions[session_id]
        if not sessions:
            del self._subjects[address]
        self._forget(address, session_id)

    def of(self, session_id: str, at_most: int | None = None) -> list[str]:
        """Returns the addresses at which a session is present, some of them or all."""
        return list(islice(self._addresses.get(session_id, ()), at_most))

    def _forget(self, address: str, session_id: str) -> None:
        addresses = self._addresses[session_id]
        del addresses[address]
        if not addresses:
            del self._addresses[session_id]
