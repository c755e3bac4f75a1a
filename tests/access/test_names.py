"""Names, ids and passwords."""

import string
import unicodedata
from time import thread_time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import (
    check_guest_name,
    check_password,
    check_user_id,
    check_username,
    default_guest_name,
    fold_name,
    make_user_id,
    name_keys,
    normalise_name,
)
from clasp_relay.access.refusals import BadInput


class NameTests(SynchronousTestCase):
    """Names of users and guests."""

    def test_name_is_kept_trimmed_and_normalised(self) -> None:
        """NFKC: what looks alike is alike."""
        cases = [
            (" Alice\t", "Alice"),
            ("Ａlice", "Alice"),
            ("ﬁn", "fin"),
            ("Zoe\u0308", "Zo\u00eb"),
            ("a\u00a0b", "a b"),
            ("二郎", "二郎"),
            ("O'Neil <x>", "O'Neil <x>"),
            ("🙂🙂", "🙂🙂"),
            ("x" * 32, "x" * 32),
        ]
        for text, kept in cases:
            with self.subTest(text=text):
                self.assertEqual(check_username(text), kept)
                self.assertEqual(check_guest_name(text), kept)

    def test_name_of_a_wrong_length_is_refused(self) -> None:
        """A user's has 2 to 32 characters once it is trimmed, a guest's 1 to 32."""
        for text in ("", " ", "x", " x ", "x" * 33, "ﷺ" * 2):
            with self.subTest(text=text):
                self.assertRaises(BadInput, check_username, text)
        for text in ("", " ", "x" * 33):
            with self.subTest(text=text):
                self.assertRaises(BadInput, check_guest_name, text)
        self.assertEqual(check_guest_name("x"), "x")

    def test_name_with_something_invisible_is_refused(self) -> None:
        """Controls, formats, separators, fillers, variation selectors, private use: one could pass for another."""
        invisible = (
            "\x00\x07\n\x7f\x85\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u180e\u200b\u200d\u202e\u2028\u2029"
            "\u2060\u2065\u2800\u3164\ue000\ufe0f\ufeff\uffa0\ufff9\uffff\U0001d159\U000e0041\U000e0100\ud800"
        )
        for character in invisible:
            with self.subTest(character=f"U+{ord(character):04X}"):
                for check in (check_username, check_guest_name):
                    self.assertRaises(BadInput, check, f"ab{character}cd")

    def test_long_text_is_not_normalised(self) -> None:
        """It is refused by its length, or taken as it is: normalising thousands of combining marks takes 0.1 s."""
        text = "a" + "\u0301\u0316" * 4000
        before_s = thread_time()
        for check in (check_username, check_guest_name):
            self.assertRaises(BadInput, check, text)
        self.assertEqual((normalise_name(text), fold_name(text)), (text, text))
        self.assertLess(thread_time() - before_s, 0.01)

    def test_text_that_shrinks_to_a_name_is_taken_up_to_128_characters(self) -> None:
        """Composing may make one character of four."""
        self.assertEqual(check_username(" " * 123 + "Alice"), "Alice")
        self.assertRaises(BadInput, check_username, " " * 124 + "Alice")

    def test_refusal_does_not_repeat_what_was_typed(self) -> None:
        """Somebody may have typed a password into the wrong field."""
        error = self.assertRaises(BadInput, check_username, "secret\x00")
        self.assertEqual(error.sentence, "A username cannot contain control or invisible characters.")

    @given(st.text(max_size=40))
    def test_kept_name_is_good_as_it_is(self, text: str) -> None:
        """Whatever is accepted is accepted again, unchanged, and shows every character."""
        try:
            name = check_guest_name(text)
        except BadInput:
            return
        self.assertEqual(check_guest_name(name), name)
        self.assertTrue(
            all(
                character == " " or unicodedata.category(character)[0] != "C" or unicodedata.category(character) == "Cn"
                for character in name
            )
        )

    @given(st.text(max_size=40))
    def test_folding_is_stable_and_blind_to_case(self, text: str) -> None:
        """A name, its folded and its normalised form, and other cases of it, are one name."""
        folded = fold_name(text)
        self.assertEqual(fold_name(folded), folded)
        self.assertEqual(fold_name(normalise_name(text)), folded)
        self.assertEqual(fold_name(text.casefold()), folded)

    def test_folding_tells_what_is_one_name(self) -> None:
        """Case, compatibility forms and the width of spaces do not make another name."""
        same = [("Alice", "ALICE"), ("Straße", "STRASSE"), ("ﬁn", "FIN"), ("a  b", "A B"), ("ΣΑΣ", "σας")]
        for one, other in same:
            with self.subTest(one=one, other=other):
                self.assertEqual(fold_name(one), fold_name(other))
        self.assertNotEqual(fold_name("Alice"), fold_name("Alicé"))

    def test_keys_are_the_folded_name_and_the_skeletons_of_both_forms(self) -> None:
        """Of a text that is too long for a name, itself."""
        self.assertEqual(name_keys(" AIice "), ("aiice", "Alice", "aiice"))
        self.assertEqual(name_keys("Alice")[1], name_keys("AIice")[1])
        self.assertEqual(name_keys("Аlice")[1:], name_keys("Alice")[1:])
        self.assertEqual(name_keys("I" * 300), ("I" * 300,) * 3)


class PasswordTests(SynchronousTestCase):
    """Passwords that are chosen."""

    def test_password_has_6_to_1024_characters(self) -> None:
        """Spaces count, and nothing is trimmed."""
        for text in ("      ", "123456", "é" * 6, "x" * 1024):
            check_password(text)
        for text in ("", "12345", "x" * 1025):
            with self.subTest(length=len(text)):
                self.assertRaises(BadInput, check_password, text)


class IdTests(SynchronousTestCase):
    """Ids, brought or made."""

    def test_id_has_1_to_64_plain_characters(self) -> None:
        """Letters, digits, _ and -, so that it is one segment of an address."""
        for text in ("a", "A-b_9", "x" * 64, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"):
            check_user_id(text)
        for text in ("", "x" * 65, "a/b", "a*", "a.b", "a\n", "é", "a b", "１"):
            with self.subTest(text=text):
                self.assertRaises(BadInput, check_user_id, text)

    def test_reserved_word_is_no_id(self) -> None:
        """It would have a meaning of its own in an address or in a client's objects, in any case."""
        for text in ("__auth", "__proto__", "constructor", "prototype", ".", "..", "clasp", "CLASP", "__Proto__"):
            with self.subTest(text=text):
                self.assertRaises(BadInput, check_user_id, text)
        for text in ("clasp1", "_auth", "constructors"):
            check_user_id(text)

    def test_made_id_says_when(self) -> None:
        """Unix milliseconds and 8 random digits; it would be accepted from a client."""
        made = make_user_id(1_700_000_000.1239, lambda size: "ab" * size)
        self.assertEqual(made, "u-1700000000123-abababab")
        check_user_id(made)

    def test_guest_without_a_name_gets_one_from_the_id(self) -> None:
        """The last six characters of it."""
        self.assertEqual(default_guest_name("u-1700000000123-abcdef12"), "guest-cdef12")
        self.assertEqual(default_guest_name("x"), "guest-x")
        self.assertEqual(set(default_guest_name("_")) - set(string.ascii_letters), {"-", "_"})
