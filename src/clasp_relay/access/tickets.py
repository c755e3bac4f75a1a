"""Tickets: a web page puts one into a URL in place of its token.

A browser's EventSource cannot send a header, and a token in a URL would be written to the logs of every proxy on the
way. A ticket stands for a token once and for a short time, so one that is found in a log gives no access.

The relays of a cluster pass tickets on, since a page's next request may reach another relay. They pass on and keep the
token encrypted, with the ticket as the key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import shake_256
from typing import NamedTuple

from clasp_relay.access.tokens import digest_of

__all__ = ["MAX_TICKETS", "MAX_TICKETS_PER_TOKEN", "TICKET_LIFE_S", "Given", "Tickets"]

TICKET_LIFE_S = 30.0
"""Seconds that a ticket may be used: a page uses it at once, on a slow network a few seconds later."""

MAX_TICKETS = 10_000
"""Tickets at once, of 1 KB each; another one replaces the oldest of the client address that has most."""

MAX_TICKETS_PER_TOKEN = 16
"""Tickets of one token at once; another one replaces the oldest."""


class Given(NamedTuple):
    """A ticket that was issued, as relays keep it and pass it on."""

    digest: bytes
    """The ticket's digest."""
    sealed: bytes
    """The token, encrypted by ``_seal``."""
    owner: bytes
    """The token's digest."""
    address: str
    """The client's address as limits count it (``addresses.address_group``)."""


class Tickets:
    """The tickets that were issued and not used.

    Args:
        now_s: a clock in seconds.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(self, now_s: Callable[[], float], random_hex: Callable[[int], str]) -> None:
        self._now_s = now_s
        self._random_hex = random_hex
        self.when_given: Callable[[Given], None] = _untold
        """Called with each ticket that is issued here."""
        self.when_ended: Callable[[bytes], None] = _untold
        """Called with the digest of each ticket that is used here."""
        self._tickets: dict[bytes, tuple[Given, float]] = {}
        """By digest, each with the time of its end; the oldest first."""
        self._at: Counter[str] = Counter()
        """Number of tickets by client address."""
        self._of_token: dict[bytes, list[bytes]] = {}
        """Digests of tickets by the token's digest, the oldest first."""

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, token: str, address: str) -> str:
        """Returns a new ticket, ``cpst_`` and 32 hexadecimal digits.

        Args:
            token: the token that it stands for; valid now.
            address: the client's address as limits count it (``addresses.address_group``).
        """
        ticket = f"cpst_{self._random_hex(16)}"
        given = Given(digest_of(ticket), _seal(ticket, token.encode()), digest_of(token), address)
        self.learn(given)
        self.when_given(given)
        return ticket

    def learn(self, given: Given) -> None:
        """Adds a ticket of this relay, or of another one of its cluster."""
        self._end_old()
        own = self._of_token.get(given.owner, [])
        if len(own) >= MAX_TICKETS_PER_TOKEN:
            self._remove(own[0])
        elif len(self._tickets) >= MAX_TICKETS:
            # The oldest is removed at the address with most tickets, so that no address can displace those of others.
            most, _ = self._at.most_common(1)[0]
            self._remove(next(digest for digest, (other, _) in self._tickets.items() if other.address == most))
        self._tickets[given.digest] = given, self._now_s() + TICKET_LIFE_S
        self._at[given.address] += 1
        self._of_token.setdefault(given.owner, []).append(given.digest)

    def knows(self, ticket: str) -> bool:
        """Tells whether a ticket may be used."""
        self._end_old()
        return digest_of(ticket) in self._tickets

    def take(self, ticket: str) -> str | None:
        """Returns the token that a ticket stands for, once; None if it was used, has expired or never existed."""
        if not self.knows(ticket):
            return None
        given = self._remove(digest_of(ticket))
        self.when_ended(given.digest)
        return _seal(ticket, given.sealed).decode()

    def forget(self, digest: bytes) -> None:
        """Removes a ticket, given by its digest, that was used at another relay."""
        if digest in self._tickets:
            self._remove(digest)

    def _end_old(self) -> None:
        now_s = self._now_s()
        while self._tickets:
            digest, (_, ends_s) = next(iter(self._tickets.items()))
            if ends_s > now_s:
                return
            self._remove(digest)

    def _remove(self, digest: bytes) -> Given:
        given, _ = self._tickets.pop(digest)
        self._at[given.address] -= 1
        if not self._at[given.address]:
            del self._at[given.address]
        own = self._of_token[given.owner]
        own.remove(digest)
        if not own:
            del self._of_token[given.owner]
        return given


def _seal(ticket: str, data: bytes) -> bytes:
    """Encrypts a token with a ticket, which is random and used for this token only, or decrypts it."""
    mask = shake_256(b"clasp ticket " + ticket.encode("utf-8", "surrogatepass")).digest(len(data))
    return bytes(one ^ other for one, other in zip(data, mask, strict=True))


def _untold(_about: object) -> None:
    """Does nothing: without a cluster there are no other relays."""
