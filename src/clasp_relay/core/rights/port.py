"""What the core asks before it lets a value in or out, and the answers when nothing is restricted.

``access`` implements :class:`Permissions` with tokens, scopes and an application policy;
:class:`OpenPermissions` is the open mode of a trusted network. An answer comes with a record of all that it was found
from (``core.rights.memory``), so that it can be kept until something of that changes.
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
"""How a reader sees a value: without these keys of the map (none: as it is), or None: not at all."""

HIDDEN: Final = None
FULL: Final[frozenset[str]] = frozenset()


class State(Protocol):
    """The params as a decision sees them; inside a bundle, as the members before would leave them."""

    def get(self, address: str) -> Param | None:
        """Returns what is set at an address; None when nothing is."""

    def match(self, pattern: Pattern) -> Iterable[Param]:
        """Returns the params whose address matches."""

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address ended; None when it never did or is set again."""


NOTHING_READ: Final = Reads()
"""The record of an answer that holds whatever is stored. Nobody may write into it."""


class Verdict(NamedTuple):
    """How a reader sees an address, and what that was found from."""

    hidden_keys: HiddenKeys
    reads: Reads = NOTHING_READ


class VisibilityRule(Protocol):
    """What decides who sees some addresses."""

    @property
    def fixed(self) -> Verdict | None:
        """The verdict, where it is the same for every reader whatever is stored."""

    @property
    def key(self) -> Hashable:
        """Equal for rules that decide alike, such as those of all messages of one room."""

    @property
    def depends_on_pattern(self) -> bool:
        """Whether the reader's pattern counts besides the reader."""

    @property
    def catch_up(self) -> bool:
        """Whether a session that newly sees the address gets SNAPSHOTs for subscriptions made before."""

    def judge(self, subject: str, address: str, pattern: Pattern | None, state: State, now_us: int, /) -> Verdict:
        """Decides for one reader.

        Args:
            subject: the reader.
            address: where the value is; whoever looks at it notes that in the verdict's ``reads``.
            pattern: a subscription's, or the literal address of a GET; None for the HELLO snapshot.
            state: the params.
            now_us: Unix µs.
        """


class CatchUp(NamedTuple):
    """What somebody may newly see after a change; whether it is so, the verdicts before and after tell."""

    subject: str | None
    """The one who may; None for everybody."""
    pattern: Pattern
    """All that may open is at addresses that this matches."""
    existence_only: bool = False
    """Whether it can open only by a change from nothing to something, or the other way."""


class Grant(NamedTuple):
    """An accepted write, as it is to be stored."""

    value: Value
    ttl: int | None
    stamp: str | None = None
    """The subject that a policy's stamp names, where it outlives a null."""


