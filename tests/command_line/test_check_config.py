"""``check-config``: valid or not, who may do what and why, and where settings come from."""

import json
import os
import re
import shlex
import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.check_config import run

ROOT = Path(__file__).parent.parent.parent
WHITEBOARD = ROOT / "tests" / "access" / "policy" / "whiteboard.json"

POLICY = {
    "scopes": ["read:/a/**", "write:/a/{userId}/**"],
    "write_rules": [
        {
            "path": "/a/{owner}/{name}",
            "checks": [{"type": "state_null", "lookup": "/a/{owner}/closed"}, {"type": "value_is_map"}],
        }
    ],
    "snapshot_visibility": [{"path": "/a/{owner}/secret", "visible": "owner", "owner_segment": "owner"}],
}
STATE = {"params": [{"address": "/a/bob/closed", "value": True, "revision": 1, "writer": "s", "timestamp": 1}]}


class CheckTestCase(SynchronousTestCase):
    """Asks, in a folder with a policy."""

    def setUp(self) -> None:
        """Makes the files, and an environment that sets nothing."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.policy = self.write("policy.json", json.dumps(POLICY))
        self.state = self.write("state.json", json.dumps(STATE))
        bare = {name: value for name, value in os.environ.items() if not name.startswith("CLASP_")}
        self.patch(os, "environ", bare)

    def write(self, name: str, text: str) -> str:
        """Writes a file and returns its path."""
        (self.folder / name).write_text(text, "utf-8")
        return str(self.folder / name)

    def answer(self, *arguments: str) -> list[str]:
        """Returns the lines on stdout of a command line that is answered."""
        out = StringIO()
        run(arguments, out)
        return out.getvalue().splitlines()

    def refusal(self, *arguments: str) -> str:
        """Returns the one line on stderr of a command line that is not, with exit status 1."""
        stderr = StringIO()
        self.patch(sys, "__stderr__", stderr)
        with self.assertRaises(SystemExit) as caught:
            run(arguments, StringIO())
        self.assertEqual(caught.exception.code, 1)
        line, end, rest = stderr.getvalue().partition("\n")
        self.assertEqual((end, rest), ("\n", ""))
        return line.removeprefix("clasp-relay: ")


class PolicyTests(CheckTestCase):
    """Questions about a policy."""

    def test_check_says_that_a_policy_is_sound(self) -> None:
        """Of a file, and of the packaged ones by their names."""
        for file in (self.policy, "chat", "chat-compat"):
            with self.subTest(file):
                self.assertEqual(self.answer(file)[0], f"{file}: valid policy")

    def test_check_names_key_and_problem_of_a_policy_that_is_not(self) -> None:
        """One line, exit status 1."""
        path = self.write("odd.json", '{"scopes": ["read:a"]}')
        self.assertIn(f"{path}: scopes[0]: ", self.refusal(path))
        self.assertIn("nothing: the policy cannot be read", self.refusal("nothing"))

    def test_check_tells_the_notices_of_a_policy(self) -> None:
        """What the relay would log about it."""
        path = self.write("empty.json", "{}")
        notice = f"{path}: there are no scopes, so nobody may read or write anything"
        self.assertEqual(self.answer(path)[:2], [f"{path}: valid policy", notice])

    def test_check_explains_a_write(self) -> None:
        """The answer, the scope, the rule, each check; a value as JSON, null when there is none."""
        said = self.answer(self.policy, "--as", "bob", "--write", "/a/bob/x", "--value", '{"n": 1}')
        expected = ["bob may write /a/bob/x", "scope: write:/a/bob/**", "rule: write_rules[0] /a/{owner}/{name}"]
        self.assertEqual(said[1:4], expected)
        said = self.answer(self.policy, "--as=bob", "--write=/a/bob/x")
        self.assertIn("bob may not write /a/bob/x", said[1])
        self.assertIn("    no  value_is_map()", said)
        said = self.answer(self.policy, "--as", "bob", "--write", "/a/eve/x", "--value", "{}")
        self.assertIn("no write scope holds this address (ERROR 301)", said[1])

    def test_check_explains_a_write_of_a_guest(self) -> None:
        """A user is registered when nothing else is said."""
        question = ("chat", "--as", "bob", "--write", "/chat/room/r/presence/bob", "--value", "{}")
        for options, stored in (((), "stored as: {'account': True}"), (("--guest",), "stored as: {'account': False}")):
            with self.subTest(options=options):
                said = self.answer(*question, *options)
                self.assertIn(stored, said)
                self.assertIn("  stamps 'account' as true, when:", said)

    def test_check_explains_a_write_at_an_own_session(self) -> None:
        """Of whose id the command line tells; where a place in a call is, it says when it ends."""
        question = ("chat", "--as", "bob", "--write", "/chat/room/r/video/presence/s1", "--value", "{}")
        for options, may in (((), "may not"), (("--session", "s2"), "may not"), (("--session", "s1"), "may")):
            with self.subTest(options=options):
                said = self.answer(*question, *options)
                self.assertIn(f"bob {may} write /chat/room/r/video/presence/s1", "\n".join(said))
        ends = "a place in a call: ends with the session that wrote it (calls /chat/room/*/video/presence/*)"
        self.assertIn(ends, said)

    def test_check_explains_a_write_on_a_state(self) -> None:
        """What is set counts."""
        question = ("--as", "bob", "--write", "/a/bob/x", "--value", "{}")
        self.assertEqual(self.answer(self.policy, *question)[1], "bob may write /a/bob/x")
        said = self.answer(self.policy, *question, "--state", self.state)
        self.assertIn("bob may not write /a/bob/x", said[1])
        self.assertIn("    no  state_null(lookup=/a/bob/closed)", said)

    def test_check_explains_a_read(self) -> None:
        """Who is shown what, and why."""
        said = self.answer(self.policy, "--as", "bob", "--read", "/a/bob/secret")
        self.assertEqual(said[1], "bob, /a/bob/secret: shown")
        said = self.answer(self.policy, "--as", "eve", "--read", "/a/bob/secret")
        self.assertEqual(said[1], "eve, /a/bob/secret: hidden")
        self.assertIn("visibility: snapshot_visibility[0] /a/{owner}/secret", said)

    def test_check_explains_history(self) -> None:
        """Which rule keeps it, and what erases it."""
        address = "/chat/room/r/messages"
        asked = ("chat", "--as", "u", "--read", address)
        said = "history: history[0] /chat/room/{roomId}/messages keeps event; 1000 per {roomId}; 30 days, unless:"
        lines = self.answer(*asked)
        self.assertIn(said, lines)
        self.assertIn("  erased by a null at /chat/room/r/meta", lines)
        self.assertTrue(any("no  state_field_equals(" in line for line in lines), lines)

    def test_check_explains_what_a_session_without_a_token_may_do(self) -> None:
        """Asked for by a subject as the relay makes it."""
        path = self.write("open.json", json.dumps({**POLICY, "anonymous": {"scopes": ["read:/a/*/stage"]}}))
        said = self.answer(path, "--as", "clasp.anon.x", "--read", "/a/bob/stage")
        self.assertEqual(said[1], f"{path}: sessions without a token are let in; their scopes: read:/a/*/stage")
        self.assertEqual(said[2], "clasp.anon.x, /a/bob/stage: shown")
        said = self.answer(path, "--as", "clasp.anon.x", "--write", "/a/bob/stage")
        self.assertIn("no write scope holds this address (ERROR 301)", said[2])
        said = self.answer(self.policy, "--as", "clasp.anon.x", "--read", "/a/bob/stage")
        self.assertIn("clasp.anon.x may not read /a/bob/stage: no scope allows it", said[1])

    def test_check_says_what_is_wrong_with_a_question(self) -> None:
        """In one line that names the option."""
        both = "check-config: --as needs --read or --write, and --read and --write need --as"
        cases: list[tuple[tuple[str, ...], str]] = [
            (("--as", "bob"), both),
            (("--read", "/a"), both),
            (("--as", "bob", "--read", "/a", "--value", "1"), "check-config: --value needs --write"),
            (("--as", "bob", "--read", "/a", "--guest"), "check-config: --guest needs --write"),
            (("--as", "bob", "--read", "/a", "--session", "s"), "check-config: --session needs --write"),
            (("--state", "s"), "check-config: --state needs --read or --write"),
            (("--as", "a/b", "--read", "/a"), "--as: 'a/b' cannot be an id in a scope"),
            (("--as", "bob", "--read", "a"), "--read: the address does not start with '/': a"),
            (("--as", "bob", "--write", "a"), "--write: the address does not start with '/': a"),
            (("--as", "bob", "--write", "/a", "--value", str(1 << 64)), "--value: an integer is outside 64 bits"),
            (("--as", "bob", "--read", "/a", "--state", "nothing"), "--state: nothing is missing"),
        ]
        for question, line in cases:
            with self.subTest(question):
                self.assertEqual(self.refusal(self.policy, *question), line)
        self.assertIn(
            "--value: not valid JSON", self.refusal(self.policy, "--as", "b", "--write", "/a", "--value", "x")
        )
        self.assertIn("not a state file", self.refusal("chat", "--as", "b", "--read", "/a", "--state", self.policy))

    def test_check_refuses_what_it_does_not_know(self) -> None:
        """Options of the relay beside a file, a second file, or none; abbreviations too."""
        for arguments in (
            ("chat", "--port", "1"),
            ("chat", "chat"),
            ("--as", "b", "--read", "/a"),
            ("chat", "--rea", "/"),
        ):
            with self.subTest(arguments):
                said = self.refusal(*arguments)
                self.assertTrue(said.startswith("check-config: "), said)
                self.assertTrue(said.endswith("; see clasp-relay check-config --help"), said)


class SettingsTests(CheckTestCase):
    """Without a file."""

    def test_check_prints_every_setting_with_its_source(self) -> None:
        """Option, variable, or default."""
        os.environ["CLASP_NAME"] = "Mine"
        said = self.answer(
            "-p", "1", "--rate-limit", "2.5", "--trusted-proxy", "10.0.0.0/8,::1", "--app-config", "chat"
        )
        for line in (
            "--port: 1 (--port)",
            "--auth-port: 7350 (default)",
            "--name: Mine (CLASP_NAME)",
            "--rate-limit: 2.5 (--rate-limit)",
            "--trusted-proxy: 10.0.0.0/8,::1/128 (--trusted-proxy)",
            "--persist: state.json in the data-dir (default)",
            "--tls-cert: not set (default)",
            "policy in force: chat, as --app-config says",
        ):
            with self.subTest(line):
                self.assertIn(line, said)
        self.assertFalse([line for line in said if line.startswith("--no-ttl")])

    def test_check_says_that_no_policy_is_in_force_in_open_mode(self) -> None:
        """Whatever files there are."""
        self.assertEqual(
            self.answer("--auth-port", "0")[-2:], ["policy in force: none (open mode)", "history in force: none"]
        )

    def test_check_says_what_is_kept_of_the_past(self) -> None:
        """By the policy, or by a journal that was asked for by name."""
        messages = "/chat/room/{roomId}/messages (event; 1000 per {roomId}; 30 days)"
        week = messages.replace("30 days", "7 days")
        everything = "/** (param, event, stream)"
        for arguments, said in (
            (("--app-config", "chat"), messages),
            (("--app-config", "chat", "--history", "7"), week),
            (("--app-config", "chat", "--history", "off"), "none"),
            (("--app-config", "chat", "--durability", "snapshot"), "none"),
            (("--app-config", "chat", "--journal-memory"), messages),
            (("--app-config", "chat-compat"), "none"),
            (("--app-config", "none"), "none"),
            (("--app-config", "none", "--journal", "x.db"), everything),
            (("--auth-port", "0", "--journal-memory"), everything),
            (("--auth-port", "0", "--journal-memory", "--history", "2"), "/** (param, event, stream; 2 days)"),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.answer(*arguments)[-1], f"history in force: {said}")

    def test_check_refuses_settings_that_the_relay_would_refuse(self) -> None:
        """With the same line; a policy that is not sound too."""
        self.assertEqual(
            self.refusal("--tls-cert", "c"), "--tls-cert: needs --tls-key as well (TLS takes a certificate and a key)"
        )
        self.assertIn("the policy cannot be read", self.refusal("--app-config", "nothing"))
        said = "--history: got '0', expected off, or a whole number from 1 to 36500"
        self.assertEqual(self.refusal("--history", "0"), said)
        said = "--journal-memory: conflicts with --journal; give only one of them"
        self.assertEqual(self.refusal("--journal-memory", "--journal", "x"), said)
        said = "--journal-memory: writes nothing to the disk; leave --durability out, or say snapshot"
        self.assertEqual(self.refusal("--journal-memory", "--durability", "kill"), said)


class HelpTests(CheckTestCase):
    """What is printed on request."""

    def test_help_tells_both_ways_to_ask(self) -> None:
        """Exit status 0."""
        stdout = StringIO()
        self.patch(sys, "stdout", stdout)
        with self.assertRaises(SystemExit) as caught:
            run(["--help"])
        self.assertEqual(caught.exception.code, 0)
        self.assertIn("check-config FILE [--as USER", stdout.getvalue())
        self.assertIn("check-config [options of the relay]", stdout.getvalue())


class DocumentationTests(CheckTestCase):
    """The examples in the documentation."""

    def test_examples_show_what_the_command_prints(self) -> None:
        """Each is run as it is written."""
        self.write(WHITEBOARD.name, WHITEBOARD.read_text("utf-8"))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        found = 0
        for name in ("operations.md", "policy.md"):
            text = (ROOT / "docs" / name).read_text("utf-8")
            for command, answer in re.findall(r"```\n\$ clasp-relay check-config (.*)\n([^`]*)```", text):
                found += 1
                with self.subTest(command):
                    self.assertEqual(self.answer(*shlex.split(command)), answer.splitlines())
        self.assertEqual(found, 2)
