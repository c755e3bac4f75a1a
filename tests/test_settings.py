"""Settings: the defaults stand, and what a field does not accept is refused in words."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.settings import Choice, FilePath, Kind, Number, Settings, Text, Whole, kinds


class SettingsTests(SynchronousTestCase):
    """What embedders make."""

    def test_settings_have_documented_defaults_when_nothing_is_given(self) -> None:
        """Without arguments a relay listens on 7330 everywhere and keeps its state in ./data."""
        settings = Settings()
        self.assertEqual((settings.host, settings.port), ("0.0.0.0", 7330))
        self.assertEqual(settings.state_file, Path("data/state.json"))
        self.assertEqual(settings.param_ttl_s, 0)
        self.assertEqual(settings.outbox_bytes, 1_048_576)

    def test_settings_keep_what_they_are_given(self) -> None:
        """Values that their fields accept are kept as they are."""
        settings = Settings(port=0, data_dir=Path("x"), drain_timeout_s=0, max_sessions=1)
        self.assertEqual((settings.port, settings.drain_timeout_s, settings.max_sessions), (0, 0, 1))
        self.assertEqual(settings.state_file, Path("x/state.json"))

    def test_settings_take_the_state_path_when_it_is_given(self) -> None:
        """A path of its own wins over the data folder."""
        self.assertEqual(Settings(state_path=Path("/s/a.json")).state_file, Path("/s/a.json"))

    def test_settings_refuse_change(self) -> None:
        """Settings are frozen."""
        settings = Settings()
        with self.assertRaises(FrozenInstanceError):
            settings.port = 1  # type: ignore[misc]

    def test_settings_name_field_value_and_expectation_when_they_refuse(self) -> None:
        """A ValueError says which field, what it was given and what it accepts."""
        with self.assertRaises(ValueError) as caught:
            Settings(port=70_000)
        self.assertEqual(str(caught.exception), "port: got 70000, expected a whole number from 0 to 65535")

    def test_settings_refuse_a_wrong_type(self) -> None:
        """A field does not take a value of another type, even one that looks alike."""
        with self.assertRaisesRegex(ValueError, r"data_dir: got 'data', expected a path"):
            Settings(data_dir="data")  # type: ignore[arg-type]

    def test_every_field_has_a_kind_that_accepts_its_default(self) -> None:
        """No field stands outside the checks."""
        self.assertEqual(list(kinds()), [field.name for field in fields(Settings)])
        for field in fields(Settings):
            with self.subTest(field.name):
                self.assertTrue(kinds()[field.name].accepts(field.default))


class KindTests(SynchronousTestCase):
    """What each kind accepts and reads."""

    def test_kinds_accept_what_is_within_their_limits(self) -> None:
        """Limits are part of what is accepted, unless the kind says above."""
        cases: list[tuple[Kind, object]] = [
            (Whole(1, 3), 1),
            (Whole(1, 3), 3),
            (Whole(1), 10**30),
            (Number(0), 0),
            (Number(0, above=True), 0.001),
            (Number(0, high=9), 9.0),
            (Text(4), "é  é"[:3]),
            (Text(4), "abcd"),
            (FilePath(), Path("a b")),
            (FilePath(optional=True), None),
            (Choice(("a", "b")), "b"),
        ]
        for kind, value in cases:
            with self.subTest(kind=kind, value=value):
                self.assertTrue(kind.accepts(value))

    def test_kinds_refuse_what_is_outside_their_limits(self) -> None:
        """Neither values beyond a limit nor those of another type are accepted."""
        cases: list[tuple[Kind, object]] = [
            (Whole(1, 3), 0),
            (Whole(1, 3), 4),
            (Whole(0), True),
            (Whole(0), 1.0),
            (Whole(0), "1"),
            (Whole(0), None),
            (Number(0), -0.5),
            (Number(0, above=True), 0),
            (Number(0, high=9), 9.5),
            (Number(0), float("nan")),
            (Number(0), float("inf")),
            (Number(0), False),
            (Number(0), "1"),
            (Text(4), ""),
            (Text(4), "ééé"),
            (Text(4), "a\nb"),
            (Text(4), "\udcff"),
            (Text(4), b"a"),
            (FilePath(), None),
            (FilePath(), "a"),
            (FilePath(), Path("a\0b")),
            (Choice(("a", "b")), "c"),
            (Choice(("a", "b")), None),
        ]
        for kind, value in cases:
            with self.subTest(kind=kind, value=value):
                self.assertFalse(kind.accepts(value))

    def test_kinds_read_their_texts(self) -> None:
        """Plain spellings are read."""
        cases: list[tuple[Kind, str, object]] = [
            (Whole(0), "7330", 7330),
            (Whole(0), "-1", -1),
            (Number(0), "60", 60.0),
            (Number(0), "0.25", 0.25),
            (Text(9), " x ", " x "),
            (FilePath(), "a/b", Path("a/b")),
            (Choice(("warn",)), "WARN", "warn"),
        ]
        for kind, text, value in cases:
            with self.subTest(kind=kind, text=text):
                self.assertEqual(kind.parse(text), value)

    def test_kinds_refuse_to_read_other_spellings(self) -> None:
        """What only Python reads as a number, and an empty path, are refused."""
        cases: list[tuple[Kind, str]] = [
            (Whole(0), text) for text in ("", "1_000", " 1", "1.0", "0x10", "٣", "+1", "one")
        ]
        cases += [(Number(0), text) for text in ("", "1_0", "nan", "inf", "1e3", ".5", "5.", " 5", "٣")]
        cases += [(FilePath(), "")]
        for kind, text in cases:
            with self.subTest(kind=kind, text=text), self.assertRaises(ValueError):
                kind.parse(text)

    @given(st.integers())
    def test_whole_reads_every_number_that_str_writes(self, number: int) -> None:
        """``parse`` undoes ``str``."""
        self.assertEqual(Whole(0).parse(str(number)), number)

    def test_kinds_say_what_they_expect(self) -> None:
        """The words name the limits."""
        cases: list[tuple[Kind, str]] = [
            (Whole(1), "a whole number from 1"),
            (Whole(0, 9), "a whole number from 0 to 9"),
            (Number(0), "a number from 0, at most 1000000000"),
            (Number(0, above=True), "a number above 0, at most 1000000000"),
            (Text(9), "a text of 1 to 9 bytes without control characters"),
            (FilePath(), "a path"),
            (Choice(("a", "b")), "one of a, b"),
        ]
        for kind, words in cases:
            with self.subTest(kind=kind):
                self.assertEqual(kind.expected, words)
