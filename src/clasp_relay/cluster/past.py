"""Fetches the history from before this relay joined from the other relays, page by page.

No client waits for it: the relay follows the log meanwhile. The newest pages come first, so that the relay's history
never has a gap, and a restart continues where it was. One page is on its way at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgpack

__all__ = ["Past", "Store", "Taken"]

PAUSE_S = 0.05
"""The pause between two pages, so that they take only a part of the bus and of the journal's thread."""

IDLE_S = 1.0
"""The interval of checks for relays that were not asked yet."""

ANSWER_S = 5.0
"""The timeout after which a page is requested again."""

TRIES = 3
"""How often a page is requested of a relay that does not answer; then the relay counts as having none."""


class Taken(Protocol):
    """The summary of a page that was added."""

    @property
    def oldest_seq(self) -> int:
        """The seq of its oldest entry; 0 if it had none."""

    @property
    def is_last(self) -> bool:
        """Whether there is nothing older."""


class Store(Protocol):
    """The history of this relay."""

    @property
    def is_safe(self) -> bool:
        """Whether older rows may come into the journal."""

    def oldest(self, call: Callable[[int], None]) -> None:
        """Calls with the seq of the oldest entry, or that of the next row if there is no entry.

        It is 1 if no relay has anything older, or if it cannot be read: then nothing can be added either.
        """

    def read_older(self, before_seq: int, call: Callable[[bytes], None]) -> None:
        """Calls with a page of the newest entries before a row; with no bytes if it cannot be read."""

    def insert(self, data: bytes, call: Callable[[Taken | None], None]) -> None:
        """Adds a page, and calls with a summary of it; with None if it cannot be added."""

    def end(self) -> None:
        """Notes that no more pages come for now."""


class Past:
    """See the module.

    Args:
        store: the history of this relay.
        publish: sends a message to all relays, under a subject; it may be lost.
        own_link: returns this relay's link; empty while it has not joined.
        links: returns the links of all relays, this one among them.
        monotonic_s: returns seconds.
        call_later: the event loop's.
        when_known: called with the row before which entries may be missing, and with 0 once all relays were asked.
    """

    def __init__(
        self,
        store: Store,
        publish: Callable[[str, bytes], None],
        own_link: Callable[[], str],
        links: Callable[[], Iterable[str]],
        monotonic_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        when_known: Callable[[int], None],
    ) -> None:
        self._store = store
        self._publish = publish
        self._own_link = own_link
        self._links = links
        self._monotonic_s = monotonic_s
        self._call_later = call_later
        self._when_known = when_known
        self._before_seq = 0
        """Before this row entries may be missing; 0 if that is not known."""
        self._asked: set[str] = set()
        """The links of relays that have nothing older."""
        self._number = 0
        self._since_s: float | None = None
        """When the page was requested that has not come yet; None while there is no such request."""
        self._whom = ""
        self._tries = 0
        self._is_adding = False
        self._is_over = False

    def start(self) -> None:
        """Begins to request pages."""
        self._turn()

    def stop(self) -> None:
        """Requests no more pages."""
        self._is_over = True

    def _turn(self) -> None:
        if not self._is_over:
            self._call_later(PAUSE_S if self._look() else IDLE_S, self._turn)

    def _look(self) -> bool:
        """Requests the next page, if it is time; returns whether there is more to do."""
        own = self._own_link()
        if not own:
            return True
        if self._is_adding or (self._since_s is not None and self._monotonic_s() - self._since_s < ANSWER_S):
            return True
        if self._since_s is not None and self._tries >= TRIES:
            self._asked.add(self._whom)
            self._since_s, self._tries = None, 0
        links = list(self._links())
        self._asked.intersection_update(links)
        whom = next((link for link in links if link != own and link not in self._asked), None)
        if whom is None:
            if self._before_seq:
                self._before_seq, self._since_s = 0, None
                self._store.end()
            self._when_known(0)
            return False
        if not self._before_seq:
            self._is_adding = True
            self._store.oldest(self._found_oldest)
        elif self._store.is_safe:
            self._ask(own, whom)
        return True

    def _found_oldest(self, seq: int) -> None:
        self._is_adding, self._before_seq = False, seq
        self._when_known(seq)
        if seq == 1:
            self._asked.update(self._links())

    def _ask(self, own: str, whom: str) -> None:
        self._number += 1
        self._tries += 1
        self._since_s, self._whom = self._monotonic_s(), whom
        self._publish("past", msgpack.packb((own, self._number, whom, self._before_seq)))

    def heard_request(self, payload: bytes) -> None:
        """Sends a page that another relay has requested of this one."""
        link, number, whom, before_seq = msgpack.unpackb(payload, use_list=False)
        if whom == self._own_link():
            self._store.read_older(before_seq, lambda page: self._publish("page", msgpack.packb((link, number, page))))

    def heard_page(self, payload: bytes) -> None:
        """Takes a page that was requested."""
        link, number, page = msgpack.unpackb(payload, use_list=False)
        if link != self._own_link() or number != self._number or self._since_s is None or self._is_over:
            return
        self._since_s, self._tries = None, 0
        if page:
            self._is_adding = True
            self._store.insert(page, self._added)
        else:
            self._asked.add(self._whom)

    def _added(self, taken: Taken | None) -> None:
        self._is_adding = False
        if taken is not None and taken.oldest_seq:
            self._before_seq = taken.oldest_seq
            self._when_known(taken.oldest_seq)
        if taken is None or taken.is_last:
            self._asked.add(self._whom)
