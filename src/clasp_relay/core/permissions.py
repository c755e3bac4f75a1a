"""What the core asks before it lets a value in or out, and the answers when nothing is restricted.

``access`` implements :class:`Permissions` with tokens, scopes and an application policy;
:class:`OpenPermissions` is the open mode of a trusted network. An answer that rests on params says which
ones it looked up, so that whoever keeps it knows when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Value

if TYPE_CHECKING:
    from clasp_relay.core.params import Ended, Param

View: TypeAlias = frozenset[str] | None
"""How a reader sees a value: None hidden, empty as it is, else without these keys of the map."""

HIDDEN: View = None
FULL: View = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a session speaks for. ``subject`` is the user id of its token, empty in open mode."""

    subject: str = ""


ANYBODY = Identity()
"""Everybody in open mode."""


class State(Protocol):
    """The params as a decision sees them; inside a bundle, as the members before would leave them."""

    def get(self, address: str) -> Param | None:
        """Returns what is set at an address; None when nothing is."""

    def match(self, pattern: Pattern) -> Iterable[Param]:
        """Returns the params whose address matches."""

    def ended(self, address: str) -> Ended | None:
        """Returns how the last param at an address ended; None when it never did or is set again."""

    def is_held(self, address: str, subject: str) -> bool:
        """Tells whether a live session of ``subject`` has set this address and nobody ended it since."""


class Verdict(NamedTuple):
    """A view, and what it rests on."""

    view: View
    lookups: frozenset[str] = frozenset()
    """Addresses whose change may change the view."""
    lookup_patterns: frozenset[Pattern] = frozenset()
    """Patterns that were looked up, likewise."""
    until_us: int | None = None
    """Unix µs at which the view ends by itself; None when it does not."""


class Grant(NamedTuple):
    """An accepted write, as it is to be stored."""

    value: Value
    ttl: int | None
    stamp: str | None = None
    """The subject that a policy's stamp names, where it outlives a null."""


class Permissions(Protocol):
    """Who may do and see what. All methods are synchronous and fast."""

    def admit(self, token: str) -> Identity:
        """Returns who a HELLO's token speaks for.

        Raises:
            Disconnect: no token, a bad or an expired one; with ERROR 300 or 302 and a close reason.
        """

    def check_write(self, who: Identity, address: str, value: Value, ttl: int | None, state: State) -> Grant | None:
        """Checks a SET.

        Returns:
            how it is to be stored, or None for as it is.

        Raises:
            RequestError: 301 for the scope, 403 for the policy, 429 after too many failures.
        """

    def check_publish(self, who: Identity, address: str, value: Value | None, state: State) -> None:
        """Checks a PUBLISH.

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

    def view(self, who: Identity, address: str, pattern: Pattern | None, state: State) -> Verdict:
        """Returns how ``who`` sees an address through a subscription's pattern.

        Args:
            who: the reader.
            address: what would be shown.
            pattern: the subscription's pattern, the literal address of a GET, None for the HELLO snapshot.
            state: the params the decision may look at.
        """

    def tracks_holds(self, address: str) -> bool:
        """Tells whether some decision may ask who holds this address (``State.is_held``)."""

    @property
    def hello_snapshot(self) -> bool:
        """Whether the SNAPSHOT after WELCOME carries params."""


class OpenPermissions:
    """Everybody may do and see everything: the open mode of a trusted network. Tokens mean nothing."""

    hello_snapshot = True

    def tracks_holds(self, _address: str) -> bool:
        """Nothing asks."""
        return False

    def admit(self, _token: str) -> Identity:
        """Lets everybody in."""
        return ANYBODY

    def check_write(
        self, _who: Identity, _address: str, _value: Value, _ttl: int | None, _state: State
    ) -> Grant | None:
        """Allows it as it is."""
        return None

    def check_publish(self, _who: Identity, _address: str, _value: Value | None, _state: State) -> None:
        """Allows it."""

    def check_get(self, _who: Identity, _address: str) -> None:
        """Allows it."""

    def check_subscribe(self, _who: Identity, _pattern: Pattern) -> None:
        """Allows it."""

    def check_announce(self, _who: Identity, _address: str) -> None:
        """Allows it."""

    def view(self, _who: Identity, _address: str, _pattern: Pattern | None, _state: State) -> Verdict:
        """Shows it as it is."""
        return _SHOWN


_SHOWN = Verdict(FULL)
