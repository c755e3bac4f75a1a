"""The servers to compare, and why one is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.paths import BUILD, ROOT
from bench.server import Kind, ServerError, running

NATS_MODULE = "github.com/nats-io/nats-server/v2@v2.15.2"

RELAY, CHAT, NATS, MOSQUITTO, PLAIN = "relay", "relay, chat policy", "nats-server", "mosquitto", "plain Autobahn"
"""The names in the tables."""

BEFORE = " before"
"""The end of the name of another version of the relay."""

MQTT_DOOR = "relay, MQTT"
"""The relay as an MQTT broker, which is not in the tables."""

_MOSQUITTO_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest none
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
"""

_ROOMY = ("--host", "127.0.0.1", "--max-sessions", "60000", "--max-params", "300000", "--log-level", "error")
"""Options of both kinds of relay: limits that no measurement reaches."""

_RAISED = {
    "login_max_attempts": 1_000_000,
    "login_window_secs": 60,
    "register_max_attempts": 1_000_000,
    "register_window_secs": 60,
}


def _environment(checkout: Path = ROOT) -> dict[str, str]:
    """Returns the variables of a relay: where its sources are, and limits that a version may not know yet."""
    return {
        "PYTHONPATH": os.pathsep.join((str(checkout / "src"), str(checkout))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CLASP_MAX_BYTES_PER_SUBJECT": "0",
        "CLASP_MAX_SESSION_MEMORY": "0",
        "CLASP_MAX_GUEST_TOKENS_PER_ADDRESS": "0",
    }


def _python(checkout: Path) -> str:
    """Returns a checkout's own Python; this one's where it has none."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if checkout != ROOT and own.exists() else sys.executable


def _relay_command(port: int, folder: Path, checkout: Path) -> list[str]:
    python = _python(checkout)
    return [
        python,
        "-P",
        "-m",
        "bench.embed",
        "--port",
        str(port),
        "--data-dir",
        str(folder / "data"),
        *_ROOMY,
        *_durability(checkout),
    ]


def _durability(checkout: Path) -> tuple[str, ...]:
    """Returns the options with which an ACK means the same in every checkout; versions without a journal need none."""
    settings = checkout / "src" / "clasp_relay" / "settings.py"
    knows = settings.exists() and "    durability: " in settings.read_text("utf-8")
    return ("--durability", "snapshot") if knows else ()


def _commit(checkout: Path) -> str:
    """Returns the commit of the sources; sources that are not a checkout have none."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=checkout, check=False
    )
    return result.stdout.strip() or "no checkout"


def relay(checkout: Path = ROOT) -> Kind:
    """The relay in open mode: no accounts, no policy."""
    return Kind(
        RELAY if checkout == ROOT else f"{RELAY}{BEFORE}",
        _commit(checkout),
        "clasp",
        lambda port, _auth_port, folder: [*_relay_command(port, folder, checkout), "--auth-port", "0"],
        environment=_environment(checkout),
        takes_options=True,
    )


def mqtt_door() -> Kind:
    """The relay in open mode, as an MQTT broker: for a comparison with another one."""
    return Kind(
        MQTT_DOOR,
        _commit(ROOT),
        "mqtt",
        lambda port, own_port, folder: [
            *_relay_command(own_port, folder, ROOT),
            "--auth-port",
            "0",
            "--mqtt-port",
            str(port),
        ],
        environment=_environment(),
        takes_options=True,
    )


def chat(checkout: Path = ROOT) -> Kind:
    """The relay with tokens and the chat policy: no message rate, and limits raised."""

    def command(port: int, auth_port: int, folder: Path) -> list[str]:
        policy = json.loads((checkout / "src/clasp_relay/access/policies/chat.json").read_text("utf-8"))
        policy["rate_limits"] = _RAISED
        config = folder / "chat.json"
        config.write_text(json.dumps(policy), "utf-8")
        options = ["--auth-port", str(auth_port), "--app-config", str(config), "--rate-limit", "0"]
        options += ["--admin-token", str(folder / "admin.token"), "--max-params-per-subject", "300000"]
        return [*_relay_command(port, folder, checkout), *options]

    name = CHAT if checkout == ROOT else f"{CHAT}{BEFORE}"
    return Kind(name, _commit(checkout), "clasp", command, True, _environment(checkout), True)


def nats_program() -> str:
    """Returns the path of nats-server, which is installed with Go if it is missing.

    Raises:
        ServerError: it is missing and cannot be installed.
    """
    path = shutil.which("nats-server", path=f"{BUILD}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        go = shutil.which("go")
        if go is None:
            raise ServerError(f"{NATS} is missing; with Go: go install {NATS_MODULE}")
        print(f"installing {NATS_MODULE}", file=sys.stderr, flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [go, "install", NATS_MODULE], env={**os.environ, "GOBIN": str(BUILD)}, cwd=BUILD, check=False
        )
        if result.returncode:
            raise ServerError(f"{NATS} is missing and could not be installed: go install {NATS_MODULE}")
        path = str(BUILD / "nats-server")
    return path


def nats() -> Kind:
    """nats-server as a plain broker.

    Raises:
        ServerError: it is missing and cannot be installed.
    """
    path = nats_program()
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return Kind(
        NATS,
        text.split()[-1].lstrip("v"),
        "nats",
        lambda port, _auth_port, _folder: [path, "-a", "127.0.0.1", "-p", str(port)],
    )


def mosquitto() -> Kind:
    """Mosquitto, as Debian packages it.

    Raises:
        ServerError: it is not installed.
    """
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if path is None:
        raise ServerError(f"{MOSQUITTO} is missing; with apt: apt-get install mosquitto")
    text = subprocess.run([path, "-h"], capture_output=True, text=True, check=False).stdout

    def command(port: int, _auth_port: int, folder: Path) -> list[str]:
        config = folder / "mosquitto.conf"
        config.write_text(_MOSQUITTO_CONFIG.format(port=port), "ascii")
        return [path, "-c", str(config)]

    return Kind(MOSQUITTO, text.split()[2], "mqtt", command)


def plain() -> Kind:
    """The baseline on Autobahn."""
    return Kind(
        PLAIN,
        f"Autobahn {version('autobahn')}",
        "clasp",
        lambda port, _auth_port, _folder: [sys.executable, "-m", "bench.peers.plain_autobahn", str(port)],
        environment=_environment(),
    )


def other(text: str) -> Kind:
    """A further server that speaks CLASP, such as another checkout of the relay.

    Args:
        text: ``NAME=COMMAND``; ``{port}`` and ``{folder}`` in the command are replaced.
    """
    name, _, words = text.partition("=")
    command = words.split()
    return Kind(
        name,
        "",
        "clasp",
        lambda port, _auth_port, folder: [word.format(port=port, folder=folder) for word in command],
    )


def available() -> tuple[list[Kind], list[str]]:
    """Returns the servers that can be run here, in the order of the tables, and why the others cannot."""
    kinds: list[Kind] = []
    missing: list[str] = []
    for make in (relay, chat, nats, mosquitto, plain):
        try:
            kind = make()
            with running(kind) as server:
                if server.tokens is not None:
                    server.tokens.guests(1)
        except (ServerError, OSError, ValueError, AssertionError) as error:
            missing.append(str(error))
        else:
            kinds.append(kind)
    return kinds, missing
