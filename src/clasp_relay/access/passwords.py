"""Password hashes: Argon2id, made and verified off the event loop.

Each hash takes :data:`MEMORY_COST_KIB`; at most :data:`HASHES_AT_ONCE` are made at once, so all of them
together take 76 MiB.
"""

from __future__ import annotations

from collections.abc import Callable

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import ARGON2_VERSION, Type

from clasp_relay.access.threads import Workers
from clasp_relay.logs import events

__all__ = [
    "HASHES_AT_ONCE",
    "MAX_WAITING_HASHES",
    "MAX_WAITING_HASHES_PER_ADDRESS",
    "Passwords",
    "cheap_hasher",
    "make_hasher",
]

MEMORY_COST_KIB = 19_456
TIME_COST = 2
PARALLELISM = 1
"""OWASP's minimum for Argon2id (Password Storage Cheat Sheet), and the parameters of the Rust relay."""

HASHES_AT_ONCE = 4
MAX_WAITING_HASHES = 256
"""Length of the queue for hashes; a full queue is worked off within seconds."""

MAX_WAITING_HASHES_PER_ADDRESS = 8
"""Hashes of one client address that may be queued, so that many requests of one address delay no other address."""


def make_hasher() -> PasswordHasher:
    """Returns the hasher for production."""
    return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_COST_KIB, parallelism=PARALLELISM)


def cheap_hasher() -> PasswordHasher:
    """Returns a hasher for tests: fast, and its hashes do not protect passwords."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=16, salt_len=8)


class Passwords:
    """Makes and verifies password hashes.

    Args:
        hasher: with the parameters for new hashes.
        workers: where hashing is done.
    """

    def __init__(self, hasher: PasswordHasher, workers: Workers) -> None:
        self._hasher = hasher
        self._workers = workers
        self._nobodys_hash = hasher.hash("nobody has this password")

    async def hash(self, password: str, address: str) -> str:
        """Returns a new hash, as a PHC string.

        Args:
            password: what was typed.
            address: the client's address as limits count it (``addresses.address_group``); these are served in turn.

        Raises:
            Busy: too many hashes are waiting, in all or for this address.
        """
        return await self._workers.run(address, _always, self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str, address: str, admit: Callable[[], None]) -> bool:
        """Tells whether a password is the one that was hashed.

        It costs the same whether or not there is a hash, since the time of an answer must not tell who
        has an account.

        Args:
            stored: the hash; None when there is no such user.
            password: what was typed.
            address: as for ``hash``.
            admit: called just before the work begins; its exceptions are raised here.

        Raises:
            Busy: too many hashes are waiting, in all or for this address.
        """
        return await self._workers.run(address, admit, self._verify, stored, password)

    def _verify(self, stored: str | None, password: str) -> bool:
        if stored is not None:
            try:
                return self._hasher.verify(stored, password)
            except VerifyMismatchError:
                return False
            except (InvalidHashError, VerificationError):
                # Nothing was computed, so a hash is verified below, to take the same time.
                events.AUTH_HASH_UNREADABLE.log()
        try:
            self._hasher.verify(self._nobodys_hash, password)
        except VerifyMismatchError:
            return False
        return False

    def is_weaker(self, stored: str) -> bool:
        """Tells whether a stored hash is easier to break than a new one would be."""
        parameters = extract_parameters(stored)
        return (
            parameters.type is not Type.ID
            or parameters.version < ARGON2_VERSION
            or parameters.memory_cost * parameters.time_cost < self._hasher.memory_cost * self._hasher.time_cost
            or parameters.hash_len < self._hasher.hash_len
        )


def _always() -> None:
    """Does nothing: admits every call."""
