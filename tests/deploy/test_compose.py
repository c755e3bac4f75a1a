"""The Compose files, read by the library that ``docker compose`` reads them with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.option_table import OPTIONS
from clasp_relay.command_line.options import Options
from clasp_relay.settings import Settings
from tests.deploy import tools
from tests.deploy.dockerfile import read_dockerfile

PATIENCE_S = 60
DROPLET = tools.DEPLOY / "droplet"


def filled_in(text: str, variables: dict[str, str]) -> str:
    """Returns a Compose file with its variables filled in: the checker knows none but the defaults."""

    def value(found: re.Match[str]) -> str:
        default = found["rest"] if found["sign"] == "-" else found[0]
        return variables.get(found["name"], "") or default or ""

    return re.sub(r"\$\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\}", value, text)


def read(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Checks a Compose file against the schema, with its variables filled in."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(filled_in(path.read_text(encoding="utf-8"), variables))
        return subprocess.run(
            [tools.required(tools.compose_go), "-format", "json", "-no-path-resolution", copy],
            env={"PATH": os.environ["PATH"], "HOME": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )


class ComposeTestCase(SynchronousTestCase):
    """Reads a file."""

    def model(self, path: Path, **variables: str) -> dict[str, Any]:
        """Returns what a sound file says."""
        result = read(path, **variables)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        model: dict[str, Any] = json.loads(result.stdout)
        return model

    def settings(self, service: dict[str, Any]) -> Settings:
        """Returns what the relay makes of its command and variables."""
        options = Options(service["environment"])
        options.parseOptions(service["command"])
        return options.settings


class SchemaTests(ComposeTestCase):
    """The checker itself."""

    def test_checker_finds_a_wrong_word(self) -> None:
        """What passes it has been looked at."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "docker-compose.yml"
            path.write_text("services:\n  relay:\n    imagge: x\n")
            self.assertIn("imagge", read(path).stderr)


class LaptopTests(ComposeTestCase):
    """deploy/chat."""

    def test_doors_in_comments_open_where_the_comments_are_taken_away(self) -> None:
        """The options that a comment names are the relay's, and the ports below it are theirs."""
        for folder in ("chat", "droplet"):
            text = (tools.DEPLOY / folder / "docker-compose.yml").read_text("utf-8")
            with self.subTest(folder):
                found = re.search(r"# Doors \(docs/doors\.md\), once (.*?) stand above:\n((?: *# .*\n)+)", text)
                assert found is not None, folder
                ports = {name: int(port) for name, port in re.findall(r"--(\w+-port)=([0-9]+)", found[1])}
                for option in re.findall(r"--([\w-]+)", found[1]):
                    self.assertIn(option, {each.name for each in OPTIONS})
                published = [int(port) for port in re.findall(r":([0-9]+)(?:/udp)?$", found[2], re.MULTILINE)]
                self.assertEqual(sorted(published), sorted(ports.values()))
                udp = [int(port) for port in re.findall(r":([0-9]+)/udp$", found[2], re.MULTILINE)]
                self.assertEqual(udp, [ports["osc-port"]])

    def test_laptop_has_relay_and_chat(self) -> None:
        """Built from the checkout, on this machine's own ports, with a volume that stays."""
        model = self.model(tools.DEPLOY / "chat" / "docker-compose.yml")
        relay = model["services"]["relay"]
        folder = tools.DEPLOY / "chat"
        self.assertEqual((folder / relay["build"]["context"]).resolve(), tools.ROOT)
        ports = [(port["host_ip"], port["published"], port["target"]) for port in relay["ports"]]
        self.assertEqual(ports, [("127.0.0.1", "7330", 7330), ("127.0.0.1", "7350", 7350)])
        (volume,) = relay["volumes"]
        self.assertEqual((volume["type"], volume["source"], volume["target"]), ("volume", "relay-data", "/data"))
        settings = self.settings(relay)
        self.assertEqual((settings.port, settings.auth_port), (7330, 7350))
        self.assertEqual(settings.web_root, read_dockerfile()[-1].environment["CLASP_WEB_ROOT"])


