"""Random policies, states and changes, and what every answer has to be: found anew, with nothing remembered."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias

from hypothesis import strategies as st

from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy, redact
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.tokens import ADMIN_SCOPES, POLICY_SCOPES, TokenRecord, TokenTable, digest_of
from clasp_relay.core.fanout.recipients import View
from clasp_relay.core.records import Param
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL, HIDDEN, Grant, HiddenKeys
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    NULL,
    Bundle,
    Error,
    Message,
    Publish,
    Set,
    Snapshot,
    Subscribe,
    Unsubscribe,
    Value,
)
from clasp_relay.wire.values import PyValue, encode_value
from tests.core.world import Client, World, WorldClock

Json: TypeAlias = dict[str, Any]

USERS = ("ann", "bob", "root")
"""Who there is; the last one is an admin everywhere, the others where a policy's scopes say so."""

ADDRESSES = (
    *(f"/d/{user}/{key}" for user in ("ann", "bob", "x") for key in "ab"),
    *(f"/here/{user}" for user in ("ann", "bob")),
    "/flag",
)
"""Where things are set, and what checks look up."""

PATTERNS = ("/**", "/d/**", "/d/ann/*", "/d/*/a", "/here/*", "/d/bob/b")
"""What is subscribed to."""

LOOKUPS = ("/flag", "/here/{session}", "/d/{session}/a", "/d/ann/b")
LOOKUPS_OF = {"id": ("/here/{id}", "/d/{id}/a"), "key": ("/d/ann/{key}", "/d/{session}/{key}")}
FIELDS = st.sampled_from(("f", "g"))
PATHS = st.sampled_from(("/d/{id}/{key}", "/d/{id}/**", "/d/*/{key}", "/d/**", "/{id**}", "/**", "/here/{id}"))
VALUES: tuple[PyValue, ...] = (
    None,
    1,
    {"f": "ann", "g": 1},
    {"f": "bob"},
    {"f": ["ann", "bob"], "g": "bob"},
    {"f": {"bob": 1}, "g": "bob"},
    {"g": None, "f": "f"},
)


def names_of(path: str) -> tuple[str, ...]:
    """Returns what a path of these policies captures."""
    return tuple(name for name in ("id", "key") if f"{{{name}" in path)


def leaves(names: tuple[str, ...]) -> dict[str, st.SearchStrategy[Json]]:
    """Returns a strategy for every type of check that combines no others."""
    lookup = st.sampled_from((*LOOKUPS, *(one for name in names for one in LOOKUPS_OF[name])))
    flag = st.booleans()
    said = st.sampled_from(("{session}", "f", 1, None, True))

    def check(kind: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
        return st.fixed_dictionaries({"type": st.just(kind), **keys})

    patterns = st.sampled_from(("/d/*/a", "/here/*", "/d/{session}/*", *(("/d/{id}/*",) if "id" in names else ())))
    forms = st.sampled_from(("/d/ann/*", "/d/{a}/b", "/*/*/a", "/here/{a}", "/**/bob/**"))
    found: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "state_field_equals_session": {"lookup": lookup, "field": FIELDS, "allow_if_missing": flag},
        "state_not_null": {"lookup": lookup},
        "either_state_not_null": {"lookup_a": lookup, "lookup_b": lookup},
        "value_field_equals_session": {"field": FIELDS},
        "require_value_field": {"field": FIELDS},
        "reject_unless_path_matches": {"pattern": forms},
        "state_null": {"lookup": lookup},
        "state_field_missing": {"lookup": lookup, "field": FIELDS},
        "state_field_has_session": {"lookup": lookup, "field": FIELDS},
        "state_field_equals": {"lookup": lookup, "field": FIELDS, "value": said},
        "state_fields_equal": {"lookup_a": lookup, "field_a": FIELDS, "lookup_b": lookup, "field_b": FIELDS},
        "value_null": {},
        "value_is_map": {},
        "value_field_missing_or_session": {"field": FIELDS},
        "value_field_has_session": {"field": FIELDS, "allow_if_missing": flag},
        "value_field_equals": {"field": FIELDS, "value": said},
        "value_field_equals_state_field": {"field": FIELDS, "lookup": lookup, "state_field": FIELDS},
        "present": {"lookup": lookup, "grace_secs": st.sampled_from((0, 2, 30))},
        "last_writer_is_session": {"lookup": st.one_of(lookup, patterns), "allow_if_missing": flag},
    }
    strategies = {kind: check(kind, **keys) for kind, keys in found.items()}
    if names:
        strategies["dm_users_match_room"] = check("dm_users_match_room", segment=st.sampled_from(names), field=FIELDS)
        strategies["segment_equals_session"] = check("segment_equals_session", segment=st.sampled_from(names))
    return strategies


