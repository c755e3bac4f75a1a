"""Permissions in memory for the tests of the core: rules that a test sets, and a record of the questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import (
    FULL,
    HIDDEN,
    CatchUp,
    Grant,
    HiddenKeys,
    OpenPermissions,
    State,
    Verdict,
    VisibilityRule,
)
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Value
from clasp_relay.wire.values import decode_value, encode_value

Judge = Callable[[str, "Pattern | None", State, int], Verdict]
"""Decides for a reader's subject and pattern, by the state and the time."""


class Rule:
    """What decides who sees one address.

    Args:
        decide: decides for one reader; or the verdict for all.
        depends_on_pattern: whether the reader's pattern counts.
        catch_up: whether who newly sees the address is told.
    """

    def __init__(self, decide: Judge | HiddenKeys, *, depends_on_pattern: bool = False, catch_up: bool = False) -> None:
        self.fixed: Verdict | None = None
        self.key = self
        self.depends_on_pattern = depends_on_pattern
        self.catch_up = catch_up
        self.judged: list[tuple[str, Pattern | None]] = []
        self._decide: Judge | None = None
        if callable(decide):
            self._decide = decide
        else:
            self.fixed = Verdict(decide)

    def judge(self, subject: str, _address: str, pattern: Pattern | None, state: State, now_us: int) -> Verdict:
        """Decides, and notes the question."""
        assert self._decide is not None, "a fixed verdict is not asked for"
        self.judged.append((subject, pattern))
        return self._decide(subject, pattern, state, now_us)


class Guard(OpenPermissions):
    """Admits sessions whose token is a user's name, as that user; ``secret`` addresses are in nobody's scope."""

    is_open = False

    def __init__(self) -> None:
        super().__init__()
        self.hello_snapshot = True
        self.tells_live_apart = False
        self.rules: dict[str, Rule] = {}
        """By the start of an address."""
        self.live_rules: dict[str, Rule] = {}
        self.grant: Callable[[Identity, str, Value, int | None, State], Grant | None] = lambda *_: None
        self.opens: Callable[[str], Sequence[CatchUp]] = lambda _: ()
        self.stamps: dict[str, str] = {}
        self.ended_tokens: set[bytes] = set()

    def admit(self, token: str, _session: Session) -> Identity:
        """Admits a session with a valid token."""
        if not token:
            raise Disconnect(CloseCode.POLICY_VIOLATION, "a token is needed", ErrorCode.UNAUTHENTICATED)
        if token == "old":
            raise Disconnect(CloseCode.POLICY_VIOLATION, "the token has expired", ErrorCode.TOKEN_EXPIRED)
        return Identity(token.partition("#")[0], token.encode())

    def is_current(self, who: Identity) -> bool:
        """Returns False for tokens that a test has ended."""
        return who.token not in self.ended_tokens

    def readmit(self, subject: str, token: bytes, _vouched: str = "") -> Identity | None:
        """Returns the identity of a token that was not ended."""
        return None if token in self.ended_tokens else Identity(subject, token)

    def vouch(self, _who: Identity) -> str:
        """Returns an empty text: all relays know all tokens."""
        return ""

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """Refuses an address out of scope; otherwise calls ``grant``."""
        self._check_scope(address)
        return self.grant(who, address, value, ttl, state)

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> None:
        """Refuses an address out of scope, and one below ``/needs`` whose param is not set."""
        self._check_scope(address)
        if address.startswith("/needs/") and state.get(address.removeprefix("/needs")) is None:
            raise RequestError(ErrorCode.POLICY, "something is missing", address)

    def check_get(self, who: Identity, address: str) -> None:
        """Refuses an address out of scope."""
        self._check_scope(address)

    def check_subscribe(self, who: Identity, pattern: Pattern) -> None:
        """Refuses a pattern out of scope."""
        self._check_scope(pattern.text)

    def check_announce(self, who: Identity, address: str) -> None:
        """Refuses an address out of scope."""
        self._check_scope(address)

    def can_read(self, who: Identity, address: str) -> bool:
        """Returns True for every address in scope."""
        return "secret" not in address

    def check_announce_all(self, who: Identity, pattern: Pattern) -> None:
        """Refuses a pattern out of scope."""
        self._check_scope(pattern.text)

    def sees_all(self, who: Identity, address: str, reads: Reads) -> bool:
        """Returns True for the admin; for «admin:/a» at addresses that begin with ``/a``."""
        name, _, start = who.subject.partition(":")
        if name != "admin" or not start:
            return name == "admin"
        reads.reads_address = True
        return address.startswith(start)

    def visibility_rule(self, address: str, is_live: bool) -> VisibilityRule | None:
        """Returns the rule of the first key with which the address begins."""
        rules = {**self.rules, **self.live_rules} if is_live else self.rules
        return next((rule for start, rule in rules.items() if address.startswith(start)), None)

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """Returns a value without some keys."""
        found = decode_value(value)
        assert isinstance(found, dict)
        return encode_value({key: one for key, one in found.items() if key not in fields})

    def catch_ups(self, address: str) -> Sequence[CatchUp]:
        """Calls ``opens``."""
        return self.opens(address)

    def stamp_of(self, address: str, value: Value) -> str | None:
        """Looks in ``stamps``."""
        return self.stamps.get(address)

    def _check_scope(self, text: str) -> None:
        if "secret" in text:
            raise RequestError(ErrorCode.SCOPE, "out of scope", text)


def members_of(address: str) -> Judge:
    """Returns a judge that shows an address to the users in the list that is set at another address."""

    def judge(subject: str, _pattern: Pattern | None, state: State, _now_us: int) -> Verdict:
        param = state.get(address)
        members: object = [] if param is None else decode_value(param.value)
        assert isinstance(members, Iterable)
        return Verdict(FULL if subject in members else HIDDEN, reads_of(address))

    return judge


def reads_of(*addresses: str, until_us: int | None = None) -> Reads:
    """Returns the record of an answer that read some addresses."""
    reads = Reads()
    reads.lookups.update(dict.fromkeys(addresses, True))
    reads.until_us = until_us
    return reads
