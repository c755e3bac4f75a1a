"""Where Autobahn's own log lines go."""

from __future__ import annotations

from twisted.logger import formatEvent

from clasp_relay.logs import events


class SideLog:
    """Takes what Autobahn says of single connections, as debug lines.

    Its warnings and errors are about what peers do wrong, which anybody can repeat as often as they
    like; its debug lines come several to a message.
    """

    def debug(self, text: str, **values: object) -> None:
        """Is dropped."""

    def info(self, text: str, **values: object) -> None:
        """Becomes a debug line."""
        events.CONNECTION_DETAIL.log(detail=formatEvent({"log_format": text, **values}))

    warn = error = info
