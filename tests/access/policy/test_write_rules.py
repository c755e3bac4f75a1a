"""Write rules: which one decides, and what the relay puts into the value."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy, write_rules
from clasp_relay.access.policy.document import FailureLimit
from clasp_relay.access.policy.write_rules import Failures, WriteRequest
from clasp_relay.core.rights.memory import Memory
from clasp_relay.core.rights.port import Grant
from clasp_relay.errors import ErrorCode, RequestError, StartError
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL
from clasp_relay.wire.values import PyValue, decode_value, encode_value
from tests.access.policy.chat_cases import NAMED, PUBLISHED, scene
from tests.access.policy.world import World

ALL = ["write:/**", "read:/**"]
OWN = {"type": "segment_equals_session", "segment": "user"}
IS_MAP = {"type": "value_is_map"}
NO = {"type": "state_not_null", "lookup": "/never"}


def world(*rules: PyValue, **keys: PyValue) -> World:
    """Makes a world under some rules."""
    return World(Policy.from_document({"scopes": ALL, "write_rules": list(rules), **keys}))


class RuleTests(SynchronousTestCase):
    """Which rule decides, and how."""

    def test_first_rule_that_matches_decides(self) -> None:
        """Later ones are not asked; without one the scope alone decides."""
        here = world({"path": "/a/{user}", "checks": [OWN]}, {"path": "/a/**", "checks": [NO]})
        self.assertEqual(here.code("alice", "/a/alice", 1), 0)
        self.assertEqual(here.code("alice", "/a/bob", 1), ErrorCode.POLICY)
        self.assertEqual(here.code("alice", "/a/alice/x", 1), ErrorCode.POLICY)
        self.assertEqual(here.code("alice", "/b", 1), 0)

    def test_mode_says_how_many_checks_must_hold(self) -> None:
        """All by default; no checks refuse nobody."""
        for mode, checks, code in (
            ("all", [OWN, IS_MAP], 403),
            ("any", [OWN, IS_MAP], 0),
            ("any", [NO, IS_MAP], 403),
            ("all", [OWN], 0),
            ("all", [], 0),
            ("any", [], 0),
        ):
            with self.subTest(mode=mode, checks=checks):
                self.assertEqual(
                    world({"path": "/a/{user}", "mode": mode, "checks": checks}).code("alice", "/a/alice", 1), code
                )

    def test_pre_checks_hold_always_and_all(self) -> None:
        """For a null that skips checks too, whatever the mode."""
        rule = {"path": "/a/{user}", "mode": "any", "pre_checks": [OWN], "allow_null_write": True, "checks": [IS_MAP]}
        here = world(rule)
        cases: list[tuple[str, PyValue, int]] = [
            ("alice", None, 0),
            ("alice", {}, 0),
            ("alice", 1, 403),
            ("bob", None, 403),
            ("bob", {}, 403),
        ]
        for by, value, code in cases:
            with self.subTest(by=by, value=value):
                self.assertEqual(here.code(by, "/a/alice", value), code)

    def test_null_is_checked_where_it_is_not_allowed_as_such(self) -> None:
        """allow_null_write is off by default."""
        self.assertEqual(world({"path": "/a", "checks": [IS_MAP]}).code("alice", "/a", None), 403)

    def test_publish_is_decided_by_its_value(self) -> None:
        """As a SET is; a message without a value counts as null, and nothing is put into it."""
        here = world({"path": "/a", "checks": [IS_MAP]}, ttl={"/**": 60})
        self.assertEqual(here.code("alice", "/a", {}, is_publish=True), 0)
        self.assertEqual(here.code("alice", "/a", 1, is_publish=True), 403)
        self.assertRaises(RequestError, here.policy.check_write, "alice", "/a", None, None, True, here, 0)
        self.assertEqual(here.policy.check_write("alice", "/b", None, None, True, here, 0).grant, Grant(NULL, None))

    def test_refused_writer_reads_the_message(self) -> None:
        """The rule's own, else the check's; never longer than an ERROR can be."""
        here = world(
            {"path": "/a", "message": "Not you.", "checks": [NO]},
            {"path": "/b/{user}", "mode": "any", "checks": [NO, OWN]},
        )
        error = self.assertRaises(RequestError, here.set, "alice", "/a", 1)
        self.assertEqual((error.code, error.message, error.address), (ErrorCode.POLICY, "Not you.", "/a"))
        error = self.assertRaises(RequestError, here.set, "alice", "/b/x", 1)
        self.assertEqual(error.message, "nothing is set at /never, or user in the address must be your id, 'alice'")
        here = world({"path": "/{user}", "checks": [{"type": "state_not_null", "lookup": "/b/{user}"}]})
        error = self.assertRaises(RequestError, here.set, "alice", "/" + "x" * 60_000, 1)
        self.assertEqual(len(error.message), 500)
        self.assertIsNone(error.address)

    def test_too_many_failures_are_refused_unseen(self) -> None:
        """The right answer too, until the window is over."""
        secret = {"type": "value_field_equals_state_field", "field": "h", "lookup": "/s/{room}", "state_field": "h"}
        here = world(
            {
                "path": "/p/{room}/{user}",
                "pre_checks": [OWN],
                "checks": [secret],
                "failures": {"max": 2, "window_secs": 60},
            }
        )
        here.put("/s/r1", {"h": "x"})
        self.assertEqual([here.code("alice", "/p/r1/alice", {"h": h}) for h in "abxx"], [403, 403, 429, 429])
        self.assertEqual(here.code("bob", "/p/r1/bob", {"h": "x"}), 0)
        here.later(60)
        self.assertEqual(here.code("alice", "/p/r1/alice", {"h": "x"}), 0)

    def test_admin_skips_the_rules(self) -> None:
        """Its value is stored as sent."""
        here = world(
            {"path": "/a/**", "checks": [NO], "stamp": {"field": "by"}, "failures": {"max": 1, "window_secs": 1}}
        )
        grant = here.policy.check_write("root", "/a/b", encode_value(7), None, False, here, 0, is_admin=True).grant
        self.assertEqual(grant, Grant(encode_value(7), None))


class TtlTests(SynchronousTestCase):
    """Life times by path."""

    def test_set_without_a_ttl_gets_the_path_s(self) -> None:
        """Seconds after the write; the first path that matches counts; a writer's own and a null's stay."""
        here = world({"path": "/a/{user}", "checks": []}, ttl={"/a/x": 5, "/a/*": 60})
        for address, value, ttl, stored in (
            ("/a/x", 1, None, TTL_ABSOLUTE | 5),
            ("/a/y", 1, None, TTL_ABSOLUTE | 60),
            ("/a/y", 1, 7, 7),
            ("/a/y", 1, 0, 0),
            ("/a/y", None, None, None),
            ("/b", 1, None, None),
        ):
            with self.subTest(address=address, value=value, ttl=ttl):
                grant = here.policy.check_write("alice", address, encode_value(value), ttl, False, here, 0).grant
                self.assertEqual(grant.ttl, stored)

    def test_longest_life_is_the_path_s(self) -> None:
        """A longer one, or none, becomes it; shorter ones stay as they are, sliding or not; an admin's too."""
        here = world(ttl={"/a/x": 5, "/a/long": 900}, max_ttl={"/a/**": 60})
        longest = TTL_ABSOLUTE | 60
        for address, value, ttl, stored in (
            ("/a/x", 1, None, TTL_ABSOLUTE | 5),
            ("/a/long", 1, None, longest),
            ("/a/y", 1, None, longest),
            ("/a/y", 1, 0, longest),
            ("/a/y", 1, TTL_ABSOLUTE, longest),
            ("/a/y", 1, 61, longest),
            ("/a/y", 1, 60, 60),
            ("/a/y", 1, TTL_ABSOLUTE | 7, TTL_ABSOLUTE | 7),
            ("/a/y", None, 0, 0),
            ("/b", 1, 0, 0),
            ("/b", 1, None, None),
        ):
            with self.subTest(address=address, value=value, ttl=ttl):
                write = WriteRequest("alice", address, encode_value(value), ttl)
                self.assertEqual(here.policy.write_rules.ttl(write), stored)
        rules = here.policy.write_rules
        self.assertEqual(rules.ttl(WriteRequest("root", "/a/y", encode_value(1), 0, is_admin=True)), 0)
        self.assertEqual([rules.bounds_ttl(address) for address in ("/a/y", "/b")], [True, False])
        self.assertEqual([rules.gives_ttl(address) for address in ("/a/y", "/b")], [True, False])


