"""The command line and the environment become settings, or one line that says why not."""

import sys
from collections.abc import Mapping
from io import StringIO
from ipaddress import ip_network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import __version__
from clasp_relay.command_line.option_table import NOT_SUPPORTED
from clasp_relay.command_line.options import Options, rust_log_level
from clasp_relay.settings import Settings

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1"))


def parse(*arguments: str, environment: Mapping[str, str] | None = None) -> Settings:
    """Returns what arguments and environment come to."""
    options = Options(environment or {})
    options.parseOptions(list(arguments))
    return options.settings


class AcceptedTests(SynchronousTestCase):
    """What is understood."""

    def test_options_are_the_defaults_when_nothing_is_given(self) -> None:
        """No argument, no variable: the settings' own defaults."""
        self.assertEqual(parse(), Settings())

    def test_options_set_their_fields(self) -> None:
        """Every spelling of an option sets its field."""
        cases: list[tuple[list[str], Settings]] = [
            (["--port", "1"], Settings(port=1)),
            (["--port=1"], Settings(port=1)),
            (["--ws-port", "1"], Settings(port=1, auth_port=0)),
            (["-p", "1"], Settings(port=1)),
            (["-p1"], Settings(port=1)),
            (["--port", "1", "--ws-port", "2"], Settings(port=2, auth_port=0)),
            (["--auth-port", "0"], Settings(auth_port=0)),
            (["--auth-port", "0", "--app-config", "none"], Settings(auth_port=0, app_config="none")),
            (["--endpoint", "tcp:1:interface=::1"], Settings(endpoint="tcp:1:interface=::1")),
            (["--auth-endpoint", "tcp:0"], Settings(auth_endpoint="tcp:0")),
            (["--tls-cert", "c", "--tls-key", "k"], Settings(tls_cert=Path("c"), tls_key=Path("k"))),
            (["--trusted-proxy", "10.0.0.0/8,::1"], Settings(trusted_proxies=PROXIES)),
            (["--cors-origin", "https://a,http://b:1"], Settings(cors_origins=("https://a", "http://b:1"))),
            (["--auth-db", "/u.db"], Settings(auth_db=Path("/u.db"))),
            (["--app-config", "chat-compat"], Settings(app_config="chat-compat")),
            (["--admin-token", "/t"], Settings(admin_token=Path("/t"))),
            (["--token-ttl", "60"], Settings(token_ttl_s=60)),
            (["--rate-limit", "0"], Settings(rate_limit=0)),
            (["--max-params-per-subject", "9"], Settings(max_params_per_subject=9)),
            (["--max-bytes-per-subject", "0"], Settings(max_bytes_per_subject=0)),
            (["--osc-namespace", "/desk/"], Settings(osc_namespace="/desk")),
            (["--osc-namespace", "/"], Settings(osc_namespace="/")),
            (["--osc-token", "/t"], Settings(osc_token=Path("/t"))),
            (
                ["--osc-target", "192.0.2.1:9000,192.0.2.2:9000=/a/**", "--osc-target=[::1]:9"],
                Settings(osc_targets=("192.0.2.1:9000", "192.0.2.2:9000=/a/**", "[::1]:9")),
            ),
            (
                [word for port in range(1, 101) for word in ("--osc-target", f"192.0.2.1:{port}")],
                Settings(osc_targets=tuple(f"192.0.2.1:{port}" for port in range(1, 101))),
            ),
            (
                ["--turn-url", "turn:a,turn:b", "--turn-url=turns:c:1", "--turn-secret", "/t"],
                Settings(turn_urls=("turn:a", "turn:b", "turns:c:1"), turn_secret=Path("/t")),
            ),
            (["--push", "off"], Settings(push="off")),
            (["--push-contact", "mailto:a@b.c"], Settings(push_contact="mailto:a@b.c")),
            (["--push-allow", "a:1", "--push-allow=b:2"], Settings(push_allow=("a:1", "b:2"))),
            (["--announce"], Settings(announce=True)),
            (["--host", "::1"], Settings(host="::1")),
            (["--data-dir", "/d"], Settings(data_dir=Path("/d"))),
            (["--name", "--odd=name"], Settings(name="--odd=name")),
            (["-n", "x"], Settings(name="x")),
            (["--name=a=b"], Settings(name="a=b")),
            (["--persist", "/s.json"], Settings(state_path=Path("/s.json"))),
            (["--persist-interval", "0.5"], Settings(persist_interval_s=0.5)),
            (["--param-ttl", "9"], Settings(param_ttl_s=9)),
            (["--no-ttl"], Settings(param_ttl_s=0)),
            (["--max-params", "9"], Settings(max_params=9)),
            (["--max-state-bytes", "9"], Settings(max_state_bytes=9)),
            (["--max-sessions", "9"], Settings(max_sessions=9)),
            (["--max-sessions", "0"], Settings(max_sessions=0)),
            (["--token-ttl", "0"], Settings(token_ttl_s=0)),
            (["--max-session-memory", "0"], Settings(max_session_memory=0)),
            (["--verbose"], Settings(log_level="debug")),
            (["-v"], Settings(log_level="debug")),
            (["--max-sessions-per-address", "9"], Settings(max_sessions_per_address=9)),
            (["--session-timeout", "9"], Settings(session_timeout_s=9)),
            (["--drain-timeout", "0"], Settings(drain_timeout_s=0)),
            (["--log-level", "DEBUG"], Settings(log_level="debug")),
            (["--log-level", "info,net=DEBUG"], Settings(log_level="info,net=debug")),
            (["--log-format", "json"], Settings(log_format="json")),
            (["--health-port", "7360"], Settings(health_port=7360)),
            (["--metrics-port", "9090"], Settings(metrics_port=9090)),
            (["--signal-ttl", "0"], Settings(signal_ttl_s=0)),
            (["--registration", "invite", "--guests", "OFF"], Settings(registration="invite", guests="off")),
            (["--cert", "c", "--key", "k"], Settings(tls_cert=Path("c"), tls_key=Path("k"), auth_port=0)),
        ]
        for arguments, settings in cases:
            with self.subTest(arguments=arguments):
                self.assertEqual(parse(*arguments), settings)

    def test_variables_set_their_fields(self) -> None:
        """An option's variable does what the option does."""
        cases: list[tuple[dict[str, str], Settings]] = [
            ({"CLASP_PORT": "1"}, Settings(port=1)),
            ({"CLASP_PORT": ""}, Settings()),
            ({"CLASP_AUTH_PORT": "0"}, Settings(auth_port=0)),
            ({"CLASP_DATA_DIR": "/d", "CLASP_NAME": "x"}, Settings(data_dir=Path("/d"), name="x")),
            ({"CLASP_NO_TTL": "Yes"}, Settings(param_ttl_s=0)),
            ({"CLASP_NO_TTL": "0", "CLASP_PARAM_TTL": "9"}, Settings(param_ttl_s=9)),
            ({"CLASP_SOMETHING_ELSE": "x"}, Settings()),
        ]
        for environment, settings in cases:
            with self.subTest(environment=environment):
                self.assertEqual(parse(environment=environment), settings)

    def test_command_line_wins_over_variables_that_it_does_not_look_at(self) -> None:
        """A variable whose option is given may even be nonsense."""
        cases: list[tuple[list[str], dict[str, str], Settings]] = [
            (["--port", "1"], {"CLASP_PORT": "nonsense"}, Settings(port=1)),
            (["--no-ttl"], {"CLASP_PARAM_TTL": "nonsense"}, Settings(param_ttl_s=0)),
            (["--param-ttl", "9"], {"CLASP_NO_TTL": "1"}, Settings(param_ttl_s=9)),
            (["--auth-port", "0"], {"CLASP_AUTH_PORT": "7351"}, Settings(auth_port=0)),
            (["--log-level", "warn"], {"CLASP_LOG_LEVEL": "?", "RUST_LOG": "debug"}, Settings(log_level="warn")),
        ]
        for arguments, environment, settings in cases:
            with self.subTest(arguments=arguments):
                self.assertEqual(parse(*arguments, environment=environment), settings)

    def test_command_line_of_the_rust_relay_is_open_unless_it_says_something_about_accounts(self) -> None:
        """Wherever that is said; the log and check-config tell why it is open."""
        self.assertEqual(parse("--rendezvous-port=0"), Settings(auth_port=0))
        for arguments, environment in (
            (["--port", "1", "--name", "x", "--persist", "s.json"], {}),
            (["--ws-port", "1", "--auth-port", "7351"], {}),
            (["--ws-port", "1", "--auth-db", "u.db"], {}),
            (["--ws-port", "1", "--admin-token", "t"], {}),
            (["--ws-port", "1"], {"CLASP_AUTH_PORT": "7351"}),
            (["--ws-port", "1"], {"CLASP_APP_CONFIG": "none"}),
        ):
            with self.subTest(arguments=arguments, environment=environment):
                self.assertFalse(parse(*arguments, environment=environment).is_open_mode)
        options = Options({})
        options.parseOptions(["--ws-port", "1", "--rendezvous-ttl", "300"])
        self.assertEqual(options.sources["auth_port"], "--ws-port, without an option about accounts")
        ignored, opened = options.notices
        self.assertEqual(ignored, "--rendezvous-ttl is ignored: rendezvous is not offered")
        self.assertIn("--auth-port 7350 turns them on", opened)

    def test_rust_log_is_the_level_when_nothing_else_is(self) -> None:
        """RUST_LOG comes last, after the option and its variable."""
        self.assertEqual(parse(environment={"RUST_LOG": "debug"}).log_level, "debug")
        self.assertEqual(parse(environment={"RUST_LOG": "debug", "CLASP_LOG_LEVEL": "error"}).log_level, "error")
        self.assertEqual(parse(environment={"RUST_LOG": "hyper"}).log_level, "info")

    def test_log_format_of_other_programs_counts_last(self) -> None:
        """LOG_FORMAT, where the option and its variable say nothing; words for other programs are left to them."""
        for environment, log_format in (
            ({"LOG_FORMAT": "json"}, "json"),
            ({"LOG_FORMAT": "JSON", "CLASP_LOG_FORMAT": "text"}, "text"),
            ({"LOG_FORMAT": "pretty"}, "text"),
        ):
            with self.subTest(environment):
                self.assertEqual(parse(environment=environment).log_format, log_format)

    def test_ports_that_kubernetes_sets_are_ignored(self) -> None:
        """For Services called clasp, clasp-auth and so on; the log says so. Another bad value is a mistake."""
        options = Options({"CLASP_PORT": "tcp://10.0.0.1:7330", "CLASP_AUTH_PORT": "udp://[fd00::1]:7350"})
        options.parseOptions([])
        self.assertEqual((options.settings.port, options.settings.auth_port, options.sources), (7330, 7350, {}))
        self.assertEqual([notice.partition("=")[0] for notice in options.notices], ["CLASP_PORT", "CLASP_AUTH_PORT"])
        for variables in ({"CLASP_NAME": "tcp://10.0.0.1:7330"}, {"CLASP_PORT": "1"}):
            options = Options(variables)
            options.parseOptions([])
            self.assertEqual((len(options.sources), options.notices), (1, []))

    def test_rust_log_level_takes_the_word_that_is_about_no_module(self) -> None:
        """Directives for modules and unknown words are passed over."""
        cases = [
            ("info", "info"),
            ("WARN", "warn"),
            ("info,clasp_router=debug", "info"),
            ("clasp_router=debug, trace", "trace"),
            ("clasp_router=debug", None),
            ("", None),
            ("off", None),
        ]
        for text, level in cases:
            with self.subTest(text):
                self.assertEqual(rust_log_level(text), level)

    def test_options_know_where_each_setting_comes_from(self) -> None:
        """Option, variable or RUST_LOG, by field; nothing for what is at its default."""
        options = Options({"CLASP_NAME": "x", "CLASP_PORT": "2", "RUST_LOG": "debug"})
        options.parseOptions(["-p", "1", "--no-ttl"])
        self.assertEqual(
            options.sources,
            {"port": "--port", "param_ttl_s": "--no-ttl", "name": "CLASP_NAME", "log_level": "RUST_LOG"},
        )


