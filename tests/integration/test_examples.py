"""The demo: OSC, MQTT and a page in a browser at one relay."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from clasp_relay.wire.messages import Hello, Publish, Set, Subscribe, Welcome
from clasp_relay.wire.values import decode_value, encode_value
from tests.deploy.processes import Background
from tests.integration.accounts import AccountsRelay, AccountsTestCase
from tests.integration.doors import door_port
from tests.integration.process import ROOT, environment, wait_until
from tests.integration.raw import Closed, RawClient

EXAMPLES = ROOT / "examples"

HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0")


def chromium() -> str:
    """Returns the browser.

    Raises:
        SkipTest: there is none; in CI that is a failure.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("there is no Chromium")
        raise SkipTest("there is no Chromium")
    return found


class DemoTests(AccountsTestCase):
    """With the files of the demo, on free ports."""

    def start_demo(self) -> AccountsRelay:
        """Starts what ``make demo`` starts."""
        (self.folder / "examples").symlink_to(EXAMPLES)
        return self.start_accounts("--config", "examples/demo.toml", "--mqtt-port", "0", "--osc-port", "0")

    def test_osc_mqtt_and_a_browser_see_one_state(self) -> None:
        """What OSC sets a subscriber of MQTT gets and the page shows; a blackout by MQTT takes the lamps down."""
        program = chromium()
        relay = self.start_demo()
        osc, mqtt = str(door_port(relay, "OSC")), str(door_port(relay, "MQTT"))
        listener = subprocess.Popen(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", mqtt, "-v", "-t", "+/level"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        wait_until(lambda: "1 rules active" in relay.log, "the rules are at work")
        visitor = self.sign_in(relay, "")
        visitor.ask(Subscribe(1, "/desk/joined"))
        # The subscriber may not be there when the first one is sent; a retained message waits for it.
        subprocess.run(["oscsend", "127.0.0.1", osc, "/1/level", "f", "0.5"], check=True)
        assert listener.stdout is not None
        self.assertEqual(listener.stdout.readline(), "1/level 0.5\n")
        page = f"file://{EXAMPLES}/lighting-desk.html?relay=http://127.0.0.1:{relay.auth_port}"
        browser = subprocess.Popen(
            [program, *HEADLESS, f"--user-data-dir={self.folder / 'profile'}", page],
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


class ClusterDemoTests(SynchronousTestCase):
    """``make cluster-demo``: two relays, and the page of each in a browser."""

    def test_pages_of_two_relays_show_one_state(self) -> None:
        """What is set at the first one the page of the second shows; and tells so."""
        program = chromium()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        demo = Background([sys.executable, EXAMPLES / "cluster_demo.py", "--faders"], folder, environment())
        self.addCleanup(demo.stop)
        demo.wait_for(lambda: len(re.findall("^open (.+)$", demo.said, re.MULTILINE)) == 2, "two pages")
        pages = re.findall("^open (.+)$", demo.said, re.MULTILINE)
        client = self.client(pages[0])
        client.send(Set("/demo/1", encode_value(0.25)), Subscribe(1, "/demo/joined"))
        browser = subprocess.Popen(
            [program, *HEADLESS, f"--user-data-dir={folder / 'profile'}", pages[1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(browser.wait)
        self.addCleanup(browser.kill)
        joined = client.receive_until(lambda message: isinstance(message, Set))[-1]
        assert isinstance(joined, Set)
        self.assertEqual(decode_value(joined.value), 0.25)
        client.close()

    def client(self, page: str) -> RawClient:
        """Returns a client of the relay that a page is for, once that lets clients in."""
        found: list[RawClient] = []

        def is_admitted() -> bool:
            with contextlib.suppress(Closed, OSError):
                client = RawClient(int(page.rpartition(":")[2]))
                client.send(Hello(1, 0xF8, "visitor"))
                if isinstance(client.receive_any(), Welcome):
                    found.append(client)
                    return True
                client.close()
            return False

        wait_until(is_admitted, "the relay lets clients in")
        return found[0]
