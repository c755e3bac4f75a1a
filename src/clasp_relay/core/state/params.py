"""What is set at every address: values, revisions, locks, life time, capacity.

A :class:`Param` is an immutable record of one accepted change, made anew by every write, so that whoever
holds one (a waiting SNAPSHOT, the state file's writer) holds what was true when it took it. All changes pass
:meth:`Params.apply`, one record each. The rules are in ``docs/protocol.md``, Params.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from clasp_relay.core.records import Outcome, Param, StateImage
from clasp_relay.core.sizes import param_bytes, text_bytes
from clasp_relay.core.state.expiry import Expiry
from clasp_relay.core.state.locks import Locks
from clasp_relay.core.state.presence import Holds
from clasp_relay.core.state.shares import Move, Shares
from clasp_relay.core.state.tombstones import Ended, Tombstones
from clasp_relay.core.state.tree import AddressTree
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL


@dataclass(frozen=True, slots=True)
class ParamLimits:
    """How much may be set.

    Args:
        max_params: how many addresses.
        max_state_bytes: addresses and values together.
        max_per_subject: how many addresses one subject may have written last; 0 for no limit.
        default_ttl_s: sliding life time of params that bring none; 0 for ever.
    """

    max_params: int = 100_000
    max_state_bytes: int = 256 * 1024 * 1024
    max_per_subject: int = 0
    default_ttl_s: int = 0


class Params:
    """The table of params.

    Args:
        limits: how much it may hold.
    """

    def __init__(self, limits: ParamLimits) -> None:
        self._limits = limits
        self._params: dict[str, Param] = {}
        self.get: Callable[[str], Param | None] = self._params.get
        """Returns what is set at an address."""
        self._tree = AddressTree()
        self._tombstones = Tombstones(limits.max_params, limits.max_state_bytes)
        self._locks = Locks()
        self.holder: Callable[[str], str | None] = self._locks.holder
        """Returns the session that holds the lock of an address."""
        self._expiry = Expiry()
        self._shares = Shares(limits.max_per_subject)
        self.state_bytes = 0
        self.holds = Holds()
        """Who is there, where a policy asks."""
        self.changes = 0
        """Rises with whatever changes the image."""

    def __len__(self) -> int:
        return len(self._params)

    def all(self) -> list[Param]:
        """Returns every param, captured in one step."""
        return list(self._params.values())

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """Yields the params whose address matches; the cost follows what matches."""
        if pattern.is_literal:
            param = self._params.get(pattern.text)
            return iter(() if param is None else (param,))
        return map(self._params.__getitem__, self._tree.match(pattern))

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address ended, as far as that is remembered."""
        return self._tombstones.get(address)

    def last_revision(self, address: str) -> int:
        """Returns the last revision of an address, also of a deleted one; 0 when none is known."""
        param = self._params.get(address)
        if param is not None:
            return param.revision
        ended = self.ended(address)
        return 0 if ended is None else ended.revision

    def is_held(self, address: str, subject: str) -> bool:
        """Tells whether a live session of a subject holds an address."""
        return self.holds.is_held(address, subject)

    def renew(self, address: str, now_us: int) -> None:
        """Counts a GET as an access: a sliding life time starts again."""
        if address in self._expiry:
            lifetime_s, sliding = self._lifetime(self._params[address].ttl)
            if sliding:
                self._expiry.set(address, now_us + lifetime_s * 1_000_000, self._params[address].subject)
                self.changes += 1
            else:
                self._expiry.touch(address)

    def has_room(self, change: Param) -> bool:
        """Tells whether one change surely fits; the usual case."""
        address, value, _, _, _, _, subject = change
        before = self._params.get(address)
        if before is None or len(value) > len(before.value):
            limits = self._limits
            if (
                len(self._params) + self._tombstones.stamped >= limits.max_params
                or self.state_bytes + 4 * len(address) + len(value) > limits.max_state_bytes
            ):
                return False
        return (before is not None and subject == before.subject) or self._shares.has_room(subject)

    def victims(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Decides what must go so that changes fit; nothing is changed.

        Args:
            outcomes: what will be applied together, each address once.

        Returns:
            the addresses to evict first: the least recently used params that have a life time; those of a subject
            that would have more than its share are its own.

        Raises:
            RequestError: OVERLOADED when the changes do not fit all the same.
        """
        more_params = more_bytes = 0
        moves: dict[str, Move] = {}
        for outcome in outcomes:
            address = outcome.change.address
            before, before_bytes = self._place(address)
            after, after_bytes = _place_of(outcome)
            moves[address] = Move(address, before, after, outcome.change.value != NULL)
            more_params += bool(after_bytes) - bool(before_bytes)
            more_bytes += after_bytes - before_bytes
        chosen = self._victims_of_shares(moves)
        over_params = over_bytes = 0
        if more_params > 0:
            over_params = len(self._params) + self._tombstones.stamped + more_params - self._limits.max_params
        if more_bytes > 0:
            over_bytes = self.state_bytes + more_bytes - self._limits.max_state_bytes
        over_params -= len(chosen)
        over_bytes -= sum(param_bytes(self._params[address]) for address in chosen)
        for address in self._expiry.least_recent():
            if over_params <= 0 and over_bytes <= 0:
                break
            if address not in moves and address not in chosen:
                chosen[address] = None
                over_params -= 1
                over_bytes -= param_bytes(self._params[address])
        if over_params > 0 or over_bytes > 0:
            what = "max-params" if over_params > 0 else "max-state-bytes"
            text = f"the relay is full ({what}); delete something first"
            raise RequestError(ErrorCode.OVERLOADED, text, next(iter(moves)))
        return list(chosen)

    def _victims_of_shares(self, moves: dict[str, Move]) -> dict[str, None]:
        chosen: dict[str, None] = {}
        for subject, over, refusal in self._shares.excess(moves.values()):
            own = (address for address in self._expiry.least_recent(subject) if address not in moves)
            going = list(islice(own, over))
            if len(going) < over:
                raise refusal
            chosen.update(dict.fromkeys(going))
        return chosen

    def apply(self, change: Param, lock: bool = False, unlock: bool = False, stamp: str | None = None) -> None:
        """Applies one accepted change: the one place that every change of state passes.

        Args:
            change: the record.
            lock: its writer takes the lock.
            unlock: its writer gives the lock up.
            stamp: the subject that a policy's stamp names, where it outlives a null.
        """
        self.changes += 1
        address, value, _, _, _, ttl, subject = change
        before = self._params.get(address)
        if value == NULL:
            self._locks.release(address)
            self._remove(address, before)
            self._remember(address, Ended(change.revision, change.timestamp_us, subject, stamp))
            return
        self._params[address] = change
        if before is None:
            self._tree.add(address)
            self.state_bytes += text_bytes(address) + len(value)
            owner = self._forget(address)
        else:
            self.state_bytes += len(value) - len(before.value)
            owner = before.subject
        if owner != subject:
            self._shares.move(owner, subject)
        if ttl or self._limits.default_ttl_s or address in self._expiry.due_us:
            self._schedule(change)
        if unlock:
            self._locks.release(address)
        elif lock:
            self._locks.take(address, change.writer)

    def release_all(self, holder: str) -> None:
        """Releases the locks of a session."""
        self._locks.release_all(holder)

    def expired(self, now_us: int, at_most: int) -> list[Param]:
        """Returns params whose time is over, as the nulls that end them; they are not applied yet.

        Args:
            now_us: Unix µs.
            at_most: how many; the others come next time.
        """
        return [self.end(address, now_us) for address in self._expiry.due(now_us, at_most)]

    def end(self, address: str, now_us: int) -> Param:
        """Returns the null that ends a param which expired or was evicted; it is not applied yet."""
        param = self._params[address]
        return param._replace(value=NULL, revision=param.revision + 1, timestamp_us=now_us, subject="")

    def image(self) -> StateImage:
        """Captures all that survives a restart, by reference."""
        return StateImage(self.all(), self._tombstones.all(), self._expiry.snapshot())

    def load(self, image: StateImage) -> None:
        """Takes a state as it was captured; the table must be empty."""
        for param in image.params:
            self._params[param.address] = param
            self._tree.add(param.address)
            self.state_bytes += param_bytes(param)
            self._shares.move("", param.subject)
            due_us = image.expires_us.get(param.address)
            if due_us is not None:
                self._expiry.set(param.address, due_us, param.subject)
            elif param.ttl or self._limits.default_ttl_s:
                self._schedule(param)
        for address, ended in image.ended:
            self._remember(address, ended)

    def _schedule(self, change: Param) -> None:
        lifetime_s, _ = self._lifetime(change.ttl)
        if lifetime_s:
            self._expiry.set(change.address, change.timestamp_us + lifetime_s * 1_000_000, change.subject)
        else:
            self._expiry.discard(change.address)

    def _lifetime(self, ttl: int | None) -> tuple[int, bool]:
        """Returns seconds (0: for ever) and whether an access renews them."""
        if ttl is None:
            return self._limits.default_ttl_s, True
        return ttl & ~TTL_ABSOLUTE, not ttl & TTL_ABSOLUTE

    def _remove(self, address: str, before: Param | None) -> None:
        if before is not None:
            del self._params[address]
            self._tree.discard(address)
            self._expiry.discard(address)
            self.state_bytes -= param_bytes(before)
            self._shares.move(before.subject, "")

    def _remember(self, address: str, ended: Ended) -> None:
        owner = self._forget(address)
        self._tombstones.remember(address, ended)
        if ended.stamp is not None:
            self.state_bytes += text_bytes(address)
        self._shares.move(owner, ended.stamp or "")

    def _forget(self, address: str) -> str:
        """Forgets how an address ended, and returns who had it past that."""
        ended = self._tombstones.forget(address)
        if ended is None or ended.stamp is None:
            return ""
        self.state_bytes -= text_bytes(address)
        return ended.stamp

    def _place(self, address: str) -> tuple[str, int]:
        """Returns who has an address and the bytes that are counted for it; 0 when nothing is."""
        param = self._params.get(address)
        if param is not None:
            return param.subject, param_bytes(param)
        ended = self._tombstones.get(address)
        if ended is not None and ended.stamp is not None:
            return ended.stamp, text_bytes(address)
        return "", 0


def _place_of(outcome: Outcome) -> tuple[str, int]:
    change = outcome.change
    if change.value != NULL:
        return change.subject, param_bytes(change)
    return ("", 0) if outcome.stamp is None else (outcome.stamp, text_bytes(change.address))
