"""A process of its own that saves: to be killed, or to run out of room.

``python -m tests.storage.saver for-ever PATH`` saves one generation after the other (every param of
generation n has revision n) and prints n once it is saved. ``python -m tests.storage.saver full PATH``
saves a small state, then a big one with less room than it needs, and prints what came of it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from clasp_relay.core.records import StateImage
from clasp_relay.storage.snapshot import encode
from clasp_relay.storage.state_file import StateFile
from tests.storage.values import image, param

PARAMS = 1000


def generation(number: int) -> StateImage:
    """Makes a state whose params all have the same revision."""
    return image(*(param(f"/p/{index}", revision=number) for index in range(PARAMS)))


def save_for_ever(state_file: StateFile) -> Iterator[str]:
    """Saves until it is killed."""
    state = state_file.load().image
    first = state.params[0].revision + 1 if state.params else 1
    for number in count(first):
        state_file.save(encode(generation(number)))
        yield str(number)


def fill(state_file: StateFile) -> Iterator[str]:
    """Saves with enough room, then without."""
    state_file.load()
    yield str(state_file.save(encode(image(param("/a")))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    try:
        state_file.save(encode(generation(1)))
    except OSError as error:
        yield type(error).__name__
    yield "alive"


if __name__ == "__main__":
    what = {"for-ever": save_for_ever, "full": fill}[sys.argv[1]]
    for line in what(StateFile(Path(sys.argv[2]))):
        print(line, flush=True)
