"""A whole policy: loading one, and the two that come with the relay."""

import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.policy import PACKAGED, GuestIds, MessageRate, Policy, explain_write
from clasp_relay.access.policy.checks import CHECKS
from clasp_relay.core.rights.port import FULL, HIDDEN
from clasp_relay.errors import StartError
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.values import PyValue, encode_value
from tests.access.policy.chat_cases import (
    COMPAT_SIGHTS,
    COMPAT_WRITES,
    DM,
    EVERYBODY,
    LOCK,
    OPEN,
    SIGHTS,
    WRITES,
    Row,
    Sight,
    scene,
)
from tests.access.policy.chat_flows import ChatFlows, CompatFlows
from tests.access.policy.world import SECOND_US, World, by_existence, by_value

GUIDE = Path(__file__).parents[3] / "docs" / "policy.md"
WHITEBOARD = Path(__file__).with_name("whiteboard.json")

__all__ = ["ChatFlows", "CompatFlows"]


def as_(user: str, value: PyValue) -> PyValue:
    """Puts a user where a row says ``{me}``."""
    return json.loads(json.dumps(value).replace("{me}", user))


class LoadingTests(SynchronousTestCase):
    """Where a policy comes from."""

    def test_file_is_loaded(self) -> None:
        """UTF-8 JSON."""
        path = self.mktemp()
        Path(path).write_text('{"scopes": ["read:/{userId}/ä"]}', "utf-8")
        policy = Policy.load(path)
        self.assertEqual(policy.scopes_for("al"), ("read:/al/ä",))
        self.assertEqual(policy.document.source, path)

    def test_file_that_cannot_be_loaded_stops_the_start(self) -> None:
        """With its name and what is wrong."""
        path = self.mktemp()
        self.assertIn("cannot be read", str(self.assertRaises(StartError, Policy.load, path)))
        for content, message in (
            (b"\xff", "cannot be read"),
            (b"{", "not valid JSON"),
            (b'{"a": 1}', "a: is not known"),
        ):
            with self.subTest(content=content):
                Path(path).write_bytes(content)
                error = str(self.assertRaises(StartError, Policy.load, path))
                self.assertIn(path, error)
                self.assertIn(message, error)

    def test_packaged_policies_are_sound(self) -> None:
        """Nothing in them needs a line in the log."""
        for name in PACKAGED:
            with self.subTest(name=name):
                self.assertEqual(Policy.packaged(name).document.notices, ())


class PackagedCase(SynchronousTestCase):
    """Tables against a packaged policy."""

    def assert_writes(self, name: str, rows: list[Row]) -> None:
        """Asserts who may write, for everybody."""
        for row in rows:
            world = scene(name)
            may = {
                user
                for user in EVERYBODY.split()
                if not world.code(user, as_(user, row.address), as_(user, row.value), is_publish=row.is_publish)
            }
            with self.subTest(row=row):
                self.assertEqual(may, set(row.who.split()), row)

    def assert_sights(self, name: str, sights: list[Sight]) -> None:
        """Asserts who sees, for everybody."""
        world = scene(name)
        for sight in sights:
            seen = {user for user in EVERYBODY.split() if world.sees(user, sight.address, sight.pattern)}
            with self.subTest(sight=sight):
                self.assertEqual(seen, set(sight.who.split()), sight)


