"""deploy/cluster: its Compose file, units and configurations of nats-server, and its Caddyfile before real relays."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import ssl
import subprocess
import tempfile
from collections import Counter
from ipaddress import ip_network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.option_table import OPTIONS
from clasp_relay.command_line.options import Options
from clasp_relay.wire.messages import Hello, Welcome
from tests.deploy import tools
from tests.deploy.processes import PATIENCE_S, Background, plain_environment, start_relay
from tests.deploy.test_compose import ComposeTestCase, read
from tests.integration.raw import Closed, RawClient
from tests.ports import free_port

FOLDER = tools.DEPLOY / "cluster"
COMPOSE = FOLDER / "docker-compose.yml"
NATS = ("nats-1", "nats-2", "nats-3")
RELAYS = ("relay-1", "relay-2")
MOST_EXPOSED = 20
"""Of 100, in systemd-analyze's own reckoning."""


def variables(path: Path) -> dict[str, str]:
    """Returns what a file of variables sets."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class ComposeTests(ComposeTestCase):
    """Three nats-servers, two relays and Caddy."""

    def setUp(self) -> None:
        """Reads the file with a name and a password in .env."""
        self.compose = self.model(COMPOSE, DOMAIN="chat.example.org", NATS_PASSWORD="n1234")
        self.services = self.compose["services"]

    def test_only_caddy_is_published(self) -> None:
        """The engine's network leads nowhere."""
        self.assertEqual([name for name, service in self.services.items() if "ports" in service], ["caddy"])
        self.assertTrue(self.compose["networks"]["engine"]["internal"])
        inside = {name for name, service in self.services.items() if "engine" in service["networks"]}
        self.assertEqual(inside, {*NATS, *RELAYS})

    def test_every_server_and_relay_has_a_volume_and_a_name_of_its_own(self) -> None:
        """Two on one folder would lose what the first accepted."""
        for names, variable in ((NATS, "NATS_NAME"), (RELAYS, "CLASP_RELAY_NAME")):
            for name in names:
                service = self.services[name]
                data = [volume["source"] for volume in service["volumes"] if volume["target"] == "/data"]
                self.assertEqual((data, service["environment"][variable]), ([name], name))

    def test_relays_know_all_servers(self) -> None:
        """By an address with the password, which is on no command line."""
        for name in RELAYS:
            relay = self.services[name]
            servers = relay["environment"]["CLASP_CLUSTER"].split(",")
            self.assertEqual(servers, [f"nats://clasp:n1234@{each}:4222" for each in NATS])
            self.assertNotIn("n1234", str(relay["command"]))

    def test_relays_have_accounts_under_the_rules_of_the_chat(self) -> None:
        """And where Caddy looks for them."""
        for name in RELAYS:
            settings = self.settings(self.services[name])
            self.assertEqual((settings.auth_port, settings.app_config), (7350, "chat"))
        text = (FOLDER / "Caddyfile").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"RELAYS_AUTH:([^}]+)}", text)), {" ".join(f"{each}:7350" for each in RELAYS)})

    def test_relays_trust_the_network_of_caddy_only(self) -> None:
        """Whose addresses are private and always the same."""
        settings = self.settings(self.services["relay-1"])
        subnets = [ip_network(config["subnet"]) for config in self.compose["networks"]["edge"]["ipam"]["config"]]
        self.assertEqual(list(settings.trusted_proxies), subnets)
        self.assertTrue(all(subnet.is_private for subnet in subnets))
        inside = {name for name, service in self.services.items() if "edge" in service["networks"]}
        self.assertEqual(inside, {"caddy", *RELAYS})

    def test_services_have_no_rights_that_they_do_not_need(self) -> None:
        """They come back, write nothing but data, and have time to stop."""
        for name, service in self.services.items():
            self.assertEqual(service["restart"], "unless-stopped")
            self.assertTrue(service["read_only"])
            rights = ["NET_BIND_SERVICE"] if name == "caddy" else []
            self.assertEqual((service["cap_drop"], service.get("cap_add", [])), (["ALL"], rights))
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"])

    def test_images_are_pinned_by_their_minor_version(self) -> None:
        """nats-server is one that a cluster can use."""
        self.assertRegex(self.services["caddy"]["image"], r"^caddy:2\.(7|8|9|1\d)-alpine$")
        for name in NATS:
            self.assertRegex(self.services[name]["image"], r"^nats:2\.(1[2-9]|[2-9]\d)-alpine$")

    def test_settings_come_from_the_environment(self) -> None:
        """Every one that .env.example has; without a name or a password nothing starts, and it is said why."""
        text = COMPOSE.read_text(encoding="utf-8")
        for name in variables(FOLDER / ".env.example"):
            self.assertIn(f"${{{name}", text)
        self.assertIn("put the name of the site into .env", read(COMPOSE, NATS_PASSWORD="n1").stderr)
        self.assertIn("put a password for the nats-servers into .env", read(COMPOSE, DOMAIN="a.example").stderr)


