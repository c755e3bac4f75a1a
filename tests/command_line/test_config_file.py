"""The config file: what it may say, and what is refused with the file and the key."""

import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import parse_networks
from clasp_relay.command_line.config_file import ConfigError, read_config
from clasp_relay.command_line.option_table import NOT_SUPPORTED, OPTIONS
from clasp_relay.command_line.options import Options
from clasp_relay.settings import Settings


class ConfigTestCase(SynchronousTestCase):
    """Writes config files."""

    def file(self, text: str | bytes) -> Path:
        """Returns a file."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def options(self, text: str, *arguments: str, **variables: str) -> Options:
        """Returns the options of a relay with a config file."""
        options = Options(variables)
        options.parseOptions(["--config", str(self.file(text)), *arguments])
        return options


class ReadTests(ConfigTestCase):
    def refusal(self, text: str | bytes) -> str:
        """Returns why a file is refused, with FILE for its name."""
        path = self.file(text)
        error = self.assertRaises(ConfigError, read_config, path)
        return str(error).replace(str(path), "FILE")

    def test_values_of_every_type_are_read(self) -> None:
        """As they would stand on the command line."""
        text = (
            'name = "N"\nport = 1\npersist-interval = 0.00001\nno-ttl = true\n'
            'cors-origin = ["https://a.example", "https://b.example"]\ntrusted-proxy = "10.0.0.0/8"\n'
        )
        found = {option.name: text for option, text in read_config(self.file(text)).items()}
        self.assertEqual(
            found,
            {
                "name": "N",
                "port": "1",
                "persist-interval": "0.00001",
                "no-ttl": "true",
                "cors-origin": "https://a.example,https://b.example",
                "trusted-proxy": "10.0.0.0/8",
            },
        )

    def test_keys_that_are_no_options_are_refused(self) -> None:
        """With what to write, where that can be told."""
        for text, line in (
            ("prot = 1", "FILE: prot: unknown key; keys are the long option names, see --help"),
            ("auth_port = 1", "FILE: auth_port: unknown key; write auth-port"),
            ("ws-port = 1", "FILE: ws-port: unknown key; write port"),
            ("p = 1", "FILE: p: unknown key; write port"),
            ('config = "x"', "FILE: config: a config file cannot name another config file"),
            (
                "quic-port = 1",
                "FILE: quic-port: not supported: QUIC is not offered; clients connect with WebSocket (--port)",
            ),
            ("rendezvous-port = 1", "FILE: rendezvous-port: has no effect: rendezvous is not offered; leave it out"),
        ):
            with self.subTest(text):
                self.assertEqual(self.refusal(text), line)
        self.assertIn("lenses", NOT_SUPPORTED)

    def test_values_of_a_type_that_no_option_has_are_refused(self) -> None:
        """What was expected is said as for the command line."""
        for text, got in (
            ("port = true", "true"),
            ("port = [1]", "an array"),
            ("cors-origin = [1]", "an array"),
            ("[port]\nx = 1", "a table"),
            ("port = 2026-01-31", "2026-01-31"),
        ):
            with self.subTest(text):
                self.assertTrue(self.refusal(text).split(": ", 2)[2].startswith(f"got {got}, expected "))

    def test_byte_order_mark_is_skipped(self) -> None:
        """Windows' Notepad writes one."""
        self.assertEqual(list(read_config(self.file(b"\xef\xbb\xbfport = 1\n")).values()), ["1"])

    def test_file_that_cannot_be_read_is_refused(self) -> None:
        """Missing, no TOML, or no UTF-8."""
        self.assertIn("is not TOML: ", self.refusal("port = "))
        self.assertEqual(self.refusal(b"name = '\xff'"), "FILE: is not UTF-8 (at byte 8)")
        error = self.assertRaises(ConfigError, read_config, Path("missing.toml"))
        self.assertEqual(str(error), "missing.toml: cannot be read (No such file or directory); give another --config")


class PrecedenceTests(ConfigTestCase):
    def test_command_line_wins_over_environment_over_file(self) -> None:
        """Each where nothing above it says something; RUST_LOG comes last."""
        text = 'port = 1\nauth-port = 1001\nname = "file"\nlog-level = "warn"\n'
        options = self.options(text, "--port", "3", CLASP_PORT="2", CLASP_NAME="variable", RUST_LOG="debug")
        path = options.settings.config_file
        self.assertEqual(
            options.settings, Settings(port=3, auth_port=1001, name="variable", log_level="warn", config_file=path)
        )
        self.assertEqual(
            options.sources,
            {
                "port": "--port",
                "config_file": "--config",
                "name": "CLASP_NAME",
                "auth_port": f"{path}: auth-port",
                "log_level": f"{path}: log-level",
            },
        )

    def test_file_may_be_named_by_a_variable(self) -> None:
        """As every option."""
        options = Options({"CLASP_CONFIG": str(self.file("port = 1"))})
        options.parseOptions([])
        self.assertEqual((options.settings.port, options.sources["config_file"]), (1, "CLASP_CONFIG"))

    def test_lists_and_flags_reach_the_settings(self) -> None:
        """Read by the options' own kinds; a flag that is false sets nothing."""
        settings = self.options('trusted-proxy = ["10.0.0.0/8"]\nno-ttl = false\nparam-ttl = 9\n').settings
        self.assertEqual((settings.trusted_proxies, settings.param_ttl_s), (parse_networks("10.0.0.0/8"), 9))

    def test_what_is_above_the_file_is_not_looked_at_in_it(self) -> None:
        """It may even be nonsense."""
        self.assertEqual(self.options("port = -1", "--port", "3").settings.port, 3)

    def refusal(self, text: str, *arguments: str) -> str:
        """Returns the one line with which a start is refused."""
        path = self.file(text)
        said = StringIO()
        self.patch(sys, "__stderr__", said)
        options = Options({})
        self.assertRaises(SystemExit, options.parseOptions, ["--config", str(path), *arguments])
        return said.getvalue().strip().replace(str(path), "FILE")

    def test_bad_values_are_refused_with_file_and_key(self) -> None:
        """In one line, as those of the command line are; contradictions too."""
        for text, line in (
            ("port = 70000", "clasp-relay: FILE: port: got '70000', expected a whole number from 0 to 65535"),
            ('port = ""', "clasp-relay: FILE: port: got '', expected a whole number from 0 to 65535"),
            (
                "param-ttl = 9\nno-ttl = true",
                "clasp-relay: FILE: no-ttl: conflicts with FILE: param-ttl; give only one of them",
            ),
            (
                "port = 7350",
                "clasp-relay: --auth-port: is the same port as FILE: port; set different ports",
            ),
            ("x = 1", "clasp-relay: FILE: x: unknown key; keys are the long option names, see --help"),
        ):
            with self.subTest(text):
                self.assertEqual(self.refusal(text), line)

    def test_every_option_can_stand_in_a_file(self) -> None:
        """But the one that names the file."""
        for option in OPTIONS:
            with self.subTest(option.name):
                path = self.file(f"{option.name} = {'true' if option.is_flag else repr('x')}\n")
                if option.name == "config":
                    self.assertRaises(ConfigError, read_config, path)
                else:
                    self.assertEqual(list(read_config(path)), [option])