def combined(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Returns a strategy for checks that combine others."""
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda check: {"type": "not", "check": check}, inner),
        st.builds(lambda some: {"type": "any_of", "checks": some}, several),
        st.builds(lambda some: {"type": "all_of", "checks": some}, several),
    )


@cache
def checks(names: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Returns checks of every type, some of them combined, some of those again."""
    found = leaves(names)
    # What ends by itself, or rests on many addresses, is drawn more often.
    plain = st.one_of(*found.values(), *[found["present"], found["last_writer_is_session"]] * 2)
    once = combined(plain)
    return st.one_of(plain, once, combined(st.one_of(plain, once)))


HERE = st.sampled_from((2, 30)).map(
    lambda grace: [{"type": "present", "lookup": "/here/{session}", "grace_secs": grace}]
)
"""The usual check: who is present."""

MODES = st.sampled_from(("all", "any"))
STAMPS = st.sampled_from(
    (
        None,
        None,
        {"field": "f"},
        {"field": "f", "publish": True},
        {"field": "f", "value": "{session}", "outlives_null": True},
    )
)
WAYS = st.sampled_from((None, None, ["snapshot"], ["live"]))


def given_keys(document: Json) -> Json:
    """Leaves out what was drawn as None."""
    return {key: value for key, value in document.items() if value is not None}


OF_VALUE: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {
        "type": st.just("state_not_null_at_value_field"),
        "field": FIELDS,
        "lookup": st.sampled_from(("/here/{value}", "/d/{value}/a", "/d/{session}/{value}")),
    }
)
"""A check of the written value, which no reader is asked about."""


@st.composite
def write_rules(draw: st.DrawFn) -> Json:
    """A write rule."""
    path = draw(PATHS)
    one = st.one_of(checks(names_of(path)), OF_VALUE)
    return given_keys(
        {
            "path": path,
            "mode": draw(MODES),
            "pre_checks": draw(st.one_of(st.just([]), st.lists(one, max_size=2))),
            "checks": draw(st.one_of(st.lists(one, max_size=3), st.lists(one, max_size=3), HERE)),
            "allow_null_write": draw(st.booleans()),
            "stamp": draw(STAMPS),
            "keep_hidden": draw(st.sampled_from((False, False, True))),
        }
    )


@st.composite
def entries(draw: st.DrawFn) -> Json:
    """A visibility entry."""
    path = draw(PATHS)
    names = names_of(path)
    some = st.one_of(st.lists(checks(names), min_size=1, max_size=3), HERE)
    kinds = ["checks", "checks", "checks", "lookup", True, False]
    visible = draw(st.sampled_from([*kinds, "owner", "owner"] if names else kinds))
    entry: Json = {"path": path, "visible": visible, "catch_up": draw(st.booleans()), "applies_to": draw(WAYS)}
    if visible == "lookup":
        entry |= {"visible": "require_state_not_null", "lookup": draw(st.sampled_from(LOOKUPS))}
    elif visible == "checks":
        entry |= {"checks": draw(some), "mode": draw(MODES)}
    elif visible == "owner":
        entry |= {"owner_segment": draw(st.sampled_from(list(names))), "public_sub": draw(st.sampled_from((None, "b")))}
    is_literal = draw(st.booleans())
    if names and is_literal:
        entry["literal"] = [draw(st.sampled_from(list(names)))]
        entry["unless"] = draw(st.one_of(st.none(), some))
    return given_keys(entry)


