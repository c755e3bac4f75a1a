"""Which live sessions hold an address that means «I am here», so that closing one tab does not end another's."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clasp_relay.core.session.sessions import Session


class Holds:
    """For the addresses that a policy asks about: the sessions that set them and have not ended them since."""

    def __init__(self) -> None:
        self._sessions: defaultdict[str, dict[Session, str]] = defaultdict(dict)
        self._addresses: defaultdict[Session, set[str]] = defaultdict(set)

    def is_held(self, address: str, subject: str) -> bool:
        """Tells whether a live session of a subject holds an address."""
        return subject in self._sessions[address].values() if address in self._sessions else False

    def take(self, address: str, session: Session) -> None:
        """Notes that a session set an address."""
        self._sessions[address][session] = session.identity.subject
        self._addresses[session].add(address)

    def end(self, address: str, session: Session | None) -> None:
        """Notes a null: one's own ends one's own hold, another subject's or an expiry (None) ends them all."""
        if address not in self._sessions:
            return
        subject = None if session is None else session.identity.subject
        for holder, held_by in list(self._sessions[address].items()):
            if holder is session or held_by != subject:
                self._drop(address, holder)

    def forget(self, session: Session) -> list[str]:
        """Forgets a session that has ended, and returns the addresses it held."""
        addresses = list(self._addresses.get(session, ()))
        for address in addresses:
            self._drop(address, session)
        return addresses

    def _drop(self, address: str, session: Session) -> None:
        del self._sessions[address][session]
        if not self._sessions[address]:
            del self._sessions[address]
        self._addresses[session].discard(address)
        if not self._addresses[session]:
            del self._addresses[session]