class ChatTests(PackagedCase):
    """The safe policy."""

    def test_everybody_writes_what_the_tables_say(self) -> None:
        """And nobody else does."""
        self.assert_writes("chat", WRITES)

    def test_everybody_sees_what_the_tables_say(self) -> None:
        """By every kind of pattern."""
        self.assert_sights("chat", SIGHTS)

    def test_live_messages_are_decided_like_snapshots(self) -> None:
        """No entry is for one way out."""
        self.assertFalse(Policy.packaged("chat").tells_live_apart)

    def test_settings(self) -> None:
        """Limits, life times, identities."""
        document = Policy.packaged("chat").document
        self.assertEqual(document.rate_limits, RateLimits(5, 60, 60, 60))
        self.assertEqual(document.message_rate, MessageRate(60, 300))
        self.assertEqual((document.hello_snapshot, document.guest_ids), (False, GuestIds.BEARER))

    def test_presence_and_typing_expire(self) -> None:
        """Sixty seconds after the last beat; nothing else does."""
        for name in PACKAGED:
            world = scene(name)
            for rest, ttl in (
                ("presence/carol", TTL_ABSOLUTE | 60),
                ("typing/carol", TTL_ABSOLUTE | 60),
                ("video/presence/s-carol", TTL_ABSOLUTE | 60),
                ("crypto/pubkey/carol", None),
                ("meta", None),
            ):
                with self.subTest(name=name, rest=rest):
                    self.assertEqual(world.asked("carol", f"{OPEN}/{rest}", {}, is_publish=False).ttl, ttl)

    def test_offer_to_link_a_device_expires(self) -> None:
        """Two minutes after it was made, whatever it asks for; what a device is stays."""
        for name in PACKAGED:
            world = scene(name)
            for rest, ttl in (("link/l1", TTL_ABSOLUTE | 120), ("devices/d1", None), ("sync/profile", None)):
                with self.subTest(name=name, rest=rest):
                    self.assertEqual(world.asked("mia", f"/chat/user/mia/{rest}", {}, is_publish=False).ttl, ttl)

    def test_password_hash_is_seen_by_the_creator_only(self) -> None:
        """The salt is needed before one is inside; a proof's hash is as secret as the password's."""
        world = scene("chat")
        for by, view in (("carol", FULL), ("mia", frozenset(("passwordHash",))), ("eve", frozenset(("passwordHash",)))):
            with self.subTest(by=by):
                self.assertEqual(world.view(by, f"{LOCK}/meta"), view)
        for by, view in (("carol", FULL), ("mia", frozenset(("hash",)))):
            with self.subTest(by=by):
                self.assertEqual(world.view(by, f"{LOCK}/crypto/proof/mia"), view)

    def test_proof_counts_while_it_is_the_current_one(self) -> None:
        """A new password puts everybody outside, and a removed one lets them in."""
        world = scene("chat")
        self.assertEqual(world.code("mia", f"{LOCK}/messages", {}, is_publish=True), 0)
        world.set("carol", f"{LOCK}/meta", {"passwordHash": "new"})
        self.assertEqual(world.code("mia", f"{LOCK}/messages", {}, is_publish=True), 403)
        self.assertEqual(world.view("mia", f"{LOCK}/messages"), HIDDEN)
        world.set("mia", f"{LOCK}/crypto/proof/mia", {"hash": "new"})
        self.assertEqual(world.view("mia", f"{LOCK}/messages"), FULL)
        self.assertNotIn("passwordHash", world.set("carol", f"{LOCK}/meta", {"name": "x"}))
        self.assertEqual(world.view("pat", f"{LOCK}/messages"), FULL)

    def test_room_of_two_users_is_theirs(self) -> None:
        """Its id can be worked out by anybody, so nobody else may take it; an id that was drawn may be anybody's."""
        two: dict[str, PyValue] = {"dmUsers": {"dora": "D", "dan": "N"}}
        mine: dict[str, PyValue] = {"dmUsers": {"eve": "E", "dan": "N"}}
        for name in PACKAGED:
            world = scene(name)
            for by, room, value, code in (
                ("eve", "dm-dan-dora", mine, 403),
                ("eve", "dm-dan-dora", {}, 403),
                ("eve", "dm-dan-dora", {"dmUsers": {"eve": "E", "dan": "N", "dora": "D"}}, 403),
                ("dora", "dm-dan-dora", {"dmUsers": {"dora": "D"}}, 403),
                ("dora", "dm-dora-dan", two, 403),
                ("dora", "dm-dan-dora", two, 0),
                ("dora", "dm-dan-dora", {"dmUsers": ["dan", "dora"]}, 0),
                ("eve", "dm-550e8400-e29b-41d4-a716-446655440000", mine, 0),
                ("eve", "dmx", mine, 0),
            ):
                with self.subTest(policy=name, by=by, room=room, value=value):
                    self.assertEqual(world.code(by, f"/chat/room/{room}/meta", value), code)

    def test_nobody_speaks_in_anothers_name(self) -> None:
        """In the history, in a call, by a reaction."""
        world = scene("chat")
        for rest, value, code in (
            ("history/to/mia", {"userId": "carol"}, 403),
            ("history/to/mia", {"userId": "mia"}, 0),
            ("video/presence/s-mia-2", {"userId": "carol"}, 403),
            ("video/presence/s-mia-2", {"userId": "mia"}, 0),
            ("reactions/m1/x/carol", {}, 403),
            ("reactions/m1/x/carol", None, 403),
            ("reactions/m1/x/mia", {}, 0),
        ):
            with self.subTest(rest=rest, value=value):
                self.assertEqual(world.code("mia", f"{OPEN}/{rest}", value), code)
        for by, code in (("carol", 0), ("adam", 0), ("gus", 403)):
            with self.subTest(by=by):
                world.put(f"{OPEN}/presence/{by}", {}, by)
                self.assertEqual(world.code(by, f"{OPEN}/reactions/m1/x/mia", None), code)

    def test_place_in_a_call_names_its_user(self) -> None:
        """Under both policies, whatever the client leaves out."""
        for name in PACKAGED:
            with self.subTest(name):
                world = scene(name)
                address = f"{OPEN}/video/presence/s-mia-2"
                self.assertEqual(world.set("mia", address, {"name": "Mia"}), {"name": "Mia", "userId": "mia"})
                self.assertEqual(world.code("mia", address, {"userId": "carol"}), 403)
                self.assertEqual(world.code("mia", address, "no map"), 403)
                self.assertEqual(world.code("mia", address, None), 0)

    def test_banned_hears_no_signals_of_a_call(self) -> None:
        """Also where it is still listed in it."""
        world = scene("chat")
        self.assertEqual(world.view("mia", f"{OPEN}/video/signal/s-mia"), FULL)
        world.set("carol", f"{OPEN}/bans/mia", {})
        self.assertEqual(world.view("mia", f"{OPEN}/video/signal/s-mia"), HIDDEN)

    def test_creator_of_a_group_removes_what_strangers_put_there(self) -> None:
        """But changes nothing of it."""
        world = scene("chat")
        world.set("eve", "/chat/registry/ns/a/spam", {"name": "spam"})
        for by, value, code in (("dan", None, 403), ("gus", {}, 403), ("gus", None, 0)):
            with self.subTest(by=by, value=value):
                self.assertEqual(world.code(by, "/chat/registry/ns/a/spam", value), code)

    def test_nobody_is_present_for_ever(self) -> None:
        """Whatever its client asks for; so it is for typing, and for calls."""
        for name in PACKAGED:
            world = scene(name)
            for rest in ("presence/mia", "typing/mia", "video/presence/s-mia"):
                for ttl in (0, 86_400):
                    with self.subTest(policy=name, rest=rest, ttl=ttl):
                        content = encode_value({})
                        grant = world.policy.check_write("mia", f"{OPEN}/{rest}", content, ttl, False, world, 0).grant
                        self.assertEqual(grant.ttl, TTL_ABSOLUTE | 300)

    def test_password_is_not_guessed(self) -> None:
        """Five tries a minute, each user for itself; the right one does not help either."""
        world = scene("chat")
        tries = [world.code("eve", f"{LOCK}/crypto/proof/eve", {"hash": h}) for h in ("a", "b", "c", "d", "e", "h")]
        self.assertEqual(tries, [403] * 5 + [429])
        self.assertEqual(world.code("gus", f"{LOCK}/crypto/proof/gus", {"hash": "h"}), 0)
        world.later(60)
        self.assertEqual(world.code("eve", f"{LOCK}/crypto/proof/eve", {"hash": "h"}), 0)

    def test_ban_takes_effect_at_once(self) -> None:
        """Writing and seeing end; lifting it brings them back."""
        world = scene("chat")
        world.set("adam", f"{OPEN}/bans/mia", {"bannedBy": "adam"})
        self.assertEqual(world.code("mia", f"{OPEN}/messages", {}, is_publish=True), 403)
        self.assertEqual(world.code("mia", f"{OPEN}/presence/mia", {}), 403)
        self.assertEqual(world.view("mia", f"{OPEN}/messages"), HIDDEN)
        world.set("carol", f"{OPEN}/bans/mia", None)
        self.assertEqual(world.view("mia", f"{OPEN}/messages"), FULL)

    def test_banned_admin_bans_nobody(self) -> None:
        """Nor lifts its own ban."""
        world = scene("chat")
        world.set("carol", f"{OPEN}/bans/adam", {})
        self.assertEqual(world.code("adam", f"{OPEN}/bans/adam", None), 403)
        self.assertEqual(world.code("adam", f"{OPEN}/presence/mia", None), 403)

    def test_grace_after_leaving_and_none_after_a_kick(self) -> None:
        """Thirty seconds, and the verdict ends with them."""
        world = scene("chat")
        world.set("mia", f"{OPEN}/presence/mia", None)
        verdict = world.verdict("mia", f"{OPEN}/messages", f"{OPEN}/*")
        self.assertEqual((verdict.hidden_keys, verdict.reads.until_us), (FULL, world.now_us + 30 * SECOND_US))
        world.later(30)
        self.assertEqual(world.view("mia", f"{OPEN}/messages"), HIDDEN)
        world.set("mia", f"{OPEN}/presence/mia", {})
        world.set("adam", f"{OPEN}/presence/mia", None)
        self.assertEqual(world.view("mia", f"{OPEN}/messages"), HIDDEN)

    def test_creator_is_stamped_and_stays(self) -> None:
        """Past a null; an entry of the registry and a group end with theirs."""
        world = scene("chat")
        self.assertEqual(world.set("gus", "/chat/room/new/meta", {"creatorId": "eve"}), {"creatorId": "gus"})
        world.set("gus", "/chat/room/new/meta", None)
        self.assertEqual(world.code("eve", "/chat/room/new/meta", {}), 403)
        self.assertEqual(world.set("gus", "/chat/room/new/meta", {}), {"creatorId": "gus"})
        for address, field in (
            ("/chat/registry/rooms/n", "creatorId"),
            ("/chat/registry/ns/a/b/n", "creatorId"),
            ("/chat/registry/ns-meta/n/m", "createdBy"),
        ):
            with self.subTest(address=address):
                self.assertEqual(world.set("gus", address, {field: "eve"}), {field: "gus"})
                self.assertEqual(world.code("eve", address, {}), 403)
                world.set("gus", address, None)
                self.assertEqual(world.set("eve", address, {}), {field: "eve"})

    def test_coming_inside_opens_the_room_but_not_its_keys(self) -> None:
        """For the one who came; a change of the meta may open it for everybody."""
        policy = Policy.packaged("chat")
        for address, subject in (
            (f"{OPEN}/presence/mia", "mia"),
            (f"{OPEN}/bans/mia", "mia"),
            (f"{OPEN}/crypto/proof/mia", "mia"),
            (f"{OPEN}/meta", None),
        ):
            with self.subTest(address=address):
                found = [(opened.subject, opened.pattern.text) for opened in policy.catch_ups(address)]
                self.assertIn((subject, f"{OPEN}/**"), found)
        self.assertEqual(policy.catch_ups(f"{OPEN}/messages"), ())
        self.assertTrue(policy.visibility_rule(f"{OPEN}/reactions/m/x").catch_up)
        self.assertTrue(policy.visibility_rule(f"{OPEN}/meta").catch_up)
        self.assertFalse(policy.visibility_rule(f"{OPEN}/crypto/pubkey/mia").catch_up)

    def test_what_everybody_sees_costs_no_decision(self) -> None:
        """The registry and profiles are the same for all."""
        policy = Policy.packaged("chat")
        for address in ("/chat/registry/rooms/x", "/chat/user/u/profile", "/chat/registry/ns-meta/a/__auth"):
            with self.subTest(address=address):
                self.assertIsNotNone(policy.visibility_rule(address).fixed)
        self.assertFalse(policy.visibility_rule(f"{OPEN}/messages").depends_on_pattern)
        self.assertTrue(policy.visibility_rule(f"{OPEN}/meta").depends_on_pattern)

    def test_every_lookup_is_reported(self) -> None:
        """What the verdict of a member of a password room rests on."""
        verdict = scene("chat").verdict("mia", f"{LOCK}/messages", "/chat/room/**")
        self.assertEqual(by_value(verdict.reads), {f"{LOCK}/{rest}" for rest in ("meta", "crypto/proof/mia")})
        beats = {f"{LOCK}/{rest}" for rest in ("bans/mia", "presence/mia")}
        self.assertEqual(by_existence(verdict.reads), beats, "a beat changes neither")
        self.assertEqual(verdict.reads.patterns, ())
        self.assertFalse(verdict.reads.reads_address, "it is shared by all addresses of the room")


