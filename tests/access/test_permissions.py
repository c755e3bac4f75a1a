"""Tokens, scopes and policy together, as the relay asks them: every way out against every kind of rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import session_ids
from clasp_relay.access.permissions import (
    BAD_TOKEN,
    EXPIRED,
    MAX_PLACE_CHARACTERS,
    MAX_PLACES,
    NO_TOKEN,
    Bearer,
    TokenPermissions,
)
from clasp_relay.access.policy import PACKAGED, Policy
from clasp_relay.access.policy.checks import CHECKS
from clasp_relay.access.policy.language.question import given_id
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.session_ids import KEPT_S, KnownSessionIds
from clasp_relay.access.tokens import ADMIN_SCOPES, POLICY_SCOPES, TokenRecord, TokenTable, digest_of
from clasp_relay.core.ports import Log
from clasp_relay.core.relay import RelayOptions
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    NULL,
    Announce,
    Bundle,
    Error,
    Get,
    Hello,
    Message,
    Publish,
    Query,
    Result,
    Set,
    SignalDefinition,
    Snapshot,
    Subscribe,
    Welcome,
)
from clasp_relay.wire.values import decode_value
from tests.access.policy.language.test_maps import raw_map
from tests.access.remembering import POLICIES, STEPS, Json, Remembering, leaves
from tests.core.world import Client, World, WorldClock, codes, heard, value

SECRET = {"text": "hello", "secret": "s3cret"}
"""What is stored or sent; a redacting rule takes ``secret`` away."""

SCOPES = ["read:/**", "write:/**"]

ADDRESS = "/app/room/r1/item"
OWNED = "/app/user/owner/item"


class AuthWorld(World):
    """A relay with a policy and some users, whose tokens are their names.

    Args:
        policy: the policy's document, or None.
        options: what the relay is told about itself.
        log: where changes are recorded; at once when not given.
    """

    def __init__(self, policy: object | None, options: RelayOptions | None = None, log: Log | None = None) -> None:
        clock = WorldClock()
        self.tokens = TokenTable(clock.clock, lambda: clock.now_us() / 1e6)
        rules = None if policy is None else Policy.from_document(policy)
        history = rules.history_rules() if rules is not None and rules.document.history else None
        permissions = TokenPermissions(self.tokens, rules, clock.now_us)
        super().__init__(options, permissions, clock, log, history)
        self.session_ids = KnownSessionIds(
            self.relay.sessions, clock.now_us, lambda session_id: permissions.memory.outdated(given_id(session_id))
        )
        self.relay.hooks.when_began = self.session_ids.began
        if rules is not None:
            rules.session_ids = self.session_ids
        for name in ("owner", "reader", "other"):
            self.add(name)
        self.add("admin", scopes_name=ADMIN_SCOPES)

    def add(self, name: str, *, scopes_name: str = POLICY_SCOPES, expires_s: int | None = None) -> None:
        """Makes a token valid."""
        self.tokens.add(TokenRecord(digest_of(name), name, name, False, scopes_name, 0, expires_s))


def shown(messages: list[Message], address: str) -> list[object]:
    """Returns what messages show of an address: values, or True for an announced signal."""
    found: list[object] = []
    for message in messages:
        if isinstance(message, Snapshot):
            found += [decode_value(param.value) for param in message.params if param.address == address]
        elif isinstance(message, Set | Publish) and message.address == address and message.value is not None:
            found.append(decode_value(message.value))
        elif isinstance(message, Result):
            found += [True for signal in message.signals if signal.address == address]
    return found


class Ways:
    """Each way by which a value can leave: put it there as ``owner``, and hear what ``name`` is told of it."""

    def __init__(self, world: AuthWorld) -> None:
        self.world = world
        self.owner = world.join("owner")

    def hello(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT after WELCOME."""
        self.owner.send(Set(address, value(SECRET)))
        client = self.world.connect()
        client.send(Hello(1, 0xE0, "test", name))
        return client.hear()

    def subscribe(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT after SUBSCRIBE."""
        self.owner.send(Set(address, value(SECRET)))
        return self.world.join(name).ask(Subscribe(1, "/app/**"))

    def get(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT that answers GET."""
        self.owner.send(Set(address, value(SECRET)))
        return self.world.join(name).ask(Get(address))

    def live_set(self, name: str, address: str) -> list[Message]:
        """A SET that somebody else makes."""
        return self._live(name, lambda: self.owner.send(Set(address, value(SECRET))))

    def throttled_set(self, name: str, address: str) -> list[Message]:
        """A SET through a subscription with a maximum rate."""
        client = self.world.join(name)
        client.ask(Subscribe(1, "/app/**", max_rate=10))
        self.owner.send(Set(address, value(SECRET)))
        return client.hear()

    def live_publish(self, name: str, address: str) -> list[Message]:
        """A PUBLISH."""
        return self._live(name, lambda: self.owner.send(Publish(address, value=value(SECRET))))

    def gesture(self, name: str, address: str) -> list[Message]:
        """A gesture."""
        message = Publish(address, Signal.GESTURE, value=value(SECRET), id=1)
        return self._live(name, lambda: self.owner.send(message))

    def bundled_set(self, name: str, address: str) -> list[Message]:
        """A SET inside a bundle."""
        return self._live(name, lambda: self.owner.send(Bundle((Set(address, value(SECRET)),))))

    def bundled_publish(self, name: str, address: str) -> list[Message]:
        """A PUBLISH inside a bundle."""
        return self._live(name, lambda: self.owner.send(Bundle((Publish(address, value=value(SECRET)),))))

    def query(self, name: str, address: str) -> list[Message]:
        """An announced signal."""
        self.owner.send(Set(address, value(SECRET)))
        self.owner.send(Announce("/app", (SignalDefinition(address, Signal.PARAM),)))
        return self.world.join(name).ask(Query("/app/**"))

    def _live(self, name: str, act: Callable[[], None]) -> list[Message]:
        client = self.world.join(name)
        client.ask(Subscribe(1, "/app/**"))
        act()
        return client.hear()


WAYS = (
    "hello",
    "subscribe",
    "get",
    "live_set",
    "throttled_set",
    "live_publish",
    "gesture",
    "bundled_set",
    "bundled_publish",
    "query",
)

HIDES = {
    "nobody": ({"path": "/app/room/**", "visible": False}, ADDRESS, ()),
    "by path text": ({"path_contains": "/room/", "visible": False}, ADDRESS, ()),
    "owner": ({"path": "/app/user/{id}/**", "visible": "owner", "owner_segment": "id"}, OWNED, ("owner",)),
    "state": (
        {"path": "/app/room/**", "visible": "require_state_not_null", "lookup": "/app/open"},
        ADDRESS,
        (),
    ),
    "checks": (
        {
            "path": "/app/room/{room}/**",
            "visible": "checks",
            "checks": [{"type": "state_field_has_session", "lookup": "/members/{room}", "field": "who"}],
        },
        ADDRESS,
        ("owner",),
    ),
    "literal": ({"path": "/app/room/{room}/**", "visible": True, "literal": ["room"]}, ADDRESS, ()),
}
"""Rules that hide: the entry, an address that it is about, and who sees it all the same by ``/app/**``."""


class WaysOutTests(SynchronousTestCase):
    """The table of paths and rules: nobody gets what is not theirs, whichever way."""

    def test_who_may_not_see_gets_nothing_by_any_way(self) -> None:
        """Each way against each kind of rule, for one who may not see it and one who may."""
        for rule, (entry, address, seers) in HIDES.items():
            for way in WAYS:
                for name in ("reader", "owner", "admin"):
                    with self.subTest(f"{rule} / {way} / {name}"):
                        if name == "owner" and way in ("live_publish", "gesture", "bundled_publish"):
                            continue  # it goes to all sessions but the sender's, and here that is another one
                        world = AuthWorld({"scopes": SCOPES, "snapshot_visibility": [entry]})
                        world.join("admin").send(Set("/members/r1", value({"who": {"owner": True}})))
                        told = shown(getattr(Ways(world), way)(name, address), address)
                        sees = name == "admin" or name in seers or (rule == "literal" and way == "get")
                        if sees:
                            self.assertEqual(told, [True] if way == "query" else [SECRET])
                        else:
                            self.assertEqual(told, [None] if way == "get" else [])

    def test_keys_are_taken_away_by_every_way(self) -> None:
        """A transform holds for all that a session receives, but not for an administrator."""
        policy = {
            "scopes": SCOPES,
            "snapshot_transforms": [{"path": "/app/room/**", "redact_fields": ["secret"]}],
        }
        for way in WAYS:
            if way == "query":
                continue  # it tells that there is a signal, not what it says
            for name in ("reader", "owner", "admin"):
                with self.subTest(f"{way} / {name}"):
                    told = shown(getattr(Ways(AuthWorld(policy)), way)(name, ADDRESS), ADDRESS)
                    self.assertEqual(told, [SECRET if name == "admin" else {"text": "hello"}])

    def test_who_may_see_and_who_may_not_share_one_address(self) -> None:
        """Each session gets its own view, in the same moment."""
        world = AuthWorld(
            {
                "scopes": SCOPES,
                "snapshot_transforms": [
                    {
                        "path": "/app/{id}/**",
                        "redact_fields": ["secret"],
                        "unless": [{"type": "segment_equals_session", "segment": "id"}],
                    }
                ],
            }
        )
        clients = {name: world.join(name) for name in ("reader", "owner", "other")}
        for client in clients.values():
            client.ask(Subscribe(1, "/app/**"))
        world.join("other").send(Set("/app/reader/x", value(SECRET)))
        self.assertEqual(shown(clients["reader"].hear(), "/app/reader/x"), [SECRET])
        for name in ("owner", "other"):
            self.assertEqual(shown(clients[name].hear(), "/app/reader/x"), [{"text": "hello"}])


class ChangingViewTests(SynchronousTestCase):
    """Verdicts end with what they rest on."""

    def setUp(self) -> None:
        """A room whose items only members see."""
        self.world = AuthWorld(
            {
                "scopes": SCOPES,
                "snapshot_visibility": [
                    {
                        "path": "/app/room/{room}/item",
                        "visible": "checks",
                        "checks": [{"type": "present", "lookup": "/app/room/{room}/here/{session}", "grace_secs": 30}],
                        "catch_up": True,
                    }
                ],
            }
        )
        self.owner = self.world.join("owner")
        self.reader = self.world.join("reader")
        self.reader.ask(Subscribe(1, "/app/room/r1/*"))
        self.owner.send(Set(ADDRESS, value(1)))

    def enter(self, client: Client | None = None) -> None:
        """The reader comes in."""
        (client or self.reader).send(Set("/app/room/r1/here/reader", value(True)))

    def told(self) -> list[object]:
        """What the reader hears of the item."""
        return shown(self.reader.hear(), ADDRESS)

    def test_newly_seen_is_caught_up_once(self) -> None:
        """Who comes in gets a SNAPSHOT of what is there, and none at the next beat."""
        self.assertEqual(self.told(), [])
        self.enter()
        self.assertEqual(self.told(), [1])
        self.enter()
        self.assertEqual(self.told(), [])
        self.owner.send(Set(ADDRESS, value(2)))
        self.assertEqual(self.told(), [2])

    def test_a_view_ends_when_its_grace_does(self) -> None:
        """Own null: seen for the grace, then no longer."""
        self.enter()
        self.reader.send(Set("/app/room/r1/here/reader", NULL))
        self.owner.send(Set(ADDRESS, value(2)))
        self.assertEqual(self.told(), [1, 2])
        self.world.advance(31)
        self.owner.send(Set(ADDRESS, value(3)))
        self.assertEqual(self.told(), [])

    def test_a_kick_ends_a_view_at_once(self) -> None:
        """Another's null leaves no grace."""
        self.enter()
        self.owner.send(Set("/app/room/r1/here/reader", NULL))
        self.owner.send(Set(ADDRESS, value(2)))
        self.assertEqual(self.told(), [1])

    def test_own_null_ends_presence_for_all_sessions_of_the_user(self) -> None:
        """A session that nobody sees listed reads nothing after the grace; its next beat brings it back."""
        second = self.world.join("reader")
        self.enter()
        self.enter(second)
        self.told()
        second.send(Set("/app/room/r1/here/reader", NULL))
        self.owner.send(Set(ADDRESS, value(2)))
        self.assertEqual(self.told(), [2])
        self.world.advance(31)
        self.owner.send(Set(ADDRESS, value(3)))
        self.assertEqual(self.told(), [])
        self.enter()
        self.assertEqual(self.told(), [3])

    def test_a_session_that_goes_leaves_what_it_set(self) -> None:
        """Another session of the user sees on, until the value ends."""
        second = self.world.join("reader")
        self.enter(second)
        second.leave()
        self.world.advance(60)
        self.owner.send(Set(ADDRESS, value(2)))
        self.assertEqual(self.told(), [1, 2])

    def test_a_null_is_told_to_those_who_saw_what_it_ends(self) -> None:
        """And to nobody else."""
        other = self.world.join("other")
        other.ask(Subscribe(1, "/app/room/r1/*"))
        self.enter()
        self.told()
        other.hear()
        self.owner.send(Set(ADDRESS, NULL))
        self.assertEqual(self.told(), [None])
        self.assertEqual(shown(other.hear(), ADDRESS), [])


class PartialAdminTests(SynchronousTestCase):
    """Who is an admin below some addresses only, beside others who are below others."""

    def setUp(self) -> None:
        """Everybody is an admin of the own folder; nobody else sees what is in it."""
        self.world = AuthWorld(
            {
                "scopes": ["read:/**", "write:/**", "admin:/d/{userId}/**"],
                "snapshot_visibility": [{"path": "/d/**", "visible": False}],
            }
        )
        self.clients = {name: self.world.join(name) for name in ("owner", "reader")}
        for client in self.clients.values():
            client.ask(Subscribe(1, "/d/**"))

    def test_what_is_told_of_one_folder_says_nothing_about_another(self) -> None:
        """Whichever was written first: nobody is told of another's, everybody is of the own."""
        for order in (("owner", "reader"), ("reader", "owner")):
            self.setUp()
            for name in order * 2:
                with self.subTest(order=order, name=name):
                    self.clients[name].send(Set(f"/d/{name}/x", value(name)))
                    heard_by = {each: heard(client.hear()) for each, client in self.clients.items()}
                    expected = {each: [(f"/d/{name}/x", name)] if each == name else [] for each in self.clients}
                    self.assertEqual(heard_by, expected)


ACCOUNT = {"type": "writer_is_account"}
IS_ACCOUNT = [
    {"field": "account", "value": True, "publish": True, "when": [ACCOUNT]},
    {"field": "account", "value": False, "publish": True, "when": [{"type": "not", "check": ACCOUNT}]},
]


class AccountTests(SynchronousTestCase):
    """Guests and registered users are told apart, by their tokens."""

    def world(self, policy: object) -> tuple[Client, Client, Client]:
        """Returns a guest, the same user registered, and somebody who sees everything."""
        world = AuthWorld(policy)
        for name, is_guest in (("as guest", True), ("as user", False)):
            world.tokens.add(TokenRecord(digest_of(name), "ann", "Ann", is_guest, POLICY_SCOPES, 0, None))
        guest, user, reader = (world.join(name) for name in ("as guest", "as user", "admin"))
        reader.ask(Subscribe(1, "/**"))
        return guest, user, reader

    def test_stamp_says_whether_the_writer_is_registered(self) -> None:
        """In SETs, PUBLISHes and bundles, whatever the sender said."""
        rule = {"path": "/app/**", "stamp": IS_ACCOUNT}
        guest, user, reader = self.world({"scopes": SCOPES, "write_rules": [rule]})
        for client, is_account in ((guest, False), (user, True), (guest, False)):
            for said in ({}, {"account": True}, {"account": False}, {"account": "yes"}):
                sent = value({"n": 1, **said})
                for message in (Set("/app/a", sent), Publish("/app/b", value=sent), Bundle((Set("/app/c", sent),))):
                    with self.subTest(client=client.session.id, message=message):
                        client.send(message)
                        ((_, found),) = heard(reader.hear())
                        self.assertEqual(found, {"n": 1, "account": is_account})
        self.assertEqual(heard(guest.ask(Set("/app/a", NULL))), [])
        self.assertEqual(heard(reader.hear()), [("/app/a", None)])
        self.assertEqual(codes(guest.ask(Set("/app/a", value("no map")))), [ErrorCode.POLICY])

    def test_rule_may_be_for_registered_users(self) -> None:
        """What is remembered of one session is not taken for another one of the same subject."""
        rule = {"path": "/app/**", "checks": [ACCOUNT]}
        guest, user, _ = self.world({"scopes": SCOPES, "write_rules": [rule]})
        for _ in range(3):
            self.assertEqual(codes(user.ask(Set("/app/a", value(1)))), [])
            (error,) = guest.ask(Set("/app/a", value(2)))
            assert isinstance(error, Error), error
            self.assertEqual(error.message, "only registered users may do this; you are a guest")

    def test_presence_in_the_chat_says_it(self) -> None:
        """Under both policies."""
        for name in PACKAGED:
            with self.subTest(name):
                policy = json.loads(resources.files("clasp_relay.access.policies").joinpath(f"{name}.json").read_text())
                guest, user, reader = self.world(policy)
                for client, is_account in ((guest, False), (user, True)):
                    client.send(Set("/chat/room/r1/presence/ann", value({"name": "Ann", "account": True})))
                    expected = ("/chat/room/r1/presence/ann", {"name": "Ann", "account": is_account})
                    self.assertEqual(heard(reader.hear()), [expected])


class SessionIdTests(SynchronousTestCase):
    """Addresses that name a session of the writer's."""

    def test_place_is_at_the_id_of_an_own_session(self) -> None:
        """Of one that ended before, too, for a day; what is remembered of a write ends with that."""
        rule = {"path": "/app/{sid}", "checks": [{"type": "segment_is_own_session_id", "segment": "sid"}]}
        world = AuthWorld({"scopes": SCOPES, "write_rules": [rule]})
        first, other = world.join("owner"), world.join("other")
        address = f"/app/{first.session.id}"
        for _ in range(3):
            self.assertEqual(codes(first.ask(Set(address, value(1)))), [])
            self.assertEqual(codes(other.ask(Set(address, value(1)))), [ErrorCode.POLICY])
        self.assertGreater(len(world.relay.permissions.memory), 0)
        first.leave()
        second = world.join("owner")
        world.advance(60)
        self.assertEqual(codes(second.ask(Set(address, value(1)))), [])
        world.clock.clock.advance(KEPT_S)
        for _ in range(3):
            self.assertEqual(codes(second.ask(Set(address, value(1)))), [ErrorCode.POLICY])
            self.assertEqual(codes(second.ask(Set(f"/app/{second.session.id}", value(1)))), [])
        self.assertEqual(codes(second.ask(Set("/app/none", value(1)))), [ErrorCode.POLICY])

    def test_remembered_answer_ends_when_the_id_is_forgotten(self) -> None:
        """Since too many others of the subject are known."""
        self.patch(session_ids, "MAX_IDS_PER_SUBJECT", 2)
        rule = {"path": "/app/{sid}", "checks": [{"type": "segment_is_own_session_id", "segment": "sid"}]}
        world = AuthWorld({"scopes": SCOPES, "write_rules": [rule]})
        first, second = world.join("owner"), world.join("owner")
        write = Set(f"/app/{first.session.id}", value(1))
        first.leave()
        self.assertEqual(codes(second.ask(write)), [])
        world.join("owner")
        self.assertEqual(codes(second.ask(write)), [ErrorCode.POLICY])


class RememberedAnswerTests(SynchronousTestCase):
    """Every answer that is remembered is the one that would be found anew."""

    def test_every_check_is_tried(self) -> None:
        """The policies that are drawn leave none out, but those that no reader is asked about."""
        of_writers = {check.kind for check in CHECKS.values() if check.about_writer}
        self.assertEqual(
            of_writers, {"writer_is_account", "segment_is_own_session_id", "state_not_null_at_value_field"}
        )
        self.assertEqual({*leaves(("id",)), "not", "any_of", "all_of", *of_writers}, set(CHECKS))

    @settings(max_examples=settings().max_examples // 4)
    @given(POLICIES, STEPS)
    def test_remembered_answers_are_those_found_anew(self, document: Json, steps: list[tuple[Any, ...]]) -> None:
        """Under any policy, whatever happens: writes, sights, deliveries. ``Remembering`` raises where they differ."""
        here = Remembering(document)
        here.compare()
        for name, *arguments in steps:
            getattr(here, name)(*arguments)
            here.compare()


class LockTests(SynchronousTestCase):
    """Locks under a policy."""

    def setUp(self) -> None:
        """Notes can't be locked, plans can: by anybody, though they belong to a user."""
        self.world = AuthWorld(
            {
                "scopes": SCOPES,
                "write_rules": [
                    {"path": "/note/*", "lock": False},
                    {"path": "/plan/{user}/*", "owner": "{user}"},
                    {"path": "/board/*", "stamp": {"field": "by"}},
                ],
            }
        )
        self.reader, self.owner = self.world.join("reader"), self.world.join("owner")

    def codes(self, client: Client, message: Message) -> list[int]:
        """Sends and returns the codes of the errors."""
        return [int(one.error) for one in client.ask(message) if isinstance(one, Error)]

    def test_lock_is_refused_where_the_rule_says_so(self) -> None:
        """The value is not stored; without the lock it is. An admin may."""
        for _ in range(2):
            self.assertEqual(self.codes(self.reader, Set("/note/1", value(1), lock=True)), [ErrorCode.POLICY])
        self.assertIsNone(self.world.relay.params.get("/note/1"))
        self.assertEqual(self.codes(self.reader, Set("/note/1", value(1))), [])
        bundle = Bundle((Set("/note/1", value(2)), Set("/note/1", value(3), lock=True)))
        self.assertEqual(self.codes(self.reader, bundle), [ErrorCode.POLICY])
        self.assertEqual(self.codes(self.world.join("admin"), Set("/note/1", value(4), lock=True)), [])

    def test_owner_writes_past_a_lock(self) -> None:
        """Others don't; the lock stays with its holder, until the owner unlocks."""
        self.assertEqual(self.codes(self.reader, Set("/plan/owner/a", value(1), lock=True)), [])
        other = self.world.join("other")
        self.assertEqual(self.codes(other, Set("/plan/owner/a", value(2))), [ErrorCode.LOCKED])
        self.assertEqual(self.codes(self.owner, Set("/plan/owner/a", value(3))), [])
        self.assertEqual(self.codes(other, Set("/plan/owner/a", value(4))), [ErrorCode.LOCKED])
        self.assertEqual(self.codes(self.owner, Set("/plan/owner/a", value(5), unlock=True)), [])
        self.assertEqual(self.codes(other, Set("/plan/owner/a", value(6))), [])

    def test_stamped_one_writes_past_a_lock(self) -> None:
        """Who made it can always change and end it."""
        self.assertEqual(self.codes(self.owner, Set("/board/1", value({}))), [])
        self.assertEqual(self.codes(self.reader, Set("/board/1", value({}), lock=True)), [])
        self.assertEqual(self.codes(self.world.join("other"), Set("/board/1", NULL)), [ErrorCode.LOCKED])
        self.assertEqual(self.codes(self.owner, Set("/board/1", NULL)), [])

    def test_owner_gets_past_a_lock_in_a_bundle(self) -> None:
        """Each member is decided like a SET of its own; another one's bundle is refused."""
        rule = {"path": "/board/{n}", "stamp": {"field": "by"}, "owner": "{n}", "lock": True}
        self.world = AuthWorld({"scopes": SCOPES, "write_rules": [rule]})
        self.world.add("holder")
        stamped, owner, other, holder = (self.world.join(name) for name in ("reader", "owner", "other", "holder"))
        stamped.send(Set("/board/owner", value({})))
        self.assertEqual(self.codes(holder, Set("/board/owner", value({}), lock=True)), [])
        write = Bundle((Set("/elsewhere", value(1)), Set("/board/owner", value({}))))
        found = [self.codes(by, write) for by in (stamped, owner, other)]
        self.assertEqual(found, [[], [], [ErrorCode.LOCKED]])

    def test_without_a_policy_locks_hold(self) -> None:
        """For everybody but their holder."""
        self.world = AuthWorld(None)
        reader, owner = self.world.join("reader"), self.world.join("owner")
        self.assertEqual(self.codes(reader, Set("/a", value(1), lock=True)), [])
        self.assertEqual(self.codes(owner, Set("/a", value(1))), [ErrorCode.LOCKED])

    def test_in_the_chat_nobody_locks_anything(self) -> None:
        """No friend request, ban or presence can be kept from who may end it."""
        for name in PACKAGED:
            rules = Policy.packaged(name).write_rules
            for address in ("/chat/room/r/presence/u", "/chat/room/r/bans/u", "/chat/requests/a/b", "/chat/user/a/x"):
                with self.subTest(policy=name, address=address):
                    self.assertFalse(rules.allows_lock(address))


class AuthorTests(SynchronousTestCase):
    """Messages that say who sent them, whatever their sender says."""

    def test_everybody_hears_who_said_it(self) -> None:
        """By every way, the first time and later; another's name is refused."""
        for checks in ([], [{"type": "present", "lookup": "/here/{session}"}]):
            stamp = {"field": "by", "publish": True}
            rule = {"path": "/say", "stamp": stamp, "checks": checks}
            world = AuthWorld({"scopes": SCOPES, "write_rules": [rule]})
            reader, owner = world.join("reader"), world.join("owner")
            reader.ask(Subscribe(1, "/say"))
            owner.send(Set("/here/owner", value(1)))
            for sent in ({"n": 1}, {"n": 2}, {"n": 3, "by": "owner"}):
                for message in (
                    Publish("/say", Signal.EVENT, value=value(sent)),
                    Set("/say", value(sent)),
                    Bundle((Publish("/say", Signal.EVENT, value=value(sent)),)),
                ):
                    with self.subTest(checks=checks, message=message):
                        self.assertEqual(owner.ask(message), [])
                        self.assertEqual(heard(reader.hear()), [("/say", {**sent, "by": "owner"})])
            for message in (
                Publish("/say", Signal.EVENT, value=value({"by": "reader"})),
                Publish("/say", Signal.EVENT),
                Publish("/say", Signal.STREAM, samples=bytes(8), rate=60),
                Set("/say", value({"by": "reader"})),
            ):
                with self.subTest(checks=checks, message=message):
                    (error,) = owner.ask(message)
                    assert isinstance(error, Error)
                    self.assertEqual(error.error, ErrorCode.POLICY)
                    self.assertEqual(reader.hear(), [])

    def test_message_that_grows_too_large_is_refused(self) -> None:
        """Before anybody hears of it."""
        world = AuthWorld(
            {"scopes": SCOPES, "write_rules": [{"path": "/say", "stamp": {"field": "by", "publish": True}}]}
        )
        owner = world.join("owner")
        for size in range(65_400, 65_536):
            message = Publish("/say", Signal.EVENT, value=value({"n": "x" * size}))
            try:
                owner.send(message)
            except ValueError:
                break  # no frame carries it as it is
        codes = {error.error for error in owner.hear() if isinstance(error, Error)}
        self.assertEqual(codes, {ErrorCode.VALUE})
        self.assertEqual(world.faults, [])


class AmbiguousMapTests(SynchronousTestCase):
    """Values that two readers read differently."""

    def setUp(self) -> None:
        """Notes name who wrote them."""
        named = {"type": "value_field_missing_or_session", "field": "by"}
        self.world = AuthWorld({"scopes": SCOPES, "write_rules": [{"path": "/note/*", "checks": [named]}]})
        self.reader = self.world.join("reader")

    def codes(self, message: Message) -> list[int]:
        """Sends and returns the codes of the errors."""
        return [int(one.error) for one in self.reader.ask(message) if isinstance(one, Error)]

    def test_key_that_is_looked_at_may_be_in_a_map_once(self) -> None:
        """A second one is refused, whoever sends it and whatever it says; other keys are nobody's concern."""
        mine, theirs = value("reader"), value("owner")
        twice = raw_map(("by", theirs), ("by", mine))
        for _ in range(2):
            for message in (Set("/note/1", twice), Publish("/note/1", value=twice), Bundle((Set("/note/1", twice),))):
                self.assertEqual(self.codes(message), [ErrorCode.VALUE])
            self.assertEqual(self.codes(Set("/note/1", raw_map(("by", mine), ("x", mine), ("x", mine)))), [])
        self.assertEqual(self.codes(Set("/else", twice)), [])

    def test_name_is_read_as_javascript_reads_it(self) -> None:
        """With a byte order mark it is still the name."""
        self.assertEqual(self.codes(Set("/note/1", value({"by": "\ufeffreader"}))), [])
        self.assertEqual(self.codes(Set("/note/1", value({"by": "\ufeffowner"}))), [ErrorCode.POLICY])


class AdmissionTests(SynchronousTestCase):
    """What HELLO's token decides."""

    def test_bad_tokens_are_refused_with_their_cause(self) -> None:
        """The ERROR's code and the close reason both say it."""
        world = AuthWorld(None)
        world.add("old", expires_s=int(world.clock.now_us() / 1e6) - 1)
        for token, code, words in (
            ("", ErrorCode.UNAUTHENTICATED, "a token is needed"),
            ("nonsense", ErrorCode.UNAUTHENTICATED, "not valid"),
            ("old", ErrorCode.TOKEN_EXPIRED, "expired"),
        ):
            with self.subTest(token):
                client = world.connect()
                client.send(Hello(1, 0xE0, "test", token))
                (error,) = client.hear()
                assert isinstance(error, Error)
                self.assertEqual(error.error, code)
                assert client.outbox.closed is not None
                self.assertEqual(client.outbox.closed[0], CloseCode.POLICY_VIOLATION)
                self.assertIn(words, client.outbox.closed[1])

    def test_refusals_keep_nothing_of_their_sessions(self) -> None:
        """An exception that is raised again and again keeps the frames of each time, with all that they hold."""
        world = AuthWorld(None)
        world.add("old", expires_s=int(world.clock.now_us() / 1e6) - 1)
        for token in ("", "nonsense", "old"):
            world.connect().send(Hello(1, 0xE0, "test", token))
        for refusal in (NO_TOKEN, BAD_TOKEN, EXPIRED):
            self.assertIsNone(refusal.__traceback__)

    def test_scopes_hold_for_every_message(self) -> None:
        """301 names the address; nothing happens."""
        world = AuthWorld({"scopes": ["read:/r/**", "write:/w/**"]})
        client = world.join("reader")
        for message in (
            Set("/x", value(1)),
            Publish("/x", value=value(1)),
            Get("/x"),
            Subscribe(1, "/**"),
            Subscribe(1, "/w/**"),
            Query("/**"),
            Announce("/x", (SignalDefinition("/x/y", Signal.PARAM),)),
            Bundle((Set("/w/a", value(1)), Set("/x", value(1)))),
        ):
            with self.subTest(message=message):
                (error,) = client.ask(message)
                assert isinstance(error, Error)
                self.assertEqual(error.error, ErrorCode.SCOPE)
                self.assertIsNotNone(error.address)
        self.assertEqual(len(world.relay.params), 0)
        self.assertEqual(len(world.relay.subscriptions), 0)

    def test_the_first_snapshot_holds_what_may_be_read(self) -> None:
        """Write scopes do not count for it, and a policy can leave it empty."""
        for more, expected in (({}, [1]), ({"hello_snapshot": False}, [])):
            world = AuthWorld({"scopes": ["read:/r/**", "write:/w/**"], **more})
            admin = world.join("admin")
            admin.send(Set("/r/a", value(1)))
            admin.send(Set("/w/a", value(2)))
            client = world.connect()
            client.send(Hello(1, 0xE0, "test", "reader"))
            messages = client.hear()
            self.assertIsInstance(messages[0], Welcome)
            self.assertEqual(shown(messages, "/r/a"), expected)
            self.assertEqual(shown(messages, "/w/a"), [])

    def test_what_a_token_planned_ends_with_it(self) -> None:
        """A bundle that waits is not applied for a token that is valid no longer."""
        world = AuthWorld(None)
        for name in ("reader", "other"):
            client = world.join(name)
            due_us = world.clock.now_us() + 1_000_000
            client.send(Bundle((Set(f"/plan/{name}", value(1)),), due_us))
            client.leave()
        world.tokens.revoke([digest_of("reader")])
        world.advance(2)
        self.assertIsNone(world.relay.params.get("/plan/reader"))
        self.assertIsNotNone(world.relay.params.get("/plan/other"))

    def test_the_sessions_of_a_token_end_with_it(self) -> None:
        """Revoked or expired: ERROR 302, close 1008; others go on."""
        world = AuthWorld(None)
        soon_s = int(world.clock.now_us() / 1e6) + 10
        world.add("short", expires_s=soon_s)
        world.tokens.on_end(lambda record, _why: world.relay.end_token(record.subject, record.digest, EXPIRED))
        world.tokens.start()
        self.addCleanup(world.tokens.stop)
        short, other = world.join("short"), world.join("reader")
        world.tokens.revoke([digest_of("reader")])
        world.clock.clock.pump([1.0] * 11)
        for client in (short, other):
            (error,) = client.hear()
            assert isinstance(error, Error)
            self.assertEqual(error.error, ErrorCode.TOKEN_EXPIRED)
            self.assertFalse(client.session.is_live)
        self.assertEqual(len(world.relay.sessions), 0)


class AnonymousTests(SynchronousTestCase):
    """Sessions whose HELLO has no token."""

    def setUp(self) -> None:
        """A studio where everybody may look at the lights and move one fader; its rooms have a password."""
        wrong = {"type": "value_field_equals", "field": "code", "value": "1234"}
        self.document: dict[str, object] = {
            "scopes": SCOPES,
            "anonymous": {"scopes": ["read:/light/**", "write:/fader/{userId}", "write:/door", "write:/here/*"]},
            "write_rules": [{"path": "/door", "checks": [wrong], "failures": {"max": 2, "window_secs": 60}}],
        }
        self.world = AuthWorld(self.document)

    def test_session_without_a_token_has_a_subject_and_scopes_of_its_own(self) -> None:
        """The subject holds the session's id, so no two have the same and nobody is it afterwards."""
        first, second = self.world.join(), self.world.join()
        for client in (first, second):
            self.assertEqual(client.session.identity.subject, f"clasp.anon.{client.session.id}")
        self.assertEqual(codes(first.ask(Set(f"/fader/{first.session.identity.subject}", value(1)))), [])
        self.assertEqual(
            codes(first.ask(Set(f"/fader/{second.session.identity.subject}", value(1)))), [ErrorCode.SCOPE]
        )
        self.assertEqual(codes(first.ask(Set("/light/1", value(1)))), [ErrorCode.SCOPE])
        self.assertEqual(codes(first.ask(Subscribe(1, "/light/**"))), [])
        self.assertEqual(codes(first.ask(Subscribe(2, "/**"))), [ErrorCode.SCOPE])
        self.world.join("owner").send(Set("/light/1", value(0.5)))
        self.assertEqual(heard(first.hear()), [("/light/1", 0.5)])

    def test_wrong_token_is_never_taken_for_none(self) -> None:
        """It is refused with 300, an expired one with 302."""
        self.world.add("old", expires_s=int(self.world.clock.now_us() / 1e6) + 1)
        self.world.tokens.start()
        self.world.advance(3)
        for token, code in (("nonsense", ErrorCode.UNAUTHENTICATED), ("old", ErrorCode.TOKEN_EXPIRED)):
            with self.subTest(token):
                client = self.world.connect()
                client.send(Hello(1, 0xE0, "test", token))
                self.assertEqual(codes(client.hear()), [code])
                self.assertFalse(client.session.is_live)

    def test_without_the_key_or_a_policy_a_token_is_needed(self) -> None:
        """As it always was."""
        for policy in ({"scopes": SCOPES}, None):
            client = AuthWorld(policy).connect()
            client.send(Hello(1, 0xE0, "test"))
            self.assertEqual(codes(client.hear()), [ErrorCode.UNAUTHENTICATED])

    def test_message_rate_of_the_key_holds_for_them_alone(self) -> None:
        """Whatever the relay's own rate is; without one they have the relay's."""
        assert isinstance(self.document["anonymous"], dict)
        for rate, passed in (({"per_second": 1, "burst": 3}, 3), (None, 5)):
            with self.subTest(rate=rate):
                key = {"scopes": ["write:/here/*"]} | ({} if rate is None else {"message_rate": rate})
                self.world = AuthWorld({**self.document, "anonymous": key}, RelayOptions(message_rate=(1, 5)))
                for token, expected in (("", passed), ("owner", 5)):
                    client = self.world.join(token)
                    for number in range(8):
                        client.send(Set(f"/here/{token}{number}", value(number)))
                    stored = [f"/here/{token}{number}" for number in range(8)]
                    kept = [address for address in stored if self.world.relay.params.get(address)]
                    self.assertEqual(len(kept), expected)

    def test_failures_are_counted_for_all_of_one_client_address(self) -> None:
        """A new session is no new chance to guess; another address has its own."""
        self.world.relay.hooks.origin_of = lambda peer: peer
        wrong, right = Set("/door", value({"code": "1"})), Set("/door", value({"code": "1234"}))
        for _ in range(2):
            self.assertEqual(codes(self.world.join().ask(wrong)), [ErrorCode.POLICY])
        self.assertEqual(codes(self.world.join().ask(right)), [ErrorCode.LIMIT])
        self.assertEqual(codes(self.world.join("owner").ask(right)), [])
        self.world.relay.hooks.origin_of = lambda _peer: "elsewhere"
        self.assertEqual(codes(self.world.join().ask(right)), [])

    def test_what_they_scheduled_ends_with_their_session(self) -> None:
        """Of a token's user it is done all the same, while the token is valid."""
        at_us = self.world.clock.now_us() + 2_000_000
        staying, leaving, owner = self.world.join(), self.world.join(), self.world.join("owner")
        for name, client in (("staying", staying), ("leaving", leaving), ("owner", owner)):
            client.send(Bundle((Set(f"/here/{name}", value(1)),), at_us))
        leaving.leave()
        owner.leave()
        self.world.advance(3)
        done = [name for name in ("staying", "leaving", "owner") if self.world.relay.params.get(f"/here/{name}")]
        self.assertEqual(done, ["staying", "owner"])


class PlaceTests(SynchronousTestCase):
    """What is kept of a token's writes to an address changes no answer."""

    def setUp(self) -> None:
        """A room that must be open, for maps only; what is written there lives a minute."""
        self.world = AuthWorld(
            {
                "scopes": ["read:/**", "write:/room/**"],
                "ttl": {"/room/*/said": 60},
                "write_rules": [
                    {
                        "path": "/room/{room}/said",
                        "checks": [
                            {"type": "state_not_null", "lookup": "/room/{room}/open"},
                            {"type": "value_is_map"},
                        ],
                    }
                ],
            }
        )
        self.writer = self.world.join("owner")

    def write(self, address: str, obj: object, *, by: Client | None = None, ttl: int | None = None) -> list[int]:
        """Sets a value and returns the errors."""
        answers = (by or self.writer).ask(Set(address, value(obj), ttl=ttl), 1)
        return [int(answer.error) for answer in answers if isinstance(answer, Error)]

    def test_a_write_that_passed_passes_again_until_what_it_looked_up_has_changed(self) -> None:
        """Its value is looked at every time, and its life time stays the policy's."""
        self.assertEqual(self.write("/room/1/said", {}), [ErrorCode.POLICY])
        self.write("/room/1/open", 1)
        for _ in range(3):
            self.assertEqual(self.write("/room/1/said", {}), [])
            self.assertEqual(self.write("/room/1/said", {}, ttl=5), [])
            self.assertEqual(self.write("/room/1/said", 7), [ErrorCode.POLICY])
        self.world.advance(1)
        self.write("/room/1/said", {})
        self.world.advance(58)
        self.assertIsNotNone(self.world.relay.params.get("/room/1/said"))
        self.write("/room/1/open", None)
        self.assertEqual(self.write("/room/1/said", {}), [ErrorCode.POLICY])

    def test_a_life_that_is_too_long_is_shortened_every_time(self) -> None:
        """However often it was written; nobody stays for ever by asking for it."""
        self.world = AuthWorld({"scopes": SCOPES, "max_ttl": {"/here/*": 10}, "write_rules": [{"path": "/here/*"}]})
        self.writer = self.world.join("owner")
        for ttl in (0, 100, None) * 2:
            self.assertEqual(self.write("/here/x", 1, ttl=ttl), [])
            self.world.advance(9)
            self.assertIsNotNone(self.world.relay.params.get("/here/x"))
            self.world.advance(2)
            self.assertIsNone(self.world.relay.params.get("/here/x"))

    def test_a_publish_is_looked_at_in_the_same_way(self) -> None:
        """One without a value counts as null, which is no map."""
        self.write("/room/1/open", 1)
        for _ in range(3):
            for sent, expected in ((value({}), []), (value(1), [ErrorCode.POLICY]), (None, [ErrorCode.POLICY])):
                answers = self.writer.ask(Publish("/room/1/said", Signal.EVENT, value=sent))
                self.assertEqual([one.error for one in answers if isinstance(one, Error)], expected)

    def test_a_pass_at_one_address_is_none_at_another(self) -> None:
        """Where a check looks at the address itself, whichever was asked first."""
        form = {"type": "reject_unless_path_matches", "pattern": "/app/ok/*"}
        self.world = AuthWorld({"scopes": SCOPES, "write_rules": [{"path": "/app/**", "checks": [form]}]})
        self.writer = self.world.join("owner")
        for _ in range(2):
            self.assertEqual(self.write("/app/secret", 1), [ErrorCode.POLICY])
            self.assertEqual(self.write("/app/ok/1", 1), [])
            self.assertEqual(self.write("/app/ok/2", 1), [])
        self.assertEqual(self.write("/app/secret", 1), [ErrorCode.POLICY])

    def test_an_admin_needs_no_rule_every_time(self) -> None:
        """And others need theirs all the same."""
        admin = self.world.join("admin")
        for _ in range(2):
            self.assertEqual(self.write("/room/1/said", 7, by=admin), [])
            self.assertEqual(self.write("/room/1/said", 7), [ErrorCode.POLICY])

    def test_what_is_out_of_scope_stays_so(self) -> None:
        """For SET and PUBLISH."""
        for _ in range(2):
            self.assertEqual(self.write("/else", 1), [ErrorCode.SCOPE])
            (answer,) = self.writer.ask(Publish("/else", Signal.EVENT))
            assert isinstance(answer, Error)
            self.assertEqual(answer.error, ErrorCode.SCOPE)

    def test_what_is_kept_is_bounded(self) -> None:
        """Long addresses are looked at anew."""
        addresses = [f"/room/{number}/x" for number in range(2 * MAX_PLACES)] + ["/room/" + "x" * MAX_PLACE_CHARACTERS]
        for address in addresses * 2:
            self.assertEqual(self.write(address, 1), [])
        who = self.writer.session.identity
        assert isinstance(who, Bearer)
        self.assertLessEqual(len(who.places), MAX_PLACES)

    def test_without_a_policy_everything_is_written_and_published(self) -> None:
        """As it is."""
        self.world = AuthWorld(None)
        self.writer = self.world.join("owner")
        reader = self.world.join("reader")
        reader.ask(Subscribe(1, "/**"))
        for _ in range(2):
            self.assertEqual(self.write("/a", 1), [])
            self.writer.send(Publish("/b", Signal.EVENT, value=value(2)))
            self.assertEqual(heard(reader.hear()), [("/a", 1), ("/b", 2)])


class VouchTests(SynchronousTestCase):
    """What one relay of a cluster tells another one of somebody's rights."""

    def setUp(self) -> None:
        """Two relays with the same policy and different tokens."""
        policy = {"scopes": SCOPES, "anonymous": {"scopes": ["read:/**"]}}
        self.here, self.there = AuthWorld(policy), AuthWorld(policy)
        self.permissions = self.here.relay.permissions

    def test_who_has_a_token_that_all_know_needs_nothing(self) -> None:
        """Nor who has none, and is let in by the policy."""
        for client in (self.here.join("owner"), self.here.join()):
            self.assertEqual(self.permissions.vouch(client.session.identity), "")
        owner = self.here.join("owner").session.identity
        self.here.tokens.revoke([owner.token])
        self.assertEqual(self.permissions.vouch(owner), "")

    def test_who_has_rights_that_only_one_relay_knows_is_vouched_for(self) -> None:
        """An administrator, a webhook: the other relay gives them just that."""
        self.here.tokens.is_following = True
        self.here.add("console", scopes_name=ADMIN_SCOPES)
        admin = self.here.join("console").session.identity
        hook = Bearer("clasp.hook.1", scopes=Scopes.parse(["admin:/room/a\nb/*", "read:/x"]))
        for who, scopes in ((admin, {"admin": ["/**"]}), (hook, {"admin": ["/room/a\nb/*"], "read": ["/x"]})):
            there = self.there.relay.permissions.readmit(who.subject, who.token, self.permissions.vouch(who))
            assert isinstance(there, Bearer)
            self.assertEqual((there.subject, there.token, there.ends_with_session), (who.subject, who.token, True))
            texts = [
                f"{action}:{pattern}" for action in ("read", "write", "admin") for pattern in scopes.get(action, ())
            ]
            self.assertEqual(there.scopes.texts, tuple(texts))
        self.assertIsNone(self.there.relay.permissions.readmit("console", admin.token))
        self.assertIsNone(self.there.relay.permissions.readmit("other", digest_of("owner")))

    def test_a_token_that_is_known_counts_more_than_what_is_said(self) -> None:
        """Nobody becomes more than that."""
        there = self.there.relay.permissions.readmit("owner", digest_of("owner"), '["admin:/**"]')
        assert isinstance(there, Bearer)
        self.assertFalse(there.scopes.is_admin_somewhere)


class VouchingTests(SynchronousTestCase):
    """Two relays of a cluster: what one of them alone knows."""

    def test_a_session_whose_token_is_in_no_database_is_vouched_for(self) -> None:
        """With what it may do; a token that all relays know is not."""
        here, there = AuthWorld({"scopes": ["read:/{userId}/**"]}), AuthWorld(None)
        here.tokens.is_following = True
        here.add("signed in by password")
        here.add("administrator", scopes_name=ADMIN_SCOPES)
        mine, theirs = here.relay.permissions, there.relay.permissions
        for name, scopes in (("signed in by password", None), ("administrator", "admin:/**")):
            with self.subTest(name=name):
                who = mine.readmit(name, digest_of(name))
                assert who is not None
                vouched = mine.vouch(who)
                if scopes is not None:
                    self.assertIn(scopes, vouched)
                self.assertIsNone(theirs.readmit(name, digest_of(name)))
                admitted = theirs.readmit(name, digest_of(name), vouched)
                assert admitted is not None
                self.assertEqual((admitted.subject, admitted.ends_with_session), (name, True))
        who = mine.readmit("owner", digest_of("owner"))
        assert who is not None
        self.assertEqual(mine.vouch(who), "")
