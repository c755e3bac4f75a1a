"""The interface by which the core asks for permissions, and the open mode, in which everything is allowed.

``access`` implements :class:`Permissions` with tokens, scopes and an application policy; :class:`OpenPermissions` is
the open mode of a trusted network. An answer comes with a record of all that was read for it (``core.rights.memory``),
so that it can be cached until something of that changes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from clasp_relay.core.rights.memory import Memory, Reads
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import ANYBODY, Session
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Value

if TYPE_CHECKING:
    from clasp_relay.core.records import Ended, Param

HiddenKeys: TypeAlias = frozenset[str] | None
"""How a reader sees a value: without these keys of its map (an empty set: unchanged), or not at all (None)."""

HIDDEN: Final = None
FULL: Final[frozenset[str]] = frozenset()


class State(Protocol):
    """The params that a decision reads; inside a bundle, as the members before would leave them."""

    def get(self, address: str) -> Param | None:
        """Returns the param at an address; None if nothing is set."""

    def match(self, pattern: Pattern) -> Iterable[Param]:
        """Returns the params whose addresses match."""

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address ended; None if none ended or one is set."""


NOTHING_READ: Final = Reads()
"""The empty record, of an answer that depends on nothing. It must not be altered."""


class Verdict(NamedTuple):
    """How a reader sees an address, and what was read for this."""

    hidden_keys: HiddenKeys
    reads: Reads = NOTHING_READ


class VisibilityRule(Protocol):
    """A rule that decides who sees some addresses."""

    @property
    def fixed(self) -> Verdict | None:
        """The verdict, if it is the same for every reader and any state; else None."""

    @property
    def key(self) -> Hashable:
        """Equal for rules with the same decisions, such as those of all messages of one room."""

    @property
    def depends_on_pattern(self) -> bool:
        """Whether the decision depends on the reader's pattern, too."""

    @property
    def catch_up(self) -> bool:
        """Whether a session that newly sees the address gets SNAPSHOTs for subscriptions made before."""

    def judge(self, subject: str, address: str, pattern: Pattern | None, state: State, now_us: int, /) -> Verdict:
        """Decides for one reader.

        Args:
            subject: the reader.
            address: the address of the value; a rule that reads it notes that in the verdict's ``reads``.
            pattern: a subscription's, or the literal address of a GET; None for the HELLO snapshot.
            state: the params.
            now_us: Unix µs.
        """


class CatchUp(NamedTuple):
    """What a change may newly open for sessions; the verdicts before and after it tell whether it does."""

    subject: str | None
    """The only reader who may newly see it; None for all."""
    pattern: Pattern
    """The pattern of the addresses that may open."""
    existence_only: bool = False
    """Whether only a change between set and not set can open it."""


class Grant(NamedTuple):
    """How an accepted write is to be stored."""

    value: Value
    ttl: int | None
    stamp: str | None = None
    """The subject that a policy's stamp names, if it is kept after a null."""


