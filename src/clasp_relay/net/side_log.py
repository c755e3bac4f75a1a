"""Where Autobahn's own log lines go."""

from __future__ import annotations

from twisted.logger import Logger


class SideLog:
    """Takes what Autobahn says of single connections, as debug lines.

    Its warnings and errors are about what peers do wrong, which anybody can repeat as often as they
    like; its debug lines come several to a message.

    Args:
        log: where the lines go.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log

    def debug(self, text: str, **values: object) -> None:
        """Is dropped."""

    def info(self, text: str, **values: object) -> None:
        """Becomes a debug line."""
        self._log.debug(text, **values)

    warn = error = info