@st.composite
def transforms(draw: st.DrawFn) -> Json:
    """A transform."""
    path = draw(PATHS)
    unless = draw(st.one_of(st.none(), st.lists(checks(names_of(path)), min_size=1, max_size=2)))
    fields = draw(st.lists(FIELDS, min_size=1, max_size=2, unique=True))
    return given_keys({"path": path, "redact_fields": fields, "unless": unless, "applies_to": draw(WAYS)})


SCOPES = st.sampled_from(
    (
        ["read:/**", "write:/**"],
        ["read:/**", "write:/**", "admin:/d/{userId}/**"],
        ["read:/**", "write:/d/**", "write:/here/{userId}", "admin:/d/{userId}/a"],
        ["read:/**", "write:/**", "admin:/d/*/b"],
    )
)

POLICIES: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {
        "scopes": SCOPES,
        "max_ttl": st.sampled_from(({}, {"/here/*": 10}, {"/d/ann/*": 2})),
        "ttl": st.sampled_from(({}, {"/here/*": 3}, {"/here/*": 3, "/d/*/a": 5})),
        "write_rules": st.lists(write_rules(), min_size=1, max_size=3),
        "snapshot_visibility": st.lists(entries(), min_size=1, max_size=3),
        "snapshot_transforms": st.lists(transforms(), max_size=2),
    }
)
"""Whole policies: all that decides, in every combination. ``failures`` is not among it: it counts, so it is never
remembered."""

WHO = st.integers(0, 7)
STEP = st.one_of(
    st.tuples(
        st.just("write"), WHO, st.sampled_from(ADDRESSES), st.sampled_from(VALUES), st.sampled_from((None, None, 4))
    ),
    st.tuples(st.just("write"), WHO, st.sampled_from(ADDRESSES), st.sampled_from(VALUES), st.none()),
    st.tuples(st.just("bundle"), WHO, st.sampled_from(ADDRESSES), st.sampled_from(ADDRESSES), st.sampled_from(VALUES)),
    st.tuples(st.just("visit"), WHO, st.sampled_from((0.1, 3.0, 31.0))),
    st.tuples(st.just("publish"), WHO, st.sampled_from(ADDRESSES), st.sampled_from(VALUES)),
    st.tuples(st.just("wait"), st.sampled_from((0.5, 2.0, 4.0, 31.0))),
    st.tuples(st.just("join"), st.sampled_from(USERS)),
    st.tuples(st.just("leave"), WHO),
    st.tuples(st.just("subscribe"), WHO, st.integers(1, 2), st.sampled_from(PATTERNS)),
    st.tuples(st.just("unsubscribe"), WHO, st.integers(1, 2)),
)
"""What may happen next: its name, and arguments of the method of ``Remembering`` that has it."""

STEPS = st.lists(STEP, min_size=20, max_size=40)
"""What happens, in this order."""

READERS = tuple(map(Pattern.parse, ("/**", "/d/ann/*", "/d/*/a")))
"""Patterns by which everything is looked at."""

Answer: TypeAlias = "Grant | tuple[int, str]"
"""A grant, or an ERROR's code and text."""