class StampTests(SynchronousTestCase):
    """Fields that the relay sets."""

    def lasting(self) -> World:
        """Makes rooms whose creator stays past a null."""
        creator = {
            "type": "state_field_equals_session",
            "lookup": "/room/{id}",
            "field": "by",
            "allow_if_missing": True,
        }
        stamp = {"field": "by", "value": "{session}", "outlives_null": True}
        return world({"path": "/room/{id}", "stamp": stamp, "checks": [creator]})

    def test_first_write_is_stamped_and_later_ones_keep_it(self) -> None:
        """Whatever the writer sends."""
        here = world({"path": "/room/{id}", "stamp": {"field": "by"}})
        self.assertEqual(here.set("alice", "/room/r", {"n": 1}), {"n": 1, "by": "alice"})
        self.assertEqual(here.set("bob", "/room/r", {"by": "bob", "n": 2}), {"by": "alice", "n": 2})
        self.assertEqual(here.set("bob", "/room/r", {}), {"by": "alice"})

    def test_stamp_replaces_what_the_first_writer_claims(self) -> None:
        """Nobody creates in another's name."""
        here = world({"path": "/room/{id}", "stamp": {"field": "by"}})
        self.assertEqual(here.set("alice", "/room/r", {"by": "bob"}), {"by": "alice"})

    def test_stamp_may_say_what_was_captured(self) -> None:
        """A template."""
        here = world({"path": "/room/{id}", "stamp": {"field": "from", "value": "{id}/{session}"}})
        self.assertEqual(here.set("alice", "/room/r", {}), {"from": "r/alice"})
        huge = world({"path": "/room/{id}", "stamp": {"field": "from", "value": "{id}{id}"}})
        self.assertEqual(huge.code("alice", "/room/" + "x" * 40_000, {}), ErrorCode.VALUE)

    def test_only_maps_are_stored_and_nothing_is_published(self) -> None:
        """There is no room for a stamp elsewhere."""
        here = world({"path": "/room/{id}", "stamp": {"field": "by"}})
        values: list[PyValue] = [[], "x", 1, None, {}]
        self.assertEqual([here.code("alice", "/room/r", value) for value in values], [403, 403, 403, 0, 0])
        self.assertEqual(here.code("alice", "/room/r", {}, is_publish=True), 403)

    def test_stamp_ends_with_a_null(self) -> None:
        """Unless it outlives it."""
        here = world({"path": "/room/{id}", "stamp": {"field": "by"}})
        here.set("alice", "/room/r", {})
        here.set("bob", "/room/r", None)
        self.assertIsNone(here.ends["/room/r"].stamp)
        self.assertEqual(here.set("bob", "/room/r", {}), {"by": "bob"})

    def test_stamped_one_alone_writes_after_a_null(self) -> None:
        """For ever, through several nulls."""
        here = self.lasting()
        here.set("alice", "/room/r", {})
        self.assertEqual(here.code("bob", "/room/r", None), 403)
        for _ in range(2):
            here.set("alice", "/room/r", None)
            self.assertEqual(here.ends["/room/r"].stamp, "alice")
            self.assertEqual(here.code("bob", "/room/r", {}), 403)
        self.assertEqual(here.set("alice", "/room/r", {"by": "bob"}), {"by": "alice"})

    def test_null_where_nothing_was_stamps_nobody(self) -> None:
        """An address is not taken by deleting it."""
        here = self.lasting()
        here.set("eve", "/room/r", None)
        self.assertIsNone(here.ends["/room/r"].stamp)
        self.assertEqual(here.set("alice", "/room/r", {}), {"by": "alice"})

    def test_stamp_of_a_value_that_ends_by_itself_is_told(self) -> None:
        """For an expiry; only where it outlives a null."""
        value = encode_value({"by": "alice"})
        self.assertEqual(self.lasting().policy.stamp_of("/room/r", value), "alice")
        self.assertIsNone(self.lasting().policy.stamp_of("/other", value))
        self.assertIsNone(world({"path": "/room/{id}", "stamp": {"field": "by"}}).policy.stamp_of("/room/r", value))

    def test_admin_may_hand_over_but_not_lose_a_stamp(self) -> None:
        """What it leaves out stays; its null frees nothing."""
        here = self.lasting()
        here.set("alice", "/room/r", {})
        for sent, stored, stamp in (
            ({"n": 1}, {"n": 1, "by": "alice"}, "alice"),
            ({"by": "bob"}, {"by": "bob"}, "bob"),
            ("text", "text", None),
            (None, None, "alice"),
        ):
            with self.subTest(sent=sent):
                grant = here.policy.check_write(
                    "root", "/room/r", encode_value(sent), None, False, here, 0, is_admin=True
                ).grant
                self.assertEqual(grant, Grant(encode_value(stored), None, stamp))


