"""What the MQTT doors of a cluster's relays tell each other of their clients: at which relay each of them is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from clasp_relay.core.records import Change
from clasp_relay.core.session.identity import TOKEN_PREFIX
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.mqtt.session import MqttSession
from clasp_relay.wire.messages import Message

MAX_CLAIMED = 10_000
"""Of how many clients of a cluster it is known when they have come last."""

NAME_MARK = "\0"
"""Between subject and client id in a claim; neither holds one."""

Key: TypeAlias = "tuple[str, str]"
"""A client: its subject, and what it calls itself."""


class Claim(Protocol):
    """That a client has come to some relay of a cluster."""

    @property
    def session_id(self) -> str:
        """The core's session of its connection."""

    @property
    def name(self) -> str:
        """Its subject and id, as ``Arrivals.claim`` puts them together."""

    @property
    def is_new(self) -> bool:
        """Whether nothing of its session before is kept."""

    @property
    def time_us(self) -> int:
        """When it has come, by the cluster's clock as that relay knows it, in Unix µs."""


class Claims(Protocol):
    """What tells the MQTT doors of a cluster's other relays that a client is here now."""

    when_named: Callable[[Any, bool], None]
    """Is told of each ``Claim``, in the order in which all relays hear of them, and whether it was made here; to be set
    by the door."""

    when_marked: Callable[[Change, bytes], None]
    """Is told of each change that a client of any relay has sent, and of ``encode_mark``; to be set by the door."""

    @property
    def knows_token(self) -> Callable[[str], bool]:
        """What tells whether a token is known here, be it as one that has ended."""

    def claim(self, session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """Has a session take a name, which one session of the cluster has at a time."""

    def leave(self, session: Session, will: Message | None, more: bytes = b"", mark: bytes = b"") -> None:
        """Says what a session leaves when it is lost, be it with its relay; None for nothing."""

    def lose(self, session: Session) -> None:
        """Has a session that is about to end count as lost."""


class Arrivals:
    """When clients have come last, to any relay of a cluster: where a client came last it is, and only there.

    Args:
        claims: tells other relays who is here; None for a relay that is alone.
        now_us: the time in Unix µs.
    """

    def __init__(self, claims: Claims | None, now_us: Callable[[], int]) -> None:
        self._claims = claims
        self._now_us = now_us
        self._last_us: OrderedDict[Key, int] = OrderedDict()

    def awaits(self, token: str) -> bool:
        """Tells whether another relay may have issued a token of which this one does not know yet."""
        return self._claims is not None and token.startswith(TOKEN_PREFIX) and not self._claims.knows_token(token)

    def claim(self, core: Session, session: MqttSession, *, is_new: bool) -> None:
        """Tells other relays that a client is here, so that it is nowhere else.

        Args:
            core: the core's session of its connection.
            session: what it goes on with; its time is set.
            is_new: whether nothing of its session before is kept.
        """
        if self._claims is not None:
            # Whatever the clocks say, it has come behind all that is known.
            session.claimed_us = max(self._now_us(), self._last_us.get(session.key, 0) + 1)
            self._claims.claim(core, NAME_MARK.join(session.key), session.claimed_us, is_new=is_new)

    def note(self, claim: Claim) -> Key:
        """Notes when a client has come, and returns which.

        Claims may be told late, as of a relay that was cut off: so the times count, and not their order in the log.
        """
        subject, _, client_id = claim.name.partition(NAME_MARK)
        key = subject, client_id
        self._last_us[key] = max(claim.time_us, self._last_us.pop(key, 0))
        if len(self._last_us) > MAX_CLAIMED:
            self._last_us.popitem(last=False)
        return key
