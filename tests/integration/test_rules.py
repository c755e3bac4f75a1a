"""Rules in a relay that runs as a process, read again at SIGHUP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from clasp_relay.wire.messages import Ack, Bundle, Get, Set, Snapshot, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.process import RelayTestCase, environment
from tests.integration.raw import RawClient


def rules(factor: float) -> str:
    """Returns a file's text: a fader moves a lamp."""
    action = {"SetFromTrigger": {"address": "/lamp", "transform": {"Scale": {"scale": factor, "offset": 0}}}}
    return json.dumps([{"id": "follow", "trigger": {"OnChange": {"pattern": "/fader/*"}}, "actions": [action]}])


class RulesTests(RelayTestCase):
    """Started as an operator starts it."""

    def test_rules_act_and_are_read_again(self) -> None:
        """A file that is not valid leaves them as they were."""
        path = self.folder / "rules.json"
        path.write_text(rules(255), "utf-8")
        relay = self.start("--rules", "rules.json")
        self.assertIn("1 rules active, 0 disabled, from rules.json", relay.log)
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        client.send(Subscribe(1, "/lamp"))

        def move(value: float) -> object:
            client.send(Set("/fader/1", encode_value(value)))
            return decode_value(client.receive(Set).value)

        self.assertEqual(move(1), 255)
        for text, told, expected in (("{", "the rules stay as they were", 510), (rules(100), "1 rules active", 200)):
            path.write_text(text, "utf-8")
            before = relay.log.count(told)
            relay.signal(signal.SIGHUP)
            while relay.log.count(told) == before:
                self.assertTrue(relay.is_running)
                time.sleep(0.01)
            self.assertEqual(move(2), expected)
        self.assertEqual(relay.stop(), 0)

    def test_rules_see_what_runs_before_the_ports_open(self) -> None:
        """A scheduled bundle that was due while the relay was off."""
        (self.folder / "rules.json").write_text(rules(100), "utf-8")
        relay = self.start("--rules", "rules.json")
        client = RawClient.live(relay.port)
        due_us = time.time_ns() // 1_000 + 1_000_000
        client.send(Bundle((Set("/fader/1", encode_value(3)),), due_us), qos=1)
        client.receive(Ack)
        relay.kill()
        client.close()
        while time.time_ns() // 1_000 < due_us:
            time.sleep(0.05)
        relay = self.start("--rules", "rules.json")
        client = RawClient.live(relay.port)
        self.addCleanup(client.close)
        client.send(Get("/lamp"))
        (lamp,) = client.receive(Snapshot).params
        self.assertEqual(decode_value(lamp.value), 300)

    def test_bad_file_stops_the_start(self) -> None:
        """With the place of what is wrong; check-config says the same, and explains a good one."""
        path = self.folder / "rules.json"
        for text, arguments, status, said in (
            ('[{"id": 7}]', ["--rules", "rules.json", "--port", "0", "--auth-port", "0"], 1, "rules[0].id: not a text"),
            ('[{"id": 7}]', ["check-config", "--rules", "rules.json"], 1, "rules[0].id: not a text"),
            (
                rules(255),
                ["check-config", "--rules", "rules.json"],
                0,
                "rule follow: OnChange /fader/* -> SetFromTrigger /lamp",
            ),
        ):
            with self.subTest(arguments):
                path.write_text(text, "utf-8")
                ended = subprocess.run(
                    [sys.executable, "-m", "clasp_relay", *arguments],
                    cwd=self.folder,
                    env=environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual(ended.returncode, status, ended.stderr)
                self.assertIn(said, ended.stdout + ended.stderr)
