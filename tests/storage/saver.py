"""A process of its own that saves: to be killed, or to run out of room.

``python -m tests.storage.saver for-ever PATH`` saves one generation after the other (every param of
generation n has revision n) and prints n once it is saved. ``python -m tests.storage.saver full PATH``
saves a small state, then a big one with less room than it needs, and prints what came of it. ``try`` saves a
big one, and then finds out whether there is room for another.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from clasp_relay.core.records import StateImage
from clasp_relay.errors import StartError
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode
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


def try_again(state_file: StateFile) -> Iterator[str]:
    """Saves with enough room, then tries with less than that took."""
    state_file.load()
    size_bytes = state_file.save(encode(generation(1)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes // 2, size_bytes // 2))
    try:
        state_file.try_write("--persist")
    except StartError as error:
        yield str(error)
    yield "alive"


if __name__ == "__main__":
    what = {"for-ever": save_for_ever, "full": fill, "try": try_again}[sys.argv[1]]
    for line in what(StateFile(Path(sys.argv[2]))):
        print(line, flush=True)