class RefusedTests(SynchronousTestCase):
    """What is not understood ends the process with one line."""

    def refusal(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Returns the one line on stderr of a command line that ends with exit status 1."""
        stderr = StringIO()
        self.patch(sys, "__stderr__", stderr)
        with self.assertRaises(SystemExit) as caught:
            parse(*arguments, environment=environment)
        self.assertEqual(caught.exception.code, 1)
        line, end, rest = stderr.getvalue().partition("\n")
        self.assertEqual((end, rest), ("\n", ""))
        return line.removeprefix("clasp-relay: ")

    def test_options_name_what_was_given_and_expected_when_they_refuse(self) -> None:
        """The line has the option as it was spelled, its value, and what it accepts."""
        cases = [
            (["--port", "x"], "--port: got 'x', expected a whole number from 0 to 65535"),
            (["--port", "65536"], "--port: got '65536', expected a whole number from 0 to 65535"),
            (["--port", "-1"], "--port: got '-1', expected a whole number from 0 to 65535"),
            (["--port="], "--port: got '', expected a whole number from 0 to 65535"),
            (["--port"], "--port: got no value, expected a whole number from 0 to 65535"),
            (["-p"], "-p: got no value, expected a whole number from 0 to 65535"),
            (["--auth-port", "x"], "--auth-port: got 'x', expected a whole number from 0 to 65535"),
            (
                ["--cors-origin", "*"],
                "--cors-origin: got '*', expected origins as scheme://host or scheme://host:port, "
                "null or file:// for local pages, comma-separated (to allow every origin, leave the option out)",
            ),
            (
                ["--trusted-proxy", "caddy"],
                "--trusted-proxy: got 'caddy', expected IP addresses or networks (10.0.0.0/8), comma-separated",
            ),
            (["--rate-limit", "-1"], "--rate-limit: got '-1', expected a number of at least 0 and at most 1000000000"),
            (["--token-ttl", "-1"], "--token-ttl: got '-1', expected a whole number from 0 to 4294967295"),
            (["-v", "--log-level", "info"], "--verbose: conflicts with --log-level; give only one of them"),
            (["--data-dir", ""], "--data-dir: got '', expected a path"),
            (
                ["--persist-interval", "0"],
                "--persist-interval: got '0', expected a number greater than 0 and at most 1000000000",
            ),
            (
                ["--drain-timeout", "-1"],
                "--drain-timeout: got '-1', expected a number of at least 0 and at most 1000000000",
            ),
            (
                ["--log-level", "loud"],
                "--log-level: got 'loud', expected one of error, warn, info, debug, trace, "
                "optionally followed by levels for parts (info,net=debug)",
            ),
            (["--name", "a\nb"], r"--name: got 'a\nb', expected a text of 1 to 1024 bytes without control characters"),
            (["--no-ttl=1"], "--no-ttl: got '1', expected no value"),
            (["--help=1"], "--help: got '1', expected no value"),
            (["--no-ttl", "--param-ttl", "9"], "--no-ttl: conflicts with --param-ttl; give only one of them"),
        ]
        for arguments, line in cases:
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refusal(*arguments), line)

    def test_variables_name_what_was_given_and_expected_when_they_refuse(self) -> None:
        """The line has the variable's name instead of the option's."""
        cases = [
            ({"CLASP_PORT": "x"}, "CLASP_PORT: got 'x', expected a whole number from 0 to 65535"),
            ({"CLASP_NO_TTL": "so"}, "CLASP_NO_TTL: got 'so', expected one of 1, true, yes, on, 0, false, no, off"),
            (
                {"CLASP_NO_TTL": "1", "CLASP_PARAM_TTL": "1"},
                "CLASP_NO_TTL: conflicts with CLASP_PARAM_TTL; give only one of them",
            ),
        ]
        for environment, line in cases:
            with self.subTest(environment=environment):
                self.assertEqual(self.refusal(environment=environment), line)

    def test_options_are_named_as_they_were_given_when_they_contradict_each_other(self) -> None:
        """Options and variables are named as such, and the default counts when somebody gave it."""
        cases: list[tuple[list[str], dict[str, str], str]] = [
            (["--tls-cert", "c"], {}, "--tls-cert: needs --tls-key as well (TLS takes a certificate and a key)"),
            ([], {"CLASP_TLS_KEY": "k"}, "CLASP_TLS_KEY: needs --tls-cert as well (TLS takes a certificate and a key)"),
            (
                ["--auth-port", "0"],
                {"CLASP_APP_CONFIG": "chat"},
                "CLASP_APP_CONFIG: has no effect in open mode; leave it out, or set --auth-port to a port other than 0",
            ),
            (
                ["--auth-endpoint", "tcp:1", "--auth-port", "7350"],
                {},
                "--auth-endpoint: conflicts with --auth-port; give only one of them",
            ),
            (
                ["--endpoint", "tcp:1"],
                {"CLASP_PORT": "7330"},
                "--endpoint: conflicts with CLASP_PORT; give only one of them",
            ),
            (["--port", "7350"], {}, "--auth-port: is the same port as --port; set different ports"),
        ]
        for arguments, environment, line in cases:
            with self.subTest(line):
                self.assertEqual(self.refusal(*arguments, environment=environment), line)

    def test_options_of_the_rust_relay_are_refused_by_name(self) -> None:
        """What this relay does not have is said to be so, whatever its value."""
        for name in NOT_SUPPORTED:
            dashes = "-" if len(name) == 1 else "--"
            with self.subTest(name):
                self.assertTrue(self.refusal(f"{dashes}{name}").startswith(f"{dashes}{name}: not supported"))
        said = "--quic-port: not supported: QUIC is not offered; clients connect with WebSocket (--port)"
        self.assertEqual(self.refusal("--quic-port=7331"), said)
        said = "'defra' is not supported: DefraDB is not offered; the journal is an SQLite file (--journal)"
        self.assertEqual(self.refusal("--journal-backend", "defra"), f"--journal-backend: {said}")
        environment = {"CLASP_JOURNAL_BACKEND": "defra"}
        self.assertEqual(self.refusal(environment=environment), f"CLASP_JOURNAL_BACKEND: {said}")
        cases = [
            (["--rendezvous-port"], "--rendezvous-port: got no value, expected a whole number from 0 to 65535"),
            (["--rendezvous-port", "x"], "--rendezvous-port: got 'x', expected a whole number from 0 to 65535"),
        ]
        for arguments, line in cases:
            with self.subTest(line):
                self.assertEqual(self.refusal(*arguments), line)

    def test_unknown_options_are_refused_by_name(self) -> None:
        """Abbreviations are unknown too: their meaning would change with every new option."""
        cases = [
            (["--foo"], "unknown option --foo; see --help"),
            (["--foo=1"], "unknown option --foo; see --help"),
            (["--data", "x"], "unknown option --data; see --help"),
            (["-x"], "unknown option -x; see --help"),
            (["--p", "1"], "unknown option --p; see --help"),
            (["--"], "unknown option --; see --help"),
            (["foo"], "unexpected argument 'foo'; see --help"),
            (["-"], "unexpected argument '-'; see --help"),
            ([""], "unexpected argument ''; see --help"),
        ]
        for arguments, line in cases:
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refusal(*arguments), line)


class TellingTests(SynchronousTestCase):
    """What is printed on request."""

    def printed(self, *arguments: str) -> str:
        """Returns the stdout of a command line that ends with exit status 0."""
        stdout = StringIO()
        self.patch(sys, "stdout", stdout)
        with self.assertRaises(SystemExit) as caught:
            parse(*arguments)
        self.assertEqual(caught.exception.code, 0)
        return stdout.getvalue()

    def test_version_is_the_relays_own(self) -> None:
        """--version is about the relay, not about Twisted."""
        self.assertEqual(self.printed("--version"), f"clasp-relay {__version__}\n")

    def test_help_lists_options_with_other_names_and_defaults(self) -> None:
        """--help has what the table has."""
        text = " ".join(self.printed("--help").split())
        for part in (
            "-p, --port=",
            "(also --ws-port) [default: 7330]",
            "--no-ttl",
            "[default: state.json in the data-dir]",
        ):
            with self.subTest(part):
                self.assertIn(part, text)