class Remembering:
    """A relay under a policy, and beside it the same policy that is asked everything anew.

    Args:
        document: the policy.
    """

    def __init__(self, document: Json) -> None:
        clock = WorldClock()
        tokens = TokenTable(clock.clock, lambda: clock.now_us() / 1e6)
        self.permissions = TokenPermissions(tokens, Policy.from_document(document), clock.now_us)
        self.world = World(permissions=self.permissions, clock=clock)
        self.fresh = Policy.from_document(document)
        for name in USERS:
            scopes = ADMIN_SCOPES if name == USERS[-1] else POLICY_SCOPES
            tokens.add(TokenRecord(digest_of(name), name, name, False, scopes, 0, None))
        self.clients: list[Client] = []
        for name in (*USERS, "bob"):
            self.join(name)
        for number, client in enumerate(self.clients):
            client.ask(Subscribe(1, PATTERNS[number % 3]))

    @property
    def now_us(self) -> int:
        """The time in the relay, Unix µs."""
        return self.world.clock.now_us()

    # What may happen

    def write(self, who: int, address: str, value: PyValue, ttl: int | None) -> None:
        """A SET: decided as it is anew, twice; told to whom it is to be told."""
        client, content = self._client(who), encode_value(value)
        expected = self.grant(client.session, address, content, ttl)
        for _ in range(2):
            found = _answer(lambda: self._remembered_grant(client.session, address, content, ttl))
            assert found == expected, f"remembered {found}, anew {expected}"
        if isinstance(expected, Grant):
            self._accepted(client, Set(address, content, ttl=ttl), expected.value)
        else:
            self._refused(client, Set(address, content, ttl=ttl), expected)

    def visit(self, who: int, seconds: float) -> None:
        """Somebody comes, and goes again: a grace begins, and may end."""
        address = f"/here/{self._client(who).session.identity.subject}"
        self.write(who, address, 1, None)
        self.compare()
        self.write(who, address, None, None)
        self.compare()
        self.wait(seconds)

    def bundle(self, who: int, address: str, other: str, value: PyValue) -> None:
        """Two SETs as one: the second is decided by what the first leaves."""
        client, content = self._client(who), encode_value(value)
        client.send(Bundle((Set(other, NULL), Set(address, content))), 1)

    def publish(self, who: int, address: str, value: PyValue) -> None:
        """A PUBLISH: likewise; its sender is not told."""
        client, content = self._client(who), encode_value(value)
        message = Publish(address, Signal.EVENT, value=content)
        expected = self.grant(client.session, address, content, None, is_publish=True)
        for _ in range(2):
            found = _answer(partial(self._remembered_signal, client.session, address, content))
            assert found == expected, f"remembered {found}, anew {expected}"
        if isinstance(expected, Grant):
            told = self.told(address, expected.value, Signal.EVENT)
            told.pop(client, None)
            self._deliver(client, message, told)
        else:
            self._refused(client, message, expected)

    def wait(self, seconds: float) -> None:
        """Time passes: graces and life times end."""
        self.world.advance(seconds)

    def join(self, name: str) -> None:
        """One more session."""
        if len(self.clients) < 6:
            self.clients.append(self.world.join(name))

    def leave(self, who: int) -> None:
        """A session ends, and with it its presence."""
        if len(self.clients) > 1:
            client = self._client(who)
            self.clients.remove(client)
            client.leave()

    def subscribe(self, who: int, number: int, pattern: str) -> None:
        """SUBSCRIBE: the SNAPSHOT holds what is seen by it."""
        client, parsed = self._client(who), Pattern.parse(pattern)
        matching = [param for param in self.world.relay.params.all() if parsed.matches(param.address)]
        expected = {param.address: param.value for param in self.shown(client.session, parsed, matching)}
        found = client.ask(Subscribe(number, pattern))
        assert snapshots(found) == expected, (found, expected)

    def unsubscribe(self, who: int, number: int) -> None:
        """UNSUBSCRIBE."""
        self._client(who).send(Unsubscribe(number))

    # Answers, found anew

    def grant(
        self, session: Session, address: str, value: Value, ttl: int | None, *, is_publish: bool = False
    ) -> Answer:
        """Decides a write as if nothing was remembered."""
        scopes = self._scopes(session)
        if not scopes.can_write(address):
            what = "publish" if is_publish else "write"
            return 301, f"your token does not allow you to {what} this"
        found = _answer(
            lambda: (
                self.fresh.check_write(
                    session.identity.subject,
                    address,
                    value,
                    ttl,
                    is_publish,
                    self.world.relay.params,
                    self.now_us,
                    is_admin=scopes.is_admin(address),
                ).grant
            )
        )
        assert found is not None, "a decision without a grant"
        return found

    def hidden_keys(self, session: Session, address: str, pattern: Pattern | None, *, is_live: bool) -> HiddenKeys:
        """Decides what a reader sees as if nothing was remembered."""
        if self._scopes(session).is_admin(address):
            return FULL
        rule = self.fresh.visibility_rule(address, is_live=is_live)
        state = self.world.relay.params
        return rule.judge(session.identity.subject, address, pattern, state, self.now_us).hidden_keys

    def shown(self, session: Session, pattern: Pattern | None, params: list[Param]) -> list[Param]:
        """Returns params as a reader sees them, likewise."""
        found = []
        for param in params:
            hidden = self.hidden_keys(session, param.address, pattern, is_live=False)
            if hidden is not HIDDEN:
                found.append(param._replace(value=redact(param.value, hidden)))
        return found

    def told(self, address: str, value: Value, signal: Signal) -> dict[Client, Value]:
        """Returns who is told of a message now, and what of it."""
        return {client: redact(value, hidden) for client, hidden in self.views(address, signal).items()}

    def views(self, address: str, signal: Signal) -> dict[Client, frozenset[str]]:
        """Returns who is told of a message at an address now, and what is left out for them."""
        found: dict[Client, frozenset[str]] = {}
        for client in self.clients:
            views = [
                hidden
                for one in client.session.subscriptions.values()
                if one.wants(signal) and one.pattern.matches(address)
                and (hidden := self.hidden_keys(client.session, address, one.pattern, is_live=True)) is not HIDDEN
            ]  # fmt: skip
            if views:
                found[client] = frozenset.intersection(*views)
        return found

    def newly_seen(self, address: str) -> Callable[[], set[tuple[Client, str]]]:
        """Returns what tells, after a write, which params which sessions see by a SNAPSHOT that they did not before."""
        catch_up = [
            (client, one, param.address)
            for client in self.clients
            for one in client.session.subscriptions.values()
            for param in self.world.relay.params.all()
            if param.address != address
            and one.pattern.matches(param.address)
            and self.fresh.visibility_rule(param.address).catch_up
            and self.hidden_keys(client.session, param.address, one.pattern, is_live=False) is HIDDEN
        ]

        def after() -> set[tuple[Client, str]]:
            return {
                (client, place)
                for client, one, place in catch_up
                if self.world.relay.params.get(place) is not None
                and self.hidden_keys(client.session, place, one.pattern, is_live=False) is not HIDDEN
            }

        return after

    # Comparing

    def compare(self) -> None:
        """Asks everything that may be remembered, and compares it with the answer that is found anew."""
        visibility = self.world.relay.visibility
        params = self.world.relay.params.all()
        for client in self.clients:
            session = client.session
            for pattern in (None, *READERS):
                found = visibility.show(params, session, pattern)
                expected = self.shown(session, pattern, params)
                assert found == expected, (session.identity.subject, pattern, found, expected)
            for address in ADDRESSES:
                place = visibility.place(address)
                ways = (
                    ((False, place.shown),) if place.live is place.shown else ((False, place.shown), (True, place.live))
                )
                for is_live, rule in ways:
                    for pattern in READERS:
                        seen = FULL if rule is None else visibility.view(rule, session, address, pattern, Reads())
                        anew = self.hidden_keys(session, address, pattern, is_live=is_live)
                        assert seen == anew, (session.identity.subject, address, pattern, is_live, seen, anew)
        for client in self.clients:
            session, content = client.session, encode_value({"f": client.session.identity.subject})
            for address in ADDRESSES:
                granted = _answer(partial(self._remembered_grant, session, address, content, None))
                expected_grant = self.grant(session, address, content, None)
                assert granted == expected_grant, (session.identity.subject, address, granted, expected_grant)
        for address in ADDRESSES:
            found_views, expected_views = self._views(address), self.views(address, Signal.PARAM)
            assert found_views == expected_views, (address, found_views, expected_views)
        assert not self.world.faults, self.world.faults

    def _views(self, address: str) -> dict[Client, frozenset[str]]:
        """Returns what ``views`` does, as it is remembered for the fan-out."""
        relay = self.world.relay
        rule, route = relay.visibility.place(address).live, relay.subscriptions.route(address)
        views: tuple[View, ...]
        if rule is None:
            views = ((FULL, relay.recipients._work_out(route, Signal.PARAM)),)
        else:
            views = relay.recipients._views(rule, address, route, Signal.PARAM)
        told = {outbox: hidden for hidden, delivery in views for one in delivery.audiences for outbox in one.outboxes}
        return {client: told[client.outbox] for client in self.clients if client.outbox in told}

    def _accepted(self, client: Client, message: Set, stored: Value) -> None:
        address = message.address
        existed = self.world.relay.params.get(address) is not None
        newly_seen = self.newly_seen(address)
        before = self.told(address, stored, Signal.PARAM)

        def expected() -> dict[Client, Value]:
            # A null is told to those who saw what it ends.
            return before if stored == NULL else self.told(address, stored, Signal.PARAM)

        heard = self._send(client, message)
        assert not any(isinstance(one, Error) for one in heard[client]), heard[client]
        assert existed or stored != NULL or self.world.relay.params.get(address) is None
        told = {each: sets(messages) for each, messages in heard.items()}
        wanted = {each: [(address, value)] for each, value in expected().items()}
        assert {each: found for each, found in told.items() if found} == wanted, (told, wanted)
        caught_up = {(each, place) for each, messages in heard.items() for place in snapshots(messages)}
        assert newly_seen() <= caught_up, "somebody sees something newly and was not told"

    def _deliver(self, client: Client, message: Publish, expected: dict[Client, Value]) -> None:
        heard = self._send(client, message)
        told = {each: [one.value for one in found if isinstance(one, Publish)] for each, found in heard.items()}
        wanted = {each: [value] for each, value in expected.items()}
        assert {each: found for each, found in told.items() if found} == wanted, (told, wanted)

    def _refused(self, client: Client, message: Message, expected: tuple[int, str]) -> None:
        heard = self._send(client, message)
        (error,) = heard.pop(client)
        assert isinstance(error, Error)
        assert (error.error, error.message) == expected, (error, expected)
        assert not any(heard.values()), "somebody heard of a refused message"

    def _send(self, client: Client, message: Message) -> dict[Client, list[Message]]:
        for each in self.clients:
            each.hear()
        client.send(message)
        return {each: each.hear() for each in self.clients}

    def _remembered_grant(self, session: Session, address: str, value: Value, ttl: int | None) -> Grant:
        params = self.world.relay.params
        grant = self.permissions.check_write(session.identity, address, value, ttl, params)
        return Grant(value, ttl) if grant is None else grant

    def _remembered_signal(self, session: Session, address: str, value: Value) -> Grant:
        signed = self.permissions.check_publish(session.identity, address, value, self.world.relay.params)
        return Grant(value if signed is None else signed, None)

    def _client(self, who: int) -> Client:
        return self.clients[who % len(self.clients)]

    def _scopes(self, session: Session) -> Scopes:
        subject = session.identity.subject
        return Scopes.parse(("admin:/**",) if subject == USERS[-1] else self.fresh.scopes_for(subject))


def _answer(decide: Callable[[], Grant | None]) -> Answer | None:
    try:
        return decide()
    except RequestError as error:
        return int(error.code), error.message


def sets(messages: list[Message]) -> list[tuple[str, Value]]:
    """Returns address and value of each SET."""
    return [(one.address, one.value) for one in messages if isinstance(one, Set)]


def snapshots(messages: list[Message]) -> dict[str, Value]:
    """Returns what SNAPSHOTs say is set."""
    return {param.address: param.value for one in messages if isinstance(one, Snapshot) for param in one.params}
