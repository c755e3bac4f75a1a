"""The table of valid tokens, in memory, so that a HELLO is answered at once.

The database has the same tokens; a change is committed there first and then made in the table. The table has
tokens by their SHA-256 only. A record takes about 800 bytes, so the table stays below 200 MB.

The clock of a machine without a clock battery begins in the past, and is set when there is a network. Tokens that
were issued before that are *undated*: when the clock is set, their times are moved with it, so that their life time
stays the same.

A token that was refreshed is *replaced*: it ends :data:`REPLACED_END_S` after its successor is first used, since the
answer with the successor may have been lost. From the refresh on its sessions are the successor's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from enum import Enum
from hashlib import sha256
from itertools import islice
from typing import ParamSpec, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.core.session.identity import TOKEN_PREFIX
from clasp_relay.errors import ClaspError
from clasp_relay.logs import events
from clasp_relay.storage.users import TokenRecord

__all__ = [
    "ADMIN_SCOPES",
    "MAX_GUEST_TOKENS_PER_ADDRESS",
    "MAX_TOKENS_PER_SUBJECT",
    "OWN_SCOPES",
    "POLICY_SCOPES",
    "REPLACED_END_S",
    "EndOfToken",
    "TokenError",
    "TokenExpired",
    "TokenRecord",
    "TokenTable",
    "TokenUnknown",
    "digest_of",
    "make_token",
]

P = ParamSpec("P")
K = TypeVar("K", bound=Hashable)

POLICY_SCOPES = "policy"
"""The scopes that the policy gives to every user."""

ADMIN_SCOPES = "admin"
"""``admin:/**``."""

OWN_SCOPES = "own"
"""The scopes in the record: a device token, which the operator made."""

MAX_TOKENS = 250_000
"""Tokens that may be valid at once."""

MAX_GUEST_TOKENS_SHARE = 0.8
"""The share of them that guests may have, so that invented guests cannot keep users from signing in."""

MAX_TOKENS_PER_SUBJECT = 250
"""Tokens of one subject that may be valid at once: more sign-ins a day than anybody needs, and little memory."""

MAX_GUEST_TOKENS_PER_ADDRESS = 1_000
"""Guests' tokens made for one client address that may be valid at once: a school has fewer guests a day."""

REPLACED_END_S = 60
"""Seconds from the first use of a refreshed token to the end of the replaced one; other tabs learn of it meanwhile."""

EARLIEST_CLOCK_S = 1_767_225_600
"""2026-01-01, Unix seconds: a clock that shows an earlier time is not set, since this was written later."""

_LEAST_STEP_S = 60
"""A change of the clock by less is a usual correction, and moves no tokens."""

MAX_EXPIRED = 50_000
"""Expired tokens that are remembered, to answer «expired» instead of «unknown»; the oldest are forgotten first."""

MAX_TOKEN_CHARACTERS = 256
"""Longer tokens are refused without hashing them."""

_LONGEST_SLEEP_S = 1.0
"""The longest delay of an expiry, also when the wall clock is set."""

_EXPIRIES_AT_ONCE = 500
"""Expiries handled in one turn of the event loop."""


class TokenError(ClaspError):
    """The token is not valid."""


class TokenUnknown(TokenError):
    """The token was never issued, was revoked, or expired long ago."""


class TokenExpired(TokenError):
    """The token has expired."""


class EndOfToken(Enum):
    """Why a token ended."""

    EXPIRED = "expired"
    REVOKED = "revoked"


def make_token(random_hex: Callable[[int], str]) -> str:
    """Returns a new token: ``cpsk_`` and 32 lower-case hexadecimal digits (128 bits).

    Args:
        random_hex: as ``secrets.token_hex``.
    """
    return f"{TOKEN_PREFIX}{random_hex(16)}"


def digest_of(token: str) -> bytes:
    """Returns the SHA-256 of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class TokenTable:
    """The valid tokens.

    All methods are for the event loop's thread.

    Args:
        clock: for timers.
        now_s: Unix seconds.
        max_tokens: the most tokens that may be valid at once.
        max_per_guest_address: the most guests' tokens made for one client address; 0 for any number.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now_s: Callable[[], float],
        max_tokens: int = MAX_TOKENS,
        max_per_guest_address: int = MAX_GUEST_TOKENS_PER_ADDRESS,
    ) -> None:
        self.tokens_in_use: Callable[[str], Collection[bytes]] = lambda _subject: ()
        """Returns the digests of a subject's tokens that have a live session."""
        self._clock = clock
        self._now_s = now_s
        self._max_tokens = max_tokens
        self._max_per_guest_address = max_per_guest_address
        self._valid: dict[bytes, TokenRecord] = {}
        self._by_subject: dict[str, list[bytes]] = {}
        """The oldest first."""
        self._by_guest_address: dict[bytes, list[bytes]] = {}
        """Guests' tokens by the client address, the oldest first; empty if any number is allowed."""
        self._replaced: dict[bytes, bytes] = {}
        """Digests of unused tokens, and of the tokens that they replace."""
        self._successors: dict[bytes, bytes] = {}
        """Digests of valid tokens that were refreshed, and of their successors."""
        self._devices: set[bytes] = set()
        """Digests of the device tokens that are not revoked."""
        self._expired: dict[bytes, None] = {}
        self._expiries: list[tuple[int, bytes]] = []
        self._undated: set[bytes] = set()
        """Tokens that were issued while the clock was not set."""
        self._clock_set_from_s = EARLIEST_CLOCK_S
        """Unix seconds; a clock that shows an earlier time is not set."""
        self._offset_s = 0.0
        """Wall clock minus ``clock`` when the undated tokens were issued."""
        self._redate_listeners: list[Callable[[list[bytes], int], None]] = []
        self._end_listeners: list[Callable[[TokenRecord, EndOfToken], None]] = []
        self._replace_listeners: list[Callable[[str, bytes, bytes], None]] = []
        self._use_listeners: list[Callable[[bytes, int], None]] = []
        self._local: set[bytes] = set()
        """Tokens that are not in the database; ``follow_all`` keeps them."""
        self.is_following = False
        """Whether the tokens of the database come by ``follow``, as in a cluster."""
        self._timer: IDelayedCall | None = None
        self._running = False

    def __len__(self) -> int:
        return len(self._valid)

    def on_end(self, callback: Callable[[TokenRecord, EndOfToken], None]) -> None:
        """Adds a callback that is called whenever a token ends, at the same moment."""
        self._end_listeners.append(callback)

    def on_replace(self, callback: Callable[[str, bytes, bytes], None]) -> None:
        """Adds a callback for sessions that pass from one token to another: subject, old digest, new digest."""
        self._replace_listeners.append(callback)

    def on_first_use(self, callback: Callable[[bytes, int], None]) -> None:
        """Adds a callback for the first use of a refreshed token: its digest, and when the replaced token ends."""
        self._use_listeners.append(callback)

    def on_redate(self, callback: Callable[[list[bytes], int], None]) -> None:
        """Adds a callback for when the clock was set: the undated tokens' digests, and by how many seconds."""
        self._redate_listeners.append(callback)

    def load(self, valid: Iterable[TokenRecord], expired: Iterable[bytes] = ()) -> None:
        """Loads the tokens from the database.

        Args:
            valid: tokens that are neither expired nor revoked.
            expired: digests of others that are expired, the last to expire first.
        """
        for digest in reversed(list(expired)):
            self._remember_expired(digest)
        records = sorted(valid, key=lambda record: record.created_s)
        for record in records:
            self._add(record)
        # The clock has shown this time already.
        newest_s = records[-1].created_s if records else 0
        self._clock_set_from_s = max(self._clock_set_from_s, newest_s)
        if self._now_s() < self._clock_set_from_s:
            events.CLOCK_UNSET.log()

    def start(self) -> None:
        """Starts the timer for expiries."""
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        """Stops the timer."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_room(self, guest: bool) -> bool:
        """Tells whether one more token may be issued."""
        return len(self._valid) < self._max_tokens * (MAX_GUEST_TOKENS_SHARE if guest else 1)

    def add(self, record: TokenRecord, *, is_stored: bool = False) -> None:
        """Makes a token valid that is committed, or kept in a file of its own.

        Args:
            record: the token.
            is_stored: whether the database has it; a table that follows the database has it then, too.
        """
        self._check_clock()
        if record.expires_s is not None and self._now_s() < self._clock_set_from_s:
            if not self._undated:
                self._offset_s = self._now_s() - self._clock.seconds()
            self._undated.add(record.digest)
        if not self.is_following:
            self._add(record)
        elif not is_stored:
            self._local.add(record.digest)
            self._add(record)

    def follow(self, record: TokenRecord, *, is_revoked: bool) -> None:
        """Takes over a token as the database has it now, whichever relay has made the change.

        Args:
            record: the token.
            is_revoked: whether it is revoked.
        """
        digest = record.digest
        if is_revoked:
            self.revoke((digest,))
            return
        known = self._valid.get(digest)
        if _is_expired(record, self._now_s()):
            if known is None:
                self._remember_expired(digest)
            else:
                self.end((digest,))
            return
        if known is None:
            self._add(record)
            return
        if record.replaces is None:
            self._replaced.pop(digest, None)
        self._valid[digest] = record
        if record.expires_s is not None and record.expires_s != known.expires_s:
            heapq.heappush(self._expiries, (record.expires_s, digest))
            self._set_timer()

    def follow_all(self, valid: Iterable[TokenRecord], expired: Iterable[bytes]) -> None:
        """Replaces the tokens that the database had before by those that it has now.

        Args:
            valid: tokens that are neither expired nor revoked.
            expired: digests of others that are expired, the last to expire first.
        """
        records = sorted(valid, key=lambda record: record.created_s)
        others = {*self._local, *self._devices, *(record.digest for record in records)}
        self.revoke([digest for digest in self._valid if digest not in others])
        for digest in reversed(list(expired)):
            self._remember_expired(digest)
        for record in records:
            self.follow(record, is_revoked=False)

    def follow_device(self, record: TokenRecord, *, is_revoked: bool) -> None:
        """Takes over one device token as the database has it now; see ``set_devices``."""
        digest = record.digest
        if is_revoked:
            self._devices.discard(digest)
            self.revoke((digest,))
        elif digest not in self._devices:
            self._devices.add(digest)
            if _is_expired(record, self._now_s()):
                self._remember_expired(digest)
            else:
                self._add(record)

    def set_devices(self, records: Iterable[TokenRecord]) -> tuple[int, int]:
        """Makes device tokens valid, and ends those that are no longer among them.

        Args:
            records: all device tokens that are not revoked; they may have expired.

        Returns:
            how many are new, and how many were revoked.
        """
        current = {record.digest: record for record in records}
        revoked = self._devices - current.keys()
        new = current.keys() - self._devices
        self._devices = set(current)
        self.revoke(revoked)
        for digest in new:
            if _is_expired(current[digest], self._now_s()):
                self._remember_expired(digest)
            else:
                self._add(current[digest])
        return len(new), len(revoked)

    def is_local(self, digest: bytes) -> bool:
        """Tells whether a valid token is known to no other relay of the cluster."""
        return digest in self._local

    def is_device(self, digest: bytes) -> bool:
        """Tells whether a token, given by its digest, is a device token that is not revoked."""
        return digest in self._devices

    def _add(self, record: TokenRecord) -> None:
        self._valid[record.digest] = record
        if record.scopes_name != OWN_SCOPES:  # sign-ins must not end device tokens to make room
            self._by_subject.setdefault(record.subject, []).append(record.digest)
        if record.guest and self._max_per_guest_address:
            self._by_guest_address.setdefault(record.made_for, []).append(record.digest)
        if record.expires_s is not None:
            heapq.heappush(self._expiries, (record.expires_s, record.digest))
            self._set_timer()
        if record.replaces is not None:
            self._replace(record.replaces, record)

    def lookup(self, token: str) -> TokenRecord:
        """Returns the record of a token, and counts that as a use.

        Raises:
            TokenExpired: it has expired.
            TokenUnknown: it is not valid.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenUnknown
        self._check_clock()
        digest = digest_of(token)
        record = self._valid.get(digest)
        if record is None:
            raise TokenExpired if digest in self._expired else TokenUnknown
        if _is_expired(record, self._now_s()):
            raise TokenExpired
        if digest in self._replaced:
            self.use(digest)
        return record

    def knows(self, token: str) -> bool:
        """Tells whether a token is valid, or has expired not too long ago."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            return False
        digest = digest_of(token)
        return digest in self._valid or digest in self._expired

    def is_valid(self, digest: bytes) -> bool:
        """Tells whether a token, given by its digest, is valid now."""
        self._check_clock()
        record = self._valid.get(digest)
        return record is not None and not _is_expired(record, self._now_s())

    def find(self, digest: bytes) -> TokenRecord | None:
        """Returns the record of a token that is valid now, given by its digest; this does not count as a use."""
        return self._valid[digest] if self.is_valid(digest) else None

    def has_any(self, subject: str) -> bool:
        """Tells whether a subject has a valid token."""
        return subject in self._by_subject

    def is_user(self, subject: str) -> bool:
        """Tells whether a subject has a valid token that is not a guest's."""
        return any(not self._valid[digest].guest for digest in self._by_subject.get(subject, ()))

    def of_subject(self, subject: str) -> list[bytes]:
        """Returns the digests of a subject's valid tokens, except for device tokens."""
        return list(self._by_subject.get(subject, ()))

    def rename(self, subject: str, username: str) -> None:
        """Gives the bearer of a subject's tokens another name; device tokens keep theirs."""
        for digest in self.of_subject(subject):
            self._valid[digest] = self._valid[digest]._replace(username=username)

    def is_of(self, digest: bytes | None, subject: str) -> bool:
        """Tells whether a token, given by its digest, is valid now and belongs to a subject."""
        return digest is not None and self.is_valid(digest) and self._valid[digest].subject == subject

    def use(self, digest: bytes) -> None:
        """Sets the token that this one replaces to end in ``REPLACED_END_S`` seconds, if this is the first use."""
        old = self._replaced.pop(digest, None)
        if old is None:
            return
        end_s = int(self._now_s()) + REPLACED_END_S
        record = self._valid.get(old)
        if record is not None and (record.expires_s is None or record.expires_s > end_s):
            self._valid[old] = record._replace(expires_s=end_s)
            heapq.heappush(self._expiries, (end_s, old))
            self._set_timer()
        self._tell(self._use_listeners, digest, end_s)

    def surplus(self, record: TokenRecord, *, own_address_only: bool) -> list[bytes]:
        """Returns the tokens that have to end, since a new one exceeds a limit.

        A subject has at most :data:`MAX_TOKENS_PER_SUBJECT`, and the guests of one client address at most
        ``max_per_guest_address``. Tokens without a live session end first, the oldest before the others.

        Args:
            record: the new token.
            own_address_only: whether only those of the subject's tokens count that were made for the same client
                address, since the client did not prove that it is the subject.

        Returns:
            their digests.
        """
        mine = self._by_subject.get(record.subject, [])
        if own_address_only:
            mine = [digest for digest in mine if self._valid[digest].made_for == record.made_for]
        ended = self._choose(mine, len(mine) - MAX_TOKENS_PER_SUBJECT, record.digest)
        if record.guest and self._max_per_guest_address:
            there = self._by_guest_address.get(record.made_for, [])
            if len(there) > self._max_per_guest_address:
                there = [digest for digest in there if digest not in ended]
                ended += self._choose(there, len(there) - self._max_per_guest_address, record.digest)
        return ended

    def end(self, digests: Iterable[bytes]) -> None:
        """Ends tokens to make room, once that is committed; tokens that have ended already are skipped."""
        for digest in digests:
            self._end(digest, EndOfToken.EXPIRED)
        self._forget_expiries()

    def revoke(self, digests: Iterable[bytes]) -> None:
        """Ends tokens whose revocation is committed; tokens that have ended already are skipped."""
        for digest in digests:
            self._end(digest, EndOfToken.REVOKED)
        self._forget_expiries()

    def _choose(self, digests: list[bytes], count: int, spared: bytes) -> list[bytes]:
        """Chooses tokens to end: those without a live session first, the oldest first."""
        if count <= 0:
            return []
        in_use: dict[str, frozenset[bytes]] = {}

        def is_in_use(digest: bytes) -> bool:
            subject = self._valid[digest].subject
            if subject not in in_use:
                in_use[subject] = frozenset(self.tokens_in_use(subject))
            return digest in in_use[subject]

        candidates = [digest for digest in digests if digest != spared]
        idle = list(islice((digest for digest in candidates if not is_in_use(digest)), count))
        chosen = set(idle)
        return idle + [digest for digest in candidates if digest not in chosen][: count - len(idle)]

    def _replace(self, old: bytes, new: TokenRecord) -> None:
        """Passes the sessions of a token to its successor; the answer with an earlier successor may have been lost."""
        self._replaced[new.digest] = old
        earlier = self._successors.get(old)
        if old in self._valid:
            self._successors[old] = new.digest
            self._tell(self._replace_listeners, new.subject, old, new.digest)
        if earlier in self._replaced:
            self._tell(self._replace_listeners, new.subject, earlier, new.digest)

    def _end(self, digest: bytes, why: EndOfToken) -> None:
        record = self._valid.pop(digest, None)
        if record is None:
            return
        self._local.discard(digest)
        _drop(self._by_subject, record.subject, digest)
        _drop(self._by_guest_address, record.made_for, digest)
        successor = self._successors.pop(digest, None)
        if why is EndOfToken.EXPIRED:
            self._remember_expired(digest)
            if successor is not None and self.is_valid(successor):
                # Sessions that have begun since the refresh.
                self._tell(self._replace_listeners, record.subject, digest, successor)
        self._replaced.pop(digest, None)
        self._tell(self._end_listeners, record, why)

    def _forget_expiries(self) -> None:
        if len(self._expiries) > 2 * len(self._valid) + 1000:
            self._expiries = [entry for entry in self._expiries if entry[1] in self._valid]
            heapq.heapify(self._expiries)

    def _check_clock(self) -> None:
        """Moves the times of the undated tokens with the clock, when that is set."""
        if not self._undated:
            return
        now_s = self._now_s()
        step_s = round(now_s - self._clock.seconds() - self._offset_s)
        moved = [digest for digest in self._undated if digest in self._valid]
        if abs(step_s) >= _LEAST_STEP_S and moved:
            self._offset_s += step_s
            for digest in moved:
                record = self._valid[digest]
                assert record.expires_s is not None, "a token without an expiry has no use for a date"
                expires_s = record.expires_s + step_s
                self._valid[digest] = record._replace(created_s=record.created_s + step_s, expires_s=expires_s)
                heapq.heappush(self._expiries, (expires_s, digest))
            events.CLOCK_SET.log(seconds=step_s, count=len(moved))
            self._tell(self._redate_listeners, moved, step_s)
        if now_s >= self._clock_set_from_s:
            self._undated.clear()
        else:
            self._undated.intersection_update(moved)

    def _expire(self) -> None:
        self._timer = None
        self._check_clock()
        now = self._now_s()
        for _ in range(_EXPIRIES_AT_ONCE):
            if not self._expiries or self._expiries[0][0] > now:
                break
            _, digest = heapq.heappop(self._expiries)
            record = self._valid.get(digest)
            # The times of an undated token may have been moved since.
            if record is not None and record.expires_s is not None and record.expires_s <= now:
                self._end(digest, EndOfToken.EXPIRED)
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

    def _tell(self, listeners: Sequence[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        for callback in listeners:
            try:
                callback(*args, **kwargs)
            except Exception:
                # After an exception in one listener the others have to learn of the end of the token, too.
                events.TOKEN_END_FAULT.failure()


def _is_expired(record: TokenRecord, now_s: float) -> bool:
    return record.expires_s is not None and record.expires_s <= now_s


def _drop(index: dict[K, list[bytes]], key: K, digest: bytes) -> None:
    """Removes a token from an index."""
    digests = index.get(key)
    if digests is not None and digest in digests:
        digests.remove(digest)
        if not digests:
            del index[key]
