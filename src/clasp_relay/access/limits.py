"""Rate limits of the auth API: sliding windows in bounded memory.

An attempt counts for the length of the window, from the moment it was made. What counts, and under which
keys, is in ``docs/protocol.md``, Auth API: failed logins per address and username together, per address,
and per username; registrations and guests per address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from clasp_relay.access.addresses import address_group
from clasp_relay.access.policy.document import RateLimits
from clasp_relay.access.refusals import Limited
from clasp_relay.storage.users import ADDRESS_KEPT_S

__all__ = ["AttemptLimiter", "KnownAddresses", "LoginAttempt", "RateLimits", "SlidingWindow"]

MAX_KEYS = 50_000
"""Keys that one window remembers, about 20 MB; to displace those of others, an attacker needs as many addresses."""

_PAIR, _ADDRESS, _USERNAME, _REGISTRATIONS, _GUESTS = range(5)
"""The windows of ``AttemptLimiter``."""

TOO_MANY_FAILURES = "There were too many failed sign-ins."
TOO_MANY_GUESTS = "There were too many guests from your network."
TOO_MANY_REGISTRATIONS = "There were too many registrations from your network."

LOGIN_PER_ADDRESS = 4
"""Failures that one address may make for all usernames, as a multiple of the limit for one."""

LOGIN_PER_USERNAME = 10
"""Failures that all addresses may make for one username, as a multiple of the limit for one."""


class SlidingWindow:
    """Counts attempts per key within the last ``window_s`` seconds.

    Args:
        limit: the attempts of one key within the window.
        window_s: for how many seconds an attempt counts.
        now_s: a monotonic clock, in seconds.
        max_keys: keys that are remembered; beyond it the least recently used are forgotten.
    """

    def __init__(self, limit: int, window_s: float, now_s: Callable[[], float], max_keys: int = MAX_KEYS) -> None:
        self._limit = limit
        self._window_s = window_s
        self._now_s = now_s
        self._max_keys = max_keys
        # In the order of the last attempts, so that expired keys come first.
        self._tries: OrderedDict[Hashable, list[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tries)

    def wait_s(self, key: Hashable) -> float:
        """Returns the seconds until ``key`` has an attempt left; 0 when it has one now."""
        tries = self._tries.get(key)
        if tries is None:
            return 0.0 if self._limit > 0 else self._window_s
        now = self._now_s()
        self._drop_old(tries, now)
        if len(tries) < self._limit:
            return 0.0
        return tries[len(tries) - self._limit] + self._window_s - now

    def add(self, key: Hashable) -> float:
        """Counts an attempt of ``key``; returns its time, for ``take_back``."""
        now = self._now_s()
        tries = self._tries.setdefault(key, [])
        tries.append(now)
        self._tries.move_to_end(key)
        self._drop_old(tries, now)
        self._make_room(now)
        return now

    def take_back(self, key: Hashable, time_s: float) -> None:
        """Removes the attempt for which ``add`` returned this time, if it still counts."""
        tries = self._tries.get(key)
        if tries is None or time_s not in tries:
            return
        tries.remove(time_s)
        if not tries:
            del self._tries[key]

    def take_back_last(self, key: Hashable) -> None:
        """Removes the latest attempt of ``key``, if there is any."""
        tries = self._tries.get(key)
        if tries:
            self.take_back(key, tries[-1])

    def clear(self, key: Hashable) -> None:
        """Forgets all attempts of ``key``."""
        self._tries.pop(key, None)

    def _drop_old(self, tries: list[float], now: float) -> None:
        while tries and tries[0] <= now - self._window_s:
            del tries[0]

    def _make_room(self, now: float) -> None:
        while len(self._tries) > 1:
            key, tries = next(iter(self._tries.items()))
            if tries and tries[-1] > now - self._window_s and len(self._tries) <= self._max_keys:
                return
            del self._tries[key]


class _Key(NamedTuple):
    """A username as a key of fixed size."""

    digest: bytes
    address: str = ""


class Count(NamedTuple):
    """Where an attempt is counted: the window, and the key in it."""

    window: int
    key: _Key | str

    def packed(self) -> tuple[int, bytes, str]:
        """Returns its form for other relays: window, digest of the username, address; empty for none."""
        return (self.window, *self.key) if isinstance(self.key, _Key) else (self.window, b"", self.key)

    @classmethod
    def unpacked(cls, window: int, digest: bytes, address: str) -> Count:
        """Returns the ``Count`` that ``packed`` has encoded."""
        return cls(window, _Key(digest, address) if digest else address)


ADD, TAKE_BACK, SUCCEED = range(3)
"""Operations on counts. A success clears those of the username, and takes back that of the address."""


class KnownAddresses:
    """The addresses from which users signed in within 30 days; failures of others do not lock the user out there.

    Args:
        now_s: Unix seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._last_used_s: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        """Least recently used first."""
        self._users_at: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._last_used_s)

    def add(self, address: bytes, folded_name: str, used_s: float | None = None) -> None:
        """Remembers that a user signed in from an address, given by its keyed hash.

        Args:
            address: the hash.
            folded_name: the username, as ``names.fold_name`` returns it.
            used_s: the time of the sign-in, in Unix seconds; None for now.
        """
        key = (address, folded_name)
        if key not in self._last_used_s:
            self._users_at[address] += 1
        self._last_used_s[key] = self._now_s() if used_s is None else used_s
        self._last_used_s.move_to_end(key)
        if len(self._last_used_s) > MAX_KEYS:
            self._forget_first()

    def knows(self, address: bytes, folded_name: str) -> bool:
        """Tells whether a user has signed in from an address within the last 30 days."""
        self._forget_old()
        return (address, folded_name) in self._last_used_s

    def has_users(self, address: bytes) -> bool:
        """Tells whether any user has signed in from an address within the last 30 days."""
        self._forget_old()
        return address in self._users_at

    def _forget_old(self) -> None:
        old_s = self._now_s() - ADDRESS_KEPT_S
        while self._last_used_s and next(iter(self._last_used_s.values())) <= old_s:
            self._forget_first()

    def _forget_first(self) -> None:
        (address, _), _ = self._last_used_s.popitem(last=False)
        self._users_at[address] -= 1
        if not self._users_at[address]:
            del self._users_at[address]


