"""When Python looks for garbage in cycles: often but briefly, so that no turn of the event loop is long.

A connection leaves no cycle when it ends, nor does a message; what a request to the auth API leaves behind is a few
kB. Python's own pace looks through up to 700, 7,000 and at last all living objects: with 100,000 params that change
all the time it would look through all of them every other second.
"""

from __future__ import annotations

import gc

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

THRESHOLDS = (1_000, 5, 1_000_000)
"""So many new containers set off a collection among the new, so many of those one among what they left, and so
many of these one of everything: never. The second one takes 2 to 6 ms at most."""

SETTLE_INTERVAL_S = 3600
"""How often everything that was made since the last time is searched."""


def keep_collections_short(clock: IReactorTime) -> None:
    """Sets the pace of collections, for a process that is a relay; call it once all is made and loaded.

    Args:
        clock: tells the time; the reactor.
    """
    gc.set_threshold(*THRESHOLDS)
    settling = LoopingCall(settle)
    settling.clock = clock
    settling.start(SETTLE_INTERVAL_S)


def settle() -> None:
    """Searches what was made since the last time; what is alive is not looked through again."""
    gc.collect()
    gc.freeze()