class Permissions(Protocol):
    """What sessions may do and see. All methods are synchronous and fast."""

    @property
    def is_open(self) -> bool:
        """Whether every session may see everything, so that the core need not ask."""

    @property
    def memory(self) -> Memory:
        """The cache of answers; it is told of every change of the params."""

    @property
    def hello_snapshot(self) -> bool:
        """Whether the SNAPSHOT after WELCOME carries params."""

    @property
    def tells_live_apart(self) -> bool:
        """Whether what a session sees live differs from what it sees in snapshots; always the same."""

    def admit(self, token: str, session: Session) -> Identity:
        """Returns the identity of a session.

        Args:
            token: of its HELLO; empty for none.
            session: the session, which is not live yet.

        Raises:
            Disconnect: no token where one is needed, a bad or an expired one; with ERROR 300 or 302 and a close reason.
        """

    def is_current(self, who: Identity) -> bool:
        """Tells whether a token is still valid: a scheduled bundle is dropped if its token is not."""

    def readmit(self, subject: str, token: bytes, vouched: str = "", /) -> Identity | None:
        """Returns the identity of a recorded token; None if it is no longer valid.

        Args:
            subject: its subject.
            token: its id (``Identity.token``).
            vouched: what another relay of a cluster has vouched for (``vouch``).
        """

    def vouch(self, who: Identity, /) -> str:
        """Returns what another relay of a cluster needs to readmit somebody, beside subject and token.

        It is empty for a token that all relays know, and for a session that is admitted without a token.
        """

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """Checks a SET.

        Returns:
            how it is to be stored, or None for no change.

        Raises:
            RequestError: 301 for the scope, 403 for the policy, 429 after too many failures.
        """

    def check_lock(self, who: Identity, address: str, /) -> None:
        """Checks a SET with ``lock``, which ``check_write`` accepted.

        Raises:
            RequestError: 403; nobody may lock this address.
        """

    def owns(self, who: Identity, address: str, value: Value, /) -> bool:
        """Tells whether a writer may write despite another session's lock.

        Args:
            who: the writer.
            address: the locked address.
            value: what is stored there.
        """

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> Value | None:
        """Checks a PUBLISH.

        Returns:
            the value to send instead of the message's, or None for no change.

        Raises:
            RequestError: as ``check_write``.
        """

    def check_get(self, who: Identity, address: str) -> None:
        """Checks the scope of a GET.

        Raises:
            RequestError: 301.
        """

    def check_subscribe(self, who: Identity, pattern: Pattern) -> None:
        """Checks that one read scope covers all that a SUBSCRIBE, QUERY or REPLAY pattern can match.

        Raises:
            RequestError: 301.
        """

    def check_announce(self, who: Identity, address: str) -> None:
        """Checks the scope of one announced signal.

        Raises:
            RequestError: 301.
        """

    def check_announce_all(self, who: Identity, pattern: Pattern, /) -> None:
        """Checks that one write scope covers all addresses of an announced signal that has wildcards.

        Raises:
            RequestError: 301.
        """

    def can_read(self, who: Identity, address: str) -> bool:
        """Tells whether an address is within a read scope, so that the SNAPSHOT after WELCOME may include it."""

    def sees_all(self, who: Identity, address: str, reads: Reads, /) -> bool:
        """Tells whether a reader is exempt from visibility rules at an address (an admin).

        Args:
            who: the reader.
            address: where the value is.
            reads: gets a note if the answer depends on the address.
        """

    def visibility_rule(self, address: str, is_live: bool) -> VisibilityRule | None:
        """Returns the rule that decides who sees an address; None if every session sees it unchanged.

        Args:
            address: where the value is.
            is_live: whether the value goes to a subscriber, not into a snapshot; matters if ``tells_live_apart``.
        """

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """Returns a value without some keys of its map; other values are unchanged."""

    def catch_ups(self, address: str, /) -> Sequence[CatchUp]:
        """Returns what a change at an address may open for existing subscriptions; constant for each address."""

    def stamp_of(self, address: str, value: Value) -> str | None:
        """Returns the subject that stays stamped when a param ends without a write."""


class OpenPermissions:
    """The open mode of a trusted network: every session may do and see everything, whatever its token."""

    is_open = True
    hello_snapshot = True
    tells_live_apart = False

    def __init__(self) -> None:
        self.memory = Memory()
        """It stays empty."""

    def admit(self, _token: str, _session: Session) -> Identity:
        """Admits every session."""
        return ANYBODY

    def is_current(self, _who: Identity) -> bool:
        """Returns True: no token ends."""
        return True

    def readmit(self, _subject: str, _token: bytes, _vouched: str = "") -> Identity | None:
        """Admits every session."""
        return ANYBODY

    def vouch(self, _who: Identity) -> str:
        """Returns an empty text: every session is admitted."""
        return ""

    def check_write(
        self, _who: Identity, _address: str, _value: Value, _ttl: int | None, _state: State
    ) -> Grant | None:
        """Allows it unchanged."""
        return None

    def check_lock(self, _who: Identity, _address: str) -> None:
        """Allows it."""

    def owns(self, _who: Identity, _address: str, _value: Value) -> bool:
        """Returns False: no session has more rights than another one."""
        return False

    def check_publish(self, _who: Identity, _address: str, _value: Value | None, _state: State) -> Value | None:
        """Allows it unchanged."""
        return None

    def check_get(self, _who: Identity, _address: str) -> None:
        """Allows it."""

    def check_subscribe(self, _who: Identity, _pattern: Pattern) -> None:
        """Allows it."""

    def check_announce(self, _who: Identity, _address: str) -> None:
        """Allows it."""

    def check_announce_all(self, _who: Identity, _pattern: Pattern) -> None:
        """Allows it."""

    def can_read(self, _who: Identity, _address: str) -> bool:
        """Returns True."""
        return True

    def sees_all(self, _who: Identity, _address: str, _reads: Reads) -> bool:
        """Returns True."""
        return True

    def visibility_rule(self, _address: str, _is_live: bool) -> VisibilityRule | None:
        """Returns None: every session sees every address."""
        return None

    def redact(self, value: Value, _fields: frozenset[str]) -> Value:
        """Returns the value unchanged."""
        return value

    def catch_ups(self, _address: str) -> Sequence[CatchUp]:
        """Returns nothing: no address is hidden."""
        return ()

    def stamp_of(self, _address: str, _value: Value) -> str | None:
        """Returns None: nothing is stamped."""
        return None
