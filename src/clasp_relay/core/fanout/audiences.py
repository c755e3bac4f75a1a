"""One audience for each set of sessions, however many addresses they hear of together.

The members of a room mostly have several subscriptions there (messages, typing, presence). What comes at all
these addresses goes to the same people, so it can share one write (``core.ports.Audience``).
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

from clasp_relay.core.ports import Audience, Outbox


class Audiences:
    """The audiences that somebody keeps."""

    def __init__(self) -> None:
        self._by_members: WeakValueDictionary[frozenset[Outbox], Audience] = WeakValueDictionary()

    def of(self, outboxes: Iterable[Outbox]) -> Audience:
        """Returns the audience of some sessions, whatever their order.

        Args:
            outboxes: each session's way out, once.
        """
        made = Audience(tuple(outboxes))
        return self._by_members.setdefault(made.members, made)
