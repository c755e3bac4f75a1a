"""The table of params: values, revisions, life times, locks, and limits of the state.

A :class:`Param` is an immutable record of one accepted change; every write makes a new one. So a waiting SNAPSHOT, or
the save of the state file, keeps the state as it captured it. Everything that alters the table is a ``Change`` and
passes :meth:`Params.apply`, which only ``core.commit`` calls. The rules are in ``docs/protocol.md``, Params.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from clasp_relay.core.records import Change, ChangeKind, Ended, Param, StateImage, param_bytes, text_bytes
from clasp_relay.core.state.expiry import Expiry
from clasp_relay.core.state.locks import Locks
from clasp_relay.core.state.reserved import Reserved
from clasp_relay.core.state.shares import Excess, Move, ShareLimits, Shares
from clasp_relay.core.state.tombstones import Tombstones
from clasp_relay.core.state.tree import AddressTree
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL, Value

_WRITE = ChangeKind.WRITE

RESERVE = 10
"""A tenth of the state is reserved for subjects that have little, so that people can still enter a full relay."""

SMALL_BYTES = 64 * 1024
"""Bytes of state up to which a subject has little."""

ADDRESSES = 16
"""Nor does the client address of one that has little have more in all than a sixteenth of the reserve: subjects are had
for nothing, addresses are not."""

SHORT_LIFE_S = 3_600
"""Params with a life time of up to an hour are written again and again, so little is lost when one ends early."""

MATCH_COST = 256
"""The cost of a search for one decision of a policy, as ``tree.FIND_COST``: at most 0.1 ms, since a bundle has a
decision for each member."""

LOOKED_AT = 256
"""Params that are examined, at most, to find some to evict: some ms of work, with telling their ends."""


@dataclass(frozen=True, slots=True)
class ParamLimits:
    """The limits of the state.

    Args:
        max_params: number of addresses.
        max_state_bytes: addresses and values together.
        default_ttl_s: sliding life time of params without a TTL, in seconds; 0 for unlimited.
        subject: the share of one user.
        origin: the share of one client address.
        exempt_subject: the subject whose params are not counted in shares (the operator's own token).
    """

    max_params: int = 100_000
    max_state_bytes: int = 256 * 1024 * 1024
    default_ttl_s: int = 0
    subject: ShareLimits = field(default_factory=ShareLimits)
    origin: ShareLimits = field(default_factory=ShareLimits)
    exempt_subject: str = ""


class Params:
    """The table of params.

    Args:
        limits: its limits.
    """

    def __init__(self, limits: ParamLimits) -> None:
        self._limits = limits
        self.expires_by_default = limits.default_ttl_s != 0
        """Whether params without a TTL end by themselves."""
        self._params: dict[str, Param] = {}
        self.get: Callable[[str], Param | None] = self._params.get
        """Returns what is set at an address."""
        self._tree = AddressTree()
        self._tombstones = Tombstones(limits.max_params, limits.max_state_bytes)
        self.locks = Locks()
        self.holder: Callable[[str], str | None] = self.locks.holder
        """Returns the session that holds the lock of an address."""
        self._expiry = Expiry()
        self._by_subject = Shares(limits.subject, "one user")
        self._by_origin = Shares(limits.origin, "all users of one client address together")
        self.state_bytes = 0
        self.replaced_bytes = 0
        """Bytes of values that were replaced or deleted since the start."""
        self.changes = 0
        """Increases with every change of the image."""
        self.reserved = Reserved()
        """The addresses at which only one bundle may write for a moment."""

    def __len__(self) -> int:
        return len(self._params)

    @property
    def shares(self) -> Shares:
        """The shares of subjects."""
        return self._by_subject

    def all(self) -> list[Param]:
        """Returns every param, captured in one step."""
        return list(self._params.values())

    def match(self, pattern: Pattern) -> Iterator[Param]:
        """Yields params whose addresses match: all of them up to some 200, else the oldest ones.

        For decisions, of which one turn may make many. If any param matches, at least one is found.

        Raises:
            TooMuchError: too many other params would have to be examined to find a match.
        """
        if pattern.is_literal:
            param = self._params.get(pattern.text)
            return iter(() if param is None else (param,))
        return map(self._params.__getitem__, self._tree.first(pattern, MATCH_COST))

    def find(self, pattern: Pattern) -> list[Param] | None:
        """Returns the params whose addresses match, or None if the search would take too long for one turn."""
        if pattern.is_literal:
            return list(self.match(pattern))
        addresses = self._tree.find(pattern)
        return None if addresses is None else [self._params[address] for address in addresses]

    def search(self, pattern: Pattern, max_cost: int) -> tuple[list[str], bool]:
        """Returns matching addresses that a search of bounded cost finds, and whether these are all."""
        if pattern.is_literal:
            return ([pattern.text] if pattern.text in self._params else []), True
        return self._tree.search(pattern, max_cost)

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address ended; None if that is not known."""
        return self._tombstones.get(address)

    def last_revision(self, address: str) -> int:
        """Returns the last revision of an address, also of a deleted one; 0 if none is known."""
        param = self._params.get(address)
        if param is not None:
            return param.revision
        ended = self.ended(address)
        return 0 if ended is None else ended.revision

    def renewal(self, address: str, now_us: int) -> Change | None:
        """Returns the change by which a GET renews the life time of a param, not yet applied.

        Returns:
            None if there is nothing to renew: no life time, or one that counts from the write. The access still counts
            as the latest use, for evictions.
        """
        if address not in self._expiry:
            return None
        param = self._params[address]
        lifetime_s, is_sliding = self._lifetime(param.ttl)
        if not is_sliding:
            self._expiry.touch(address)
            return None
        return Change(param, ChangeKind.RENEWAL, ttl=lifetime_s, due_us=now_us + lifetime_s * 1_000_000)

    def due_us(self, ttl: int | None, written_us: int) -> int | None:
        """Returns when a param ends, from its TTL as on the wire and the time of its write (both times in Unix µs)."""
        lifetime_s, _ = self._lifetime(ttl)
        return written_us + lifetime_s * 1_000_000 if lifetime_s else None

    def has_room(self, param: Param) -> bool:
        """Tells whether one written param certainly fits, with all that the accepted bundle writes; the usual case."""
        address, value = param.address, param.value
        before = self._params.get(address)
        if (
            before is not None
            and len(value) <= len(before.value)
            and not param.sent_as
            and before.subject == param.subject
            and before.origin == param.origin
        ):
            return True
        _, _, _, _, _, _, subject, origin, sent_as = param
        before_bytes = 0 if before is None else len(before.value) + len(before.sent_as)
        more_bytes = len(value) + len(sent_as) - before_bytes
        if before is None:
            more_bytes += 4 * len(address)
        if before is None or more_bytes > 0:
            max_params, max_bytes = self._room_of(subject, origin)
            if self.reserved.is_used:
                max_params, max_bytes = max_params - self.reserved.more_params, max_bytes - self.reserved.more_bytes
            if (
                before is None and len(self._params) + self._tombstones.stamped >= max_params
            ) or self.state_bytes + more_bytes > max_bytes:
                return False
        if before is not None:
            more_bytes += 4 * len(address) + before_bytes
        owner, place = self._owners(subject, origin)
        more_params = self.reserved.more_params
        more_bytes += self.reserved.more_bytes
        return self._by_subject.has_room(owner, more_bytes, more_params) and self._by_origin.has_room(
            place, more_bytes, more_params
        )

    def victims(
        self, changes: Iterable[Change], stamp_of: Callable[[str, Value], str | None] = lambda _address, _value: None
    ) -> list[str]:
        """Decides what must be evicted so that changes fit; nothing is changed.

        Args:
            changes: the writes that will be applied together, by one subject from one client address, each address
                once.
            stamp_of: which subject a stamp would name past the null of an address and its value
                (``Permissions.stamp_of``).

        Returns:
            the addresses to evict first: the least recently used params that have a life time. If a share is full, only
            params of the writer that count for it; if the relay is full, only params of the writer, unless it has
            little (``SMALL_BYTES``).

        Raises:
            RequestError: OVERLOADED if not enough can be evicted.
        """
        writes = {change.param.address: change for change in changes}
        if not writes:
            return []
        chosen: dict[str, bool] = {}
        first = next(iter(writes.values())).param
        subject, origin = first.subject, first.origin
        for excess in self._by_subject.excess(self._moves(writes, by_origin=False)):
            self._choose(chosen, writes, excess.owner, None, excess, stamp_of)
        for excess in self._by_origin.excess(self._moves(writes, by_origin=True)):
            self._choose(chosen, writes, subject, excess.owner, excess, stamp_of)
        over_params, over_bytes = self._over(writes.values(), subject, origin)
        if over_params > 0 or over_bytes > 0:
            what = "max-params" if over_params > 0 else "max-state-bytes"
            text = f"the relay is full ({what}); delete something first"
            refusal = RequestError(ErrorCode.OVERLOADED, text, next(iter(writes)))
            of = None if self._has_little(subject, origin) else subject
            self._choose(chosen, writes, of, None, Excess("", over_params, over_bytes, refusal), stamp_of)
        return list(chosen)

    def _choose(
        self,
        chosen: dict[str, bool],
        writes: Mapping[str, Change],
        subject: str | None,
        origin: str | None,
        excess: Excess,
        stamp_of: Callable[[str, Value], str | None],
    ) -> None:
        """Chooses further params to evict: of one subject and one origin, or of any (None).

        ``chosen`` says for each address whether its tombstone has a stamp: that is still counted, but for no origin.
        """
        _, over_params, over_bytes, refusal = excess
        for address, stays in chosen.items():
            if origin is None or self._params[address].origin == origin:
                places, freed_bytes = _freed(self._params[address], stays=stays and origin is None)
                over_params -= places
                over_bytes -= freed_bytes
        for address in islice(self._expiry.least_recent(subject), LOOKED_AT):
            if over_params <= 0 and over_bytes <= 0:
                return
            param = self._params[address]
            if (
                address in writes
                or address in chosen
                or address in self.reserved
                or (origin is not None and param.origin != origin)
            ):
                continue
            stays = stamp_of(address, param.value) is not None
            places, freed_bytes = _freed(param, stays=stays and origin is None)
            if places or over_bytes > 0:
                chosen[address] = stays
                over_params -= places
                over_bytes -= freed_bytes
        if over_params > 0 or over_bytes > 0:
            raise refusal.again()

    def _moves(self, writes: Mapping[str, Change], *, by_origin: bool) -> Iterator[Move]:
        for address, change in writes.items():
            subject, origin, before_bytes = self._place(address)
            after_subject, after_origin, after_bytes = _place_after(change)
            before, after = self._owners(subject, origin), self._owners(after_subject, after_origin)
            is_written = change.param.value != NULL
            yield Move(address, before[by_origin], before_bytes, after[by_origin], after_bytes, is_written)

    def _over(self, changes: Iterable[Change], subject: str, origin: str) -> tuple[int, int]:
        """Returns by how many params and bytes a subject's writes from a client address exceed what it may use."""
        more_params = more_bytes = 0
        for change in changes:
            _, _, before_bytes = self._place(change.param.address)
            _, _, after_bytes = _place_after(change)
            more_params += bool(after_bytes) - bool(before_bytes)
            more_bytes += after_bytes - before_bytes
        max_params, max_bytes = self._room_of(subject, origin)
        over_params = len(self._params) + self._tombstones.stamped + more_params - max_params if more_params > 0 else 0
        return over_params, self.state_bytes + more_bytes - max_bytes if more_bytes > 0 else 0

    def _room_of(self, subject: str, origin: str) -> tuple[int, int]:
        """Returns how many params and bytes there may be in all when a subject writes from a client address."""
        limits = self._limits
        if self._has_little(subject, origin):
            return limits.max_params, limits.max_state_bytes
        max_params, max_bytes = limits.max_params, limits.max_state_bytes
        return max_params - max_params // RESERVE, max_bytes - max_bytes // RESERVE

    def _has_little(self, subject: str, origin: str) -> bool:
        """Tells whether a subject may use the reserve from a client address; without limits every subject may."""
        limits, owned = self._limits, self._by_origin
        if not self._by_subject.is_limited or not subject or subject == limits.exempt_subject:
            return True
        if self._by_subject.bytes_of(subject) >= SMALL_BYTES:
            return False
        if not origin or not owned.is_limited:
            return True
        max_bytes = limits.max_state_bytes // RESERVE // ADDRESSES
        max_params = max(1, limits.max_params // RESERVE // ADDRESSES)
        return owned.bytes_of(origin) < max_bytes and owned.params_of(origin) < max_params

    def _owners(self, subject: str, origin: str) -> tuple[str, str]:
        """Returns the user and the client address that a param counts for."""
        return ("", "") if subject == self._limits.exempt_subject else (subject, origin)

    def replace(self, change: Change) -> bool:
        """Applies a usual write in one step, in half the time of ``has_room`` and ``apply``.

        A usual write replaces a value of equal length, of the same subject and origin, without life time and lock.

        Returns:
            Whether it was a usual write; else nothing has changed.
        """
        param, _, _, unlock, _, takes_lock, _, due_us, _, _ = change
        address, value, _, _, _, _, subject, origin, sent_as = param
        before = self.get(address)
        if before is None or due_us is not None or unlock or takes_lock or sent_as:
            return False
        _, value_before, _, _, _, _, subject_before, origin_before, sent_as_before = before
        size_bytes = len(value)
        # A null is shorter than any value that is set.
        if (
            size_bytes != len(value_before)
            or subject != subject_before
            or origin != origin_before
            or sent_as_before
            or address in self._expiry.due_us
        ):
            return False
        self.changes += 1
        self.replaced_bytes += size_bytes
        self._params[address] = param
        return True

    def apply(self, change: Change) -> None:
        """Applies one change. Nothing else alters what the table keeps but ``replace``.

        Args:
            change: a WRITE, RENEWAL or LOCK_RELEASE.
        """
        self.changes += 1
        param, kind, _, unlock, _, takes_lock, stamp, due_us, _, _ = change
        if kind is not _WRITE:
            self._apply_without_value(change)
            return
        address, value, _, writer, _, _, subject, origin, sent_as = param
        before = self._params.get(address)
        if value == NULL:
            self.locks.release(address)
            self._remove(address, before)
            self._remember(address, Ended(param.revision, param.timestamp_us, subject, stamp))
            return
        self._params[address] = param
        if before is None:
            self._tree.add(address)
            self._forget(address)
            self.state_bytes += text_bytes(address) + len(value) + len(sent_as)
            self._count(param)
        else:
            before_bytes = len(before.value)
            more_bytes = len(value) - before_bytes
            if sent_as or before.sent_as:
                more_bytes += len(sent_as) - len(before.sent_as)
            self.replaced_bytes += before_bytes
            if more_bytes:
                self.state_bytes += more_bytes
            if before.subject != subject or before.origin != origin:
                self._uncount(before)
                self._count(param)
            elif more_bytes:
                owner, place = self._owners(subject, origin)
                self._by_subject.resize(owner, more_bytes)
                self._by_origin.resize(place, more_bytes)
        if due_us is not None:
            self._expiry.set(address, due_us, subject)
        elif address in self._expiry.due_us:
            self._expiry.discard(address)
        if unlock:
            self.locks.release(address)
        elif takes_lock:
            self.locks.take(address, writer, param.timestamp_us)

    def _apply_without_value(self, change: Change) -> None:
        """Applies a change that sets nothing."""
        address = change.param.address
        if change.kind is ChangeKind.RENEWAL:
            assert change.due_us is not None, "a renewal without a time"
            self._expiry.set(address, change.due_us, change.param.subject)
        else:
            assert change.kind is ChangeKind.LOCK_RELEASE, f"{change.kind!r} is not about a param"
            self.locks.release(address)

    def expired(self, now_us: int, at_most: int) -> list[str]:
        """Returns the addresses of expired params, in the order of their expiry.

        Args:
            now_us: Unix µs.
            at_most: limit of the result; the next call returns the others. While ``is_behind`` fewer may be returned.
        """
        return self._expiry.due(now_us, at_most)

    @property
    def is_behind(self) -> bool:
        """Whether the last call of ``expired`` did not look at all params that may have expired."""
        return self._expiry.is_behind

    def ends_us(self, address: str) -> int | None:
        """Returns when the param at an address ends by itself, in Unix µs; None for never."""
        return self._expiry.due_us.get(address)

    def null_of(self, address: str, now_us: int) -> Param:
        """Returns the null that ends a param which expired or is evicted, not yet applied."""
        param = self._params[address]
        return Param(address, NULL, param.revision + 1, "", now_us, param.ttl)

    def image(self) -> StateImage:
        """Captures everything that survives a restart, by reference."""
        return StateImage(self.all(), self._tombstones.all(), self._expiry.snapshot())

    def load(self, image: StateImage, now_us: int | None = None) -> None:
        """Restores a captured state; the table must be empty.

        Args:
            image: the state.
            now_us: Unix µs. The machine's clock may have been wrong, or may be wrong now: a param that was written
                later than this time and has a life time of at most ``SHORT_LIFE_S``, such as a presence, begins its
                life time at this time. Longer life times stay as they are, so that a wrong clock does not end them.
                None to keep all times.
        """
        for param in image.params:
            self._params[param.address] = param
            self._tree.add(param.address)
            self.state_bytes += param_bytes(param)
            self._count(param)
            due_us = image.expires_us.get(param.address)
            if due_us is None:
                due_us = self.due_us(param.ttl, param.timestamp_us)
            if due_us is not None:
                if now_us is not None and now_us < param.timestamp_us:
                    due_us = self._due_if_postdated(param, due_us, now_us)
                self._expiry.set(param.address, due_us, param.subject)
        for address, ended in image.ended:
            self._remember(address, ended)

    def load_locks(self, locks: Iterable[tuple[str, str, int]]) -> None:
        """Sets the locks as another relay has them: address, holder, and when each was taken, in Unix µs."""
        for address, _, _ in self.locks.all():
            self.locks.release(address)
        for address, holder, taken_us in locks:
            self.locks.take(address, holder, taken_us)

    def _due_if_postdated(self, param: Param, due_us: int, now_us: int) -> int:
        """Returns when a param ends whose time of writing is in the future."""
        lifetime_s, _ = self._lifetime(param.ttl)
        return min(due_us, now_us + lifetime_s * 1_000_000) if 0 < lifetime_s <= SHORT_LIFE_S else due_us

    def _lifetime(self, ttl: int | None) -> tuple[int, bool]:
        """Returns the life time in seconds (0: unlimited), and whether an access renews it."""
        if ttl is None:
            return self._limits.default_ttl_s, True
        return ttl & ~TTL_ABSOLUTE, not ttl & TTL_ABSOLUTE

    def _remove(self, address: str, before: Param | None) -> None:
        if before is not None:
            del self._params[address]
            self._tree.discard(address)
            self._expiry.discard(address)
            self.state_bytes -= param_bytes(before)
            self.replaced_bytes += len(before.value)
            self._uncount(before)

    def _remember(self, address: str, ended: Ended) -> None:
        self._forget(address)
        self._tombstones.remember(address, ended)
        if ended.stamp is not None:
            size_bytes = text_bytes(address)
            self.state_bytes += size_bytes
            self._by_subject.add(self._owners(ended.stamp, "")[0], size_bytes)

    def _forget(self, address: str) -> None:
        """Removes the tombstone of an address."""
        ended = self._tombstones.forget(address)
        if ended is not None and ended.stamp is not None:
            size_bytes = text_bytes(address)
            self.state_bytes -= size_bytes
            self._by_subject.remove(self._owners(ended.stamp, "")[0], size_bytes)

    def _count(self, param: Param) -> None:
        owner, place = self._owners(param.subject, param.origin)
        size_bytes = param_bytes(param)
        self._by_subject.add(owner, size_bytes)
        self._by_origin.add(place, size_bytes)

    def _uncount(self, param: Param) -> None:
        owner, place = self._owners(param.subject, param.origin)
        size_bytes = param_bytes(param)
        self._by_subject.remove(owner, size_bytes)
        self._by_origin.remove(place, size_bytes)

    def _place(self, address: str) -> tuple[str, str, int]:
        """Returns the subject and origin that an address counts for, and its bytes; 0 for none."""
        param = self._params.get(address)
        if param is not None:
            return param.subject, param.origin, param_bytes(param)
        ended = self._tombstones.get(address)
        if ended is not None and ended.stamp is not None:
            return ended.stamp, "", text_bytes(address)
        return "", "", 0


def _place_after(change: Change) -> tuple[str, str, int]:
    """Returns the subject and origin that an address counts for after a write, and its bytes."""
    param = change.param
    if param.value != NULL:
        return param.subject, param.origin, param_bytes(param)
    return ("", "", 0) if change.stamp is None else (change.stamp, "", text_bytes(param.address))


def _freed(param: Param, *, stays: bool) -> tuple[int, int]:
    """Returns how many params and bytes the end of a param frees; fewer if its tombstone has a stamp."""
    return (0, len(param.value) + len(param.sent_as)) if stays else (1, param_bytes(param))