class AuthorTests(SynchronousTestCase):
    """A stamp that says who wrote each single value."""

    def setUp(self) -> None:
        """Everybody speaks in a room."""
        self.world = world({"path": "/room/{id}", "stamp": {"field": "by", "publish": True}})

    def test_missing_author_is_put_in(self) -> None:
        """By SET and PUBLISH; everything else stays as it was sent."""
        for is_publish in (False, True):
            for sent in ({"n": 1}, {}, {"by": None}, {"by": "alice", "n": 1}):
                with self.subTest(is_publish=is_publish, sent=sent):
                    grant = self.world.asked("alice", "/room/r", sent, is_publish=is_publish)
                    self.assertEqual(decode_value(grant.value), {**sent, "by": "alice"})
        self.assertEqual(self.world.set("bob", "/room/r", {}), {"by": "bob"}, "nothing is kept of who wrote before")

    def test_another_author_is_refused(self) -> None:
        """As is what is no map; a null deletes, but is no message."""
        cases: list[tuple[PyValue, int, int]] = [
            ({"by": "bob"}, 403, 403), ({"by": 1}, 403, 403), ([], 403, 403), ("x", 403, 403), (None, 0, 403),
        ]  # fmt: skip
        for value, by_set, by_publish in cases:
            with self.subTest(value=value):
                self.assertEqual(self.world.code("alice", "/room/r", value), by_set)
                self.assertEqual(self.world.code("alice", "/room/r", value, is_publish=True), by_publish)
        error = self.assertRaises(RequestError, self.world.set, "alice", "/room/r", {"by": "bob"})
        self.assertEqual(error.message, "'by' in the value must be 'alice', or be left out")

    def test_author_may_be_what_was_captured(self) -> None:
        """As long as it fits a value."""
        here = world({"path": "/room/{id}", "stamp": {"field": "by", "value": "{id}{id}", "publish": True}})
        self.assertEqual(here.set("alice", "/room/r", {}), {"by": "rr"})
        self.assertEqual(here.code("alice", "/room/" + "x" * 40_000, {}), ErrorCode.VALUE)

    def test_admin_writes_as_it_likes(self) -> None:
        """What it sends is stored."""
        here = self.world
        sent = encode_value({"by": "bob"})
        grant = here.policy.check_write("root", "/room/r", sent, None, True, here, 0, is_admin=True).grant
        self.assertEqual(grant.value, sent)

    def test_author_is_no_owner_and_outlives_nothing(self) -> None:
        """It belongs to one value."""
        rules = self.world.policy.write_rules
        self.assertFalse(rules.owns("alice", "/room/r", encode_value({"by": "alice"})))
        self.assertIsNone(rules.stamp_of("/room/r", encode_value({"by": "alice"})))
        stamp = {"field": "by", "publish": True, "outlives_null": True}
        self.assertRaises(StartError, world, {"path": "/a", "stamp": stamp})