class AttemptLimiter:
    """All limits of the auth API.

    Args:
        limits: the limits of sign-in and registration.
        now_s: a monotonic clock, in seconds.
        known: the addresses from which users have signed in lately.
        hash_of: returns the keyed hash of a client address.
    """

    def __init__(
        self,
        limits: RateLimits,
        now_s: Callable[[], float],
        known: KnownAddresses,
        hash_of: Callable[[str], bytes],
    ) -> None:
        self._known = known
        self._hash_of = hash_of
        login, window_s = limits.login_max_attempts, limits.login_window_s
        self.by_pair = SlidingWindow(login, window_s, now_s)
        self.by_address = SlidingWindow(login * LOGIN_PER_ADDRESS, window_s, now_s)
        self.by_username = SlidingWindow(login * LOGIN_PER_USERNAME, window_s, now_s)
        self._registrations = SlidingWindow(limits.register_max_attempts, limits.register_window_s, now_s)
        self._guests = SlidingWindow(limits.register_max_attempts, limits.register_window_s, now_s)
        self.windows = (self.by_pair, self.by_address, self.by_username, self._registrations, self._guests)
        self.share: Callable[[int, Sequence[tuple[int, bytes, str]]], None] = _alone
        """Called with what is counted here, to tell the other relays of a cluster."""

    def follow(self, what: int, counts: Sequence[tuple[int, bytes, str]]) -> None:
        """Counts what another relay has counted.

        Args:
            what: ``ADD``, ``TAKE_BACK`` or ``SUCCEED``.
            counts: the counts that the other relay's ``share`` was called with.
        """
        for packed in counts:
            count = Count.unpacked(*packed)
            if count.window >= len(self.windows):
                continue
            window = self.windows[count.window]
            if what == ADD:
                window.add(count.key)
            elif what == TAKE_BACK or count.window == _ADDRESS:
                window.take_back_last(count.key)
            else:
                window.clear(count.key)

    def _count(self, window: int, address: str, sentence: str) -> None:
        key = address_group(address)
        _check(self.windows[window], key, sentence)
        self.windows[window].add(key)
        self.share(ADD, [Count(window, key).packed()])

    def check_registration(self, address: str) -> None:
        """Checks that an address may register one more user.

        Raises:
            Limited: it has registered too many.
        """
        _check(self._registrations, address_group(address), TOO_MANY_REGISTRATIONS)

    def count_registration(self, address: str) -> None:
        """Counts a registration.

        Raises:
            Limited: this address has made too many.
        """
        self._count(_REGISTRATIONS, address, TOO_MANY_REGISTRATIONS)

    def check_guest(self, address: str) -> None:
        """Checks that one more guest may sign in from an address.

        Raises:
            Limited: too many have.
        """
        _check(self._guests, address_group(address), TOO_MANY_GUESTS)

    def count_guest(self, address: str) -> None:
        """Counts a guest.

        Raises:
            Limited: this address has made too many.
        """
        self._count(_GUESTS, address, TOO_MANY_GUESTS)

    def check_address(self, address: str) -> None:
        """Checks the limit of all sign-ins from an address, before the username is known.

        Raises:
            Limited: too many sign-ins from there have failed, and no user has signed in from there lately.
        """
        if not self._known.has_users(self._hash_of(address)):
            _check(self.by_address, address_group(address), TOO_MANY_FAILURES)

    def login(self, address: str, folded_name: str) -> LoginAttempt:
        """Returns an attempt to sign in, not counted yet.

        At an address from which a user has signed in lately, that user has a counter of their own.

        Args:
            address: the client's.
            folded_name: the username, as ``names.fold_name`` returns it.

        Raises:
            Limited: too many have failed.
        """
        is_known = self._known.knows(self._hash_of(address), folded_name)
        attempt = LoginAttempt(self, address_group(address), folded_name, is_known)
        attempt.check()
        return attempt


