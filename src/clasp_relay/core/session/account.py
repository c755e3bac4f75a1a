"""Accounts of the memory that sessions take, in bytes: for each session, its subject and its client address.

Code that keeps something for a session adds its approximate size here, and subtracts it later. What a session asks for
is refused if its account would exceed a limit (:meth:`Account.take`). What others cause, such as values that wait for
maxRate, is added in any case (:meth:`Account.add`); the code that keeps it drops the oldest while the account is over
its limit. The limits are in ``docs/operations.md``, Limits.
"""

from __future__ import annotations

from enum import IntEnum

from clasp_relay.errors import ErrorCode, RequestError

SHARED_FACTOR = 4
"""The limit of one subject, and of one client address, as a multiple of the limit of one session."""


class MemoryKind(IntEnum):
    """The kinds of memory that are counted; the names in lower case are labels of the metric."""

    SUBSCRIPTIONS = 0
    """Subscriptions, their patterns, and the nodes that lead to these."""

    SNAPSHOTS = 1
    """Waiting SNAPSHOTs and RESULTs."""

    THROTTLES = 2
    """The last values for maxRate and epsilon, and messages that are held back."""

    GESTURES = 3
    """Gestures under way."""

    BUNDLES = 4
    """Scheduled bundles; they stay when their session ends, until they are due."""

    MESSAGES = 5
    """Waiting messages: behind one that is being handled, or at a door for a client without a connection."""


_CURE = {
    MemoryKind.SUBSCRIPTIONS: "end a subscription first, or use fewer and shorter patterns",
    MemoryKind.SNAPSHOTS: "read what waits before you ask for more",
    MemoryKind.BUNDLES: "wait until scheduled bundles are due",
    MemoryKind.MESSAGES: "wait for the answers to what you sent before",
}


class Account:
    """The account of one session.

    Args:
        accounts: all accounts.
        subject: the session's subject; empty in open mode.
        origin: the origin of its client address; empty if addresses are not counted.
    """

    __slots__ = ("_accounts", "_origin", "_subject", "bytes")

    def __init__(self, accounts: Accounts, subject: str, origin: str) -> None:
        self._accounts = accounts
        self._subject = subject
        self._origin = origin
        self.bytes = 0
        """The bytes that are counted."""

    @property
    def is_over(self) -> bool:
        """Whether the session, its subject or its client address is over its limit."""
        return self._accounts.excess(self, self._subject, self._origin, 0) is not None

    def check(self, kind: MemoryKind, size_bytes: int, about: str | None = None) -> None:
        """Refuses more memory if it would exceed a limit.

        Args:
            kind: the kind of memory.
            size_bytes: the additional size.
            about: the address or pattern that the ERROR names.

        Raises:
            RequestError: LIMIT, with the limit, and how to free memory.
        """
        excess = self._accounts.excess(self, self._subject, self._origin, size_bytes)
        if excess is not None:
            text = f"too much is kept for you: more than {excess} with these {kind.name.lower()}; {_CURE[kind]}"
            raise RequestError(ErrorCode.LIMIT, text, about)

    def take(self, kind: MemoryKind, size_bytes: int, about: str | None = None) -> None:
        """Adds a size, or refuses it; see ``check``."""
        if self._accounts.excess(self, self._subject, self._origin, size_bytes) is not None:
            self.check(kind, size_bytes, about)
        self.bytes += size_bytes
        self._accounts.add(kind, self._subject, self._origin, size_bytes)

    def add(self, kind: MemoryKind, size_bytes: int) -> None:
        """Adds a size; a negative size subtracts."""
        self.bytes += size_bytes
        self._accounts.add(kind, self._subject, self._origin, size_bytes)


class Accounts:
    """The accounts of all sessions.

    Args:
        max_bytes: the limit of one session; 0 for no limit.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        self._by_subject: dict[str, int] = {}
        self._by_origin: dict[str, int] = {}
        self.bytes = [0] * len(MemoryKind)
        """The bytes that are counted, by kind."""

    def open(self, subject: str, origin: str) -> Account:
        """Returns the account of a new session."""
        return Account(self, subject, origin)

    def excess(self, account: Account, subject: str, origin: str, more_bytes: int) -> str | None:
        """Returns the limit that a further size would exceed, as the end of a sentence; None for none."""
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

    def add(self, kind: MemoryKind, subject: str, origin: str, size_bytes: int) -> None:
        """Adds a size; a negative size subtracts."""
        self.bytes[kind] += size_bytes
        for kept, owner in ((self._by_subject, subject), (self._by_origin, origin)):
            if owner:
                left = kept.get(owner, 0) + size_bytes
                if left:
                    kept[owner] = left
                else:
                    kept.pop(owner, None)  # an owner may have no entry: a size of 0 was added


UNCOUNTED = Accounts().open("", "")
"""The account of sessions before their HELLO, for which nothing is counted."""
