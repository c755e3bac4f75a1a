"""A *run*: messages for the same audience, with nothing in between for anybody of it.

It costs the same whether ten sessions or a thousand get it: only at the end of the turn is its one piece of
bytes handed to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from clasp_relay.core.ports import Audience, Frame
from clasp_relay.core.ports import Outbox as AnyOutbox
from clasp_relay.net.backlog import Close, Snapshot
from clasp_relay.net.framing import Batch

RUN_BYTES = 32 * 1024
"""A longer run is cut, so that what waits for a slow session can be handed over in small pieces."""

_Edit: TypeAlias = tuple[int, Frame | Snapshot | Close | None]
"""A place in a run, and what one session gets before it, or None: the session does not get that frame."""


class Run:
    """Frames for one audience.

    Attributes:
        audience: who gets them.
        frames: the frames.
        size_bytes: what their bytes are together.
        private: what is different for some of the sessions, in the order of its places.
    """

    __slots__ = ("audience", "frames", "private", "size_bytes")

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.frames: list[Frame] = []
        self.size_bytes = 0
        self.private: dict[AnyOutbox, list[_Edit]] = {}

    def edit(self, outbox: AnyOutbox, item: Frame | Snapshot | Close | None) -> None:
        """Notes an edit at the run's present end."""
        edits = self.private.get(outbox)
        if edits is None:
            edits = self.private[outbox] = []
        edits.append((len(self.frames), item))

    def others(self) -> Sequence[AnyOutbox]:
        """Returns the sessions that get all of the run as it is."""
        private, outboxes = self.private, self.audience.outboxes
        return [outbox for outbox in outboxes if outbox not in private] if private else outboxes

    def whole(self) -> Batch:
        """Returns all of the run as one piece."""
        return _batch(self.frames)

    def edited(self, edits: list[_Edit]) -> list[Batch | Snapshot | Close]:
        """Returns the run as one session gets it, in as few pieces as can be."""
        items: list[Batch | Snapshot | Close] = []
        frames: list[Frame] = []
        start = 0
        for place, item in edits:
            frames += self.frames[start:place]
            start = place
            if item is None:
                start += 1
            elif isinstance(item, Frame):
                frames.append(item)
            else:
                if frames:
                    items.append(_batch(frames))
                    frames = []
                items.append(item)
        frames += self.frames[start:]
        if frames:
            items.append(_batch(frames))
        return items


def _batch(frames: Sequence[Frame]) -> Batch:
    return Batch(frames, b"".join([frame.wire for frame in frames]))
