"""The checks of write rules and visibility entries: one class for each type, found in one table."""

from __future__ import annotations

from clasp_relay.access.policy.checks.base import Check, CheckParser, parse_checks
from clasp_relay.access.policy.checks.combine import AllOf, AnyOf, Not, any_refusal, holds_all, holds_any
from clasp_relay.access.policy.checks.people import (
    DmUsersMatchRoom,
    LastWriterIsSession,
    Present,
    RejectUnlessPathMatches,
    SegmentEqualsSession,
    SegmentIsOwnSessionId,
    WriterIsAccount,
)
from clasp_relay.access.policy.checks.state import (
    EitherStateNotNull,
    StateFieldEquals,
    StateFieldEqualsSession,
    StateFieldHasSession,
    StateFieldMissing,
    StateFieldsEqual,
    StateNotNull,
    StateNotNullAtValueField,
    StateNull,
)
from clasp_relay.access.policy.checks.value import (
    RequireValueField,
    ValueFieldEquals,
    ValueFieldEqualsSession,
    ValueFieldEqualsStateField,
    ValueFieldHasSession,
    ValueFieldMissingOrSession,
    ValueIsMap,
    ValueNull,
)
from clasp_relay.access.policy.language.json_keys import Keys

CLASSIC: tuple[type[Check], ...] = (
    StateFieldEqualsSession,
    StateNotNull,
    EitherStateNotNull,
    ValueFieldEqualsSession,
    RequireValueField,
    SegmentEqualsSession,
    RejectUnlessPathMatches,
)
"""The checks that the Rust relay knows, too."""

BEYOND: tuple[type[Check], ...] = (
    StateNull,
    StateFieldMissing,
    StateFieldHasSession,
    StateFieldEquals,
    StateFieldsEqual,
    StateNotNullAtValueField,
    ValueNull,
    ValueIsMap,
    ValueFieldMissingOrSession,
    ValueFieldHasSession,
    ValueFieldEquals,
    ValueFieldEqualsStateField,
    Present,
    LastWriterIsSession,
    DmUsersMatchRoom,
    WriterIsAccount,
    SegmentIsOwnSessionId,
    Not,
    AnyOf,
    AllOf,
)
"""The checks that the Rust relay does not know."""

CHECKS: dict[str, type[Check]] = {check.kind: check for check in (*CLASSIC, *BEYOND)}
"""Every check by its ``type``."""

MAX_CHECK_DEPTH = 16
"""How deep checks may be nested; real policies have five."""


def parse_check(keys: Keys, names: tuple[str, ...]) -> Check:
    """Parses one check.

    Args:
        keys: its keys.
        names: the captures of its rule.

    Raises:
        StartError: its type is unknown, or a key is missing, wrong or unknown.
    """
    kind = CHECKS[keys.choice("type", CHECKS)]
    if keys.where.count(".check") > MAX_CHECK_DEPTH:
        keys.fail("", f"is nested deeper than {MAX_CHECK_DEPTH} checks")
    check = kind.parse(CheckParser(keys, names, parse_check, kind.takes_wildcards))
    keys.done()
    return check


__all__ = [
    "BEYOND",
    "CHECKS",
    "CLASSIC",
    "Check",
    "ValueFieldEquals",
    "any_refusal",
    "holds_all",
    "holds_any",
    "parse_check",
    "parse_checks",
]
