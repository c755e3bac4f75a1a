"""The ledger: the decider, the relays and the sessions of a cluster, as the batches of the log name them.

It also has the number of each session's last request that is done. It depends on the batches alone, so that it is the
same at all relays.
"""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import (
    NO_DIGEST,
    Answered,
    Batch,
    Began,
    Claimed,
    Ended,
    HandedOver,
    Item,
    LinkBegan,
    LinkEnded,
    Willed,
)
from clasp_relay.errors import ClaspError

__all__ = ["Contradiction", "Known", "Ledger"]


class Contradiction(ClaspError):
    """A batch does not follow this relay's last one, so they are from different logs."""


class Known:
    """A session of some relay.

    Args:
        began: the item that admitted it.
        number: the number of its last request that is done.
        will: its will; None for none.
    """

    __slots__ = ("began", "number", "will")

    def __init__(self, began: Began, number: int = 0, will: Willed | None = None) -> None:
        self.began = began
        self.number = number
        self.will = will


class Ledger:
    """See the module."""

    def __init__(self) -> None:
        self.seq = 0
        """The last batch that is in it; 0 for none."""
        self.digest = NO_DIGEST
        """The digest of that batch."""
        self.epoch = 0
        self.time_us = 0
        """The decider's clock at that batch, in Unix µs."""
        self.decider = ""
        """The link of the decider; empty if there is none."""
        self.decider_name = ""
        self.links: dict[str, str] = {}
        """The relays' names by their links."""
        self.sessions: dict[str, Known] = {}
        """The sessions by id, in the order in which they were admitted."""

    def check(self, seq: int, batch: Batch) -> None:
        """Checks that a batch is the next one.

        Raises:
            Contradiction: it is not.
        """
        if seq != self.seq + 1:
            raise Contradiction(f"batch {seq} came behind batch {self.seq}")
        if batch.previous != self.digest:
            raise Contradiction(f"batch {seq} does not follow the batch {self.seq} that is here")
        if batch.epoch < self.epoch:
            raise Contradiction(f"batch {seq} is of epoch {batch.epoch}, behind one of epoch {self.epoch}")

    def begin(self, seq: int, digest: bytes, batch: Batch) -> None:
        """Begins to apply a batch; ``note`` takes its items."""
        self.seq, self.digest, self.epoch = seq, digest, batch.epoch
        self.time_us = max(self.time_us, batch.time_us)

    def note(self, item: Item) -> None:
        """Applies an item about relays or sessions."""
        if isinstance(item, Answered):
            known = self.sessions.get(item.session_id)
            if known is not None:
                known.number = max(known.number, item.number)
        elif isinstance(item, Began):
            known = self.sessions.get(item.session_id)
            # A known session continues with another token.
            self.sessions[item.session_id] = Known(item) if known is None else Known(item, known.number, known.will)
        elif isinstance(item, Willed):
            known = self.sessions.get(item.session_id)
            if known is not None:
                known.will = item if item.message else None
        elif isinstance(item, Ended):
            self.sessions.pop(item.session_id, None)
        elif isinstance(item, LinkBegan):
            self.links[item.link] = item.relay
        elif isinstance(item, LinkEnded):
            self.end_link(item.link)
        elif isinstance(item, Claimed):
            self._claimed(item)
        elif isinstance(item, HandedOver):
            self.decider = self.decider_name = ""

    def end_link(self, link: str) -> None:
        """Removes a relay and its sessions."""
        self.links.pop(link, None)
        self.sessions = {key: known for key, known in self.sessions.items() if known.began.link != link}

    def _claimed(self, item: Claimed) -> None:
        if item.is_cold:
            self.links.clear()
            self.sessions.clear()
        self.decider, self.decider_name = item.link, item.relay
        self.links[item.link] = item.relay
