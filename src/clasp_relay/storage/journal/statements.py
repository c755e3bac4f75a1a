"""Statements that insert many rows at once.

The interpreter's lock is released and taken again twice for each statement, which takes up to 5 ms each time while the
event loop is busy; so few statements matter more than short ones. Each number of rows up to ``ROWS_AT_ONCE`` is a
statement of its own, which is prepared once and kept. Those for entries and history are ``INSERT OR ROLLBACK``: nobody
goes on in a transaction in which one failed, and SQLite then copies no page, to undo the statement alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

ROWS_AT_ONCE = 128
"""Up to so many rows are one statement, whatever their number."""

MANY_ROWS = (1_024, 512, 256)
"""How many rows one statement has of more."""

_SIZES = (*range(1, ROWS_AT_ONCE + 1), *MANY_ROWS)

CACHED_STATEMENTS = 2 * len(_SIZES) + 64
"""How many statements SQLite's connection keeps prepared: one for each number of rows of both tables that have most,
and the others."""


def inserts(head: str, columns: int) -> Mapping[int, str]:
    """Returns the statements that insert rows, by how many these are.

    Args:
        head: the statement up to the values.
        columns: how many a row has.
    """
    row = f"({', '.join('?' * columns)})"
    return {size: f"{head} {', '.join([row] * size)}" for size in _SIZES}


def rows_at_once(count: int) -> Iterator[int]:
    """Yields how many of some rows each statement inserts, in order."""
    for size in MANY_ROWS:
        while count >= size:
            yield size
            count -= size
    while count:
        size = min(count, ROWS_AT_ONCE)
        yield size
        count -= size
