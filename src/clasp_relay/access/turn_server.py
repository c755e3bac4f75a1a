"""Credentials for a TURN server, which relays the calls of clients that cannot reach each other.

They have the form of coturn's REST API (``use-auth-secret``): the name has the time of expiry and the subject, the
password is the HMAC-SHA1 of the name under a secret that relay and TURN server share. So the server needs no list of
users.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clasp_relay.access.refusals import Forbidden

__all__ = ["CREDENTIAL_S", "IceServers", "TurnServer"]

CREDENTIAL_S = 600
"""Seconds that credentials are valid; a client in a call asks for new ones after half of them."""


@dataclass(frozen=True, slots=True)
class IceServers:
    """What a client gives to ``RTCPeerConnection`` as ``iceServers``; ``expires_at`` in Unix seconds."""

    ice_servers: Sequence[dict[str, Any]]
    expires_at: int


class TurnServer:
    """Makes credentials.

    Args:
        urls: the URLs of the TURN server, as ``turn:HOST:PORT``; empty if there is no such server.
        secret: the secret that it shares with the relay.
        holds_place: tells whether a subject has a place in a call.
        now_s: Unix seconds.
    """

    def __init__(
        self,
        urls: Sequence[str] = (),
        secret: str = "",
        holds_place: Callable[[str], bool] = lambda _subject: False,
        now_s: Callable[[], float] = lambda: 0,
    ) -> None:
        self._urls = tuple(urls)
        self._secret = secret.encode()
        self._holds_place = holds_place
        self._now_s = now_s

    def servers_for(self, subject: str) -> IceServers:
        """Returns the TURN server with credentials; no server if none is set up.

        Raises:
            Forbidden: the subject has no place in a call.
        """
        expires_at = int(self._now_s()) + CREDENTIAL_S
        if not self._urls:
            return IceServers((), expires_at)
        if not self._holds_place(subject):
            raise Forbidden("Join a call first: the TURN server is for people in a call.")
        username = f"{expires_at}:{subject}"
        credential = b64encode(hmac.digest(self._secret, username.encode(), "sha1")).decode()
        server = {"urls": list(self._urls), "username": username, "credential": credential}
        return IceServers((server,), expires_at)
