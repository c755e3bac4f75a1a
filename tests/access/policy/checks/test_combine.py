"""Checks that combine others."""

from twisted.trial.unittest import SynchronousTestCase

from tests.access.policy.world import World, check_of, question

YES: dict[str, object] = {"type": "value_null"}
NO: dict[str, object] = {"type": "value_is_map"}


class CombineTests(SynchronousTestCase):
    """Logic."""

    def test_not_all_and_any(self) -> None:
        """They are what their names say."""
        asked = question(World())
        cases: list[tuple[dict[str, object], bool]] = [
            ({"type": "not", "check": YES}, False),
            ({"type": "not", "check": NO}, True),
            ({"type": "all_of", "checks": [YES, YES]}, True),
            ({"type": "all_of", "checks": [YES, NO]}, False),
            ({"type": "any_of", "checks": [NO, YES]}, True),
            ({"type": "any_of", "checks": [NO, NO]}, False),
            ({"type": "not", "check": {"type": "any_of", "checks": [NO, {"type": "not", "check": YES}]}}, True),
        ]
        for document, passes in cases:
            with self.subTest(document=document):
                self.assertIs(check_of(document).passes(asked), passes)

    def test_decision_looks_no_further_than_it_needs(self) -> None:
        """What was not looked up cannot end the answer."""
        a: dict[str, object] = {"type": "state_not_null", "lookup": "/a"}
        b: dict[str, object] = {"type": "state_not_null", "lookup": "/b"}
        world = World()
        for kind, stored, looked_up in (
            ("all_of", [], {"/a"}),
            ("all_of", ["/a"], {"/a", "/b"}),
            ("any_of", ["/a"], {"/a"}),
            ("any_of", [], {"/a", "/b"}),
        ):
            with self.subTest(kind=kind, stored=stored):
                world.params.clear()
                for address in stored:
                    world.put(address, 1)
                asked = question(world)
                check_of({"type": kind, "checks": [a, b]}).passes(asked)
                self.assertEqual(set(asked.reads.lookups), looked_up)

    def test_lookups_of_inner_checks_are_known(self) -> None:
        """However deep they are."""
        inner = {
            "type": "any_of",
            "checks": [{"type": "not", "check": {"type": "state_null", "lookup": "/x/{room}"}}, YES],
        }
        check = check_of({"type": "all_of", "checks": [inner, {"type": "present", "lookup": "/y/{session}"}]})
        self.assertEqual([lookup.template.text for lookup in check.lookups], ["/x/{room}", "/y/{session}"])
        self.assertEqual([lookup.by.kind for lookup in check.lookups], ["state_null", "present"])

    def test_refusal_says_what_was_missing(self) -> None:
        """All: the first that failed. Any: each reason once."""
        set_a = {"type": "state_not_null", "lookup": "/a"}
        self.assertEqual(
            check_of({"type": "all_of", "checks": [YES, set_a, NO]}).refusal(question(World())), "nothing is set at /a"
        )
        any_of = check_of({"type": "any_of", "checks": [set_a, NO, set_a]})
        self.assertEqual(any_of.refusal(question(World())), "nothing is set at /a, or the value must be a map")
        not_null = check_of({"type": "not", "check": {"type": "state_not_null", "lookup": "/a/{room}"}})
        self.assertEqual(not_null.refusal(question(World())), "this needs not state_not_null(lookup=/a/r1)")

    def test_description_fills_everything_in(self) -> None:
        """As explain shows it."""
        check = check_of(
            {"type": "all_of", "checks": [{"type": "any_of", "checks": [YES]}, {"type": "not", "check": NO}]}
        )
        self.assertEqual(check.describe(("r1", "bob", "alice")), "all of (any of (value_null()); not value_is_map())")
