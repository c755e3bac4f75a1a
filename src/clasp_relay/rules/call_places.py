"""Places in calls: params that end with the session that wrote them, and that let their writers use the TURN server.

A policy names their addresses (``calls`` in ``docs/policy.md``). A place that another session has written again, as by
a client that has reconnected, ends with that session. A stop of the relay ends none: clients come back, and the places
of others end by their life time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

from twisted.internet.defer import Deferred, succeed

from clasp_relay.core.records import Param
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.doors.door import DoorCounts
from clasp_relay.net.tls import ServerTls
from clasp_relay.rules.watcher import Watcher
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Value

__all__ = ["CallPlaces"]

ENDED_AT_ONCE = 20
"""Places that end in one piece of work; a client has one or two."""

COMES_BACK_S = 30.0
"""How long places of lost sessions stay after a change of the decider, in s: their clients connect to another
relay."""


class CallPlaces:
    """The holders of places; ends places. Implements ``doors.door.Door`` and ``doors.door.AtDecider``.

    Args:
        relay: the core that serves clients.
        patterns: the patterns of their addresses.
        identity: the identity by which they are watched, which may see everything there.
        is_alone: whether that core decides, too; in a cluster ``act_in`` sets the decider's core.
    """

    counts: Sequence[DoorCounts] = ()
    """See ``Door``: no clients come by it."""

    def __init__(self, relay: Relay, patterns: Sequence[Pattern], identity: Identity, *, is_alone: bool = True) -> None:
        self._patterns = patterns
        self._identity = identity
        self._shown = _Places(relay, patterns, identity, ends=is_alone)
        self._ending: _Places | None = None
        """The places in the decider's core, which end there; None while another relay is the decider."""

    # Door

    def open(self, _tls: ServerTls | None) -> None:
        """See ``Door``: notes the existing places, and begins to watch."""
        self._shown.open()

    def close(self) -> Deferred[None]:
        """See ``Door``: sessions that end from now on leave their places."""
        self._shown.close()
        self.rest()
        return succeed(None)

    def started(self, port: int | None) -> None:
        """See ``Door``; does nothing."""

    # AtDecider

    def act_in(self, relay: Relay) -> None:
        """See ``AtDecider``."""
        self.rest()
        self._ending = _Places(relay, self._patterns, self._identity, ends=True)
        self._ending.open()
        self._ending.end_left()

    def rest(self) -> None:
        """See ``AtDecider``."""
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.close()

    def holds(self, subject: str) -> bool:
        """Tells whether a subject has a place in a call."""
        return self._shown.holds(subject)


class _Places:
    """The places in one core.

    Args:
        relay: the core.
        patterns: the patterns of their addresses.
        identity: the identity by which they are watched.
        ends: whether they end here with their sessions.
    """

    def __init__(self, relay: Relay, patterns: Sequence[Pattern], identity: Identity, *, ends: bool) -> None:
        self._relay = relay
        self._ends = ends
        self._patterns = patterns
        self._watcher = Watcher(relay, identity, "calls", patterns, Signal.PARAM, self._changed)
        self._places: dict[str, tuple[str, str]] = {}
        """The subject and the session that wrote each."""
        self._of_subject: dict[str, dict[str, None]] = {}
        self._of_session: dict[str, dict[str, None]] = {}

    def open(self) -> None:
        """Notes the existing places, and begins to watch."""
        for pattern in self._patterns:
            for param in self._relay.params.match(pattern):
                self._note(param)
        self._watcher.open()
        if self._ends:
            self._relay.hooks.when_ended = self._ended

    def end_left(self) -> None:
        """Ends, after a while, places whose sessions were lost with an earlier decider; clients may come back."""
        left = [
            (session_id, self._places[next(iter(addresses))][0])
            for session_id, addresses in self._of_session.items()
            if session_id and session_id not in self._relay.sessions
        ]

        def end() -> None:
            for session_id, subject in left:
                self._end_of(session_id, subject)

        if left:
            self._relay.clock.call_later(COMES_BACK_S, end)

    def close(self) -> None:
        """Stops watching: sessions that end from now on leave their places."""
        self._watcher.close()

    def holds(self, subject: str) -> bool:
        """Tells whether a subject has a place in a call."""
        return any(self._is_of(address, subject) for address in self._of_subject.get(subject, ()))

    def _is_of(self, address: str, subject: str) -> bool:
        param = self._relay.params.get(address)
        return param is not None and param.subject == subject

    def _changed(self, address: str, _value: Value | None) -> None:
        param = self._relay.params.get(address)
        self._forget(address)
        if param is None:
            return
        self._note(param)
        if self._ends and param.writer and param.writer not in self._relay.sessions:
            # Its session has ended in the same turn. Later, so that this change is sent to all before the next one.
            self._relay.clock.call_later(0, partial(self._end_of, param.writer, param.subject))

    def _ended(self, session: Session) -> None:
        if session.id in self._of_session:
            self._end_of(session.id, session.identity.subject)

    def _end_of(self, session_id: str, subject: str) -> None:
        self._relay.work.add((self, subject), self._end_places(session_id))

    def _end_places(self, session_id: str) -> Pieces:
        while addresses := list(islice(self._of_session.get(session_id, ()), ENDED_AT_ONCE)):
            yield from self._relay.committer.until_free(addresses)
            found = [self._relay.params.get(address) for address in addresses]
            for address in addresses:
                self._forget(address)
            left = [param.address for param in found if param is not None and param.writer == session_id]
            yield 1 + self._relay.committer.end_params(left)

    def _note(self, param: Param) -> None:
        self._places[param.address] = param.subject, param.writer
        self._of_subject.setdefault(param.subject, {})[param.address] = None
        self._of_session.setdefault(param.writer, {})[param.address] = None

    def _forget(self, address: str) -> None:
        place = self._places.pop(address, None)
        if place is None:
            return
        for table, key in zip((self._of_subject, self._of_session), place, strict=True):
            del table[key][address]
            if not table[key]:
                del table[key]
