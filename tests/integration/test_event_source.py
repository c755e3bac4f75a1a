"""Event streams with the EventSource of a real browser, and by curl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from twisted.trial.unittest import SkipTest

from clasp_relay.wire.messages import Subscribe
from tests.integration.accounts import AccountsRelay, AccountsTestCase, event, put, told
from tests.integration.process import PATIENCE_S

POLICY = {"scopes": ["read:/desk/**", "write:/desk/**"]}

PAGE = '<!doctype html><script type="module" src="/page.js"></script>'

SCRIPT = """
const post = (path, body, token) => fetch(path, {
    method: "POST", headers: token ? {Authorization: `Bearer ${token}`} : {}, body: JSON.stringify(body) });
const { token } = await (await post("/auth/guest", { user_id: "desk" })).json();
const seen = [];
const tell = (type, data) => {
    seen.push([type, data]);
    return fetch("/api/params/desk/seen", {
        method: "PUT", headers: { Authorization: `Bearer ${token}` }, body: JSON.stringify(seen) });
};
const { ticket } = await (await post("/auth/ticket", {}, token)).json();
const source = new EventSource(`/api/stream?pattern=/desk/light/**&ticket=${ticket}`);
for (const type of ["set", "publish", "live"])
    source.addEventListener(type, (event) => tell(type, JSON.parse(event.data)));
const again = new EventSource(`/api/stream?pattern=/desk/light/**&ticket=${ticket}`);
again.onerror = () => post("/api/events/desk/refused", again.readyState === EventSource.CLOSED, token);
"""


class EventSourceTests(AccountsTestCase):
    """A page that the relay serves itself."""

    def test_browser_follows_params_with_a_ticket(self) -> None:
        """What was set, then what happens; a ticket that was used opens nothing."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if chromium is None:
            if os.environ.get("CI") == "true":
                raise AssertionError("there is no Chromium")
            raise SkipTest("there is no Chromium")
        (self.folder / "policy.json").write_text(json.dumps(POLICY), "utf-8")
        (self.folder / "web").mkdir()
        (self.folder / "web" / "index.html").write_text(PAGE, "utf-8")
        (self.folder / "web" / "page.js").write_text(SCRIPT, "utf-8")
        relay = self.start_accounts("--app-config", "policy.json", "--web-root", "web")
        writer = self.guest(relay, "writer")
        writer.ask(put("/desk/light/1", 0.5), Subscribe(1, "/desk/seen"), Subscribe(2, "/desk/refused"))
        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
        )
        browser = subprocess.Popen(
            [chromium, *options, f"--user-data-dir={self.folder / 'profile'}", f"http://127.0.0.1:{relay.auth_port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(browser.wait)
        self.addCleanup(browser.kill)
        heard: list[tuple[str, object]] = []
        before = [["set", {"address": "/desk/light/1", "value": 0.5, "revision": 1}], ["live", {}]]

        def hear(*expected: tuple[str, object]) -> None:
            while not all(each in heard for each in expected):
                heard.extend(told([writer.receive_any()]))

        hear(("/desk/seen", before), ("/desk/refused", True))
        writer.send(put("/desk/light/1", "ü"))
        hear(("/desk/seen", [*before, ["set", {"address": "/desk/light/1", "value": "ü", "revision": 2}]]))
        self.assertNotIn("cpst_", relay.log.replace("cpst_***", ""))

    def test_curl_reads_a_stream_until_the_relay_stops(self) -> None:
        """With a token in the header; a stop ends the response in order."""
        (self.folder / "policy.json").write_text(json.dumps(POLICY), "utf-8")
        relay = self.start_accounts("--app-config", "policy.json")
        token = relay.api.guest("reader")
        url = f"http://127.0.0.1:{relay.auth_port}/api/stream?pattern=/desk/**"
        curl = subprocess.Popen(
            ["curl", "--silent", "--no-buffer", "--header", f"Authorization: Bearer {token}", url],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(curl.communicate)
        self.addCleanup(curl.kill)
        assert curl.stdout is not None
        while "event: live" not in curl.stdout.readline():
            self.assertIsNone(curl.poll())
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(curl.wait(PATIENCE_S), 0)


class ResumeTests(AccountsTestCase):
    """A reader that was interrupted, at a relay with a journal."""

    def follow(self, relay: AccountsRelay, token: str, last_id: str = "") -> HTTPResponse:
        """Opens a stream."""
        connection = HTTPConnection("127.0.0.1", relay.auth_port, timeout=PATIENCE_S)
        self.addCleanup(connection.close)
        headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        connection.request("GET", "/api/stream?pattern=/desk/**", headers=headers)
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        return response

    def read(self, stream: HTTPResponse, last: str) -> list[tuple[str, str, Any]]:
        """Reads events up to one of a kind: each with its id, its kind and its data."""
        found: list[tuple[str, str, Any]] = []
        fields: dict[str, str] = {}
        while not found or found[-1][1] != last:
            name, _, text = stream.readline().decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = text
                continue
            if "data" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
            fields = {}
        return found

    def test_reader_goes_on_behind_a_restart_where_it_was(self) -> None:
        """What it missed comes once, params as their changes, from the journal."""
        policy = {**POLICY, "history": [{"path": "/desk/**", "signals": ["param", "event"]}]}
        (self.folder / "policy.json").write_text(json.dumps(policy), "utf-8")
        relay = self.start_accounts("--app-config", "policy.json")
        token = relay.api.guest("ann")
        writer = self.sign_in(relay, token)
        writer.ask(put("/desk/lamp", 0))
        stream = self.follow(relay, token)
        first = self.read(stream, "live")
        self.assertEqual([kind for _, kind, _ in first], ["set", "live"])
        writer.ask(put("/desk/lamp", 1), event("/desk/go", 1))
        seen = self.read(stream, "publish")
        self.assertEqual([data["value"] for _, _, data in seen], [1, 1])
        writer.close()
        self.assertEqual(relay.stop(), 0)
        relay = self.start_accounts("--app-config", "policy.json")
        writer = self.sign_in(relay, token)
        writer.ask(put("/desk/lamp", 2), event("/desk/go", 2), put("/desk/lamp", None))
        lamp = [
            ("set", {"address": "/desk/lamp", "value": value, "revision": n})
            for n, value in ((2, 1), (3, 2), (4, None))
        ]
        go = [("publish", {"address": "/desk/go", "signal": "event", "value": value}) for value in (1, 2)]
        for last_id, missed in (
            (first[-1][0], [lamp[0], go[0], lamp[1], go[1], lamp[2]]),
            (seen[0][0], [go[0], lamp[1], go[1], lamp[2]]),
            (seen[1][0], [lamp[1], go[1], lamp[2]]),
        ):
            with self.subTest(last_id=last_id):
                told = self.read(self.follow(relay, token, last_id), "live")
                self.assertEqual([(kind, data) for _, kind, data in told], [*missed, ("live", {"complete": True})])
                ids = [int(each) for each, _, _ in told]
                self.assertEqual(ids, sorted(ids))
