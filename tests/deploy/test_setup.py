"""setup.sh on a machine of its own: real devices, file systems, mounts; Docker, packages, firewall are stand-ins."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy import tools
from tests.deploy.processes import PATIENCE_S

VOLUME_BYTES = 64 * 1024 * 1024
CHECKOUT = "/root/checkout"
FOLDER = f"{CHECKOUT}/deploy/droplet"
SETUP = f"{FOLDER}/setup.sh"
COMPOSE = f"docker compose --project-directory {FOLDER} --file {FOLDER}/docker-compose.yml"
PAGE = "<title>the app</title>"

STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>/said
"""
DOCKER = (
    STAND_IN
    + """case "$*" in
  "compose version") [ ! -e /no-docker ] ;;
  create*) echo container-1 ;;
  cp*) [ -d /image-web ] && cp -R /image-web/. "$3" ;;
  *" up "*) [ ! -e /broken ] ;;
  *" pull relay") [ ! -e /offline ] ;;
  "image inspect"*) [ -e /image-is-here ] ;;
  *" exec "*) cat >/reloaded ;;
esac
"""
)

_MACHINE = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir=$LAYER/upper,workdir=$LAYER/work "$LAYER/root"
mount --rbind /dev "$LAYER/root/dev"
mount -t proc proc "$LAYER/root/proc"
mount --rbind /sys "$LAYER/root/sys"
mount -t tmpfs tmpfs "$LAYER/root/run"
exec chroot "$LAYER/root" env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin HOME=/root bash -euc "$1"
"""


class Machine:
    """A droplet: what is written stays from one start to the next, what is mounted does not.

    Args:
        folder: where its disk is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._unshare = tools.required(tools.unshare)
        self._folder = folder
        for name in ("upper/usr/local/bin", "upper/etc", "upper/mnt", "upper/srv", "work", "root"):
            (folder / name).mkdir(parents=True)
        for name in ("apt-get", "ufw", "systemctl", "docker"):
            program = self.disk(f"/usr/local/bin/{name}")
            program.write_text(DOCKER if name == "docker" else STAND_IN)
            program.chmod(0o755)
        self.disk("/etc/fstab").write_text("# the machine's own\n/dev/vda1 / ext4 defaults 0 1\n")
        ignored = shutil.ignore_patterns(".env")
        shutil.copytree(tools.DEPLOY, self.disk(f"{CHECKOUT}/deploy"), ignore=ignored)
        self.add_app(PAGE)

    def disk(self, path: str) -> Path:
        """Returns where a path of the machine's own disk is kept."""
        return self._folder / "upper" / path.lstrip("/")

    def add_app(self, page: str, asset: str = "app-1.js") -> None:
        """Puts an app into the image."""
        (self.disk("/image-web") / "assets").mkdir(parents=True, exist_ok=True)
        (self.disk("/image-web") / "index.html").write_text(page)
        (self.disk("/image-web") / "assets" / asset).write_text("code")

    def start(self, script: str) -> subprocess.CompletedProcess[str]:
        """Starts the machine and runs a script on it."""
        return subprocess.run(
            [self._unshare, "--mount", "--propagation", "private", "/bin/sh", "-c", _MACHINE, "sh", script],
            env=os.environ | {"LAYER": str(self._folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def said(self) -> list[str]:
        """Returns what was asked of the stand-ins since the last time."""
        path = self.disk("/said")
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


class SetupTestCase(SynchronousTestCase):
    """Has a machine."""

    def setUp(self) -> None:
        """Makes it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.machine = Machine(self.folder / "machine")

    def set_up(self, *arguments: str, then: str = "true") -> str:
        """Runs setup.sh, which must succeed, and then a script; returns what they say."""
        result = self.machine.start(" ".join((SETUP, *arguments)) + f"\n{then}")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def refused(self, *arguments: str, first: str = "true") -> str:
        """Runs setup.sh, which must refuse in one line; returns that line."""
        result = self.machine.start(f"{first}\nexec {SETUP} {' '.join(arguments)}")
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stdout + result.stderr)
        return result.stderr


class FreshMachineTests(SetupTestCase):
    """A machine without a volume."""

    def test_setup_starts_everything_from_a_checkout(self) -> None:
        """Builds, fills the page's folder, opens the firewall, starts, and gives Caddy the present configuration."""
        output = self.set_up("--domain chat.example.org", then="stat -c '%n %u:%g %a' /mnt/data/* /srv/chat")
        self.assertIn("Done: https://chat.example.org", output)
        self.assertEqual(
            [re.sub(r" /tmp/tmp\.\S+", "", line) for line in self.machine.said()],
            [
                "docker compose version",
                *(f"ufw allow {port}" for port in ("22/tcp", "80/tcp", "443/tcp", "443/udp")),
                "ufw --force enable",
                f"{COMPOSE} build --pull relay",
                f"{COMPOSE} pull caddy",
                "docker create clasp-relay:local",
                *("docker cp container-1:/usr/share/clasp/chat/.", "docker rm --force container-1"),
                f"{COMPOSE} up --detach --remove-orphans --wait --wait-timeout 120",
                f"{COMPOSE} exec -T caddy caddy reload --config - --adapter caddyfile",
            ],
        )
        for line in ("/mnt/data/relay 999:999 700", "/mnt/data/caddy 0:0 700", "/mnt/data/backups 0:0 700"):
            self.assertIn(line, output)
        self.assertEqual(self.machine.disk("/srv/chat/index.html").read_text(), PAGE)
        self.assertEqual(self.machine.disk("/reloaded").read_bytes(), (tools.DEPLOY / "droplet/Caddyfile").read_bytes())
        self.assertIn("\nDOMAIN=chat.example.org\n", self.machine.disk(f"{FOLDER}/.env").read_text())

    def test_setup_runs_a_turn_server_that_it_is_asked_for(self) -> None:
        """With a secret that is made once, ports that are open, and settings that stay."""
        kept = f"stat -c '%n %u:%g %a %s' /mnt/data/turn /mnt/data/turn/secret; cat {FOLDER}/.env"
        output = self.set_up("--domain chat.example.org", "--turn", then=kept)
        self.assertIn("/mnt/data/turn 999:999 700", output)
        self.assertIn("/mnt/data/turn/secret 999:999 400 64", output)
        secret = self.machine.disk("/mnt/data/turn/secret").read_bytes()
        self.assertRegex(secret, rb"^[0-9a-f]{64}$")
        url = "turn:chat.example.org:3478?transport="
        for line in (f"TURN_URL={url}udp,{url}tcp", "TURN_SECRET=/run/turn/secret", "COMPOSE_PROFILES=turn"):
            self.assertIn(f"\n{line}\n", output)
        opened = [f"ufw allow {port}" for port in ("3478/tcp", "3478/udp", "49160:49359/udp")]
        self.assertLess({*opened, f"{COMPOSE} pull turn"}, set(self.machine.said()))
        self.set_up()
        self.assertEqual(self.machine.disk("/mnt/data/turn/secret").read_bytes(), secret)
        self.assertIn("ufw allow 3478/udp", self.machine.said())

    def test_setup_opens_the_port_that_one_came_in_by(self) -> None:
        """Nobody is shut out of a machine whose sshd listens elsewhere."""
        result = self.machine.start(f"SSH_CONNECTION='203.0.113.7 50000 203.0.113.8 2222' {SETUP} --domain a.example")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("ufw allow 2222/tcp", self.machine.said())

    def test_dry_run_changes_nothing(self) -> None:
        """It says what would be done, and asks only whether Docker is there."""
        before = self.files()
        output = self.set_up("--domain chat.example.org", "--dry-run")
        self.assertIn("would run: docker compose", output)
        self.assertEqual(self.machine.said(), ["docker compose version"])
        self.assertEqual(self.files(), before)

    def files(self) -> dict[str, str]:
        """Returns the files that the machine's disk has, with what is in them."""
        upper = self.machine.disk("/")
        paths = (path for path in upper.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def test_setup_installs_docker_where_there_is_none(self) -> None:
        """From the system's own packages."""
        self.machine.disk("/no-docker").touch()
        self.set_up("--domain chat.example.org")
        said = self.machine.said()
        self.assertIn("apt-get update -q", said)
        (install,) = [line for line in said if " install " in line]
        self.assertTrue({"docker.io", "docker-compose-v2", "docker-buildx"} <= set(install.split()), install)
        self.assertIn("systemctl enable --now docker", said)

    def test_setup_takes_an_image(self) -> None:
        """Pulled and not built; one that is only here is taken as it is, and one that is nowhere is an error."""
        env = self.machine.disk(f"{FOLDER}/.env")
        env.write_text("DOMAIN=chat.example.org\nCLASP_IMAGE=registry.example.org/relay:1.0\n")
        self.set_up()
        said = self.machine.said()
        self.assertIn(f"{COMPOSE} pull relay", said)
        self.assertIn("docker create registry.example.org/relay:1.0", said)
        self.assertEqual([line for line in said if " build " in line], [])
        self.machine.disk("/offline").touch()
        self.assertIn("registry.example.org/relay:1.0", self.refused())
        self.machine.disk("/image-is-here").touch()
        self.set_up()

    def test_setup_says_when_the_relay_does_not_start(self) -> None:
        """With the last words of the containers."""
        self.machine.disk("/broken").touch()
        self.assertIn("did not start", self.refused("--domain chat.example.org"))
        self.assertEqual(self.machine.said()[-1], f"{COMPOSE} logs --tail 30 relay caddy")

    def test_setup_refuses_what_it_does_not_understand(self) -> None:
        """Before anything is done."""
        cases = (
            ((), "DOMAIN: got ''"),
            (("--domain", "'a b'"), "DOMAIN: got 'a b'"),
            (("--domain", "https://a.example"), "DOMAIN: got 'https://a.example'"),
            (("--domain", "a.example", "--volume", "sda"), "VOLUME: got 'sda'"),
            (("--domain", "a.example", "--volume", "/dev/nothing"), "/dev/nothing is no block device"),
            (("--domain",), "--domain: got no value"),
            (("--what",), "unknown argument --what"),
        )
        for arguments, words in cases:
            with self.subTest(arguments=arguments):
                self.assertIn(words, self.refused(*arguments))


class PageTests(SetupTestCase):
    """What is in /srv/chat."""

    def test_new_app_replaces_the_old_one_in_place(self) -> None:
        """Assets that open pages may still ask for stay for a month."""
        self.set_up("--domain chat.example.org")
        web = self.machine.disk("/srv/chat")
        (web / "assets" / "ancient.js").write_text("code")
        os.utime(web / "assets" / "ancient.js", (1_600_000_000, 1_600_000_000))
        folder = web.stat().st_ino
        self.machine.add_app("<title>newer</title>", "app-2.js")
        (self.machine.disk("/image-web") / "assets" / "app-1.js").unlink()
        self.set_up()
        self.assertEqual((web / "index.html").read_text(), "<title>newer</title>")
        self.assertEqual({path.name for path in (web / "assets").iterdir()}, {"app-1.js", "app-2.js"})
        self.assertEqual(web.stat().st_ino, folder, "Caddy has the folder itself mounted")
        self.assertEqual(stat.S_IMODE((web / "index.html").stat().st_mode), 0o644)

    def test_image_without_an_app_shows_a_placeholder(self) -> None:
        """But never instead of a page that is there."""
        page = self.machine.disk("/srv/chat/index.html")
        shutil.rmtree(self.machine.disk("/image-web"))
        self.set_up("--domain chat.example.org")
        self.assertEqual(page.read_bytes(), (tools.DEPLOY / "placeholder/index.html").read_bytes())
        page.write_text("mine")
        self.set_up()
        self.assertEqual(page.read_text(), "mine")


class VolumeTests(SetupTestCase):
    """A machine with a volume."""

    def setUp(self) -> None:
        """Attaches it."""
        super().setUp()
        self.image = self.folder / "volume.img"
        with self.image.open("wb") as file:
            file.truncate(VOLUME_BYTES)
        self.device = tools.output("losetup", "--find", "--show", self.image).strip()
        self.assertTrue(self.device.startswith("/dev/loop"), "no loop device")
        self.addCleanup(subprocess.run, ["losetup", "--detach", self.device], check=True)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What setup.sh is told."""
        return ("--domain", "chat.example.org", "--volume", self.device)

    def format(self, *command: str) -> None:
        """Formats the volume."""
        subprocess.run([*command, self.device], check=True, capture_output=True, timeout=PATIENCE_S)

    def uuid(self) -> str:
        """Returns what the file system on the volume is called."""
        return tools.output("blkid", "--probe", "--match-tag", "UUID", "--output", "value", self.device).strip()

    def fstab(self) -> list[str]:
        """Returns the lines about the volume's place."""
        return [line for line in self.machine.disk("/etc/fstab").read_text().splitlines() if " /mnt/data " in line]

    def test_blank_volume_is_formatted_and_mounted_by_its_name(self) -> None:
        """Whatever the device is called after the next start."""
        output = self.set_up(*self.arguments, then="findmnt -no SOURCE,FSTYPE /mnt/data")
        self.assertRegex(output, rf"{self.device} +ext4")
        options = "auto defaults,nofail,discard,x-systemd.before=docker.service 0 2"
        self.assertEqual(self.fstab(), [f"UUID={self.uuid()} /mnt/data {options}"])
        self.assertIn("systemctl daemon-reload", self.machine.said())

    def test_second_run_leaves_the_data_alone(self) -> None:
        """At once, and after a restart of the machine."""
        self.set_up(*self.arguments, then=f"echo kept >/mnt/data/relay/state.json\n{SETUP}")
        uuid = self.uuid()
        output = self.set_up(then="cat /mnt/data/relay/state.json")
        self.assertTrue(output.endswith("kept\n"), output)
        self.assertEqual(self.uuid(), uuid)
        self.assertEqual(len(self.fstab()), 1)

    def test_volume_with_data_is_mounted_as_it_is(self) -> None:
        """A volume of another machine brings its data."""
        self.format("mkfs.ext4", "-q")
        uuid = self.uuid()
        fill = f"mount {self.device} /media && echo kept >/media/file && umount /media"
        self.assertEqual(self.machine.start(fill).returncode, 0)
        self.assertTrue(self.set_up(*self.arguments, then="cat /mnt/data/file").endswith("kept\n"))
        self.assertEqual(self.uuid(), uuid)

    def test_volume_that_is_not_blank_is_never_formatted(self) -> None:
        """Whatever is on it, known or not, at its beginning or at its end."""
        damages: tuple[tuple[str, Callable[[], object], str], ...] = (
            ("swap", lambda: self.format("mkswap"), "has swap on it"),
            ("a partition table", lambda: self.write(510, b"\x55\xaa", 446, b"\x00" * 4 + b"\x83"), "on it"),
            ("a byte at the beginning", lambda: self.write(1_000_000, b"x"), "has data on it"),
            ("a byte at the end", lambda: self.write(VOLUME_BYTES - 1, b"x"), "has data on it"),
        )
        for name, damage, words in damages:
            with self.subTest(name):
                self.write(0, b"\x00" * VOLUME_BYTES)
                damage()
                before = hashlib.sha256(self.image.read_bytes()).digest()
                self.assertIn(words, self.refused(*self.arguments))
                self.assertEqual(hashlib.sha256(self.image.read_bytes()).digest(), before)
                self.assertEqual(self.fstab(), [])

    def write(self, *parts: int | bytes) -> None:
        """Writes bytes to offsets of the volume."""
        with open(self.device, "r+b", buffering=0) as device:
            for offset, data in zip(parts[::2], parts[1::2], strict=True):
                assert isinstance(offset, int)
                assert isinstance(data, bytes)
                device.seek(offset)
                device.write(data)
            os.fsync(device.fileno())

    def test_volume_in_a_wrong_place_is_left_there(self) -> None:
        """Mounted elsewhere, over other files, or instead of another one: each is said."""
        self.format("mkfs.ext4", "-q")
        self.assertIn("is mounted at /media", self.refused(*self.arguments, first=f"mount {self.device} /media"))
        full = "mkdir -p /mnt/data/relay"
        self.assertIn("/mnt/data: has files", self.refused(*self.arguments, first=full))
        self.machine.start("rm -r /mnt/data")
        other = "mkdir -p /mnt/data && mount -t tmpfs tmpfs /mnt/data"
        self.assertIn("tmpfs is mounted there", self.refused(*self.arguments, first=other))
        self.machine.disk("/etc/fstab").write_text("UUID=another /mnt/data ext4 defaults 0 2\n")
        self.assertIn("mounts UUID=another", self.refused(*self.arguments))

    def test_dry_run_does_not_touch_the_volume(self) -> None:
        """It says that it would be formatted."""
        output = self.set_up(*self.arguments, "--dry-run")
        self.assertRegex(output, rf"would run: mkfs\.ext4 .*{re.escape(self.device)}")
        self.assertEqual(self.image.read_bytes().count(0), VOLUME_BYTES)
        self.assertEqual(self.fstab(), [])


class ShellTests(SynchronousTestCase):
    """The scripts as texts."""

    def test_scripts_pass_shellcheck(self) -> None:
        """Without an exception in them."""
        scripts = sorted(tools.DEPLOY.rglob("*.sh"))
        self.assertEqual({path.name for path in scripts}, {"setup.sh", "backup.sh", "restore.sh"})
        shellcheck = tools.required(tools.shellcheck)
        result = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        for path in scripts:
            self.assertTrue(os.access(path, os.X_OK), path)
            self.assertNotIn("shellcheck disable", path.read_text())
