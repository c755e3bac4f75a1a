"""Who sees what: the verdicts of the permissions, kept until something that they rest on changes.

This is the one place that every way out asks: fan-out, the snapshots after HELLO, SUBSCRIBE and GET, and
QUERY. Verdicts are kept per rule and what it captures of an address (all messages of one room, say), reader
and, where it counts, pattern; which of them looked at an address is known, so a change there puts exactly
those in doubt.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Param
from clasp_relay.core.rights.memory import Dependents
from clasp_relay.core.rights.port import FULL, Permissions, Verdict, View, Viewing
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal

if TYPE_CHECKING:
    from clasp_relay.core.fanout.recipients import Split
    from clasp_relay.core.fanout.subscriptions import Route

MAX_VERDICTS = 50_000
"""How many verdicts are kept (about 1 kB each); then all are forgotten."""

MAX_ADDRESSES = 16_384
"""Of how many addresses it is remembered what decides about them; then it is found anew."""

MAX_REMEMBERED_ADDRESS = 256
"""Longer addresses are found anew every time, so that what is remembered stays small."""

JUDGED_AT_ONCE = 64
"""How many params of a snapshot are judged before it is asked whether that was enough for a turn."""

PIECE_COST = 1024
"""So many params are judged in one turn, if it is known what decides about them: 1 ms of work."""

FIND_COST = 2
"""For how many params it counts where that has to be found first."""

Key: TypeAlias = tuple[str, Pattern | None]
"""A reader, and its pattern where that counts."""


class Viewed:
    """The verdicts about the addresses that one thing decides about, by their readers.

    Args:
        viewing: what decides.
    """

    __slots__ = ("doubtful", "generation", "splits", "until_us", "verdicts", "viewing")

    def __init__(self, viewing: Viewing) -> None:
        self.viewing = viewing
        self.verdicts: dict[Key, Verdict] = {}
        self.doubtful: set[Key] | None = None
        self.until_us: int | None = None
        self.generation = 0
        """Another one after a view has changed: what was worked out from the views before is outdated."""
        self.splits: dict[tuple[Route, Signal], Split] = {}
        """Who gets what by one route; kept by the deliveries."""

    def doubt(self, key: Key) -> None:
        """Has a verdict made anew before it counts again."""
        if self.doubtful is None:
            # Most are never in doubt, and an empty set takes 216 bytes.
            self.doubtful = set()
        self.doubtful.add(key)


class Visibility:
    """Decides who sees what.

    Args:
        permissions: what decides.
        params: the state that decisions look at.
        clock: when is now.
    """

    def __init__(self, permissions: Permissions, params: Params, clock: Clock) -> None:
        self._permissions = permissions
        self._is_open = permissions.is_open
        self._params = params
        self._clock = clock
        self._viewed: dict[tuple[Hashable, bool], Viewed] = {}
        self._in_snapshots: dict[str, Viewed | None] = {}
        self._live: dict[str, Viewed | None] = {} if permissions.tells_live_apart else self._in_snapshots
        self._dependents: Dependents[tuple[Viewed, Key]] = Dependents()
        self._count = 0
        self._found = 0

    def of(self, address: str, is_live: bool) -> Viewed | None:
        """Returns the verdicts about an address; None where everybody sees it as it is.

        Args:
            address: where the value is.
            is_live: whether it is on its way to a subscriber, and not in a snapshot.
        """
        if self._is_open:
            return None
        known = self._live if is_live else self._in_snapshots
        viewed = known.get(address)
        if viewed is not None or address in known:
            return viewed
        viewed = self._find(address, is_live and known is not self._in_snapshots)
        if len(address) <= MAX_REMEMBERED_ADDRESS:
            if len(known) >= MAX_ADDRESSES:
                known.clear()
            known[address] = viewed
        return viewed

    def view(self, viewed: Viewed, session: Session, address: str, pattern: Pattern | None) -> View:
        """Returns how a session sees an address.

        Args:
            viewed: the verdicts about the address.
            session: the reader.
            address: where the value is.
            pattern: the subscription's, or the literal address of a GET; None for the HELLO snapshot.
        """
        if self._permissions.sees_all(session.identity, address):
            return FULL
        return self._view(viewed, session, pattern)

    def show(self, params: list[Param], session: Session, pattern: Pattern | None) -> list[Param]:
        """Returns params as a session sees them in a snapshot: some hidden, some without some keys."""
        if self._is_open:
            return params
        shown = []
        known = self._in_snapshots
        last: Viewed | None = None
        view: View = FULL
        for param in params:
            viewed = known.get(param.address) or self.of(param.address, is_live=False)
            if viewed is not None and viewed is not last:
                # Params in a row are mostly of one room, and seen alike.
                last, view = viewed, self._view(viewed, session, pattern)
            if viewed is None or view == FULL or self._permissions.sees_all(session.identity, param.address):
                shown.append(param)
            elif view is not None:
                shown.append(param._replace(value=self._permissions.redact(param.value, view)))
        return shown

    def show_in_pieces(
        self, params: list[Param], session: Session, pattern: Pattern | None
    ) -> Iterator[list[Param] | None]:
        """Yields, some at a time, params as a session sees them, and None where others should have their turn.

        They are judged when they are asked for, so that nobody waits until a hundred thousand are. What has changed
        since is left out: of that the session was told when it changed, as far as it may see it.

        Args:
            params: what was set when the snapshot was asked for.
            session: the reader.
            pattern: as for ``view``; for None the reader's scopes count too.
        """
        piece: list[Param] = []
        cost, found = 0, self._found
        get = self._params.get
        for start in range(0, len(params), JUDGED_AT_ONCE):
            current = [param for param in params[start : start + JUDGED_AT_ONCE] if get(param.address) is param]
            if pattern is None:
                who = session.identity
                current = [param for param in current if self._permissions.can_read(who, param.address)]
            piece += self.show(current, session, pattern)
            cost += JUDGED_AT_ONCE
            if cost + FIND_COST * (self._found - found) >= PIECE_COST:
                yield piece
                yield None
                piece, cost, found = [], 0, self._found
        yield piece

    def is_shown(self, session: Session, address: str, pattern: Pattern | None) -> bool:
        """Tells whether a session sees that there is something at an address."""
        viewed = self.of(address, is_live=False)
        return viewed is None or self.view(viewed, session, address, pattern) is not None

    def refresh(self, viewed: Viewed) -> None:
        """Judges anew what is in doubt about an address, and what has ended by itself."""
        if viewed.until_us is not None and self._clock.now_us() >= viewed.until_us:
            now_us = self._clock.now_us()
            viewed.until_us = None
            for key, verdict in viewed.verdicts.items():
                if verdict.until_us is not None:
                    if verdict.until_us <= now_us:
                        viewed.doubt(key)
                    else:
                        _shorten(viewed, verdict.until_us)
        if viewed.doubtful:
            doubtful, viewed.doubtful = viewed.doubtful, None
            for key in doubtful:
                before = viewed.verdicts.pop(key, None)
                if before is not None:
                    self._count -= 1
                    if self._judge(viewed, key).view != before.view:
                        viewed.generation += 1

    def changed(self, address: str, exists: bool, existed: bool) -> None:
        """Puts the verdicts in doubt that looked at an address.

        Args:
            address: what has changed.
            exists: whether something is set there now.
            existed: whether something was before.
        """
        self._permissions.changed(address, exists, existed)
        for viewed, key in self._dependents.changed(address, exists, existed):
            viewed.doubt(key)

    def hold_ended(self, address: str) -> None:
        """Puts the verdicts in doubt that asked who holds an address."""
        self.changed(address, exists=True, existed=False)

    def _view(self, viewed: Viewed, session: Session, pattern: Pattern | None) -> View:
        viewing = viewed.viewing
        if viewing.fixed is not None:
            return viewing.fixed.view
        key = (session.identity.subject, pattern if viewing.depends_on_pattern else None)
        self.refresh(viewed)
        verdict = viewed.verdicts.get(key)
        if verdict is None:
            verdict = self._judge(viewed, key)
        return verdict.view

    def _find(self, address: str, is_live: bool) -> Viewed | None:
        self._found += 1
        viewing = self._permissions.viewing(address, is_live)
        if viewing is None:
            return None
        if viewing.fixed is not None:
            return Viewed(viewing)
        key = (viewing.key, is_live)
        viewed = self._viewed.get(key)
        if viewed is None:
            if len(self._viewed) >= MAX_VERDICTS:
                self._forget()
            viewed = self._viewed[key] = Viewed(viewing)
        return viewed

    def _judge(self, viewed: Viewed, key: Key) -> Verdict:
        if self._count >= MAX_VERDICTS:
            self._forget()
        verdict = viewed.viewing.judge(key[0], key[1], self._params, self._clock.now_us())
        viewed.verdicts[key] = verdict
        self._count += 1
        self._dependents.add((viewed, key), verdict.lookups, verdict.existence, verdict.lookup_patterns)
        if verdict.until_us is not None:
            _shorten(viewed, verdict.until_us)
        return verdict

    def _forget(self) -> None:
        for viewed in self._viewed.values():
            viewed.verdicts.clear()
            viewed.doubtful = None
            viewed.until_us = None
            viewed.generation += 1
        self._viewed.clear()
        self._in_snapshots.clear()
        self._live.clear()
        self._dependents.clear()
        self._count = 0


def _shorten(viewed: Viewed, until_us: int) -> None:
    if viewed.until_us is None or until_us < viewed.until_us:
        viewed.until_us = until_us
