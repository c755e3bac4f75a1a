"""The systemd unit, read by systemd's own tools, and what the relay tells systemd."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.option_table import OPTIONS
from clasp_relay.command_line.options import Options
from tests.deploy import tools
from tests.deploy.processes import PATIENCE_S, start_relay

UNIT = tools.DEPLOY / "systemd" / "clasp-relay.service"
MOST_EXPOSED = 20
"""Of 100, in systemd-analyze's own reckoning; a service that does nothing for itself has 96."""


def settings() -> dict[str, list[str]]:
    """Returns what the unit sets."""
    result: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            result.setdefault(name, []).append(value)
    return result


class UnitTests(SynchronousTestCase):
    """What the unit says."""

    def setUp(self) -> None:
        """Makes a copy whose program is there: systemd looks for it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.unit = Path(folder.name) / UNIT.name
        program = Path(folder.name) / "clasp-relay"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.unit.write_text(UNIT.read_text().replace("/opt/clasp/bin/clasp-relay", str(program)))

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Has the copy looked at."""
        command: list[str | Path] = [tools.required(tools.systemd_analyze), *arguments, self.unit]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    def test_unit_is_sound(self) -> None:
        """Systemd understands every line."""
        result = self.analyze("verify")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_verify_finds_a_wrong_word(self) -> None:
        """What passes it has been looked at."""
        self.unit.write_text(self.unit.read_text() + "[Service]\nWatchdogSecs=5\n")
        self.assertIn("WatchdogSecs", self.analyze("verify").stderr)

    def test_unit_gives_away_little(self) -> None:
        """By systemd's own measure."""
        result = self.analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}")
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_unit_waits_for_the_relay_and_watches_it(self) -> None:
        """By what the relay says itself; and it has a user, a folder and time to stop."""
        said = settings()
        for name, value in (
            ("Type", "notify"),
            ("WatchdogSec", "30"),
            ("DynamicUser", "yes"),
            ("StateDirectory", "clasp-relay"),
            ("ProtectSystem", "strict"),
            ("NoNewPrivileges", "yes"),
            ("Restart", "on-failure"),
        ):
            self.assertEqual(said[name], [value])
        self.assertGreaterEqual(int(said["TimeoutStopSec"][0]), 10)

    def test_unit_sets_what_the_relay_understands(self) -> None:
        """Its variables and no others; an option on the command line could not be changed by the file of variables."""
        given = dict(line.split("=", 1) for line in settings()["Environment"])
        known = {option.variable for option in OPTIONS}
        self.assertEqual(set(given) - known, {"PYTHONUNBUFFERED"})
        self.assertEqual(len(shlex.split(settings()["ExecStart"][0])), 1)
        options = Options(given)
        options.parseOptions([])
        self.assertEqual((options.settings.host, options.settings.health_port), ("127.0.0.1", 7360))
        self.assertEqual([str(network) for network in options.settings.trusted_proxies], ["127.0.0.1/32", "::1/128"])

    def test_doors_in_its_comments_open_where_the_comment_is_taken_away(self) -> None:
        """Each variable is one of the relay, with a port that a door's page names."""
        commented = dict(re.findall(r"^# Environment=(\w+)=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE))
        options = Options(commented)
        options.parseOptions([])
        opened = options.settings
        self.assertEqual((opened.mqtt_port, opened.osc_port, opened.tcp_port), (1883, 8000, 7340))


class NotifyTests(SynchronousTestCase):
    """What the relay's process says."""

    def test_relay_says_ready_alive_and_stopping(self) -> None:
        """Ready once it listens, alive while it runs, stopping when it is told to."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = str(Path(folder.name) / "notify")
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.bind(path)
        systemd.settimeout(PATIENCE_S)
        relay = start_relay(
            Path(folder.name),
            *("--host=127.0.0.1", "--port=0", "--auth-port=0"),
            NOTIFY_SOCKET=path,
            WATCHDOG_USEC="200000",
        )
        self.addCleanup(relay.stop)
        said = ""
        while "READY=1" not in said:
            said += systemd.recv(4_096).decode() + "\n"
        self.assertRegex(relay.said, re.compile(r"listens on", re.IGNORECASE))
        while "WATCHDOG=1" not in said:
            said += systemd.recv(4_096).decode() + "\n"
        self.assertNotIn("STOPPING=1", said)
        relay.process.terminate()
        while "STOPPING=1" not in said:
            said += systemd.recv(4_096).decode() + "\n"
        # A second signal would end it at once.
        self.assertEqual(relay.process.wait(PATIENCE_S), 0, relay.said)
