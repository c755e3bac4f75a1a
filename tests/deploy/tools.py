"""The programs that these tests need beside Python: found, or said to be missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"

_JS_FOLDERS = (ROOT / "tests" / "js", ROOT / "apps" / "chat")
_PATIENCE_S = 60


class MissingTool(Exception):
    """A program is not there; the text says which, and how to get it."""


def output(*command: str | Path) -> str:
    """Returns the stdout of a command, whatever its exit status."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S).stdout


def required(find: Callable[[], Path]) -> Path:
    """Returns the path of a tool; leaves the test out where it is missing, except in CI, which must have all.

    Raises:
        SkipTest: it is missing; ``-ra`` and trial list why.
        MissingTool: it is missing in CI.
    """
    try:
        return find()
    except MissingTool as missing:
        if os.environ.get("CI") == "true":
            raise
        raise SkipTest(str(missing)) from missing


def _on_path(name: str, how: str) -> Path:
    """Returns a program; what ``go install`` made is found without being on the PATH."""
    folders = os.environ.get("PATH", os.defpath)
    path = shutil.which(name, path=os.pathsep.join((folders, str(Path.home() / "go" / "bin"))))
    if path is None:
        raise MissingTool(f"{name} is missing: {how}")
    return Path(path)


def caddy() -> Path:
    """Returns Caddy, not older than ``stream_close_delay``."""
    how = "go install github.com/caddyserver/caddy/v2/cmd/caddy@latest"
    path = _on_path("caddy", how)
    if "v2.6." in output(path, "version"):
        raise MissingTool(f"caddy is older than 2.7: {how}")
    return path


def compose_go() -> Path:
    """Returns the checker of Compose files: the library of ``docker compose``, which needs no engine."""
    return _on_path(
        "compose-go", "go install github.com/compose-spec/compose-go/v2/cmd@latest, then call that cmd compose-go"
    )


def nats_server() -> Path:
    """Returns nats-server, 2.12 or later: of the package that the relay starts it from, or another one."""
    how = "make .venv/.installed-dev"
    path = Path(sys.executable).with_name("nats-server")
    path = path if path.exists() else _on_path("nats-server", how)
    found = re.search(r"v(\d+)\.(\d+)", output(path, "--version"))
    if found is None or (int(found[1]), int(found[2])) < (2, 12):
        raise MissingTool(f"nats-server is older than 2.12: {how}")
    return path


def turnserver() -> Path:
    """Returns coturn."""
    return _on_path("turnserver", "apt-get install coturn")


def shellcheck() -> Path:
    """Returns shellcheck."""
    return _on_path("shellcheck", "apt-get install shellcheck")


def systemd_analyze() -> Path:
    """Returns systemd-analyze."""
    return _on_path("systemd-analyze", "apt-get install systemd")


def setpriv() -> Path:
    """Returns setpriv, where one may use it."""
    if os.getuid() != 0:
        raise MissingTool("root is needed to run the relay as the image's user")
    return _on_path("setpriv", "apt-get install util-linux")


def node() -> Path:
    """Returns Node 20 or newer."""
    path = _on_path("node", "apt-get install nodejs npm")
    found = re.match(r"v(\d+)\.", output(path, "--version"))
    if found is None or int(found[1]) < 20:
        raise MissingTool("node is older than 20: get a newer one from its makers")
    return path


def clasp_js() -> Path:
    """Returns the folder of the npm client."""
    for folder in _JS_FOLDERS:
        package = folder / "node_modules" / "@clasp-to" / "core"
        if package.exists():
            return package
    raise MissingTool("@clasp-to/core is missing: npm ci --prefix tests/js")


def network_namespaces() -> Path:
    """Returns ip, where one may use it to make networks of one's own, with routing rules in them."""
    if os.getuid() != 0:
        raise MissingTool("root is needed for networks of one's own")
    path = _on_path("ip", "apt-get install iproute2")
    probe = f"clasp-probe-{os.getpid()}"
    try:
        for command in (("netns", "add", probe), ("-n", probe, "rule", "add", "from", "10.1.1.1", "blackhole")):
            if subprocess.run([path, *command], check=False, capture_output=True).returncode != 0:
                raise MissingTool("this machine does not allow networks of one's own")
    finally:
        subprocess.run([path, "netns", "del", probe], check=False, capture_output=True)
    return path


def unshare() -> Path:
    """Returns unshare, where one may use it and loop devices: mounts of one's own that nobody else sees."""
    if os.getuid() != 0:
        raise MissingTool("root is needed for mounts of one's own")
    path = _on_path("unshare", "apt-get install util-linux")
    _on_path("mkfs.ext4", "apt-get install e2fsprogs")
    if subprocess.run([path, "--mount", "true"], check=False, capture_output=True).returncode != 0:
        raise MissingTool("this machine does not allow mounts of one's own")
    if not output("losetup", "--find"):
        raise MissingTool("this machine has no loop devices")
    return path
