"""Settings: the defaults stand, and what a field does not accept is refused in words."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.settings import Contradiction, Settings, kinds


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

    def test_settings_take_the_users_path_when_it_is_given(self) -> None:
        """The database stands in the data folder, or where it is told."""
        self.assertEqual(Settings(data_dir=Path("d")).users_file, Path("d/users.db"))
        self.assertEqual(Settings(auth_db=Path("/u/chat-auth.db")).users_file, Path("/u/chat-auth.db"))

    def test_settings_are_open_mode_when_there_is_no_auth_port(self) -> None:
        """Accounts are the default; the auth port 0 turns them off."""
        self.assertEqual(Settings().auth_port, 7350)
        self.assertFalse(Settings().is_open_mode)
        self.assertTrue(Settings(auth_port=0).is_open_mode)

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


class TogetherTests(SynchronousTestCase):
    """What no field can tell alone."""

    def test_settings_accept_what_holds_together(self) -> None:
        """TLS with both files, endpoints beside ports of the other kind, no policy in open mode."""
        cases: list[dict[str, Any]] = [
            {"tls_cert": Path("c"), "tls_key": Path("k")},
            {"auth_port": 0, "app_config": "none"},
            {"endpoint": "tcp:1", "auth_port": 2, "host": "::1", "tls_cert": Path("c"), "tls_key": Path("k")},
            {"port": 7350, "auth_endpoint": "unix:a"},
            {"endpoint": "tcp:1", "auth_endpoint": "tcp:2"},
            {"endpoint": "tcp:1", "auth_port": 0},
            {"port": 0, "auth_endpoint": "tcp:0"},
        ]
        for values in cases:
            with self.subTest(values):
                Settings(**values)

    def test_settings_refuse_what_contradicts_itself(self) -> None:
        """The text names the fields in question."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"tls_cert": Path("c")}, "tls_cert: needs tls_key as well (TLS takes a certificate and a key)"),
            ({"tls_key": Path("k")}, "tls_key: needs tls_cert as well (TLS takes a certificate and a key)"),
            (
                {"auth_port": 0, "app_config": "chat"},
                "app_config: has no effect in open mode; leave it out, or set auth_port to a port other than 0",
            ),
            (
                {"auth_port": 0, "auth_endpoint": "tcp:1"},
                "auth_endpoint: conflicts with auth_port 0 (open mode); give only one of them",
            ),
            ({"endpoint": "tcp:1", "port": 2}, "endpoint: conflicts with port; give only one of them"),
            (
                {"auth_endpoint": "tcp:1", "auth_port": 2},
                "auth_endpoint: conflicts with auth_port; give only one of them",
            ),
            (
                {"endpoint": "tcp:1", "auth_endpoint": "tcp:2", "host": "::1"},
                "host: has no effect beside endpoint, which says how to listen; leave it out",
            ),
            (
                {"endpoint": "tcp:1", "auth_port": 0, "tls_cert": Path("c"), "tls_key": Path("k")},
                "tls_cert: has no effect beside endpoint, which says how to listen; leave it out",
            ),
            (
                {"turn_urls": ("turn:a",)},
                "turn_urls: needs turn_secret as well (clients get credentials made from the secret)",
            ),
            (
                {"turn_secret": Path("s")},
                "turn_secret: needs turn_urls as well (clients get credentials made from the secret)",
            ),
            ({"port": 7350}, "auth_port: is the same port as port; set different ports"),
        ]
        for values, words in cases:
            with self.subTest(values):
                with self.assertRaises(Contradiction) as caught:
                    Settings(**values)
                self.assertEqual(str(caught.exception), words)

    def test_settings_refuse_what_was_given_be_it_the_default(self) -> None:
        """Who names a port and an endpoint means two things, even where the port is the usual one."""
        settings = Settings(endpoint="tcp:1")
        settings.check_together({"endpoint"})
        with self.assertRaises(Contradiction) as caught:
            settings.check_together({"endpoint", "port"})
        self.assertEqual(caught.exception.said(str.upper), "ENDPOINT: conflicts with PORT; give only one of them")