class LockTests(SynchronousTestCase):
    """Who may take a lock, and who gets past one."""

    def test_rule_says_who_may_take_a_lock(self) -> None:
        """Else the document does, for its rules and for all other addresses; everybody may by default."""
        rules: list[PyValue] = [{"path": "/a", "lock": False}, {"path": "/b", "lock": True}, {"path": "/c"}]
        for keys, expected in (({}, [False, True, True, True]), ({"lock": False}, [False, True, False, False])):
            with self.subTest(keys=keys):
                allows = world(*rules, **keys).policy.write_rules.allows_lock
                self.assertEqual([allows(address) for address in ("/a", "/b", "/c", "/d")], expected)

    def test_owner_and_stamped_one_get_past_a_lock(self) -> None:
        """Whom the address or the stored stamp names; nobody where the rule names nobody."""
        owns = world(
            {"path": "/user/{id}/**", "owner": "{id}"},
            {"path": "/room/{id}", "stamp": {"field": "by"}},
            {"path": "/plain"},
        ).policy.write_rules.owns
        stamped, other = encode_value({"by": "alice"}), encode_value({"by": ["alice"]})
        for subject, address, value, expected in (
            ("alice", "/user/alice/x", NULL, True),
            ("bob", "/user/alice/x", stamped, False),
            ("alice", "/room/r", stamped, True),
            ("bob", "/room/r", stamped, False),
            ("alice", "/room/r", other, False),
            ("alice", "/room/r", NULL, False),
            ("alice", "/plain", stamped, False),
            ("alice", "/elsewhere", stamped, False),
        ):
            with self.subTest(subject=subject, address=address):
                self.assertIs(owns(subject, address, value), expected)


class KeepHiddenTests(SynchronousTestCase):
    """Fields that a writer could not see are not lost by its write."""

    def setUp(self) -> None:
        """Makes a document whose salt nobody sees and whose hash only its creator does."""
        creator = {"type": "state_field_equals_session", "lookup": "/room/{id}", "field": "by"}
        self.world = world(
            {"path": "/room/{id}", "keep_hidden": True},
            snapshot_transforms=[
                {"path": "/room/{room}", "redact_fields": ["hash"], "unless": [{**creator, "lookup": "/room/{room}"}]},
                {"path": "/room/**", "redact_fields": ["salt"]},
            ],
        )
        self.world.put("/room/r", {"by": "alice", "hash": "h", "salt": "s", "n": 1})

    def test_hidden_fields_are_kept(self) -> None:
        """Only those that were hidden from this writer."""
        self.assertEqual(
            self.world.set("bob", "/room/r", {"by": "alice", "n": 2}), {"by": "alice", "n": 2, "hash": "h", "salt": "s"}
        )
        self.assertEqual(self.world.set("alice", "/room/r", {"by": "alice"}), {"by": "alice", "salt": "s"})

    def test_fields_that_are_sent_are_not_touched(self) -> None:
        """A null too says that it is meant."""
        sent = {"hash": "new", "salt": None}
        self.assertEqual(self.world.set("bob", "/room/r", sent), sent)

    def test_what_is_no_map_is_stored_as_sent(self) -> None:
        """Before or after."""
        self.assertIsNone(self.world.set("bob", "/room/r", None))
        self.assertEqual(self.world.set("bob", "/room/r", {"n": 1}), {"n": 1})
        self.world.put("/room/r", "text")
        self.assertEqual(self.world.set("bob", "/room/r", {"n": 1}), {"n": 1})

    def test_other_bytes_stay_as_sent(self) -> None:
        """A number keeps its width, keys their order."""
        sent = b"\x0b\x00\x02\x00\x01z\x02\x07\x00\x01a\x00"
        grant = self.world.policy.check_write("bob", "/room/r", sent, None, False, self.world, 0).grant
        self.assertTrue(grant.value.startswith(b"\x0b\x00\x04" + sent[3:]))


MEMBER = {"type": "state_not_null", "lookup": "/members/{session}"}
BY_SELF = {"type": "value_field_equals_session", "field": "by"}


