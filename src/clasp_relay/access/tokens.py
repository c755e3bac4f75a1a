"""Which tokens are valid now: an index in memory, so that a HELLO is answered at once.

The database has the same tokens; a change is committed there first and then told to the table. A token is
known here by its SHA-256 only. A record takes about 500 bytes, so the table stays below 130 MB.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from enum import Enum
from hashlib import sha256

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.errors import ClaspError
from clasp_relay.logs import events
from clasp_relay.storage.users import TokenRecord

__all__ = [
    "ADMIN_SCOPES",
    "POLICY_SCOPES",
    "EndOfToken",
    "TokenError",
    "TokenExpired",
    "TokenRecord",
    "TokenTable",
    "TokenUnknown",
    "digest_of",
    "make_token",
]


POLICY_SCOPES = "policy"
"""The scopes that the policy gives to every user."""

ADMIN_SCOPES = "admin"
"""``admin:/**``."""

MAX_TOKENS = 250_000
"""Tokens that may be valid at once."""

MAX_GUEST_TOKENS_SHARE = 0.8
"""What part of them guests may have: those who make up guests must not keep users out."""

MAX_EXPIRED = 50_000
"""Expired tokens that are still told from unknown ones; the oldest are forgotten first."""

MAX_TOKEN_CHARACTERS = 256
"""Longer ones are not looked at."""

_LONGEST_SLEEP_S = 1.0
"""The wall clock may be set; an expiry is at most this late all the same."""

_EXPIRIES_AT_ONCE = 500
"""Expiries in one turn of the event loop; the others follow in the next ones."""


class TokenError(ClaspError):
    """A token that lets nobody in."""


class TokenUnknown(TokenError):
    """It was never given out, was revoked, or expired long ago."""


class TokenExpired(TokenError):
    """It was valid once."""


class EndOfToken(Enum):
    """Why a token is valid no longer."""

    EXPIRED = "expired"
    REVOKED = "revoked"


def make_token(random_hex: Callable[[int], str]) -> str:
    """Returns a new token: ``cpsk_`` and 32 lower-case hexadecimal digits (128 bits).

    Args:
        random_hex: as ``secrets.token_hex``.
    """
    return f"cpsk_{random_hex(16)}"


def digest_of(token: str) -> bytes:
    """Returns what a token is known by."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class TokenTable:
    """The valid tokens.

    All methods are for the event loop's thread.

    Args:
        clock: for timers.
        now_s: Unix seconds.
        max_tokens: how many may be valid at once.
    """

    def __init__(self, clock: IReactorTime, now_s: Callable[[], float], max_tokens: int = MAX_TOKENS) -> None:
        self._clock = clock
        self._now_s = now_s
        self._max_tokens = max_tokens
        self._valid: dict[bytes, TokenRecord] = {}
        self._expired: dict[bytes, None] = {}
        self._expiries: list[tuple[int, bytes]] = []
        self._listeners: list[Callable[[TokenRecord, EndOfToken], None]] = []
        self._timer: IDelayedCall | None = None
        self._running = False

    def __len__(self) -> int:
        return len(self._valid)

    def on_end(self, callback: Callable[[TokenRecord, EndOfToken], None]) -> None:
        """Has ``callback`` called whenever a token ends, in the moment that it ends."""
        self._listeners.append(callback)

    def load(self, valid: Iterable[TokenRecord], expired: Iterable[bytes] = ()) -> None:
        """Adds what the database has.

        Args:
            valid: tokens that are neither expired nor revoked.
            expired: digests of others that are expired, the last to expire first.
        """
        for digest in reversed(list(expired)):
            self._remember_expired(digest)
        for record in valid:
            self.add(record)

    def start(self) -> None:
        """Begins to watch for expiries."""
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        """Ends the watch."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_room(self, guest: bool) -> bool:
        """Tells whether one more token may be given out."""
        return len(self._valid) < self._max_tokens * (MAX_GUEST_TOKENS_SHARE if guest else 1)

    def add(self, record: TokenRecord) -> None:
        """Makes a token valid that is committed (or kept in a file of its own)."""
        self._valid[record.digest] = record
        if record.expires_s is not None:
            heapq.heappush(self._expiries, (record.expires_s, record.digest))
            self._set_timer()

    def lookup(self, token: str) -> TokenRecord:
        """Returns what a token stands for.

        Raises:
            TokenExpired: it was valid once.
            TokenUnknown: it is not valid.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenUnknown
        digest = digest_of(token)
        record = self._valid.get(digest)
        if record is None:
            raise TokenExpired if digest in self._expired else TokenUnknown
        if record.expires_s is not None and record.expires_s <= self._now_s():
            raise TokenExpired
        return record

    def is_valid(self, digest: bytes) -> bool:
        """Tells whether a token, given by its digest, is valid now."""
        record = self._valid.get(digest)
        return record is not None and (record.expires_s is None or record.expires_s > self._now_s())

    def revoke(self, digests: Iterable[bytes]) -> None:
        """Ends tokens whose revocation is committed; those that have ended already are passed over."""
        for digest in digests:
            record = self._valid.pop(digest, None)
            if record is not None:
                self._tell(record, EndOfToken.REVOKED)
        if len(self._expiries) > 2 * len(self._valid) + 1000:
            self._expiries = [entry for entry in self._expiries if entry[1] in self._valid]
            heapq.heapify(self._expiries)

    def _expire(self) -> None:
        self._timer = None
        now = self._now_s()
        for _ in range(_EXPIRIES_AT_ONCE):
            if not self._expiries or self._expiries[0][0] > now:
                break
            _, digest = heapq.heappop(self._expiries)
            record = self._valid.pop(digest, None)
            if record is not None:
                self._remember_expired(digest)
                self._tell(record, EndOfToken.EXPIRED)
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._running or not self._expiries:
            return
        delay_s = min(max(self._expiries[0][0] - self._now_s(), 0.0), _LONGEST_SLEEP_S)
        if self._timer is None:
            self._timer = self._clock.callLater(delay_s, self._expire)

    def _remember_expired(self, digest: bytes) -> None:
        self._expired[digest] = None
        if len(self._expired) > MAX_EXPIRED:
            del self._expired[next(iter(self._expired))]

    def _tell(self, record: TokenRecord, why: EndOfToken) -> None:
        for callback in self._listeners:
            try:
                callback(record, why)
            except Exception:
                # One listener's fault must not keep a token alive for the others.
                events.TOKEN_END_FAULT.failure()