class CompatTests(PackagedCase):
    """The policy of the original app."""

    def test_everybody_writes_what_the_table_says(self) -> None:
        """Today's rules, with what never was meant closed."""
        self.assert_writes("chat-compat", COMPAT_WRITES)

    def test_everybody_sees_what_the_table_says(self) -> None:
        """In snapshots."""
        self.assert_sights("chat-compat", COMPAT_SIGHTS)

    def test_room_rule_is_for_snapshots_only(self) -> None:
        """Calls of the original need what is sent live; what is nobody's business stays hidden there too."""
        world = scene("chat-compat")
        self.assertTrue(world.policy.tells_live_apart)
        for address, view in (
            (f"{OPEN}/video/signal/s1", FULL),
            (f"{DM}/messages", FULL),
            ("/chat/registry/ns-meta/a/__auth", HIDDEN),
            ("/chat/user/mia/friends/dora", HIDDEN),
            (f"{LOCK}/meta", frozenset(("passwordHash", "passwordSalt"))),
        ):
            with self.subTest(address=address):
                self.assertEqual(world.view("gus", address, is_live=True), view)

    def test_rename_keeps_the_password(self) -> None:
        """The original writes back what it could not see."""
        world = scene("chat-compat")
        stored = world.set("carol", f"{LOCK}/meta", {"name": "new", "creatorId": "carol"})
        self.assertEqual((stored["passwordHash"], stored["passwordSalt"]), ("h", "s"))

    def test_creator_is_stamped_and_stays(self) -> None:
        """So that rename, promote, ban and kick work."""
        world = scene("chat-compat")
        self.assertEqual(world.set("gus", "/chat/room/new/meta", {}), {"creatorId": "gus"})
        world.set("gus", "/chat/room/new/meta", None)
        self.assertEqual(world.code("eve", "/chat/room/new/meta", {}), 403)

    def test_settings(self) -> None:
        """The same limits; guests as the original wants them."""
        chat, compat = (Policy.packaged(name).document for name in PACKAGED)
        self.assertEqual(compat.scopes, chat.scopes)
        self.assertEqual((compat.rate_limits, compat.message_rate), (chat.rate_limits, chat.message_rate))
        self.assertEqual([(path.text, ttl) for path, ttl in compat.ttl], [(path.text, ttl) for path, ttl in chat.ttl])
        self.assertEqual((compat.hello_snapshot, compat.guest_ids), (True, GuestIds.OPEN))