class RememberedWriteTests(SynchronousTestCase):
    """Writes that passed are remembered, until something that they were decided from changes."""

    def start(self, **rule: PyValue) -> None:
        """Makes a world with one rule and one member, and a memory that is told of every change."""
        self.world = world({"path": "/notes/{id}", **rule})
        self.memory = Memory()
        self.world.put("/members/ann", True)

    def put(self, address: str, value: PyValue) -> None:
        """Changes something, and tells the memory."""
        existed = address in self.world.params
        self.world.put(address, value, "ann")
        self.memory.changed(address, value is not None, existed)

    def write(self, value: PyValue = None, *, subject: str = "ann", address: str = "/notes/1") -> bool:
        """Writes and lets it be remembered; tells whether it passed."""
        content = encode_value({"by": subject} if value is None else value)
        here = self.world
        try:
            here.policy.check_write(subject, address, content, None, True, here, here.now_us, memory=self.memory)
        except RequestError:
            return False
        return True

    def test_a_change_of_what_was_looked_up_ends_it(self) -> None:
        """The member is gone: the next write is decided anew."""
        self.start(checks=[MEMBER])
        self.assertTrue(self.write())
        self.assertEqual(len(self.memory), 1)
        self.put("/members/ann", None)
        self.assertEqual(len(self.memory), 0)
        self.assertFalse(self.write())

    def test_another_value_where_only_existence_counts_does_not(self) -> None:
        """And neither does a change of something else."""
        self.start(checks=[MEMBER])
        self.write()
        self.put("/members/ann", 2)
        self.put("/members/bob", True)
        self.assertEqual(len(self.memory), 1)
        self.assertTrue(self.write())
        self.assertEqual(self.memory.missed, 1)

    def test_the_value_is_checked_every_time(self) -> None:
        """What is remembered is about the params only."""
        self.start(checks=[MEMBER, BY_SELF])
        self.assertTrue(self.write())
        self.assertFalse(self.write({"by": "bob"}))
        self.assertTrue(self.write())
        self.assertEqual(self.memory.missed, 1)

    def test_each_writer_has_their_own(self) -> None:
        """What one may do says nothing about another."""
        self.start(checks=[MEMBER])
        self.write()
        self.assertFalse(self.write(subject="bob"))

    def test_a_grace_ends_it(self) -> None:
        """It holds no longer than what it rests on."""
        self.start(checks=[{"type": "present", "lookup": "/here/{session}", "grace_secs": 30}])
        self.world.put("/here/ann", True, by="ann")
        self.world.expire("/here/ann")
        self.assertTrue(self.write())
        self.assertEqual(len(self.memory), 1)
        self.world.later(31)
        self.assertFalse(self.write())
        self.assertEqual(len(self.memory), 0)

    def test_what_has_more_to_do_is_never_remembered(self) -> None:
        """Stamps, failures, hidden fields; and a value that may have been what let it through."""
        rules: list[dict[str, PyValue]] = [
            {"checks": [MEMBER], "failures": {"max": 3, "window_secs": 60}},
            {"checks": [MEMBER], "keep_hidden": True},
            {"checks": [BY_SELF], "mode": "any"},
        ]
        for rule in rules:
            with self.subTest(rule=rule):
                self.start(**rule)
                self.assertTrue(self.write())
                self.assertEqual(len(self.memory), 0)

    def test_a_null_that_skipped_the_checks_is_no_pass(self) -> None:
        """It says nothing about the next write."""
        self.start(checks=[MEMBER], allow_null_write=True)
        here = self.world
        here.params.clear()
        here.policy.check_write("ann", "/notes/1", NULL, None, False, here, here.now_us, memory=self.memory)
        self.assertEqual(len(self.memory), 0)
        self.assertFalse(self.write())

    def test_an_address_that_was_looked_at_is_part_of_the_question(self) -> None:
        """A pass at one address is none at another that the rule captures alike."""
        form = {"type": "reject_unless_path_matches", "pattern": "/app/ok/*"}
        self.start()
        self.world = world({"path": "/app/**", "checks": [form]})
        for _ in range(2):
            self.assertFalse(self.write(address="/app/secret"))
            self.assertTrue(self.write(address="/app/ok/1"))
        self.assertFalse(self.write(address="/app/secret"))

    def test_long_captures_are_not_remembered(self) -> None:
        """What is kept stays small."""
        self.start(checks=[MEMBER])
        self.assertTrue(self.write(address="/notes/" + "x" * 600))
        self.assertEqual(len(self.memory), 0)

    def test_nothing_is_kept_unasked(self) -> None:
        """Inside a bundle the params are not what they will be."""
        self.start(checks=[MEMBER])
        here = self.world
        decision = here.policy.check_write("ann", "/notes/1", encode_value(1), None, False, here, here.now_us)
        self.assertIsNone(decision.remembered)
        self.assertEqual(len(self.memory), 0)


MINUTE_US = 60_000_000
LIMIT = FailureLimit(5, MINUTE_US)


