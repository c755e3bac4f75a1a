"""The command lines that people run the Rust relay with, each started on this one with the same files."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from clasp_relay.command_line.option_table import NOT_SUPPORTED
from clasp_relay.wire.messages import Hello, Welcome
from clasp_relay.wire.mqtt.packets import V4
from tests.doors import mqtt_packets as p
from tests.integration.doors import receive_exactly
from tests.integration.process import PATIENCE_S, RelayTestCase, environment, wait_until
from tests.integration.raw import RawClient
from tests.ports import free_port

SET_UP = (
    "RUST_LOG=info LOG_FORMAT=json clasp-relay --ws-port 7330 --host 0.0.0.0 --name relay.example.com"
    " --health-port 7360 --drain-timeout 30 --auth-port 7350 --auth-db /data/auth.db --admin-token /data/admin.token"
    " --token-ttl 86400"
)
"""How the set-up script begins all its profiles but the last."""

KEPT = " --max-sessions 1000 --session-timeout 300 --param-ttl 3600 --signal-ttl 3600 --persist /data/state.json"

LINES = {
    "chat": "RUST_LOG=info clasp-relay --ws-port 7330 --auth-port 7350 --health-port 7360 --persist /data/state.json"
    " --app-config /etc/clasp/chat.json --auth-db /data/chat-auth.db",
    "droplet": "RUST_LOG=info clasp-relay --ws-port 7330 --auth-port 7350 --auth-db /data/chat-auth.db"
    " --health-port 7360 --mqtt-port 1883 --osc-port 8000 --persist /data/state.json --app-config /etc/clasp/chat.json"
    " --cors-origin https://relay.example.com,https://clasp.chat --admin-token /data/admin.token"
    " --name relay.example.com --no-ttl",
    "standard": SET_UP + KEPT + " --persist-interval 30 --rendezvous-port 7340 --rendezvous-ttl 300",
    "full": SET_UP
    + " --mqtt-port 1883 --mqtt-namespace /mqtt --osc-port 8000 --osc-namespace /osc"
    + KEPT
    + " --persist-interval 30 --journal-backend sqlite --journal /data/journal.db --trust-anchor /data/root.pub"
    " --cap-max-depth 5 --registry-db /data/registry.db --rules /data/rules.json --metrics-port 9090"
    " --rendezvous-port 7340 --rendezvous-ttl 300",
    "iot": SET_UP + " --mqtt-port 1883 --mqtt-namespace /mqtt" + KEPT + " --persist-interval 30"
    " --journal-backend sqlite --journal /data/journal.db --rules /data/rules.json --rendezvous-port 7340"
    " --rendezvous-ttl 300",
    "creative": SET_UP + " --mqtt-port 1883 --mqtt-namespace /mqtt --osc-port 8000 --osc-namespace /osc"
    " --max-sessions 1000 --session-timeout 300 --param-ttl 300 --signal-ttl 60 --persist /data/state.json"
    " --persist-interval 30 --rendezvous-port 7340 --rendezvous-ttl 300",
    "minimal": "RUST_LOG=info LOG_FORMAT=json clasp-relay --ws-port 7330 --host 0.0.0.0 --name 192.0.2.10"
    " --max-sessions 1000 --session-timeout 300 --no-ttl --rendezvous-port 7340 --rendezvous-ttl 300",
    "checklist": "RUST_LOG=info LOG_FORMAT=json clasp-relay --auth-port 7350 --cors-origin https://app.example.com"
    " --admin-token ./secrets/admin.token --token-ttl 86400 --journal ./data/journal.db --persist ./data/state.db"
    " --persist-interval 30 --app-config ./config/app.json --param-ttl 3600 --signal-ttl 3600 --max-sessions 500"
    " --session-timeout 300 --drain-timeout 30",
    "persistence": "clasp-relay --persist ./state.db --persist-interval 60 --journal ./journal.db",
    "npm": "clasp-relay --ws-port 7330 --host 127.0.0.1 --name test --verbose",
    # Not among those that people were seen with: what the lines above have, as far as this relay has it.
    "what is left of full": SET_UP + KEPT + " --persist-interval 30 --trust-anchor /data/root.pub --cap-max-depth 5"
    " --registry-db /data/registry.db --metrics-port 9090 --rendezvous-port 7340 --rendezvous-ttl 300",
    "what is left of the checklist": "clasp-relay --auth-port 7350 --admin-token ./secrets/admin.token"
    " --persist ./kept/state.db --app-config ./config/app.json",
    "what is left of npm": "clasp-relay --ws-port 7330 --host 127.0.0.1 --name test",
}

_LISTENS = re.compile(r"listens on [0-9.]+:(\d+) for WebSocket connections")
_PORT = re.compile(r"(--(?:auth|health|metrics|mqtt|osc|ws)-port) \d+")


class UpstreamLineTests(RelayTestCase):
    """Each line starts, serves its ports and stops, or names the one option that this relay does not have."""

    def prepare(self, line: str) -> tuple[list[str], dict[str, str], dict[str, int]]:
        """Makes the files that a line names, on free ports; returns arguments, variables and ports."""
        for folder in ("etc/clasp", "data", "config"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        policy = {"scopes": ["read:/**", "write:/**"]}
        for name in ("etc/clasp/chat.json", "config/app.json"):
            (self.folder / name).write_text(json.dumps(policy), "utf-8")
        (self.folder / "data/rules.json").write_text("[]", "utf-8")
        line = line.replace(" /data/", f" {self.folder}/data/").replace(" /etc/clasp/", f" {self.folder}/etc/clasp/")
        ports: dict[str, int] = {}

        def on_free_port(found: re.Match[str]) -> str:
            ports[found[1]] = free_port()
            return f"{found[1]} {ports[found[1]]}"

        words = shlex.split(_PORT.sub(on_free_port, line))
        start = words.index("clasp-relay")
        variables = dict(word.split("=", 1) for word in words[:start])
        if "--ws-port" not in ports:
            variables["CLASP_PORT"] = "0"
            if "--auth-port" not in ports:
                ports["--auth-port"] = free_port()
                variables["CLASP_AUTH_PORT"] = str(ports["--auth-port"])
        return words[start + 1 :], variables, ports

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Returns status and body of an HTTP answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def test_every_line_starts_or_names_what_is_missing(self) -> None:
        """With its folders, ports and files; an option that is not there is refused in one line with a reason."""
        for name, line in LINES.items():
            with self.subTest(name):
                self.folder = Path(self.mktemp()).absolute()
                arguments, variables, ports = self.prepare(line)
                missing = next((each for each in arguments if each.removeprefix("--") in NOT_SUPPORTED), None)
                process = subprocess.Popen(
                    [sys.executable, "-m", "clasp_relay", *arguments],
                    cwd=self.folder,
                    env=environment() | variables,
                    stdout=(self.folder / "log").open("w"),
                    stderr=subprocess.STDOUT,
                )
                try:
                    if missing is None:
                        self.check_served(process, line, ports)
                    else:
                        self.assertEqual(process.wait(PATIENCE_S), 1)
                        self.assertIn(f"clasp-relay: {missing}: not supported", self.log)
                        self.assertEqual(self.log.count("\n"), 1)
                finally:
                    process.kill()
                    process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        """What the relay has said so far."""
        return (self.folder / "log").read_text("utf-8")

    def check_doors(self, ports: dict[str, int], *, has_accounts: bool) -> None:
        """Uses the ports of MQTT and OSC: with accounts somebody without a token is refused, and told so."""
        if "--mqtt-port" in ports:
            with socket.create_connection(("127.0.0.1", ports["--mqtt-port"]), PATIENCE_S) as board:
                board.sendall(p.connect("board", V4))
                self.assertEqual(receive_exactly(board, 4), b"\x20\x02\0\5" if has_accounts else b"\x20\x02\0\0")
        if "--osc-port" in ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
                desk.sendto(b"/fader\0\0,i\0\0\0\0\0\1", ("127.0.0.1", ports["--osc-port"]))
            heard = "OSC: messages from 127.0.0.1 refused: 1" if has_accounts else "new OSC sources at 127.0.0.1: 1"
            wait_until(lambda: heard in self.log, heard)

    def check_served(self, process: subprocess.Popen[bytes], line: str, ports: dict[str, int]) -> None:
        """Uses every port of a relay, and stops it."""
        wait_until(lambda: _LISTENS.search(self.log) or process.poll() is not None, "the relay listens")
        found = _LISTENS.search(self.log)
        assert found is not None, self.log
        client = RawClient(int(found[1]))
        client.send(Hello(1, 0xF8, "test"))
        has_accounts = "--auth-port" in ports
        self.assertEqual(isinstance(client.receive_any(), Welcome), not has_accounts)
        client.close()
        self.assertEqual("open mode" in self.log, not has_accounts)
        if has_accounts:
            self.assertEqual(self.get(ports["--auth-port"], "/auth/config")[0], 200)
        if "--health-port" in ports:
            self.assertEqual(self.get(ports["--health-port"], "/healthz"), (200, "ok\n"))
        if "--metrics-port" in ports:
            self.assertIn("clasp_sessions", self.get(ports["--metrics-port"], "/metrics")[1])
            self.assertEqual(self.get(ports["--metrics-port"], "/healthz")[0], 404)
        self.check_doors(ports, has_accounts=has_accounts)
        for option, warning in (("--rendezvous-port", "rendezvous is"), ("--trust-anchor", "entity tokens are")):
            told = [text for text in self.log.splitlines() if f"{warning} not offered" in text]
            self.assertEqual(len(told), int(option in line), told)
        process.terminate()
        self.assertEqual(process.wait(PATIENCE_S), 0)
        for option in ("--auth-db", "--admin-token", "--journal"):
            if option in line:
                path = shlex.split(line)[shlex.split(line).index(option) + 1]
                self.assertTrue((self.folder / path.removeprefix("/")).exists(), path)
        self.assertNotIn("Traceback", self.log)
