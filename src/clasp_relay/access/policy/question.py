"""One decision: who asks about what, and everything that was looked up for it."""

from __future__ import annotations

from functools import lru_cache

from clasp_relay.access.policy.captures import Captured, Template
from clasp_relay.access.policy.maps import encode_text, find_field, get_field
from clasp_relay.core.records import Param
from clasp_relay.core.rights.port import State
from clasp_relay.core.state.tombstones import Ended
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL, Value

_REMEMBERED_LENGTH = 256
"""Longer patterns are parsed anew, so that what is kept stays small."""

_parse_pattern = lru_cache(256)(Pattern.parse)


class Question:
    """What checks are asked about. It remembers what it looked up, of missing addresses too.

    Args:
        subject: the writer or reader.
        captured: what the rule's path captured.
        address: what is written or read.
        value: what is written; None for a reader, whose checks see what stands at the address.
        state: the params.
        now_us: Unix µs.
    """

    __slots__ = (
        "_addresses",
        "_value",
        "address",
        "by_value",
        "looked_up",
        "now_us",
        "patterns",
        "state",
        "subject",
        "text",
        "until_us",
        "word",
        "words",
    )

    def __init__(
        self, subject: str, captured: Captured, address: str, value: Value | None, state: State, now_us: int
    ) -> None:
        self.subject = subject
        self.word = subject.encode()
        self.text = encode_text(self.word)
        self.words = (*captured, subject)
        self._addresses: dict[str, str] = {}
        self.address = address
        self._value = value
        self.state = state
        self.now_us = now_us
        self.looked_up: dict[str, Param | None] = {}
        self.by_value: set[str] = set()
        """Those of them of which more counts than whether something is set."""
        self.patterns: set[Pattern] = set()
        self.until_us: int | None = None

    def about(self, captured: Captured) -> None:
        """Goes on with another rule for the same address."""
        self.words = (*captured, self.subject)
        self._addresses.clear()

    def at(self, lookup: Template) -> str:
        """Returns the address that a lookup of the rule in question makes; many checks look at the same one."""
        address = self._addresses.get(lookup.text)
        if address is None:
            address = self._addresses[lookup.text] = lookup.expand(self.words)
        return address

    @property
    def value(self) -> Value:
        """The value in question."""
        if self._value is None:
            param = self.param(self.address)
            return NULL if param is None else param.value
        return self._value

    def value_field(self, key: bytes) -> Value | None:
        """Returns a field of the value in question; None when it is missing or null, or the value is no map."""
        return self.field(self.address, key) if self._value is None else find_field(self._value, key)

    def param(self, address: str) -> Param | None:
        """Returns what is set at an address; a stored null counts as nothing."""
        self.by_value.add(address)
        return self._look_up(address)

    def is_set(self, address: str) -> bool:
        """Tells whether something is set at an address, where only that counts."""
        return self._look_up(address) is not None

    def _look_up(self, address: str) -> Param | None:
        looked_up = self.looked_up
        if address in looked_up:
            return looked_up[address]
        param = self.state.get(address)
        if param is not None and param.value == NULL:
            param = None
        looked_up[address] = param
        return param

    def field(self, address: str, key: bytes) -> Value | None:
        """Returns a field of the map at an address; None when any of it is missing or null."""
        param = self.param(address)
        return None if param is None else get_field(param.value, key)

    def ended(self, address: str) -> Ended | None:
        """Returns how the param at an address ended, when it did and is not set again."""
        # Another null may end it anew, and that is no change of whether something is set.
        return self.state.ended(address) if self.param(address) is None else None

    def is_held(self, address: str) -> bool:
        """Tells whether another live session of the subject has set this address and nobody ended it since."""
        self.param(address)
        return self.state.is_held(address, self.subject)

    def match(self, text: str) -> list[Param]:
        """Returns the params that match; none when the text is no pattern, as it can be with odd captures."""
        try:
            pattern = _parse_pattern(text) if len(text) <= _REMEMBERED_LENGTH else Pattern.parse(text)
        except RequestError:
            return []
        if pattern.is_literal:
            param = self.param(text)
            return [] if param is None else [param]
        self.patterns.add(pattern)
        return [param for param in self.state.match(pattern) if param.value != NULL]

    def ends_at(self, when_us: int) -> None:
        """Notes that the answer holds no longer than this."""
        if self.until_us is None or when_us < self.until_us:
            self.until_us = when_us