class Permissions(Protocol):
    """Who may do and see what. All methods are synchronous and fast."""

    @property
    def is_open(self) -> bool:
        """Whether everybody may see everything, so that nobody needs to ask."""

    @property
    def memory(self) -> Memory:
        """Where answers are kept; it is told of every change of the params."""

    @property
    def hello_snapshot(self) -> bool:
        """Whether the SNAPSHOT after WELCOME carries params."""

    @property
    def tells_live_apart(self) -> bool:
        """Whether what a session sees live differs from what it sees in snapshots; always the same."""

    def admit(self, token: str, session: Session) -> Identity:
        """Returns who a session speaks for.

        Args:
            token: of its HELLO; empty for none.
            session: the session, which is not live yet.

        Raises:
            Disconnect: no token where one is needed, a bad or an expired one; with ERROR 300 or 302 and a close reason.
        """

    def is_current(self, who: Identity) -> bool:
        """Tells whether a token is still valid: what was accepted for later is not done for one that is not."""

    def readmit(self, subject: str, token: bytes, vouched: str = "", /) -> Identity | None:
        """Returns who a recorded token speaks for; None when it is not valid any more.

        Args:
            subject: whose it was.
            token: what it is known by (``Identity.token``).
            vouched: what another relay of a cluster has vouched for (``vouch``).
        """

    def vouch(self, who: Identity, /) -> str:
        """Returns what another relay of a cluster needs to readmit somebody, beside subject and token.

        It is empty for whoever has a token that all relays know, and for whoever has none and is let in without.
        """

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """Checks a SET.

        Returns:
            how it is to be stored, or None for as it is.

        Raises:
            RequestError: 301 for the scope, 403 for the policy, 429 after too many failures.
        """

    def check_lock(self, who: Identity, address: str, /) -> None:
        """Checks a SET with ``lock``, which ``check_write`` accepted.

        Raises:
            RequestError: 403; nobody may lock this address.
        """

    def owns(self, who: Identity, address: str, value: Value, /) -> bool:
        """Tells whether a writer gets past a lock that another session holds.

        Args:
            who: the writer.
            address: the locked address.
            value: what is stored there.
        """

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> Value | None:
        """Checks a PUBLISH.

        Returns:
            the value to send on in place of the message's, or None for as it is.

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
        """Tells whether an address is within a read scope: what the SNAPSHOT after WELCOME may hold."""

    def sees_all(self, who: Identity, address: str, reads: Reads, /) -> bool:
        """Tells whether no visibility rule holds for a reader at an address (an admin).

        Args:
            who: the reader.
            address: where the value is.
            reads: where it is noted that the answer depends on the address, if it does.
        """

    def visibility_rule(self, address: str, is_live: bool) -> VisibilityRule | None:
        """Returns what decides who sees an address; None where everybody sees it as it is.

        Args:
            address: where the value is.
            is_live: whether it is on its way to a subscriber; matters where ``tells_live_apart``.
        """

    def redact(self, value: Value, fields: frozenset[str]) -> Value:
        """Returns a value without some keys, if it is a map."""

    def catch_ups(self, address: str, /) -> Sequence[CatchUp]:
        """Returns what a change at an address may open for sessions that subscribed before; always the same there."""

    def stamp_of(self, address: str, value: Value) -> str | None:
        """Returns the subject that stays stamped when a stored value ends without a write."""


class OpenPermissions:
    """Everybody may do and see everything: the open mode of a trusted network. Tokens mean nothing."""

    is_open = True
    hello_snapshot = True
    tells_live_apart = False

    def __init__(self) -> None:
        self.memory = Memory()
        """Nothing is asked, so it stays empty."""

    def admit(self, _token: str, _session: Session) -> Identity:
        """Lets everybody in."""
        return ANYBODY

    def is_current(self, _who: Identity) -> bool:
        """Nothing ends."""
        return True

    def readmit(self, _subject: str, _token: bytes, _vouched: str = "") -> Identity | None:
        """Lets everybody in."""
        return ANYBODY

    def vouch(self, _who: Identity) -> str:
        """Vouches for nothing: everybody is let in."""
        return ""

    def check_write(
        self, _who: Identity, _address: str, _value: Value, _ttl: int | None, _state: State
    ) -> Grant | None:
        """Allows it as it is."""
        return None

    def check_lock(self, _who: Identity, _address: str) -> None:
        """Everybody may lock everything."""

    def owns(self, _who: Identity, _address: str, _value: Value) -> bool:
        """Nobody owns anything: a lock holds for everybody else."""
        return False

    def check_publish(self, _who: Identity, _address: str, _value: Value | None, _state: State) -> Value | None:
        """Allows it as it is."""
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
        """Everything."""
        return True

    def sees_all(self, _who: Identity, _address: str, _reads: Reads) -> bool:
        """Everybody does."""
        return True

    def visibility_rule(self, _address: str, _is_live: bool) -> VisibilityRule | None:
        """Nothing is hidden."""
        return None

    def redact(self, value: Value, _fields: frozenset[str]) -> Value:
        """Nothing is left out."""
        return value

    def catch_ups(self, _address: str) -> Sequence[CatchUp]:
        """Nothing was hidden."""
        return ()

    def stamp_of(self, _address: str, _value: Value) -> str | None:
        """Nothing is stamped."""
        return None
