"""What a decision looks up is remembered."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.language.question import Question
from clasp_relay.core.bundles import Watched
from clasp_relay.core.records import Param
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL
from clasp_relay.wire.values import encode_value
from tests.access.policy.world import World, by_existence, by_value, question
from tests.core.counting import count_calls
from tests.core.world import written


class QuestionTests(SynchronousTestCase):
    """One decision."""

    def test_every_lookup_is_reported(self) -> None:
        """Of what is set, missing, and ended."""
        world = World()
        world.put("/set", 1)
        asked = question(world)
        asked.param("/set")
        asked.field("/missing", b"f")
        asked.ended("/ended")
        self.assertEqual(by_value(asked.reads), {"/set", "/missing", "/ended"})

    def test_lookup_of_mere_existence_is_told_apart(self) -> None:
        """Unless its value counts as well."""
        asked = question(World())
        asked.is_set("/a")
        asked.is_set("/b")
        asked.param("/b")
        asked.is_set("/b")
        self.assertEqual((by_existence(asked.reads), by_value(asked.reads)), ({"/a"}, {"/b"}))

    def test_stored_null_counts_as_nothing(self) -> None:
        """Whoever kept it."""
        world = World()
        world.params["/n"] = Param("/n", NULL, 2, "s", 0)
        asked = question(world)
        self.assertIsNone(asked.param("/n"))
        self.assertEqual(asked.match("/*"), [])
        self.assertEqual(asked.reads.patterns, (Pattern.parse("/*"),))

    def test_pattern_without_wildcards_is_a_lookup(self) -> None:
        """So that it ends when that one address changes."""
        world = World()
        world.put("/a", 1)
        asked = question(world)
        self.assertEqual([param.address for param in asked.match("/a")], ["/a"])
        self.assertEqual((asked.reads.patterns, by_value(asked.reads)), ((), {"/a"}))
        self.assertEqual(asked.match("/b"), [])
        self.assertEqual(asked.match("no pattern"), [])

    def test_pattern_costs_the_same_however_many_params_match(self) -> None:
        """Also for each member of a bundle; those that are set for longest are found."""
        steps = []
        for count in (1_000, 20_000):
            params = Params(ParamLimits())
            for number in range(count):
                address = f"/room/r1/video/{number}"
                params.apply(written(params, Param(address, encode_value(1), 1, "s", 0, None, f"user {number}")))
            found: list[Param] = []
            for state in (params, Draft(params), Draft(Watched(params))):
                asked = Question("bob", (), "/room/r1/signal", None, state, 0)
                found = asked.match("/room/r1/video/*")
                self.assertEqual(found[0].subject, "user 0")
                self.assertLess(len(found), 300)
            steps.append(count_calls(lambda asked=asked: asked.match("/room/r1/video/*")))  # type: ignore[misc]
        self.assertEqual(steps[0], steps[1])

    def test_what_is_set_did_not_end(self) -> None:
        """An end of before is over."""
        world = World()
        world.put("/a", 1, "alice")
        world.put("/a", None, "alice")
        self.assertIsNotNone(question(world).ended("/a"))
        end = world.ends["/a"]
        world.put("/a", 2, "alice")
        world.ends["/a"] = end
        self.assertIsNone(question(world).ended("/a"))

    def test_earliest_end_counts(self) -> None:
        """An answer holds as long as all that it rests on."""
        world = World()
        asked = question(world)
        now_us = world.now_us
        self.assertFalse(asked.is_before(now_us))
        self.assertIsNone(asked.reads.until_us)
        for after_us in (30, 10, 20):
            self.assertTrue(asked.is_before(now_us + after_us))
        self.assertEqual(asked.reads.until_us, now_us + 10)

    def test_reader_asks_about_what_stands_there(self) -> None:
        """And what stands there is then a lookup; nothing there is null."""
        world = World()
        world.put("/app/x", {"to": "alice"})
        reader = Question("alice", ("x",), "/app/x", None, world, 0)
        self.assertEqual(reader.value, encode_value({"to": "alice"}))
        self.assertEqual(by_value(reader.reads), {"/app/x"})
        self.assertTrue(reader.reads.reads_address)
        self.assertFalse(reader.reads.reads_value)
        self.assertEqual(Question("alice", (), "/app/y", None, world, 0).value, NULL)
        reader.about(("other",))
        self.assertEqual(reader.words, ("other", "alice"))
