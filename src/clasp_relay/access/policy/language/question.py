"""The input of one decision, and the record of everything that the decision reads."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from clasp_relay.access.policy.language.captures import Captured, Template
from clasp_relay.access.policy.language.maps import encode_text, find_field, get_field
from clasp_relay.core.records import Ended, Param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import State
from clasp_relay.core.state.tree import TooMuchError
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL, Value

_REMEMBERED_LENGTH = 256
"""Patterns longer than this are not cached, to bound the memory of the cache."""

_parse_pattern = lru_cache(256)(Pattern.parse)


class SessionIds(Protocol):
    """Tells which session ids were given to which subject."""

    def own_until_us(self, subject: str, session_id: str, now_us: int, /) -> int | None:
        """Returns until when (Unix µs) a session id surely is a subject's own; None when it is not."""


class NoSessionIds:
    """No session id was given to anybody."""

    def own_until_us(self, _subject: str, _session_id: str, _now_us: int) -> int | None:
        """See ``SessionIds``."""
        return None


def given_id(session_id: str) -> tuple[str, str]:
    """Returns the entry in ``Reads.things`` of an answer that depends on whose a session id is."""
    return ("session id", session_id)


NO_SESSION_IDS = NoSessionIds()


class Question:
    """The input of checks. Everything that a check reads besides subject and captures is noted in ``reads``.

    Args:
        subject: the writer or reader.
        captured: what the rule's path captured.
        address: what is written or read.
        value: what is written; None for a reader: then checks read the value that is stored at the address.
        state: the params.
        now_us: Unix µs.
        is_account: whether the writer's token is a registered user's.
        session_ids: which session ids were given to whom.
    """

    __slots__ = (
        "_address",
        "_addresses",
        "_is_account",
        "_looked_up",
        "_now_us",
        "_session_ids",
        "_state",
        "_value",
        "reads",
        "subject",
        "text",
        "word",
        "words",
    )

    def __init__(
        self,
        subject: str,
        captured: Captured,
        address: str,
        value: Value | None,
        state: State,
        now_us: int,
        *,
        is_account: bool = False,
        session_ids: SessionIds = NO_SESSION_IDS,
    ) -> None:
        self.subject = subject
        self.word = subject.encode()
        """The subject in UTF-8."""
        self.text = encode_text(self.word)
        """The subject as an encoded value."""
        self.words = (*captured, subject)
        """The captures and the subject, for templates."""
        self.reads = Reads()
        """What has been read. It may be replaced, to record the reads of single checks apart."""
        self._addresses: dict[str, str] = {}
        self._address = address
        self._value = value
        self._state = state
        self._now_us = now_us
        self._is_account = is_account
        self._session_ids = session_ids
        self._looked_up: dict[str, Param | None] = {}

    def about(self, captured: Captured) -> None:
        """Replaces the captures, for another rule at the same address."""
        self.words = (*captured, self.subject)
        self._addresses.clear()

    def at(self, lookup: Template) -> str:
        """Returns the address that a lookup makes; it is cached, since many checks have the same lookup."""
        address = self._addresses.get(lookup.text)
        if address is None:
            address = self._addresses[lookup.text] = lookup.expand(self.words)
        return address

    @property
    def address(self) -> str:
        """The address in question."""
        self.reads.reads_address = True
        return self._address

    @property
    def value(self) -> Value:
        """The value in question."""
        if self._value is None:
            param = self.param(self.address)
            return NULL if param is None else param.value
        self.reads.reads_value = True
        return self._value

    def value_field(self, key: bytes) -> Value | None:
        """Returns a field of the value in question; None when it is missing or null, or the value is no map."""
        if self._value is None:
            return self.field(self.address, key)
        self.reads.reads_value = True
        return find_field(self._value, key)

    @property
    def is_account(self) -> bool:
        """Whether the writer's token is a registered user's.

        It is noted as a read of the value, so that the answer is not remembered: answers are remembered by subject, and
        a subject may have been a guest before.
        """
        self.reads.reads_value = True
        return self._is_account

    def param(self, address: str) -> Param | None:
        """Returns what is set at an address; a stored null counts as nothing."""
        self.reads.lookups[address] = True
        return self._look_up(address)

    def is_set(self, address: str) -> bool:
        """Tells whether something is set at an address, whatever its value."""
        self.reads.lookups.setdefault(address, False)
        return self._look_up(address) is not None

    def field(self, address: str, key: bytes) -> Value | None:
        """Returns a field of the map at an address; None when any of it is missing or null."""
        param = self.param(address)
        return None if param is None else get_field(param.value, key)

    def ended(self, address: str) -> Ended | None:
        """Returns how the param at an address ended; None when it is set or never was."""
        # Read by value: a further null changes how it ended, but not whether something is set.
        return self._state.ended(address) if self.param(address) is None else None

    def is_before(self, when_us: int) -> bool:
        """Tells whether a time is still to come (Unix µs)."""
        if self._now_us >= when_us:
            return False
        self.reads.ends_at(when_us)
        return True

    def owns_session_id(self, session_id: str) -> bool:
        """Tells whether a session id is one that was given to the subject."""
        self.reads.things += (given_id(session_id),)
        until_us = self._session_ids.own_until_us(self.subject, session_id, self._now_us)
        if until_us is None:
            return False
        self.reads.ends_at(until_us)
        return True

    def match(self, text: str) -> list[Param]:
        """Returns the params that match a pattern; none when the text is no valid pattern, as captures may make it.

        Raises:
            RequestError: OVERLOADED; so much else is set there that it would take too long to tell whether any matches.
                What depends on the answer is then refused or hidden, whether it needs a match or that there is none.
        """
        try:
            pattern = _parse_pattern(text) if len(text) <= _REMEMBERED_LENGTH else Pattern.parse(text)
        except RequestError:
            return []
        if pattern.is_literal:
            param = self.param(text)
            return [] if param is None else [param]
        self.reads.patterns += (pattern,)
        try:
            return [param for param in self._state.match(pattern) if param.value != NULL]
        except TooMuchError:
            text = f"too much is set where {text} is looked for; delete something there first"
            raise RequestError(ErrorCode.OVERLOADED, text, self.address) from None

    def _look_up(self, address: str) -> Param | None:
        looked_up = self._looked_up
        if address in looked_up:
            return looked_up[address]
        param = self._state.get(address)
        if param is not None and param.value == NULL:
            param = None
        looked_up[address] = param
        return param
