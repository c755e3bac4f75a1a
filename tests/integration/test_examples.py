"""The demo: OSC, MQTT and a page in a browser at one relay."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

from twisted.trial.unittest import SkipTest

from clasp_relay.wire.messages import Publish, Subscribe
from clasp_relay.wire.values import decode_value
from tests.integration.accounts import AccountsRelay, AccountsTestCase
from tests.integration.doors import door_port
from tests.integration.process import ROOT, environment, wait_until

EXAMPLES = ROOT / "examples"


class DemoTests(AccountsTestCase):
    """With the files of the demo, on free ports."""

    def start_demo(self) -> AccountsRelay:
        """Starts what ``make demo`` starts."""
        (self.folder / "examples").symlink_to(EXAMPLES)
        return self.start_accounts("--config", "examples/demo.toml", "--mqtt-port", "0", "--osc-port", "0")

    def test_osc_mqtt_and_a_browser_see_one_state(self) -> None:
        """What OSC sets a subscriber of MQTT gets and the page shows; a blackout by MQTT takes the lamps down."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if chromium is None:
            if os.environ.get("CI") == "true":
                raise AssertionError("there is no Chromium")
            raise SkipTest("there is no Chromium")
        relay = self.start_demo()
        osc, mqtt = str(door_port(relay, "OSC")), str(door_port(relay, "MQTT"))
        listener = subprocess.Popen(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", mqtt, "-v", "-t", "+/level"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        wait_until(lambda: "1 rules at work" in relay.log, "the rules are at work")
        visitor = self.sign_in(relay, "")
        visitor.ask(Subscribe(1, "/desk/joined"))
        # The subscriber may not be there when the first one is sent; a retained message waits for it.
        subprocess.run(["oscsend", "127.0.0.1", osc, "/1/level", "f", "0.5"], check=True)
        assert listener.stdout is not None
        self.assertEqual(listener.stdout.readline(), "1/level 0.5\n")
        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
        )
        page = f"file://{EXAMPLES}/lighting-desk.html?relay=http://127.0.0.1:{relay.auth_port}"
        browser = subprocess.Popen(
            [chromium, *options, f"--user-data-dir={self.folder / 'profile'}", page],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(browser.wait)
        self.addCleanup(browser.kill)
        joined = visitor.receive(Publish)
        assert joined.value is not None
        self.assertEqual(decode_value(joined.value), [0.5, 0, 0, 0])
        subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", mqtt, "-t", "blackout", "-n"], check=True)
        self.assertEqual(
            sorted(listener.stdout.readline() for _ in range(4)), [f"{n}/level 0.0\n" for n in (1, 2, 3, 4)]
        )

    def test_make_demo_starts_a_relay_with_these_files(self) -> None:
        """And the files are good."""
        made = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertRegex(made.stdout, r"clasp-relay --config examples/demo\.toml")
        self.assertEqual(json.loads((EXAMPLES / "rules.json").read_text("utf-8"))[0]["id"], "blackout")
        checked = subprocess.run(
            [sys.executable, "-m", "clasp_relay", "check-config", "examples/studio.json"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertTrue(re.search("valid policy", checked.stdout))
