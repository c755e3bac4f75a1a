"""Which live sessions hold an address that means «I am here», so that closing one tab does not end another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from clasp_relay.core.sessions import Session


K = TypeVar("K", "Session", str)
V = TypeVar("V", "Session", str)


class Holds:
    """For the addresses that a policy asks about: the sessions that set them and have not ended them since.

    Nearly all are held by one session, and nearly every session holds one, so these are tuples: a table for each
    would take four times as much.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[Session, ...]] = {}
        self._addresses: dict[Session, tuple[str, ...]] = {}

    def is_held(self, address: str, subject: str) -> bool:
        """Tells whether a live session of a subject holds an address."""
        return any(session.identity.subject == subject for session in self._sessions.get(address, ()))

    def take(self, address: str, session: Session) -> None:
        """Notes that a session set an address."""
        holders = self._sessions.get(address, ())
        if session not in holders:
            self._sessions[address] = (*holders, session)
            self._addresses[session] = (*self._addresses.get(session, ()), address)

    def end(self, address: str, session: Session | None) -> None:
        """Notes a null: one's own ends one's own hold, another subject's or an expiry (None) ends them all."""
        subject = None if session is None else session.identity.subject
        for holder in self._sessions.get(address, ()):
            if holder is session or holder.identity.subject != subject:
                _take_out(self._sessions, address, holder)
                _take_out(self._addresses, holder, address)

    def forget(self, session: Session) -> tuple[str, ...]:
        """Forgets a session that has ended, and returns the addresses it held."""
        addresses = self._addresses.pop(session, ())
        for address in addresses:
            _take_out(self._sessions, address, session)
        return addresses


def _take_out(table: dict[K, tuple[V, ...]], key: K, item: V) -> None:
    left = tuple(each for each in table[key] if each != item)
    if left:
        table[key] = left
    else:
        del table[key]