class FailuresTests(SynchronousTestCase):
    """Five a minute."""

    def setUp(self) -> None:
        """Starts without failures."""
        self.failures = Failures()

    def fail(self, times: int, now_us: int = 0, subject: str = "eve", captured: tuple[str, ...] = ("r1",)) -> None:  # type: ignore[override]
        """Fails some times."""
        for _ in range(times):
            self.failures.note(subject, 0, captured, LIMIT, now_us)

    def limited(
        self, now_us: int = 0, subject: str = "eve", captured: tuple[str, ...] = ("r1",), rule: int = 0
    ) -> str | None:
        """Returns what the next attempt is refused with."""
        try:
            self.failures.check(subject, rule, captured, LIMIT, now_us)
        except RequestError as error:
            self.assertEqual(error.code, ErrorCode.LIMIT)
            return error.message
        return None

    def test_attempts_are_refused_after_the_limit_until_one_is_old(self) -> None:
        """A sliding window, and the wait is said."""
        self.assertIsNone(self.limited())
        self.fail(4)
        self.assertIsNone(self.limited())
        self.fail(1, now_us=10_000_000)
        self.assertEqual(self.limited(10_000_000), "too many failed attempts; try again in 50 s")
        self.assertIsNotNone(self.limited(MINUTE_US - 1))
        self.assertIsNone(self.limited(MINUTE_US))

    def test_subjects_captures_and_rules_count_apart(self) -> None:
        """Nobody locks another out."""
        self.fail(5)
        self.assertIsNotNone(self.limited())
        self.assertIsNone(self.limited(subject="alice"))
        self.assertIsNone(self.limited(captured=("r2",)))
        self.assertIsNone(self.limited(rule=1))

    def test_subject_that_fails_everywhere_has_to_wait(self) -> None:
        """So that what is remembered of one stays small, and nothing is pushed out of it."""
        for n in range(write_rules.MAX_KEYS):
            self.assertIsNone(self.limited(captured=("new",)))
            self.fail(1, captured=(f"r{n}",))
        self.assertIsNotNone(self.limited(captured=("new",)))
        self.assertIsNone(self.limited(MINUTE_US, captured=("new",)))

    def test_memory_is_bounded(self) -> None:
        """Who failed longest ago is forgotten first."""
        self.patch(write_rules, "MAX_SUBJECTS", 3)
        for subject in ("a", "b", "c"):
            self.fail(5, subject=subject)
        self.fail(1, subject="a")
        self.fail(5, subject="d")
        self.assertEqual([bool(self.limited(subject=name)) for name in "abcd"], [True, False, True, True])


SAY = {
    "path": "/say/{room}",
    "stamp": [
        {"field": "by", "publish": True},
        {
            "field": "role",
            "value": "creator",
            "publish": True,
            "when": [
                {"type": "value_field_equals", "field": "type", "value": "delete"},
                {"type": "state_field_equals_session", "lookup": "/meta/{room}", "field": "by"},
            ],
        },
        {
            "field": "role",
            "value": "admin of {room}",
            "publish": True,
            "when": [
                {"type": "value_field_equals", "field": "type", "value": "delete"},
                {"type": "state_not_null", "lookup": "/admin/{session}"},
            ],
        },
    ],
}


