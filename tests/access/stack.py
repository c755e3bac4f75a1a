"""Accounts to test with: everything in memory, on a clock that stands still, with cheap hashes."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal, ParamSpec, TypeVar

from argon2 import PasswordHasher
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from clasp_relay.access.accounts import Accounts, Admission
from clasp_relay.access.addresses import hasher_of_addresses
from clasp_relay.access.limits import AttemptLimiter, KnownAddresses, RateLimits
from clasp_relay.access.names import name_keys
from clasp_relay.access.passwords import Passwords, cheap_hasher
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import ADMIN_SCOPES, EndOfToken, TokenRecord, TokenTable
from clasp_relay.storage.users_sqlite import SqliteUsers

P = ParamSpec("P")
T = TypeVar("T")

HOME = "192.0.2.1"
hash_of = hasher_of_addresses(b"key")
START_S = 1_700_000_000
TTL_S = 86_400


class CountingHasher(PasswordHasher):
    """A cheap hasher that counts what it does."""

    def __init__(self, time_cost: int = 1) -> None:
        cheap = cheap_hasher()
        super().__init__(time_cost, cheap.memory_cost, cheap.parallelism, cheap.hash_len, cheap.salt_len)
        self.hashes = 0
        self.verifications = 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        """Counts and hashes."""
        self.hashes += 1
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        """Counts and verifies."""
        self.verifications += 1
        return super().verify(hash, password)


class InlineWorkers:
    """Does everything at once, on the caller's thread."""

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """As :meth:`Workers.run`."""

        def do(_: None) -> T:
            return work(*args, **kwargs)

        return maybeDeferred(admit).addCallback(do)


class SteppedWorkers:
    """Does work when told to, to see what happens in between."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], None]] = []
        self._failures: list[Callable[[Exception], None]] = []

    def run(
        self, lane: str, admit: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Keeps the work for ``step``."""
        done: Deferred[T] = Deferred()

        def step() -> None:
            InlineWorkers().run(lane, admit, work, *args, **kwargs).addCallbacks(done.callback, done.errback)

        self.steps.append(step)
        self._failures.append(done.errback)
        return done

    def step(self, index: int = 0) -> None:
        """Does one piece of work."""
        del self._failures[index]
        self.steps.pop(index)()

    def fail(self, error: Exception) -> None:
        """Has one piece of work fail."""
        del self.steps[0]
        self._failures.pop(0)(error)

    def finish(self) -> None:
        """Does all there is, and what comes of it."""
        while self.steps:
            self.step()


def hexadecimal() -> Callable[[int], str]:
    """Returns a ``random_hex`` that counts."""
    numbers = count(1)
    return lambda size: f"{next(numbers):0{2 * size}x}"


class Stack:
    """A relay's accounts, put together.

    ``restart`` makes them again from the same store; ``ends`` lists the tokens that ended.
    """

    def __init__(
        self,
        store: SqliteUsers | None = None,
        *,
        limits: RateLimits | None = None,
        open_guest_ids: bool = False,
        sql: Workers | None = None,
        hashing: Workers | None = None,
        max_tokens: int = 1000,
        max_per_guest_address: int = 0,
        admission: Admission | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(START_S)
        self.store = SqliteUsers(None, name_keys) if store is None else store
        self.limits = RateLimits() if limits is None else limits
        self.admission = admission
        self.open_guest_ids = open_guest_ids
        self.sql = InlineWorkers() if sql is None else sql
        self.hashing = InlineWorkers() if hashing is None else hashing
        self.hasher = CountingHasher()
        self.max_tokens = max_tokens
        self.max_per_guest_address = max_per_guest_address
        self.random_hex = hexadecimal()
        self.in_use: set[bytes] = set()
        """The digests of the tokens that have live sessions."""
        self.tokens = TokenTable(self.clock, self.clock.seconds)
        self.restart()

    def restart(self) -> None:
        """Makes all but the store again."""
        self.tokens.stop()
        self.ends: list[tuple[str, EndOfToken]] = []
        self.tokens = TokenTable(self.clock, self.clock.seconds, self.max_tokens, self.max_per_guest_address)
        self.tokens.on_end(lambda record, why: self.ends.append((record.subject, why)))
        self.tokens.start()
        self.tokens.tokens_in_use = lambda _subject: self.in_use
        self.known = KnownAddresses(self.clock.seconds)
        self.limiter = AttemptLimiter(self.limits, self.clock.seconds, self.known, hash_of)
        self.accounts = Accounts(
            store=self.store,
            sql=self.sql,
            passwords=Passwords(self.hasher, self.hashing),
            tokens=self.tokens,
            limiter=self.limiter,
            known=self.known,
            hash_of=hash_of,
            scopes_of=scopes_of,
            token_ttl_s=TTL_S,
            open_guest_ids=self.open_guest_ids,
            now_s=self.clock.seconds,
            random_hex=self.random_hex,
            admission=self.admission,
        )


def scopes_of(record: TokenRecord) -> Sequence[str]:
    """Returns the scopes of a token, as a policy would."""
    return ["admin:/**"] if record.scopes_name == ADMIN_SCOPES else [f"read:/{record.subject}/**", "write:/**"]
