"""The world of the chat's flows, as a relay and people who are signed in.

It has the methods of ``tests.access.policy.world.World`` that the flows use, so that one description of a flow runs
against the policy in memory and against a relay. Users, rooms and groups get a name of their own for each test, so that
one relay serves all.
"""

from __future__ import annotations

import json
import re
from itertools import count

from clasp_relay.access.policy import Policy
from clasp_relay.core.rights.port import FULL, HIDDEN, Grant, HiddenKeys
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Ack, Error, Get, Message, Subscribe
from clasp_relay.wire.values import PyValue, encode_value
from tests.integration.accounts import AccountsRelay, Person, event, put, told

_SESSION = re.compile(r"\bs-(ann|bob|eve)\b")
"""The session of somebody, for which the policies of calls take the real id only."""

_NAMED = re.compile(r"\b(ann|bob|eve|r1|v1|team|(?<=/ns-meta/)a)\b")


class SocketWorld:
    """One relay, as the flows of one test see it.

    Args:
        relay: with a policy, an admin token and no message rate.
        policy: the one that is in force there, for its scopes.
        mark: stands behind every name of this test.
    """

    def __init__(self, relay: AccountsRelay, policy: Policy, mark: str) -> None:
        self.policy = policy
        self._relay = relay
        self._mark = mark
        self._people: dict[str, Person] = {}
        self._tokens: dict[str, str] = {}
        self._marks = count(1)

    def close(self) -> None:
        """Ends all sessions."""
        for person in self._people.values():
            person.close()

    def person(self, name: str) -> Person:
        """Returns somebody's session."""
        if name not in self._people:
            self._people[name] = self.connect(name)
        return self._people[name]

    def connect(self, name: str) -> Person:
        """Returns a new session of somebody."""
        if name not in self._tokens:
            if name == "admin":
                self._tokens[name] = (self._relay.folder / "admin.token").read_text("ascii").strip()
            else:
                self._tokens[name] = self._relay.api.guest(self._name(name))
        return Person.signed_in(self._relay.port, self._tokens[name])

    def set(self, by: str, address: str, value: PyValue) -> PyValue:
        """Writes, and returns what was stored.

        Raises:
            RequestError: it is refused.
        """
        address = self._name(address)
        (answer,) = [
            each
            for each in self.person(by).ask(put(address, self._value(value)), qos=1)
            if isinstance(each, Ack | Error)
        ]
        _raise(answer)
        return next((shown for at, shown in told(self.person("admin").ask(Get(address))) if at == address), None)

    def publish(self, by: str, address: str, value: PyValue) -> None:
        """Publishes.

        Raises:
            RequestError: it is refused.
        """
        for answer in self.person(by).ask(event(self._name(address), self._value(value))):
            _raise(answer)

    def asked(self, by: str, address: str, value: PyValue, *, is_publish: bool) -> Grant:
        """Publishes, and returns what the others are told.

        Raises:
            RequestError: it is refused.
        """
        assert is_publish, "a SET changes something"
        watcher = self.connect("admin")
        try:
            watcher.ask(Subscribe(1, self._name(address), types=0x02))
            self.publish(by, address, value)
            ((_, shown),) = told(watcher.settle())
        finally:
            watcher.close()
        text = json.dumps(shown)
        for name, person in self._people.items():
            text = text.replace(person.session, f"s-{name}")
        return Grant(encode_value(json.loads(text.replace(self._mark, ""))), None)

    def code(self, by: str, address: str, value: PyValue, *, is_publish: bool = False) -> int:
        """Tells what a write is answered: 0 when it is accepted."""
        try:
            (self.publish if is_publish else self.set)(by, address, value)
        except RequestError as error:
            return int(error.code)
        return 0

    def subscribe(self, by: str, *patterns: str) -> list[int]:
        """Subscribes, and returns the codes of what is refused."""
        asked = [Subscribe(number, self._name(pattern)) for number, pattern in enumerate(patterns)]
        return [each.error for each in self.person(by).ask(*asked) if isinstance(each, Error)]

    def sees(self, by: str, address: str, pattern: str | None = None) -> bool:
        """Tells whether somebody sees a value, by GET or in the SNAPSHOT of a new subscription."""
        address = self._name(address)
        asked: Message = Get(address) if pattern is None else Subscribe(99, self._name(pattern))
        return any(at == address and shown is not None for at, shown in told(self.person(by).ask(asked)))

    def view(self, by: str, address: str, pattern: str | None = None, *, is_live: bool = False) -> HiddenKeys:
        """Tells whether an event reaches a new session of somebody; or else which keys a GET lacks."""
        address = self._name(address)
        if is_live:
            person = self.connect(by)
            try:
                person.ask(Subscribe(1, self._name(pattern or address), types=0x02))
                self.person("admin").ask(event(address, 1))
                return FULL if told(person.settle()) else HIDDEN
            finally:
                person.close()
        ((_, whole),) = told(self.person("admin").ask(Get(address)))
        ((_, seen),) = told(self.person(by).ask(Get(address)))
        if not isinstance(seen, dict) or not isinstance(whole, dict):
            return HIDDEN if seen is None else FULL
        return frozenset(whole) - frozenset(seen)

    def _name(self, text: str) -> str:
        text = _SESSION.sub(lambda found: self.person(found[1]).session, text)
        return _NAMED.sub(lambda found: found[0] + self._mark, text)

    def _value(self, value: PyValue) -> PyValue:
        return json.loads(self._name(json.dumps(value)))


def _raise(answer: Message) -> None:
    if isinstance(answer, Error):
        raise RequestError(ErrorCode(answer.error), answer.message, answer.address)
