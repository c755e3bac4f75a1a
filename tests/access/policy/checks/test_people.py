"""Checks of presence, writers and segments."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.language.question import Question, given_id
from clasp_relay.errors import ErrorCode, RequestError, StartError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL
from tests.access.policy.world import SECOND_US, World, check_of, question

HERE = "/here/r1/alice"


class PresentTests(SynchronousTestCase):
    """Who counts as present."""

    def setUp(self) -> None:
        """Makes the check: 30 seconds of grace."""
        self.check = check_of({"type": "present", "lookup": "/here/{room}/{session}", "grace_secs": 30})
        self.world = World()

    def assert_present(self, present: bool, until_us: int | None = None) -> None:
        """Asserts the answer, when it ends, and that the address was looked up."""
        asked = question(self.world)
        self.assertIs(self.check.passes(asked), present)
        self.assertEqual(asked.reads.until_us, until_us)
        self.assertEqual(set(asked.reads.lookups), {HERE})

    def test_who_never_came_is_not_present(self) -> None:
        """Nothing set, nothing ended."""
        self.assert_present(False)
        self.assertIn(HERE, self.check.refusal(question(self.world)))

    def test_who_is_set_is_present_without_end(self) -> None:
        """No moment at which it would end by itself."""
        self.world.put(HERE, {"name": "A"})
        self.assert_present(True)

    def test_own_null_leaves_the_grace(self) -> None:
        """Present for 30 seconds after leaving, not a microsecond longer."""
        self.world.put(HERE, 1, "alice")
        self.world.put(HERE, None, "alice")
        until_us = self.world.now_us + 30 * SECOND_US
        self.assert_present(True, until_us)
        self.world.now_us = until_us - 1
        self.assert_present(True, until_us)
        self.world.now_us = until_us
        self.assert_present(False)

    def test_expiry_leaves_the_grace(self) -> None:
        """A beat that came late is forgiven."""
        self.world.put(HERE, 1, "alice")
        self.world.expire(HERE)
        self.assert_present(True, self.world.now_us + 30 * SECOND_US)
        self.world.later(30)
        self.assert_present(False)

    def test_null_of_another_ends_it_at_once(self) -> None:
        """Who was kicked has no grace."""
        self.world.put(HERE, 1, "alice")
        self.world.put(HERE, None, "creator")
        self.assert_present(False)

    def test_without_grace_only_now_counts(self) -> None:
        """grace_secs is 0 when it is not given."""
        self.check = check_of({"type": "present", "lookup": "/here/{room}/{session}"})
        self.world.put(HERE, 1, "alice")
        self.world.put(HERE, None, "alice")
        self.assert_present(False)

    def test_negative_grace_is_refused(self) -> None:
        """It would mean nothing."""
        document = {"type": "present", "lookup": "/here/{session}", "grace_secs": -1}
        self.assertRaises(StartError, check_of, document)


class WriterIsAccountTests(SynchronousTestCase):
    """Registered, or a guest."""

    def test_account_is_told_by_the_token(self) -> None:
        """It is read like the value: of the subject nothing is remembered."""
        check = check_of({"type": "writer_is_account"})
        for is_account in (True, False):
            asked = Question("alice", (), "/a", NULL, World(), 0, is_account=is_account)
            self.assertIs(check.passes(asked), is_account)
            self.assertTrue(asked.reads.reads_value)
        self.assertIn("guest", check.refusal(asked))


class SegmentIsOwnSessionIdTests(SynchronousTestCase):
    """Whose session an address names."""

    def test_id_that_was_given_to_the_writer_passes(self) -> None:
        """What the answer rests on is noted, and until when it holds, whether it is yes or no."""
        check = check_of({"type": "segment_is_own_session_id", "segment": "user"})
        world = World()
        for by, address, passes in (
            ("bob", "/app/r1/s-bob", True),
            ("alice", "/app/r1/s-bob", False),
            ("bob", "/app/r1/s-bobby", False),
        ):
            with self.subTest(by=by, address=address):
                asked = question(world, by=by, address=address)
                self.assertIs(check.passes(asked), passes)
                self.assertEqual(asked.reads.things, (given_id(address.rpartition("/")[2]),))
                self.assertEqual(asked.reads.until_us, world.now_us + 1 if passes else None)
                self.assertFalse(asked.reads.reads_address)
        self.assertIn("s-bobby", check.refusal(asked))

    def test_nobody_has_one_where_none_are_known(self) -> None:
        """As for a policy that is explained without sessions."""
        check = check_of({"type": "segment_is_own_session_id", "segment": "room"}, "/{room}")
        self.assertFalse(check.passes(Question("bob", ("s-bob",), "/s-bob", NULL, World(), 0)))


class LastWriterTests(SynchronousTestCase):
    """Who wrote last."""

    def test_last_writer_of_one_address(self) -> None:
        """The subject of its token, not the session, counts."""
        strict = check_of({"type": "last_writer_is_session", "lookup": "/v/{room}/s1"})
        loose = check_of({"type": "last_writer_is_session", "lookup": "/v/{room}/s1", "allow_if_missing": True})
        world = World()
        for by, passes in ((None, (False, True)), ("bob", (False, False)), ("alice", (True, True))):
            with self.subTest(by=by):
                if by is not None:
                    world.put("/v/r1/s1", 1, by)
                asked = question(world)
                self.assertEqual((strict.passes(asked), loose.passes(asked)), passes)
                self.assertEqual(set(asked.reads.lookups), {"/v/r1/s1"})

    def test_last_writer_of_any_match(self) -> None:
        """One of several is enough; the pattern is reported."""
        check = check_of({"type": "last_writer_is_session", "lookup": "/v/{room}/*"})
        world = World()
        for address, by, passes in (
            ("/v/r2/s0", "alice", False),
            ("/v/r1/s1", "bob", False),
            ("/v/r1/s2", "alice", True),
        ):
            world.put(address, 1, by)
            asked = question(world)
            self.assertIs(check.passes(asked), passes)
            self.assertEqual(asked.reads.patterns, (Pattern.parse("/v/r1/*"),))
            self.assertIn("/v/r1/*", check.refusal(asked))

    def test_pattern_among_very_many_others_decides_nothing(self) -> None:
        """Neither that somebody wrote there nor that nobody did: who fills the state gains no right by that."""
        world = World()
        world.is_too_much = True
        lookup: object = {"type": "last_writer_is_session", "lookup": "/v/{room}/*/sid", "allow_if_missing": True}
        both: tuple[dict[str, object], ...] = ({"type": "all_of", "checks": [lookup]}, {"type": "not", "check": lookup})
        for keys in both:
            with self.subTest(keys=keys):
                refusal = self.assertRaises(RequestError, check_of(keys).passes, question(world))
                self.assertEqual(refusal.code, ErrorCode.OVERLOADED)
                self.assertIn("/v/r1/*/sid", refusal.message)

    def test_lookup_too_long_to_be_a_pattern_finds_nothing(self) -> None:
        """A reader is not hurt by an address that somebody made very long."""
        check = check_of({"type": "last_writer_is_session", "lookup": "/very/long/{room}/*"})
        address = f"/app/{'x' * 65_500}/bob"
        self.assertFalse(check.passes(question(World(), address=address)))


class SegmentTests(SynchronousTestCase):
    """Whose address it is."""

    def test_segment_equals_session(self) -> None:
        """The captured segment is the subject, whole and case by case."""
        check = check_of({"type": "segment_equals_session", "segment": "user"})
        for address, passes in (("/app/r/alice", True), ("/app/alice/bob", False), ("/app/r/Alice", False)):
            with self.subTest(address=address):
                asked = question(World(), address=address)
                self.assertIs(check.passes(asked), passes)
                self.assertIn("'alice'", check.refusal(asked))

    def test_dm_users_match_room(self) -> None:
        """The first 8 characters of both ids, in their order; other ids and other values are not its concern."""
        check = check_of({"type": "dm_users_match_room", "segment": "room", "field": "users"})
        for room, value, passes in (
            ("dm-12345678-abcdefgh", {"users": {"abcdefgh-long": 1, "123456789": 2}}, True),
            ("dm-12345678-abcdefgh", {"users": {"abcdefg": 1, "123456789": 2}}, False),
            ("dm-u-1-u-2", {"users": ["u-2", "u-1"]}, True),
            ("dm-u-1-u-2", {"users": ["u-1", "\ufeffu-2"]}, True),
            ("dm-u-1-u-2", {"users": ["u-1", "u-2", "u-3"]}, False),
            ("dm-u-1-u-2", {"users": "u-1"}, False),
            ("dm-u-1-u-2", {}, False),
            ("dm-u-1-u-2", None, True),
            ("dm-" + "x" * 18, {}, True),
            ("room", {}, True),
        ):
            with self.subTest(room=room, value=value):
                asked = question(World(), address=f"/app/{room}/bob", value=value)
                self.assertIs(check.passes(asked), passes)
                self.assertIn(room, check.refusal(asked))

    def test_reject_unless_path_matches(self) -> None:
        """The address has the form, or the writer reads the message."""
        document: dict[str, object] = {
            "type": "reject_unless_path_matches",
            "pattern": "/app/{a}/bob",
            "message": "No.",
        }
        check = check_of(document)
        self.assertTrue(check.passes(question(World(), address="/app/r1/bob")))
        asked = question(World(), address="/app/r1/eve")
        self.assertFalse(check.passes(asked))
        self.assertEqual(check.refusal(asked), "No.")
        self.assertRaises(StartError, check_of, {**document, "pattern": "/a/{b"})
        del document["message"]
        self.assertIn("/app/{a}/bob", check_of(document).refusal(asked))
