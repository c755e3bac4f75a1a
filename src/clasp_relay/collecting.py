"""When Python looks for garbage in cycles: often but briefly, so that no turn of the event loop is long.

A connection leaves no cycle when it ends, nor does a message; what a request to the auth API leaves behind is a few
kB. Python's own pace looks through all living objects each time that a quarter of them are new, and params are made
anew by every SET: of 200,000 of them that takes 26 ms (``docs/performance.md``).
"""

from __future__ import annotations

import gc

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

THRESHOLDS = (1_000, 5, 1_000_000)
"""So many new containers set off a collection among the new, so many of those one among what they left, and so
many of these one of everything: never. The second one took up to 6 ms."""

SEARCH_INTERVAL_S = 600
"""How often everything is searched that was made since the start; 100,000 params take 15 ms."""


def keep_collections_short(clock: IReactorTime) -> None:
    """Sets the pace of collections, for a process that is a relay; call it once all is made and loaded.

    What is there now is not looked through again: it is not expected to become garbage.

    Args:
        clock: tells the time; the reactor.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    searching = LoopingCall(gc.collect)
    searching.clock = clock
    searching.start(SEARCH_INTERVAL_S, now=False)
