"""What is kept in memory for sessions, in bytes: counted for each session, its subject and its client address.

Whoever keeps something for a session counts it here by a size that is close to what it takes, and counts it back when
it goes. What a session asks for is refused where too much is kept for it (:meth:`Account.take`); what others cause
(values that wait for maxRate) is counted all the same (:meth:`Account.add`), and whoever keeps it lets the oldest go
while the account is over its limit. The numbers are in ``docs/operations.md``, Limits.
"""

from __future__ import annotations

from enum import IntEnum

from clasp_relay.errors import ErrorCode, RequestError

SHARED_FACTOR = 4
"""How many sessions' worth may be kept for one subject, and for one client address."""


class Kept(IntEnum):
    """What is kept for a session; the names in lower case are labels of the metric."""

    SUBSCRIPTIONS = 0
    """Subscriptions, their patterns, and the nodes that lead to these."""

    SNAPSHOTS = 1
    """SNAPSHOTs and RESULTs that wait."""

    THROTTLES = 2
    """What maxRate and epsilon remember and hold back."""

    GESTURES = 3
    """Gestures under way."""

    BUNDLES = 4
    """Scheduled bundles; they stay when their session ends, until they are due."""

    MESSAGES = 5
    """Messages that wait: behind one that is at work, or at a door for a client without a connection."""


_CURE = {
    Kept.SUBSCRIPTIONS: "end a subscription first, or use fewer and shorter patterns",
    Kept.SNAPSHOTS: "read what waits before you ask for more",
    Kept.BUNDLES: "wait until scheduled bundles are due",
    Kept.MESSAGES: "wait for the answers to what you sent before",
}


class Account:
    """What is kept for one session.

    Args:
        accounts: all accounts.
        subject: whose session it is; empty in open mode.
        origin: what its client address counts as; empty where it counts for nobody.
    """

    __slots__ = ("_accounts", "_origin", "_subject", "bytes")

    def __init__(self, accounts: Accounts, subject: str, origin: str) -> None:
        self._accounts = accounts
        self._subject = subject
        self._origin = origin
        self.bytes = 0
        """How much is kept."""

    @property
    def is_over(self) -> bool:
        """Whether more is kept than may be: for the session, its subject or its client address."""
        return self._accounts.excess(self, self._subject, self._origin, 0) is not None

    def check(self, kind: Kept, size_bytes: int, about: str | None = None) -> None:
        """Refuses to keep more where that is too much.

        Args:
            kind: what is to be kept.
            size_bytes: how much more it takes.
            about: the address or pattern that the ERROR names.

        Raises:
            RequestError: LIMIT, with what there is too much of and how to free it.
        """
        excess = self._accounts.excess(self, self._subject, self._origin, size_bytes)
        if excess is not None:
            text = f"too much is kept for you: more than {excess} with these {kind.name.lower()}; {_CURE[kind]}"
            raise RequestError(ErrorCode.LIMIT, text, about)

    def take(self, kind: Kept, size_bytes: int, about: str | None = None) -> None:
        """Counts what is kept from now on, or refuses it; see ``check``."""
        self.check(kind, size_bytes, about)
        self.bytes += size_bytes
        self._accounts.add(kind, self._subject, self._origin, size_bytes)

    def add(self, kind: Kept, size_bytes: int) -> None:
        """Counts what is kept from now on, or with a negative size what is kept no longer."""
        self.bytes += size_bytes
        self._accounts.add(kind, self._subject, self._origin, size_bytes)


class Accounts:
    """What is kept for all sessions.

    Args:
        max_bytes: how much may be kept for one session; 0 for no limit.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        self._by_subject: dict[str, int] = {}
        self._by_origin: dict[str, int] = {}
        self.bytes = [0] * len(Kept)
        """How much is kept, by its kind."""

    def open(self, subject: str, origin: str) -> Account:
        """Returns the account of a new session."""
        return Account(self, subject, origin)

    def excess(self, account: Account, subject: str, origin: str, more_bytes: int) -> str | None:
        """Returns which limit an account exceeds with so much more, as the end of a sentence; None for none."""
        limit = self._max_bytes
        if not limit:
            return None
        if account.bytes + more_bytes > limit:
            return f"{limit} bytes for this session (max-session-memory)"
        shared = SHARED_FACTOR * limit
        for kept, owner, whose in (
            (self._by_subject, subject, "the sessions of your user"),
            (self._by_origin, origin, "the sessions of your client address"),
        ):
            if owner and kept.get(owner, 0) + more_bytes > shared:
                return f"{shared} bytes for {whose} ({SHARED_FACTOR} times max-session-memory)"
        return None

    def add(self, kind: Kept, subject: str, origin: str, size_bytes: int) -> None:
        """Counts what is kept from now on, or with a negative size what is kept no longer."""
        self.bytes[kind] += size_bytes
        for kept, owner in ((self._by_subject, subject), (self._by_origin, origin)):
            if owner:
                left = kept.get(owner, 0) + size_bytes
                if left:
                    kept[owner] = left
                else:
                    kept.pop(owner, None)  # nothing may come to nothing that was never counted


UNCOUNTED = Accounts().open("", "")
"""The account of sessions before their HELLO, for which nothing is kept yet."""
