"""Tickets: what a web page puts into a URL instead of its token.

A browser's EventSource cannot send a header, and a token in a URL would reach the logs of every proxy on the way. A
ticket stands for a token once and for a short time, so that one which is found in a log opens nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from clasp_relay.access.tokens import digest_of

__all__ = ["MAX_TICKETS", "MAX_TICKETS_PER_TOKEN", "TICKET_LIFE_S", "Tickets"]

TICKET_LIFE_S = 30.0
"""How long a ticket may be used: a page uses it at once, on a slow network a few seconds later."""

MAX_TICKETS = 10_000
"""Tickets at once, of 1 KB each; another one takes the place of the oldest of the client address that has most."""

MAX_TICKETS_PER_TOKEN = 16
"""Tickets of one token at once; another one takes the place of the oldest."""


class Tickets:
    """The tickets that were given out and not used.

    Args:
        now_s: a clock in seconds.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(self, now_s: Callable[[], float], random_hex: Callable[[int], str]) -> None:
        self._now_s = now_s
        self._random_hex = random_hex
        self._tickets: dict[bytes, tuple[str, float, str]] = {}
        """The token that each stands for, by the digest of the ticket, when its life ends, and the client address; the
        oldest first."""
        self._at: Counter[str] = Counter()
        """How many there are by client address."""
        self._of_token: dict[str, list[bytes]] = {}
        """The same by token, the oldest first."""

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, token: str, address: str) -> str:
        """Returns a new ticket, ``cpst_`` and 32 hexadecimal digits.

        Args:
            token: what it stands for; valid now.
            address: what the client's address counts as.
        """
        self._end_old()
        own = self._of_token.get(token, [])
        if len(own) >= MAX_TICKETS_PER_TOKEN:
            self._remove(own[0])
        elif len(self._tickets) >= MAX_TICKETS:
            # Nobody is refused since a stranger asks for many.
            most, _ = self._at.most_common(1)[0]
            self._remove(next(digest for digest, (_, _, at) in self._tickets.items() if at == most))
        ticket = f"cpst_{self._random_hex(16)}"
        digest = digest_of(ticket)
        self._tickets[digest] = (token, self._now_s() + TICKET_LIFE_S, address)
        self._at[address] += 1
        self._of_token.setdefault(token, []).append(digest)
        return ticket

    def take(self, ticket: str) -> str | None:
        """Returns the token that a ticket stands for, once; None for one that was used, is too old or never was."""
        self._end_old()
        digest = digest_of(ticket)
        return self._remove(digest) if digest in self._tickets else None

    def _end_old(self) -> None:
        now_s = self._now_s()
        while self._tickets:
            digest, (_, ends_s, _) = next(iter(self._tickets.items()))
            if ends_s > now_s:
                return
            self._remove(digest)

    def _remove(self, digest: bytes) -> str:
        token, _, address = self._tickets.pop(digest)
        self._at[address] -= 1
        if not self._at[address]:
            del self._at[address]
        own = self._of_token[token]
        own.remove(digest)
        if not own:
            del self._of_token[token]
        return token
