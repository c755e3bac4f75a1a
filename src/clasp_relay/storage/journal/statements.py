"""Statements that insert many rows at once.

For each statement the interpreter's lock is released and taken again twice, which takes up to 5 ms each time while the
event loop is busy; so few statements matter more than short ones. Each number of rows up to ``ROWS_AT_ONCE`` has a
statement of its own, which is prepared once and kept. Those for entries and history are ``INSERT OR ROLLBACK``: a
transaction in which one fails is rolled back anyway, and so SQLite copies no page to undo that statement alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

ROWS_AT_ONCE = 128
"""Up to this many rows are inserted by one statement, whatever their number."""

MANY_ROWS = (1_024, 512, 256)
"""The sizes of the statements for more rows."""

_SIZES = (*range(1, ROWS_AT_ONCE + 1), *MANY_ROWS)

CACHED_STATEMENTS = 2 * len(_SIZES) + 64
"""How many prepared statements the connection caches: for each of the two tables that get most rows one for each
number of rows, and the others."""


def inserts(head: str, columns: int) -> Mapping[int, str]:
    """Returns the statements that insert rows, by the number of rows.

    Args:
        head: the statement up to the values.
        columns: the number of columns of a row.
    """
    row = f"({', '.join('?' * columns)})"
    return {size: f"{head} {', '.join([row] * size)}" for size in _SIZES}


def rows_at_once(count: int) -> Iterator[int]:
    """Yields the number of rows of each statement that together insert ``count`` rows, in order."""
    for size in MANY_ROWS:
        while count >= size:
            yield size
            count -= size
    while count:
        size = min(count, ROWS_AT_ONCE)
        yield size
        count -= size
