"""A list of params that several readers share. It stands apart since mypyc compiles no class that derives from list."""

from __future__ import annotations

from clasp_relay.core.records import Param


class Captured(list[Param]):
    """What was set at one time; kept for as long as somebody goes through it."""

    __slots__ = ("__weakref__", "changes")

    changes: int
    """After how many changes."""