class MarkTests(SynchronousTestCase):
    """Stamps that hold where their checks do."""

    def setUp(self) -> None:
        """Alice made the room, adam is admin, and so is alice."""
        self.here = world(SAY)
        self.here.put("/meta/r", {"by": "alice"})
        for admin in ("alice", "adam"):
            self.here.put(f"/admin/{admin}", 1)

    def said(self, by: str, value: PyValue) -> PyValue:
        """Returns what others hear."""
        return decode_value(self.here.asked(by, "/say/r", value, is_publish=True).value)

    def test_first_entry_that_holds_sets_the_field(self) -> None:
        """Of one field the first counts; where none holds there is none, whatever the sender wrote."""
        for by, role in (("alice", "creator"), ("adam", "admin of r"), ("bob", None)):
            for own in ({}, {"role": "creator"}, {"role": "x"}, {"role": None}):
                with self.subTest(by=by, own=own):
                    expected: dict[str, PyValue] = {"type": "delete", "by": by}
                    if role is not None:
                        expected["role"] = role
                    self.assertEqual(self.said(by, {"type": "delete", **own}), expected)
        self.assertEqual(self.said("bob", {"type": "\ufeffdelete"}), {"type": "\ufeffdelete", "by": "bob"})
        self.assertEqual(self.said("alice", {"type": "\ufeffdelete"})["role"], "creator")

    def test_senders_own_field_is_removed_everywhere(self) -> None:
        """Where the checks do not hold either; other fields stay, and a null still deletes."""
        self.assertEqual(self.said("alice", {"n": 1, "role": "creator"}), {"n": 1, "by": "alice"})
        self.assertEqual(
            self.here.set("alice", "/say/r", {"type": "delete"}), {"type": "delete", "by": "alice", "role": "creator"}
        )
        self.assertIsNone(self.here.set("alice", "/say/r", None))
        self.assertEqual(self.here.code("alice", "/say/r", 7), ErrorCode.POLICY)

    def test_marks_need_no_author(self) -> None:
        """Alone they mark maps and name nobody."""
        self.here = world({**SAY, "stamp": SAY["stamp"][1:]})
        self.here.put("/meta/r", {"by": "alice"})
        self.assertEqual(self.said("alice", {"type": "delete"}), {"type": "delete", "role": "creator"})

    def test_field_may_be_what_is_stored_elsewhere(self) -> None:
        """A text; where there is none the sender's own is removed all the same, unless a later entry says something."""
        named = {"field": "name", "value_of": {"lookup": "/profile/{session}", "field": "name"}, "publish": True}
        stored = {**named, "value_of": {"lookup": "/say/{room}", "field": "name"}}
        is_map = {"when": [{"type": "value_is_map"}]}
        for stamp, before, expected in (
            ([{**named, **is_map}], "Bob", "Bob"),
            ([{**named, **is_map}], 7, None),
            ([{**named, **is_map}], None, None),
            ([{**named, **is_map}, {**stored, **is_map}], None, "as before"),
            # A stored stamp may stand beside it.
            ([{"field": "by"}, {**named, **is_map}], "Bob", "Bob"),
        ):
            for sent in ({}, {"name": "Alice"}, {"name": None}):
                with self.subTest(stamp=stamp, before=before, sent=sent):
                    here = world({**SAY, "stamp": stamp})
                    here.put("/say/r", {"name": "as before"}, "alice")
                    if before is not None:
                        here.put("/profile/bob", {"name": before}, "bob")
                    found = here.set("bob", "/say/r", sent)
                    assert isinstance(found, dict)
                    self.assertEqual(found.get("name"), expected)

    def test_packaged_policies_mark_deletes(self) -> None:
        """The creator's and the admins', in both; a member has no role."""
        for name in ("chat", "chat-compat"):
            here = scene(name)
            for by, role in (("carol", "creator"), ("adam", "admin"), ("mia", None)):
                with self.subTest(policy=name, by=by):
                    sent: PyValue = {"type": "delete", "role": "creator"}
                    value = here.asked(by, "/chat/room/open/messages", sent, is_publish=True).value
                    found = decode_value(value)
                    assert isinstance(found, dict)
                    self.assertEqual((found.get("role"), found["userId"]), (role, by))

    def test_packaged_policies_say_whose_name_stands_in_a_value(self) -> None:
        """Every field that states somebody's id or name, under both: a client's own word is replaced or refused."""
        for policy in ("chat", "chat-compat"):
            for address, by, field, said in NAMED:
                with self.subTest(policy=policy, address=address, field=field):
                    here = scene(policy)
                    here.put(f"/chat/user/{by}/profile", {"name": f"{by}'s name"}, by)
                    own: dict[str, PyValue] = {"fromId": by, "hash": "h", "roomId": "open"}
                    is_publish = address.endswith(PUBLISHED)
                    try:
                        value = here.asked(by, address, {**own, field: "Mallory"}, is_publish=is_publish).value
                    except RequestError as refusal:
                        self.assertEqual(refusal.code, ErrorCode.POLICY)
                        value = here.asked(by, address, {**own, field: said}, is_publish=is_publish).value
                    found = decode_value(value)
                    assert isinstance(found, dict)
                    self.assertEqual(found.get(field), said)

    def test_packaged_policies_keep_the_name_of_who_made_it(self) -> None:
        """Where others may write: an admin who renames a room's entry does not become its creator."""
        for policy in ("chat", "chat-compat"):
            for address in ("/chat/registry/rooms/open", "/chat/registry/ns/a/b/open"):
                with self.subTest(policy=policy, address=address):
                    here = scene(policy)
                    here.put(address, {"creatorId": "carol", "creatorName": "Carol"}, "carol")
                    here.put("/chat/user/adam/profile", {"name": "Adam"}, "adam")
                    found = here.set("adam", address, {"name": "new", "creatorId": "adam", "creatorName": "Carol II"})
                    expected = {"name": "new", "creatorId": "carol", "creatorName": "Carol"}
                    self.assertEqual(found, expected)

    def test_packaged_policies_name_nobody_who_has_no_profile(self) -> None:
        """Then the field is missing, whatever the sender wrote."""
        for policy in ("chat", "chat-compat"):
            with self.subTest(policy=policy):
                found = scene(policy).set("dora", "/chat/user/mia/dms/dm-2", {"fromId": "dora", "fromName": "Alice"})
                self.assertEqual(found, {"fromId": "dora"})

    def test_packaged_policies_name_who_types_reads_and_hands_on(self) -> None:
        """Whatever the map says of itself; another's name is refused, a null still ends it."""
        for name in ("chat", "chat-compat"):
            here = scene(name)
            for rest in ("typing/mia", "receipts/mia", "history/gus"):
                with self.subTest(policy=name, rest=rest):
                    address = f"/chat/room/open/{rest}"
                    self.assertEqual(here.set("mia", address, {"name": "Mia"}), {"name": "Mia", "userId": "mia"})
                    self.assertEqual(here.code("mia", address, {"userId": "carol"}), ErrorCode.POLICY)
                    self.assertEqual(here.code("mia", address, None), 0)


FREE = {
    # An event; a frame bounds it.
    "/chat/room/{roomId}/messages",
    "/chat/room/{roomId}/video/signal/{sid}",
    "/chat/room/{roomId}/history/**",
    # Nothing but a null is written there.
    "/chat/room/{roomId}/reactions/**",
    "/chat/registry/ns-meta/__auth",
    "/chat/requests/**",
    "/**",
}
"""Paths of the packaged policies whose values need no bound."""

