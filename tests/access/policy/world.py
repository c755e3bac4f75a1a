"""Params in a dict, and a policy that is asked about them."""

from __future__ import annotations

from collections.abc import Iterable

from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.checks import Check, parse_check
from clasp_relay.access.policy.language.captures import Path
from clasp_relay.access.policy.language.json_keys import Keys
from clasp_relay.access.policy.language.question import Question
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.core.records import Ended, Param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import HIDDEN, Grant, HiddenKeys, Verdict
from clasp_relay.core.state.tree import TooMuchError
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL
from clasp_relay.wire.values import PyValue, decode_value, encode_value

SECOND_US = 1_000_000


class World:
    """State, time and users around one policy.

    Args:
        policy: None where only the state is wanted.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = Policy.from_document({}) if policy is None else policy
        self.policy.session_ids = self
        self.now_us = 1_700_000_000 * SECOND_US
        self.params: dict[str, Param] = {}
        self.is_too_much = False
        """Whether patterns take too long to look for."""
        self.ends: dict[str, Ended] = {}
        """Addresses, and the subjects of which a live session is present there."""

    # The State port

    def get(self, address: str) -> Param | None:
        """Returns what is set."""
        return self.params.get(address)

    def match(self, pattern: Pattern) -> Iterable[Param]:
        """Returns what matches."""
        if self.is_too_much:
            raise TooMuchError
        return [param for address, param in self.params.items() if pattern.matches(address)]

    def ended(self, address: str) -> Ended | None:
        """Returns how it ended."""
        return self.ends.get(address)

    # The session ids

    def own_until_us(self, subject: str, session_id: str, now_us: int) -> int | None:
        """The sessions of ann are s-ann, s-ann-2 and so on."""
        return now_us + 1 if f"{session_id}-".startswith(f"s-{subject}-") else None

    # Putting things there without asking

    def put(self, address: str, value: PyValue, by: str = "somebody") -> None:
        """Stores something, whoever may do so."""
        self.store(by, address, Grant(encode_value(value), None))

    def store(self, by: str, address: str, grant: Grant) -> None:
        """Stores an accepted write."""
        if grant.value == NULL:
            self.params.pop(address, None)
            self.ends[address] = Ended(1, self.now_us, by, grant.stamp)
            return
        self.ends.pop(address, None)
        self.params[address] = Param(address, grant.value, 1, f"session of {by}", self.now_us, grant.ttl, by)

    def expire(self, address: str) -> None:
        """Ends a param as its life time would."""
        del self.params[address]
        self.ends[address] = Ended(1, self.now_us)

    def later(self, seconds: float) -> None:
        """Lets time pass."""
        self.now_us += round(seconds * SECOND_US)

    # As a session would

    def set(self, by: str, address: str, value: PyValue) -> PyValue:
        """Writes as a user, scope and policy permitting; returns what was stored.

        Raises:
            RequestError: it is refused.
        """
        grant = self.asked(by, address, value, is_publish=False)
        self.store(by, address, grant)
        return decode_value(grant.value)

    def publish(self, by: str, address: str, value: PyValue) -> None:
        """Publishes as a user.

        Raises:
            RequestError: it is refused.
        """
        self.asked(by, address, value, is_publish=True)

    def asked(self, by: str, address: str, value: PyValue, *, is_publish: bool) -> Grant:
        """Asks about a write without storing anything."""
        if not Scopes.parse(self.policy.scopes_for(by)).can_write(address):
            raise RequestError(301, "scope", address)  # type: ignore[arg-type]
        content = encode_value(value)
        return self.policy.check_write(by, address, content, None, is_publish, self, self.now_us).grant

    def code(self, by: str, address: str, value: PyValue, *, is_publish: bool = False) -> int:
        """Tells what a write would be answered: 0 when it is accepted."""
        try:
            self.asked(by, address, value, is_publish=is_publish)
        except RequestError as error:
            return int(error.code)
        return 0

    def verdict(self, by: str, address: str, pattern: str | None = None, *, is_live: bool = False) -> Verdict:
        """Returns how a user sees an address: by GET when there is no pattern, «hello» for the first snapshot."""
        seen_by = None if pattern == "hello" else Pattern.parse(pattern or address)
        rule = self.policy.visibility_rule(address, is_live=is_live)
        return rule.judge(by, address, seen_by, self, self.now_us)

    def view(self, by: str, address: str, pattern: str | None = None, *, is_live: bool = False) -> HiddenKeys:
        """Returns what of ``verdict`` the user sees."""
        return self.verdict(by, address, pattern, is_live=is_live).hidden_keys

    def sees(self, by: str, address: str, pattern: str | None = None) -> bool:
        """Tells whether a user sees an address, whole or redacted, scopes permitting."""
        scopes = Scopes.parse(self.policy.scopes_for(by))
        if pattern not in (None, "hello") and not scopes.can_subscribe(Pattern.parse(str(pattern))):
            return False
        return (pattern is not None or scopes.can_get(address)) and self.view(by, address, pattern) is not HIDDEN


def by_value(reads: Reads) -> set[str]:
    """Returns the addresses of which any change counts."""
    return {address for address, counts in reads.lookups.items() if counts}


def by_existence(reads: Reads) -> set[str]:
    """Returns the addresses of which only this counts: whether something is set there."""
    return {address for address, counts in reads.lookups.items() if not counts}


def check_of(document: dict[str, object], path: str = "/app/{room}/{user}") -> Check:
    """Reads one check of a rule with that path."""
    return parse_check(Keys(document, "check", "test"), Path.parse(path).names)


def question(
    state: World,
    *,
    by: str = "alice",
    address: str = "/app/r1/bob",
    value: PyValue = None,
    path: str = "/app/{room}/{user}",
) -> Question:
    """Asks about a write."""
    bound = Path.parse(path).bind(address)
    if bound is None:
        raise AssertionError("the path does not match")
    return Question(by, bound.groups(), address, encode_value(value), state, state.now_us, session_ids=state)