class NatsConfigTests(SynchronousTestCase):
    """The configurations, read by nats-server itself."""

    def check(self, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Returns what nats-server says to a configuration."""
        return subprocess.run(
            [tools.required(tools.nats_server), "-t", "-c", path],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def test_configurations_are_sound(self) -> None:
        """With a password that looks as .env.example asks for."""
        for name in ("nats.conf", "nats-local.conf"):
            with self.subTest(name):
                result = self.check(FOLDER / name, NATS_NAME="nats-1", NATS_PASSWORD="n12e4")
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_nothing_starts_without_a_password(self) -> None:
        """Nor with a word that it does not know."""
        for name in ("nats.conf", "nats-local.conf"):
            result = self.check(FOLDER / name, NATS_NAME="nats-1")
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("NATS_PASSWORD", result.stderr)

    def test_servers_of_the_quorum_know_each_other(self) -> None:
        """By the names that Compose gives them."""
        text = (FOLDER / "nats.conf").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r"nats-route://([a-z0-9-]+):6222", text), list(NATS))


class UnitTests(SynchronousTestCase):
    """The systemd units of two relays and a nats-server on one machine."""

    def setUp(self) -> None:
        """Makes copies whose programs are there: systemd looks for them."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = Path(folder.name) / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.units: list[Path] = []
        for name in ("clasp-relay@.service", "clasp-nats.service"):
            text = (FOLDER / name).read_text(encoding="utf-8")
            unit = Path(folder.name) / name.replace("@", "@1")
            unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE))
            self.units.append(unit)

    def analyze(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Has units looked at."""
        command: list[str | Path] = [tools.required(tools.systemd_analyze), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    def test_units_are_sound(self) -> None:
        """Systemd understands every line."""
        result = self.analyze("verify", *self.units)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_units_give_away_little(self) -> None:
        """By systemd's own measure."""
        for unit in self.units:
            result = self.analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
            self.assertEqual(result.returncode, 0, result.stdout)

    def test_units_and_their_files_set_what_the_relay_understands(self) -> None:
        """Every variable is an option; two relays share none of their ports and no folder."""
        text = (FOLDER / "clasp-relay@.service").read_text(encoding="utf-8")
        given = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.+)$", text, re.MULTILINE))
        given |= variables(FOLDER / "cluster.env.example") | variables(FOLDER / "relay-1.env.example")
        known = {option.variable for option in OPTIONS}
        self.assertEqual(set(given) - known, {"PYTHONUNBUFFERED", "NATS_PASSWORD"})
        options = Options({name: value.replace("%i", "1") for name, value in given.items()})
        options.parseOptions([])
        settings = options.settings
        self.assertEqual((settings.port, settings.auth_port, settings.health_port), (7331, 7351, 7361))
        self.assertIn("StateDirectory=clasp-relay-%i\n", text)
        (start,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
        self.assertEqual(len(shlex.split(start)), 1)


class CaddyTests(SynchronousTestCase):
    """The Caddyfile in front of two relays, which here share nothing: it can be seen which one answers."""

    def setUp(self) -> None:
        """Starts relays on two addresses of this machine, and Caddy."""
        caddy = tools.required(tools.caddy)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ports = {name: free_port() for name in ("admin", "http", "https", "ws", "auth", "health")}
        self.relays = [self.start_relay(number) for number in (1, 2)]
        options = (
            f"{{\n admin 127.0.0.1:{self.ports['admin']}\n default_bind 127.0.0.1\n http_port {self.ports['http']}\n"
            f" https_port {self.ports['https']}\n skip_install_trust\n storage file_system {self.folder}/storage\n}}\n"
        )
        config = self.folder / "Caddyfile"
        config.write_text(options + (FOLDER / "Caddyfile").read_text(encoding="utf-8"))
        environment = plain_environment(
            DOMAIN="localhost",
            RELAYS=" ".join(f"127.0.0.{number}:{self.ports['ws']}" for number in (1, 2)),
            RELAYS_AUTH=" ".join(f"127.0.0.{number}:{self.ports['auth']}" for number in (1, 2)),
            HEALTH_PORT=str(self.ports["health"]),
            HOME=str(self.folder),
            XDG_DATA_HOME=str(self.folder),
            XDG_CONFIG_HOME=str(self.folder),
        )
        self.caddy = Background([caddy, "run", "--config", config, "--adapter", "caddyfile"], self.folder, environment)
        self.addCleanup(self.caddy.stop)
        authority = self.folder / "storage" / "pki" / "authorities" / "local" / "root.crt"
        self.caddy.wait_for_tls(self.ports["https"], authority)
        self.tls = ssl.create_default_context(cafile=str(authority))

    def start_relay(self, number: int) -> Background:
        """Starts a relay that tells its number as its name."""
        data = self.folder / str(number)
        data.mkdir()
        relay = start_relay(
            data,
            *(f"--host=127.0.0.{number}", f"--port={self.ports['ws']}", f"--health-port={self.ports['health']}"),
            *(f"--name=relay-{number}", f"--auth-port={self.ports['auth']}", f"--web-root={self.page(number)}"),
            *("--trusted-proxy=127.0.0.1", f"--app-config={self.policy()}"),
        )
        self.addCleanup(relay.stop)
        relay.wait_for(lambda: "listens on" in relay.said, "its port")
        return relay

    def page(self, number: int) -> Path:
        """Returns a folder with a page that tells which relay it is of."""
        folder = self.folder / f"web-{number}"
        folder.mkdir()
        (folder / "index.html").write_text(f"relay-{number}")
        return folder

    def policy(self) -> Path:
        """Returns a policy that lets everybody in, since these relays know nothing of each other's accounts."""
        path = self.folder / "app.json"
        path.write_text(json.dumps({"scopes": [], "anonymous": {"scopes": ["read:/**"]}}))
        return path

    def connect(self) -> tuple[RawClient, str]:
        """Returns a client, and the name of the relay that it came to."""
        client = RawClient(self.ports["https"], path="/ws", tls=self.tls, host="localhost")
        self.addCleanup(client.close)
        self.assertEqual(client.response.status, 101, self.caddy.said)
        client.send(Hello(1, 0xF8, "raw"))
        return client, client.receive(Welcome).name

    def ask(self, path: str, method: str = "GET", body: str | None = None) -> tuple[int, str]:
        """Returns status and body of an answer."""
        connection = http.client.HTTPSConnection("localhost", self.ports["https"], timeout=PATIENCE_S, context=self.tls)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def test_connections_are_spread_and_go_to_relays_that_are_ready(self) -> None:
        """To the one that has the fewest; where one stops, its clients come to the other."""
        clients = [self.connect() for _ in range(4)]
        self.assertEqual(Counter(name for _, name in clients), Counter(RELAYS * 2))
        self.assertEqual(self.relays[0].stop(), 0)
        for client, name in clients:
            if name == "relay-1":
                self.assertRaises(Closed, client.settle)
        self.assertEqual({self.connect()[1] for _ in range(3)}, {"relay-2"})

    def test_chat_and_accounts_are_outside_and_what_is_for_the_machine_is_not(self) -> None:
        """Any relay answers; a browser's console stays with one."""
        self.assertEqual({self.ask("/")[1] for _ in range(8)} - set(RELAYS), set())
        status, body = self.ask("/auth/guest", "POST", "{}")
        self.assertEqual(status, 200, body)
        for path in ("/readyz", "/metrics", "/api/params/a", "/hooks/a"):
            self.assertEqual(self.ask(path)[0], 404)
        found = [self.ask("/api/admin/overview", "GET")[0] for _ in range(4)]
        self.assertEqual(found, [401] * 4)