TEXTS = {
    "/chat/room/r/meta": ("name", "description", "creatorName", "namespace", "type", "passwordHash", "passwordSalt"),
    "/chat/room/r/admin/mia": ("role",),
    "/chat/room/r/bans/mia": ("name", "reason"),
    "/chat/room/r/presence/mia": ("name", "avatarColor"),
    "/chat/room/r/typing/mia": ("name",),
    "/chat/room/r/members/mia": ("name",),
    "/chat/room/r/crypto/proof/mia": ("hash",),
    "/chat/room/r/video/presence/s": ("name", "avatarColor"),
    "/chat/registry/rooms/r": ("name", "creatorName", "namespace", "type"),
    "/chat/registry/ns/a/b/r": ("name", "creatorName", "namespace", "type"),
    "/chat/registry/ns-meta/a": ("description", "icon", "creatorName"),
    "/chat/registry/ns-meta/a/__auth": ("passwordHash", "passwordSalt"),
    "/chat/user/mia/profile": ("name", "avatarColor", "status"),
    "/chat/user/mia/friends/gus": ("name", "avatarColor"),
    "/chat/user/mia/blocked/gus": ("name",),
    "/chat/user/mia/devices/d": ("name",),
    "/chat/user/mia/sync/r": ("name", "peerName"),
    "/chat/user/gus/dms/r": ("fromName",),
    "/chat/reports/n": ("reason", "from"),
    "/chat/requests/gus/mia": ("text", "fromName", "fromColor", "type"),
}
"""The texts that clients of the chat write for people, by an address where they do (``docs/chat-operations.md``)."""


class BoundsTests(SynchronousTestCase):
    """How large a value may be."""

    def test_value_beyond_the_bounds_is_refused(self) -> None:
        """With what is too large; characters are counted, not bytes, and what is no text counts by its bytes."""
        here = world({"path": "/a", "within": {"bytes": 60, "characters": {"text": 5}}, "message": "No."})
        for value, reason in (
            ({"text": "12345"}, ""),
            ({"text": "äöü€𝄞"}, ""),
            ({"text": "123456"}, "'text' in the value may have 5 characters at most, and has 6"),
            ({"text": [1, 2, 3]}, "'text' in the value may have 5 characters at most, and has 30"),
            ({"text": True, "other": "1234567"}, ""),
            ({"other": "x" * 60}, "the value may take 60 bytes at most, and has 73"),
            ("123456", ""),
            (None, ""),
        ):
            with self.subTest(value=value):
                for is_publish in (False, True):
                    try:
                        here.asked("alice", "/a", value, is_publish=is_publish)
                        said, code = "", None
                    except RequestError as error:
                        said, code = error.message, error.code
                    self.assertEqual((said, code), (reason, ErrorCode.VALUE if reason else None))

    def test_remembered_answer_bounds_nothing(self) -> None:
        """Each value is looked at."""
        here = world({"path": "/a", "within": {"characters": {"text": 5}}, "checks": [IS_MAP]})
        memory = Memory()
        for text, code in (("ok", 0), ("too long", ErrorCode.VALUE), ("ok", 0)):
            request = WriteRequest("alice", "/a", encode_value({"text": text}))
            try:
                here.policy.write_rules.decide(request, here, here.now_us, memory)
                found = 0
            except RequestError as error:
                found = int(error.code)
            self.assertEqual(found, code)

    def test_administrator_is_not_bounded(self) -> None:
        """As by no other part of a rule."""
        here = world({"path": "/a", "within": {"bytes": 1}})
        request = WriteRequest("root", "/a", encode_value("long"), is_admin=True)
        self.assertEqual(here.policy.write_rules.decide(request, here, 0).grant.value, encode_value("long"))

    def test_packaged_policies_bound_what_clients_write(self) -> None:
        """Every rule has a bound, but for those that need none."""
        for name in ("chat", "chat-compat"):
            for rule in scene(name).policy.document.write_rules:
                with self.subTest(policy=name, path=rule.path.text):
                    self.assertEqual(rule.within is None, rule.path.text in FREE)

    def test_packaged_policies_bound_every_text(self) -> None:
        """In both: as many characters as there may be, of four bytes each, and not one more."""
        for name in ("chat", "chat-compat"):
            here = scene(name)
            for address, fields in TEXTS.items():
                found = here.policy.write_rules.find(address)
                assert found is not None, (name, address)
                within = found[0].within
                assert within is not None, (name, address)
                bounds = dict(within.characters)
                for field in fields:
                    with self.subTest(policy=name, address=address, field=field):
                        most = bounds[field.encode()]
                        self.assertIsNone(within.problem(encode_value({field: "𝄞" * most})))
                        problem = within.problem(encode_value({field: "x" * (most + 1)})) or ""
                        self.assertIn(f"{field!r} in the value may have {most} characters at most", problem)

    def test_request_of_a_stranger_has_500_characters(self) -> None:
        """Under both policies, whoever sends it."""
        for name in ("chat", "chat-compat"):
            here = scene(name)
            for count, code in ((500, 0), (501, ErrorCode.VALUE)):
                with self.subTest(policy=name, count=count):
                    said: PyValue = {"type": "dm", "fromId": "mia", "text": "x" * count}
                    self.assertEqual(here.code("mia", "/chat/requests/gus/mia", said), code)
