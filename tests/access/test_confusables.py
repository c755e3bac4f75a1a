"""Skeletons of names."""

import json
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.confusables import make_table, skeleton

LINES = [
    "\ufeff# confusables.txt",
    "# Date: 2020-02-13, 01:38:49 GMT",
    "# Version: 13.0.0",
    "",
    "0430 ;\t0061 ;\tMA\t# ( а → a ) CYRILLIC SMALL LETTER A → LATIN SMALL LETTER A\t#",
    "0132 ;\t006C 004A ;\tMA\t# ( Ĳ → lJ ) LATIN CAPITAL LIGATURE IJ → LATIN SMALL LETTER L, LATIN CAPITAL LETTER J\t#",
]


class SkeletonTests(SynchronousTestCase):
    """What looks the same has one skeleton."""

    def test_names_that_look_the_same_have_one_skeleton(self) -> None:
        """Letters of other alphabets, digits for letters, marks in another order."""
        same = [
            ("Alice", "Аlice"),
            ("Alice", "AIice"),
            ("Alice", "A1ice"),
            ("paypal", "раураl"),
            ("Zo\u00eb", "Zoe\u0308"),
            ("rn", "m"),
            ("O'Neil", "0’Neil"),
        ]
        for one, other in same:
            with self.subTest(one=one, other=other):
                self.assertEqual(skeleton(one), skeleton(other))
        for one, other in (("Alice", "Alicia"), ("Bob", "Rob"), ("二郎", "三郎"), ("Zoe", "Zoë")):
            with self.subTest(one=one, other=other):
                self.assertNotEqual(skeleton(one), skeleton(other))

    @given(st.text(max_size=20))
    def test_skeleton_of_a_skeleton_is_itself(self, name: str) -> None:
        """Prototypes are not confusable with anything else."""
        self.assertEqual(skeleton(skeleton(name)), skeleton(name))


class TableTests(SynchronousTestCase):
    """Unicode's file and what is made of it."""

    def test_table_has_a_prototype_for_each_source(self) -> None:
        """And says where it comes from."""
        table = make_table(LINES)
        self.assertEqual(table["prototypes"], {"а": "a", "Ĳ": "lJ"})
        self.assertEqual(table["source"], "Unicode confusables.txt 13.0.0 of 2020-02-13, 01:38:49 GMT")

    def test_something_else_is_refused(self) -> None:
        """A file with other lines, and one without a version or mappings."""
        for lines in ([*LINES, "0430 → 0061"], LINES[:4], LINES[:2] + LINES[4:]):
            with self.subTest(lines=lines):
                self.assertRaises(ValueError, make_table, lines)

    def test_packaged_table_is_unicodes(self) -> None:
        """All of it."""
        table = json.loads((files("clasp_relay.access") / "confusables.json").read_text("utf-8"))
        self.assertIn("Unicode confusables.txt 13.0.0", table["source"])
        self.assertIn("Unicode, Inc.", table["notice"])
        self.assertEqual(len(table["prototypes"]), 6311)