class DropletTests(ComposeTestCase):
    """deploy/droplet."""

    def setUp(self) -> None:
        """Reads it as it is with nothing but a name in .env."""
        self.compose = self.model(DROPLET / "docker-compose.yml", DOMAIN="chat.example.org")
        self.relay = self.compose["services"]["relay"]
        self.caddy = self.compose["services"]["caddy"]

    def test_only_caddy_is_published(self) -> None:
        """HTTP, HTTPS and HTTP/3."""
        self.assertNotIn("ports", self.relay)
        ports = [(port["published"], port["target"], port["protocol"]) for port in self.caddy["ports"]]
        self.assertEqual(ports, [("80", 80, "tcp"), ("443", 443, "tcp"), ("443", 443, "udp")])

    def test_data_is_on_the_volume_or_nothing_starts(self) -> None:
        """An engine would make a missing folder, on the wrong disk, and the relay would start empty."""
        volumes = {volume["target"]: volume for volume in (*self.relay["volumes"], *self.caddy["volumes"])}
        self.assertEqual(self.relay["volumes"][0]["source"], "/mnt/data/relay")
        self.assertEqual(self.relay["volumes"][0]["target"], "/data")
        self.assertEqual(volumes["/data"]["source"], "/mnt/data/caddy")
        for volume in (self.relay["volumes"][0], volumes["/data"]):
            self.assertNotEqual(volume["bind"].get("create_host_path"), True)
        self.assertEqual((volumes["/srv/chat"]["source"], volumes["/srv/chat"]["read_only"]), ("/srv/chat", True))

    def test_services_come_back_and_have_time_to_stop(self) -> None:
        """More than the relay waits for its queues."""
        for service in (self.relay, self.caddy):
            self.assertEqual(service["restart"], "unless-stopped")
        self.assertEqual(self.relay["stop_grace_period"], "20s")

    def test_services_have_no_rights_that_they_do_not_need(self) -> None:
        """Nothing is written but data, and no right is to be had."""
        for service, rights in ((self.relay, []), (self.caddy, ["NET_BIND_SERVICE"])):
            self.assertTrue(service["read_only"])
            self.assertEqual((service["cap_drop"], service.get("cap_add", [])), (["ALL"], rights))
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"])

    def test_images_are_pinned_by_their_minor_version(self) -> None:
        """Caddy has what the Caddyfile uses."""
        self.assertRegex(self.caddy["image"], r"^caddy:2\.(7|8|9|1\d)-alpine$")

    def test_relay_trusts_the_network_of_caddy_only(self) -> None:
        """Whose addresses are always the same, and private ones; nobody else is in it."""
        settings = self.settings(self.relay)
        trusted = list(settings.trusted_proxies)
        (network,) = self.compose["networks"].items()
        subnets = [ip_network(config["subnet"]) for config in network[1]["ipam"]["config"]]
        self.assertEqual(trusted, subnets)
        self.assertTrue(all(subnet.is_private for subnet in subnets))
        services = self.compose["services"].items()
        inside = [name for name, service in services if network[0] in service.get("networks", {})]
        self.assertEqual(inside, ["caddy", "relay"])
        self.assertEqual(settings.cors_origins, ("https://chat.example.org",))

    def test_settings_come_from_the_environment(self) -> None:
        """Every one that .env.example has; an empty one is as good as none."""
        env = (DROPLET / ".env.example").read_text(encoding="utf-8").splitlines()
        example = dict(line.split("=", 1) for line in env if line and not line.startswith("#"))
        text = (DROPLET / "docker-compose.yml").read_text(encoding="utf-8")
        used = {name for name in example if f"${{{name}" in text}
        self.assertEqual(set(example) - used, {"VOLUME", "COMPOSE_PROFILES"}, "setup.sh's, and Compose's own")
        model = self.model(
            DROPLET / "docker-compose.yml",
            **(example | {"DOMAIN": "a.example", "CLASP_IMAGE": "b.example/relay:1", "DATA_DIR": "/mnt/c"}),
        )
        relay = model["services"]["relay"]
        self.assertEqual((relay["image"], relay["volumes"][0]["source"]), ("b.example/relay:1", "/mnt/c/relay"))

    def test_turn_server_starts_only_where_it_is_asked_for(self) -> None:
        """And the relay names it only then."""
        turn = self.compose["services"]["turn"]
        self.assertEqual(turn["profiles"], ["turn"])
        self.assertEqual(self.settings(self.relay).turn_urls, ())
        url = "turn:chat.example.org:3478?transport=udp"
        model = self.model(
            DROPLET / "docker-compose.yml", DOMAIN="a.example", TURN_URL=url, TURN_SECRET="/run/turn/secret"
        )
        settings = self.settings(model["services"]["relay"])
        self.assertEqual((settings.turn_urls, settings.turn_secret), ((url,), Path("/run/turn/secret")))

    def test_turn_server_shares_a_secret_with_the_relay_alone(self) -> None:
        """As the user that may read it; it has no other right, and no other place to write than memory."""
        turn = self.compose["services"]["turn"]
        self.assertEqual((turn["user"], turn["network_mode"]), ("999:999", "host"))
        self.assertTrue(turn["read_only"])
        self.assertEqual((turn["tmpfs"], turn["cap_drop"]), (["/tmp"], ["ALL"]))
        self.assertEqual(turn["security_opt"], ["no-new-privileges:true"])
        for service in (turn, self.relay):
            (shared,) = [volume for volume in service["volumes"] if volume["target"] == "/run/turn"]
            self.assertEqual((shared["source"], shared["read_only"]), ("/mnt/data/turn", True))
            self.assertNotEqual(shared["bind"].get("create_host_path"), True)

    def test_nothing_starts_without_a_name(self) -> None:
        """And it is said what to do."""
        result = read(DROPLET / "docker-compose.yml")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("put the name of the site into .env", result.stderr)