class LoginAttempt:
    """One attempt to sign in; only a failed one stays counted.

    It counts from :meth:`start`, before the password is verified; otherwise attempts that run at the same
    time would all find the counters below the limit.
    """

    def __init__(self, limiter: AttemptLimiter, address: str, folded_name: str, is_known: bool) -> None:
        name = blake2b(folded_name.encode(), digest_size=16).digest()
        self._limiter = limiter
        self._pair, self._username = Count(_PAIR, _Key(name, address)), Count(_USERNAME, _Key(name))
        self._counts: tuple[Count, ...] = (self._pair,)
        if not is_known:
            self._counts += (Count(_ADDRESS, address), self._username)
        self._times_s: list[float] = []

    def check(self) -> None:
        """Checks that there is an attempt left.

        Raises:
            Limited: too many have failed.
        """
        windows = self._limiter.windows
        _check_wait(max(windows[place].wait_s(key) for place, key in self._counts), TOO_MANY_FAILURES)

    def start(self) -> None:
        """Counts the attempt as failed; ``succeed`` or ``cancel`` may remove it.

        Raises:
            Limited: too many have failed meanwhile.
        """
        self.check()
        self._times_s = [self._limiter.windows[place].add(key) for place, key in self._counts]
        self._share(ADD, self._counts)

    def succeed(self) -> None:
        """Resets the counters of the username, not that of the address: the password was right."""
        names = (self._pair, self._username)
        counts = {*names, *self._take_back()}
        for place, key in names:
            self._limiter.windows[place].clear(key)
        self._share(SUCCEED, counts)

    def cancel(self) -> None:
        """Removes the attempt, since it is not known whether the password was right."""
        counts = self._take_back()
        if counts:
            self._share(TAKE_BACK, counts)

    def _take_back(self) -> Sequence[Count]:
        """Removes what ``start`` has counted, and returns it."""
        if not self._times_s:
            return ()
        for (place, key), time_s in zip(self._counts, self._times_s, strict=True):
            self._limiter.windows[place].take_back(key, time_s)
        self._times_s = []
        return self._counts

    def _share(self, what: int, counts: Iterable[Count]) -> None:
        self._limiter.share(what, [count.packed() for count in counts])


def _check(window: SlidingWindow, key: Hashable, sentence: str) -> None:
    _check_wait(window.wait_s(key), sentence)


def _check_wait(wait_s: float, sentence: str) -> None:
    if wait_s > 0:
        raise Limited(f"{sentence} Try again in {_in_words(wait_s)}.", wait_s)


def _alone(_what: int, _counts: Sequence[tuple[int, bytes, str]]) -> None:
    """Does nothing: without a cluster there are no other relays."""


def _in_words(wait_s: float) -> str:
    seconds = max(1, round(wait_s))
    if seconds < 120:
        return f"{seconds} seconds" if seconds > 1 else "a second"
    return f"{-(-seconds // 60)} minutes"
