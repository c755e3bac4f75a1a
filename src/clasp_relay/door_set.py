"""Makes the doors that the settings ask for; ``service`` gives them to the relay's service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clasp_relay.doors.door import Door
from clasp_relay.doors.tcp import TcpDoor
from clasp_relay.net.listening import TcpPlace
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.settings import Settings

__all__ = ["make_doors"]


def make_doors(settings: Settings, reactor: Any, gate: ClaspFactory) -> Sequence[Door]:
    """Returns the doors that the settings ask for, not open yet.

    Args:
        settings: what the relay is told.
        reactor: accepts the connections.
        gate: admits connections and passes on what they send.
    """
    doors: list[Door] = []
    if settings.tcp_port is not None:
        doors.append(TcpDoor(reactor, TcpPlace(settings.host, settings.tcp_port), gate))
    return doors
