"""The Caddyfile with the real Caddy, on loopback, with an authority of its own, and a real relay behind it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import ssl
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.http.web_root import security_headers
from tests.deploy import tools
from tests.deploy.processes import PATIENCE_S, Background, plain_environment, start_relay
from tests.ports import free_port

CADDYFILE = tools.DEPLOY / "droplet" / "Caddyfile"
CLIENT = Path(__file__).parent / "client.mjs"
SCRIPT = b"export const words = 'hello';\n" * 100
PAGE = b"<!doctype html><title>page</title>"
CONSOLE = b"<!doctype html><title>console</title>"
FORGED = "203.0.113.7"
"""What a client claims as its address; it is nobody's (RFC 5737)."""

GLOBAL_OPTIONS = """{{
	admin 127.0.0.1:{admin}
	default_bind 127.0.0.1
	http_port {http}
	https_port {https}
	skip_install_trust
	storage file_system {storage}
}}
"""
"""What is of this machine: the Caddyfile itself has no such block and is taken as it is."""


class Answer(NamedTuple):
    """What came back of a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got."""

    def do_GET(self) -> None:
        """Writes them as JSON."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([self.path, self.headers.items()]).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class JsClient:
    """The npm client in a Node process.

    Args:
        url: of the relay.
        folder: of the process.
        certificate: of the authority that it trusts.
        token: for the relay.
    """

    def __init__(self, url: str, folder: Path, certificate: Path, token: str = "") -> None:
        module = tools.required(tools.clasp_js) / "dist" / "index.mjs"
        # Node 20 has the browsers' WebSocket behind a switch; newer ones take it and do nothing.
        command: list[str | Path] = [
            tools.required(tools.node),
            "--experimental-websocket",
            "--no-warnings",
            CLIENT,
            module,
            url,
            token,
        ]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=plain_environment(NODE_EXTRA_CA_CERTS=str(certificate)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.connected = self._answer()

    def do(self, **what: object) -> dict[str, object]:
        """Does one thing and returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE_S)

    def _answer(self) -> dict[str, object]:
        assert self._process.stdout is not None
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer


class SiteTestCase(SynchronousTestCase):
    """Runs Caddy with one site."""

    def setUp(self) -> None:
        """Starts it."""
        caddy = tools.required(tools.caddy)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ports = {name: free_port() for name in ("admin", "http", "https", "ws", "auth")}
        web = self.folder / "web"
        (web / "assets").mkdir(parents=True)
        (web / "index.html").write_bytes(PAGE)
        (web / "console.html").write_bytes(CONSOLE)
        (web / "assets" / "app-3f9a.js").write_bytes(SCRIPT)
        self.environment = plain_environment(
            DOMAIN="localhost",
            RELAY_WS=f"127.0.0.1:{self.ports['ws']}",
            RELAY_AUTH=f"127.0.0.1:{self.ports['auth']}",
            WEB_ROOT=str(web),
            HOME=str(self.folder),
            XDG_DATA_HOME=str(self.folder),
            XDG_CONFIG_HOME=str(self.folder),
        )
        self.own_options = GLOBAL_OPTIONS.format(storage=self.folder / "storage", **self.ports)
        config = self.folder / "Caddyfile"
        config.write_text(f"{self.own_options}import {CADDYFILE}\n")
        command = (caddy, "run", "--config", config, "--adapter", "caddyfile")
        process = Background(command, self.folder, self.environment)
        self.addCleanup(process.stop)
        process.wait_for_tls(self.ports["https"], self.certificate)

    @property
    def certificate(self) -> Path:
        """Where Caddy keeps the certificate of its own authority."""
        return self.folder / "storage" / "pki" / "authorities" / "local" / "root.crt"

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        source: str = "127.0.0.1",
        body: str | None = None,
        **headers: str,
    ) -> Answer:
        """Makes a request over HTTPS, from one of this machine's loopback addresses."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            "localhost", self.ports["https"], timeout=PATIENCE_S, context=context, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def js_client(self, path: str = "/ws", token: str = "") -> JsClient:
        """Connects the npm client through Caddy."""
        client = JsClient(f"wss://localhost:{self.ports['https']}{path}", self.folder, self.certificate, token)
        self.addCleanup(client.close)
        return client


class PageTests(SiteTestCase):
    """The app's files, with something behind /auth/ that tells what it hears."""

    def setUp(self) -> None:
        """Listens where the auth API would."""
        super().setUp()
        server = ThreadingHTTPServer(("127.0.0.1", self.ports["auth"]), _Echo)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def heard(self, source: str, **headers: str) -> dict[str, list[str]]:
        """Returns what the auth API hears of a request."""
        _, items = json.loads(self.ask("/auth/me", source=source, **headers).body)
        heard: dict[str, list[str]] = {}
        for name, value in items:
            heard.setdefault(name.lower(), []).append(value)
        return heard

    def test_site_serves_the_page_at_every_path_of_the_app(self) -> None:
        """Its own page for its routes, /auth among them, never kept without asking."""
        for path in ("/", "/room/abc", "/auth", "/index.html", "/favicon.ico"):
            with self.subTest(path):
                answer = self.ask(path)
                self.assertEqual((answer.status, answer.body), (200, PAGE))
                self.assertEqual(answer.headers["Cache-Control"], "no-cache")
                same = security_headers([f"wss://localhost:{self.ports['https']}"])[b"Content-Security-Policy"]
                self.assertEqual(answer.headers["Content-Security-Policy"], same.decode())

    def test_site_serves_the_console_at_its_paths(self) -> None:
        """With the headers of every page; what it asks goes to the relay, and nothing else below /api does."""
        for path in ("/console", "/console/people", "/console/state?pattern=/**"):
            with self.subTest(path):
                answer = self.ask(path)
                self.assertEqual((answer.status, answer.body), (200, CONSOLE))
                self.assertEqual(answer.headers["Cache-Control"], "no-cache")
                self.assertEqual(
                    answer.headers["Content-Security-Policy"], self.ask("/").headers["Content-Security-Policy"]
                )
        self.assertEqual(json.loads(self.ask("/api/admin/me").body)[0], "/api/admin/me")
        self.assertEqual(self.ask("/api/params").body, PAGE)

    def test_site_lets_assets_be_kept_for_a_year(self) -> None:
        """Their names change with their contents."""
        answer = self.ask("/assets/app-3f9a.js")
        self.assertEqual((answer.status, answer.body), (200, SCRIPT))
        self.assertEqual(answer.headers["Cache-Control"], "public, max-age=31536000, immutable")

    def test_site_says_that_an_asset_is_missing(self) -> None:
        """Not with the page, which would be kept for a year as if it were a script."""
        answer = self.ask("/assets/app-old.js")
        self.assertEqual((answer.status, answer.body), (404, b"404 Not Found"))
        self.assertEqual(answer.headers["Cache-Control"], "no-store")

    def test_site_compresses(self) -> None:
        """What the client understands: zstd or gzip."""
        answer = self.ask("/assets/app-3f9a.js", accept_encoding="gzip")
        self.assertEqual((answer.headers["Content-Encoding"], gzip.decompress(answer.body)), ("gzip", SCRIPT))
        answer = self.ask("/assets/app-3f9a.js", accept_encoding="zstd, gzip")
        self.assertEqual(answer.headers["Content-Encoding"], "zstd")
        self.assertLess(len(answer.body), len(SCRIPT))

    def test_every_answer_has_the_security_headers(self) -> None:
        """Pages, files, errors and the API alike."""
        for path in ("/", "/assets/app-3f9a.js", "/assets/none.js", "/auth/me"):
            with self.subTest(path):
                headers = self.ask(path).headers
                self.assertEqual(headers["Strict-Transport-Security"], "max-age=31536000")
                self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
                self.assertEqual(headers["X-Frame-Options"], "DENY")
                self.assertEqual(headers["Referrer-Policy"], "no-referrer")
                self.assertEqual(headers["Cross-Origin-Opener-Policy"], "same-origin")
                same = security_headers()[b"Permissions-Policy"].decode()
                self.assertEqual(headers["Permissions-Policy"], same)
                self.assertIn("camera=(self), microphone=(self), display-capture=(self)", same)
                self.assertNotIn("Caddy", headers.get_all("Server", []))

    def test_http_leads_to_https(self) -> None:
        """By a redirect that keeps the path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/room/abc", headers={"Host": "localhost"})
            response = connection.getresponse()
        self.assertEqual((response.status, response.headers["Location"]), (308, "https://localhost/room/abc"))

    def test_api_hears_the_address_of_the_client(self) -> None:
        """And the scheme and host that the client used."""
        heard = self.heard("127.0.0.9", authorization="Bearer x")
        self.assertEqual(heard["x-forwarded-for"], ["127.0.0.9"])
        self.assertEqual(heard["x-forwarded-proto"], ["https"])
        self.assertEqual(heard["host"], [f"localhost:{self.ports['https']}"])
        self.assertEqual(heard["authorization"], ["Bearer x"])

    def test_sent_files_are_the_relays(self) -> None:
        """A page of the app has no such address."""
        for path in ("/files", "/files/0123"):
            with self.subTest(path):
                self.assertEqual(json.loads(self.ask(path).body)[0], path)
        self.assertEqual(self.ask("/filesystem").body, PAGE)

    def test_api_hears_nothing_of_a_forged_address(self) -> None:
        """What a client says of itself in X-Forwarded-For is gone."""
        self.assertEqual(self.heard("127.0.0.9", x_forwarded_for=FORGED)["x-forwarded-for"], ["127.0.0.9"])


class RelayTests(SiteTestCase):
    """A relay behind Caddy."""

    def setUp(self) -> None:
        """Starts it."""
        super().setUp()
        data = self.folder / "data"
        data.mkdir()
        relay = start_relay(data, "--host=127.0.0.1", f"--port={self.ports['ws']}", *self.options())
        self.addCleanup(relay.stop)
        relay.wait_for_port(self.ports["ws"])

    def options(self) -> tuple[str, ...]:
        """Returns more options of the relay; here, nobody has an account."""
        return ("--auth-port=0",)

    def reload(self) -> None:
        """Gives Caddy another configuration, the way setup.sh does."""
        changed = CADDYFILE.read_text().replace("Referrer-Policy no-referrer", "Referrer-Policy same-origin")
        subprocess.run(
            [
                tools.required(tools.caddy),
                *("reload", "--config", "-", "--adapter", "caddyfile", "--address", f"127.0.0.1:{self.ports['admin']}"),
            ],
            input=self.own_options + changed,
            text=True,
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )

    def test_npm_client_shares_state_through_caddy(self) -> None:
        """One sets, another one gets, on /ws and below it."""
        one, other = self.js_client("/ws"), self.js_client("/ws/room")
        self.assertNotIn("error", one.connected)
        one.do(set="/caddy/shared", value={"text": "grüß dich"})
        one.do(get="/caddy/nothing")  # answered after the SET has had its effect
        self.assertEqual(other.do(get="/caddy/shared")["got"], {"text": "grüß dich"})

    def test_reload_of_caddy_keeps_a_websocket(self) -> None:
        """The new configuration is in force, and a client that was connected has noticed nothing."""
        client = self.js_client()
        self.assertEqual(self.ask("/").headers["Referrer-Policy"], "no-referrer")
        self.reload()
        self.assertEqual(self.ask("/").headers["Referrer-Policy"], "same-origin")
        answer = client.do(get="/caddy/not-there")
        self.assertEqual((answer["session"], answer["connects"]), (client.connected["session"], 1))

    def test_relay_is_reached_under_ws_only_by_websockets(self) -> None:
        """A page that is asked for there is none."""
        self.assertEqual(self.ask("/ws").status, 426)


class AccountTests(RelayTests):
    """A relay with accounts behind Caddy."""

    LIMIT = 3

    def options(self) -> tuple[str, ...]:
        """Returns options for accounts with a low limit, behind a proxy on this machine."""
        policy = self.folder / "policy.json"
        policy.write_text(
            json.dumps(
                {
                    "scopes": ["read:/**", "write:/**"],
                    "rate_limits": {"register_max_attempts": self.LIMIT, "register_window_secs": 3600},
                }
            )
        )
        return (f"--auth-port={self.ports['auth']}", f"--app-config={policy}", "--trusted-proxy=127.0.0.1/32")

    def guest(self, source: str, **headers: str) -> Answer:
        """Asks for a guest's token, from one of this machine's addresses."""
        return self.ask("/auth/guest", method="POST", source=source, body="{}", **headers)

    def js_client(self, path: str = "/ws", token: str = "") -> JsClient:
        """Connects with a guest's token."""
        token = token or json.loads(self.guest("127.0.0.99").body)["token"]
        return super().js_client(path, token)

    def test_limit_is_for_each_client_and_not_for_the_proxy(self) -> None:
        """One client's limit is not another one's, and a forged address does not get around it."""
        self.assertEqual([self.guest("127.0.0.9").status for _ in range(self.LIMIT)], [200] * self.LIMIT)
        self.assertEqual(self.guest("127.0.0.9").status, 429)
        self.assertEqual(self.guest("127.0.0.9", x_forwarded_for=FORGED).status, 429)
        self.assertEqual(self.guest("127.0.0.9", x_forwarded_for=f"{FORGED}, 127.0.0.1").status, 429)
        self.assertEqual(self.guest("127.0.0.10").status, 200)

    def test_websocket_without_a_token_is_refused(self) -> None:
        """And the client hears why."""
        client = JsClient(f"wss://localhost:{self.ports['https']}/ws", self.folder, self.certificate)
        self.addCleanup(client.close)
        self.assertIn("error", client.connected)