class PolicyTests(SynchronousTestCase):
    """What a policy answers besides."""

    def test_value_of_a_decision_is_passed_on_as_sent(self) -> None:
        """The same object where nothing was put into it."""
        world = World(Policy.from_document({"scopes": ["write:/**"]}))
        value = encode_value({"a": 1})
        self.assertIs(world.policy.check_write("al", "/a", value, None, False, world, 0).grant.value, value)

    def test_id_that_cannot_stand_in_a_scope_is_refused(self) -> None:
        """Before a token is made."""
        self.assertRaises(ValueError, Policy.packaged("chat").scopes_for, "*")


class DocumentationTests(SynchronousTestCase):
    """What docs/policy.md says."""

    def setUp(self) -> None:
        """Reads it."""
        self.text = GUIDE.read_text("utf-8")
        self.examples = re.findall(r"```json\n(.*?)```", self.text, re.DOTALL)

    def test_every_example_is_a_sound_policy(self) -> None:
        """Whole files, of which the log warns of nothing."""
        self.assertGreater(len(self.examples), 6)
        for n, example in enumerate(self.examples):
            with self.subTest(n=n):
                document = Policy.from_document(json.loads(example)).document
                said = [line for line in document.notices if "live messages" not in line]
                self.assertEqual([line for line in said if not line.startswith("sessions without a token are")], [])

    def test_every_check_is_described_and_shown(self) -> None:
        """In a table and in an example."""
        for kind in CHECKS:
            with self.subTest(kind=kind):
                self.assertIn(f"`{kind}`", self.text)
                self.assertTrue(any(f'"{kind}"' in example for example in self.examples))

    def test_worked_example_is_the_file_that_is_tested(self) -> None:
        """To the byte."""
        (found,) = re.findall(r"<!-- whiteboard.json -->\n```json\n(.*?)```", self.text, re.DOTALL)
        self.assertEqual(found, WHITEBOARD.read_text("utf-8"))

    def test_explanation_is_the_one_that_is_shown(self) -> None:
        """To the byte, too."""
        policy = Policy.load(str(WHITEBOARD))
        world = World(policy)
        explanation = explain_write(policy, "bob", "/board/b1/shape/s1", encode_value({"x": 1}), world, world.now_us)
        self.assertIn(f"\n{explanation}\n```", self.text)


