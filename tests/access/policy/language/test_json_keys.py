"""Strict reading: types, bounds, and the path of every mistake."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.language.json_keys import Keys, parse_json
from clasp_relay.errors import StartError


class KeysTests(SynchronousTestCase):
    """One object of a document."""

    def test_right_values_come_out(self) -> None:
        """Each by its type."""
        keys = Keys(
            {"t": "x", "f": True, "w": 3, "n": 2.5, "c": "a", "l": ["x"], "o": {"k": "v"}, "os": [{}]}, "at", "file"
        )
        self.assertEqual((keys.text("t"), keys.flag("f"), keys.whole("w"), keys.number("n")), ("x", True, 3, 2.5))
        self.assertEqual((keys.choice("c", "ab"), keys.texts("l"), keys.below("o").text("k")), ("a", ["x"], "v"))
        self.assertEqual([item.where for item in keys.objects("os")], ["at.os[0]"])
        self.assertEqual((keys.optional_text("no"), keys.flag("no2", True), keys.number("w")), (None, True, 3.0))
        keys.done()

    def test_wrong_values_are_named_with_their_path(self) -> None:
        """What was expected is said."""
        cases: list[tuple[object, Callable[[Keys], object], str]] = [
            (1, lambda keys: keys.text("k"), "file: at.k: must be a string"),
            ("", lambda keys: keys.text("k"), "must not be empty"),
            (1, lambda keys: keys.flag("k"), "must be true or false"),
            (True, lambda keys: keys.whole("k"), "must be a whole number"),
            (1.5, lambda keys: keys.whole("k"), "must be a whole number"),
            (0, lambda keys: keys.whole("k"), "must be from 1 to 2147483647"),
            (2**31, lambda keys: keys.whole("k"), "must be from 1 to 2147483647"),
            (True, lambda keys: keys.number("k"), "must be a number"),
            ("1", lambda keys: keys.number("k"), "must be a number"),
            (0, lambda keys: keys.number("k"), "must be more than 0"),
            (float("inf"), lambda keys: keys.number("k"), "must be more than 0"),
            ("al", lambda keys: keys.choice("k", ["all", "any"]), "must be one of all, any; did you mean 'all'?"),
            ("a", lambda keys: keys.texts("k"), "must be a list"),
            (["a", 1], lambda keys: keys.texts("k"), "file: at.k[1]: must be a string that is not empty"),
            ([1], lambda keys: keys.objects("k"), "file: at.k[0]: must be an object"),
            ([], lambda keys: keys.below("k"), "file: at.k: must be an object"),
        ]
        for value, read, message in cases:
            with self.subTest(value=value, message=message):
                error = self.assertRaises(StartError, read, Keys({"k": value}, "at", "file"))
                self.assertIn(message, str(error))
        self.assertIn("at.k: is missing", str(self.assertRaises(StartError, Keys({}, "at", "file").text, "k")))

    def test_key_that_nobody_asked_for_is_refused(self) -> None:
        """With a hint and what is known."""
        keys = Keys({"lokup": 1}, "", "file")
        keys.taken_if_given("lookup")
        error = self.assertRaises(StartError, keys.done)
        self.assertEqual(str(error), "file: lokup: is not known here; did you mean 'lookup'? (known: lookup)")


class JsonTests(SynchronousTestCase):
    """JSON, strictly."""

    def test_json_is_decoded(self) -> None:
        """As usual."""
        self.assertEqual(parse_json('{"a": [1, null]}', "file"), {"a": [1, None]})

    def test_what_is_no_json_is_refused(self) -> None:
        """The file is named."""
        cases = ("", "{", "{'a': 1}", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000)
        for text in cases:
            with self.subTest(text=text[:20]):
                self.assertIn("file: ", str(self.assertRaises(StartError, parse_json, text, "file")))
