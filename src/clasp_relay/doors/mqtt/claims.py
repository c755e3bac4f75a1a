"""Claims of MQTT clients in a cluster, by which its relays know at which relay each client is."""

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
"""For how many clients of a cluster the time of the last claim is remembered."""

NAME_MARK = "\0"
"""The separator of subject and client id in a claim; neither contains it."""

Key: TypeAlias = "tuple[str, str]"
"""The key of a client: its subject and its client id."""


class Claim(Protocol):
    """The claim of a client that has connected to some relay of a cluster."""

    @property
    def session_id(self) -> str:
        """The id of the connection's session in the core."""

    @property
    def name(self) -> str:
        """Its subject and id, joined by ``Arrivals.claim``."""

    @property
    def is_new(self) -> bool:
        """Whether nothing of its earlier session is kept."""

    @property
    def time_us(self) -> int:
        """When it connected, by the cluster's clock as that relay knows it, in Unix µs."""


class Claims(Protocol):
    """Makes claims of this relay's clients, and passes on those of all relays."""

    when_named: Callable[[Any, bool], None]
    """Called with each ``Claim``, in the order that all relays have, and whether it was made here; set by the door."""

    when_marked: Callable[[Change, bytes], None]
    """Called with each change that an MQTT client of any relay has caused, and its ``encode_mark``; set by the door."""

    @property
    def knows_token(self) -> Callable[[str], bool]:
        """A function that tells whether a token is known here, perhaps as one that has ended."""

    def claim(self, session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """Takes a name for a session, which one session of the cluster has at a time."""

    def leave(self, session: Session, will: Message | None, more: bytes = b"", mark: bytes = b"") -> None:
        """Sets the will of a session, for the case that it is lost, also with its relay; None for none."""

    def lose(self, session: Session) -> None:
        """Marks a session that is about to end as lost."""


class Arrivals:
    """The last claim of each client of a cluster: a client is only at the relay to which it came last.

    Args:
        claims: makes claims; None without a cluster.
        now_us: returns Unix µs.
    """

    def __init__(self, claims: Claims | None, now_us: Callable[[], int]) -> None:
        self._claims = claims
        self._now_us = now_us
        self._last_us: OrderedDict[Key, int] = OrderedDict()

    def awaits(self, token: str) -> bool:
        """Tells whether another relay may have issued a token that is not known here yet."""
        return self._claims is not None and token.startswith(TOKEN_PREFIX) and not self._claims.knows_token(token)

    def claim(self, core: Session, session: MqttSession, *, is_new: bool) -> None:
        """Claims a client for this relay, so that it is at no other one.

        Args:
            core: the connection's session in the core.
            session: its MQTT session, whose ``claimed_us`` is set.
            is_new: whether nothing of its earlier session is kept.
        """
        if self._claims is not None:
            # Whatever the clocks show, this claim is later than all known ones.
            session.claimed_us = max(self._now_us(), self._last_us.get(session.key, 0) + 1)
            self._claims.claim(core, NAME_MARK.join(session.key), session.claimed_us, is_new=is_new)

    def note(self, claim: Claim) -> Key:
        """Notes the time of a claim, and returns the key of its client.

        Claims may be late, such as those of a relay that was cut off, so their times count and not their order.
        """
        subject, _, client_id = claim.name.partition(NAME_MARK)
        key = subject, client_id
        self._last_us[key] = max(claim.time_us, self._last_us.pop(key, 0))
        if len(self._last_us) > MAX_CLAIMED:
            self._last_us.popitem(last=False)
        return key