class WhiteboardTests(SynchronousTestCase):
    """The worked example does what its text says."""

    def setUp(self) -> None:
        """Makes ann's private board with bob as an editor."""
        self.world = World(Policy.load(str(WHITEBOARD)))
        self.world.set("ann", "/board/b1/meta", {"title": "Plan", "inviteCode": "x"})
        self.world.set("ann", "/board/b1/editor/bob", {"name": "Bob"})
        self.world.set("bob", "/board/b1/shape/s1", {"x": 1})

    def test_everybody_writes_what_the_text_says(self) -> None:
        """Owner, editor, stranger."""
        for address, value, who in (
            ("/board/b1/meta", {}, "ann"),
            ("/board/b1/editor/eve", {}, "ann"),
            ("/board/b1/editor/bob", None, "ann bob"),
            ("/board/b1/shape/s1", {"x": 2}, "ann bob"),
            ("/board/b1/shape/s2", {}, "ann bob"),
            ("/board/b1/here/{me}", {}, "ann bob"),
            ("/board/b1/cursor/{me}", {}, "ann bob"),
            ("/board/b1/here/{me}", None, "ann bob eve"),
            ("/board/b2/meta", {}, "ann bob eve"),
        ):
            with self.subTest(address=address, value=value):
                may = [by for by in ("ann", "bob", "eve") if not self.world.code(by, as_(by, address), value)]
                self.assertEqual(may, who.split())

    def test_editors_change_only_what_they_drew(self) -> None:
        """The stamp says who that was."""
        self.world.set("ann", "/board/b1/editor/dan", {})
        self.assertEqual(self.world.code("dan", "/board/b1/shape/s1", {}), 403)
        self.assertEqual(self.world.set("ann", "/board/b1/shape/s1", {"x": 3}), {"x": 3, "by": "bob"})

    def test_board_is_seen_by_whom_the_text_says(self) -> None:
        """And by everybody once it is public; the code by its owner."""
        for address, views in (
            ("/board/b1/shape/s1", (FULL, FULL, HIDDEN)),
            ("/board/b1/meta", (FULL, frozenset(("inviteCode",)), HIDDEN)),
        ):
            self.assertEqual(tuple(self.world.view(by, address, "/board/**") for by in ("ann", "bob", "eve")), views)
        self.world.set("ann", "/board/b1/meta", {"public": True})
        self.assertEqual(self.world.view("eve", "/board/b1/shape/s1", "/board/**"), FULL)

    def test_invitation_opens_the_board_for_a_subscription_made_before(self) -> None:
        """For the one invited."""
        (opened,) = self.world.policy.catch_ups("/board/b1/editor/eve")
        self.assertEqual((opened.subject, opened.pattern.text), ("eve", "/board/b1/**"))
