"""Writes that are remembered to pass, and when that ends."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy
from clasp_relay.errors import RequestError
from clasp_relay.wire.values import encode_value
from tests.access.policy.world import World

MEMBER = {"type": "state_not_null", "lookup": "/members/{session}"}
OWN = {"type": "value_field_equals_session", "field": "by"}


class RememberedWritesTests(SynchronousTestCase):
    def world(self, **rule: object) -> World:
        """Makes a world with one rule, and a user who is a member."""
        world = World(Policy.from_document({"write_rules": [{"path": "/notes/{id}", **rule}]}))
        world.put("/members/ann", True)
        return world

    def write(self, world: World, value: object = None, *, subject: str = "ann") -> bool:
        """Writes and lets it be remembered; returns whether it passed."""
        content = encode_value({"by": subject} if value is None else value)
        try:
            world.policy.check_write(subject, "/notes/1", content, None, True, world, world.now_us, remember=True)
        except RequestError:
            return False
        return True

    def remembered(self, world: World) -> int:
        """Returns how many answers are kept."""
        return len(world.policy.write_rules.remembered._until_us)

    def test_a_change_of_what_was_looked_up_ends_it(self) -> None:
        """The member is gone: the next write is decided anew."""
        world = self.world(checks=[MEMBER])
        self.assertTrue(self.write(world))
        self.assertEqual(self.remembered(world), 1)
        del world.params["/members/ann"]
        world.policy.changed("/members/ann", exists=False, existed=True)
        self.assertEqual(self.remembered(world), 0)
        self.assertFalse(self.write(world))

    def test_another_value_where_only_existence_counts_does_not(self) -> None:
        """And neither does a change of something else."""
        world = self.world(checks=[MEMBER])
        self.write(world)
        world.policy.changed("/members/ann", exists=True, existed=True)
        world.policy.changed("/members/bob", exists=True, existed=False)
        self.assertEqual(self.remembered(world), 1)

    def test_the_value_is_checked_every_time(self) -> None:
        """What is remembered is about the params only."""
        world = self.world(checks=[MEMBER, OWN])
        self.assertTrue(self.write(world))
        self.assertFalse(self.write(world, {"by": "bob"}))
        self.assertTrue(self.write(world))

    def test_each_writer_has_their_own(self) -> None:
        """Somebody else's pass is nobody's."""
        world = self.world(checks=[MEMBER])
        self.write(world)
        self.assertFalse(self.write(world, subject="bob"))

    def test_a_grace_ends_it(self) -> None:
        """It holds no longer than what it rests on."""
        world = self.world(checks=[{"type": "present", "lookup": "/here/{session}", "grace_secs": 30}])
        world.put("/here/ann", True, by="ann")
        world.expire("/here/ann")
        self.assertTrue(self.write(world))
        self.assertEqual(self.remembered(world), 1)
        world.later(31)
        self.assertFalse(self.write(world))
        self.assertEqual(self.remembered(world), 0)

    def test_what_has_more_to_do_is_never_remembered(self) -> None:
        """Stamps, failures, hidden fields; and a value that may have been what let it through."""
        for rule in (
            {"checks": [MEMBER], "failures": {"max": 3, "window_secs": 60}},
            {"checks": [MEMBER], "keep_hidden": True},
            {"checks": [MEMBER, OWN], "mode": "any"},
        ):
            with self.subTest(rule=rule):
                world = self.world(**rule)
                self.assertTrue(self.write(world))
                self.assertEqual(self.remembered(world), 0)

    def test_a_null_that_skipped_the_checks_is_no_pass(self) -> None:
        """It says nothing about the next write."""
        world = self.world(checks=[MEMBER], allow_null_write=True)
        world.params.clear()
        world.policy.check_write("ann", "/notes/1", b"\x00", None, False, world, world.now_us, remember=True)
        self.assertEqual(self.remembered(world), 0)
        self.assertFalse(self.write(world))

    def test_nothing_is_kept_unasked(self) -> None:
        """Inside a bundle the params are not what they will be."""
        world = self.world(checks=[MEMBER])
        world.policy.check_write("ann", "/notes/1", b"\x01\x01", None, False, world, world.now_us)
        self.assertEqual(self.remembered(world), 0)
