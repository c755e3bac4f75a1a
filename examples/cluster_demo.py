"""A demo of two relays on one nats-server: ``make cluster-demo``.

Starts nats-server and two relays with their files in a temporary folder, prints the pages to open in two browsers, and
kills the decider each time that Enter is pressed: the other relay takes over, and the killed one is started again.

Each relay serves the chat, so two people at two relays can chat with each other. If the chat was not built, or with
``--faders``, the pages have faders, and there are no accounts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import webbrowser
from pathlib import Path

from clasp_relay.http.web_root import packaged_app
from clasp_relay.workers import nats_program

PAGE = Path(__file__).resolve().with_name("cluster.html")
PORTS = (7331, 7332)
CHAT_PORTS = (7351, 7352)
HEALTH = (7361, 7362)
NATS_PORT = 7342


def start(folder: Path, number: int, *, has_chat: bool) -> subprocess.Popen[bytes]:
    """Starts relay 1 or 2."""
    options = {
        "--host": "127.0.0.1",
        "--port": PORTS[number - 1],
        "--health-port": HEALTH[number - 1],
        "--auth-port": CHAT_PORTS[number - 1] if has_chat else 0,
        "--cluster": f"nats://127.0.0.1:{NATS_PORT}",
        "--relay-name": f"relay-{number}",
        "--data-dir": folder / f"relay-{number}",
        "--log-level": "info,core=warn",
    }
    words = [str(word) for pair in options.items() for word in pair]
    return subprocess.Popen([sys.executable, "-m", "clasp_relay", *words], stdin=subprocess.DEVNULL)


def decider() -> int | None:
    """Returns the number of the decider; None while there is none."""
    for number, port in enumerate(HEALTH, 1):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with contextlib.closing(connection), contextlib.suppress(OSError, ValueError):
            connection.request("GET", "/readyz")
            if json.loads(connection.getresponse().read()).get("role") == "decider":
                return number
    return None


def run(folder: Path, *, has_chat: bool) -> None:
    """Runs until it is interrupted."""
    engine = ("-a", "127.0.0.1", "-p", str(NATS_PORT), "-js", "-sd", str(folder / "engine"))
    with (folder / "nats.log").open("wb") as log:
        nats = subprocess.Popen([nats_program(), *engine], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    relays = {number: start(folder, number, has_chat=has_chat) for number in (1, 2)}
    try:
        chats = [f"http://localhost:{port}/" for port in CHAT_PORTS]
        for page in chats if has_chat else [f"{PAGE.as_uri()}?relay=ws://127.0.0.1:{port}" for port in PORTS]:
            print(f"open {page}", flush=True)
            if "--open" in sys.argv:
                webbrowser.open_new(page)
        print("Enter kills the relay that decides; Ctrl-C ends.", flush=True)
        for _ in sys.stdin:
            number = decider()
            if number is not None:
                relays[number].kill()
                relays[number].wait()
                print(f"relay {number} was killed, and starts again", flush=True)
                relays[number] = start(folder, number, has_chat=has_chat)
        signal.pause()
    finally:
        for process in (*relays.values(), nats):
            process.terminate()
            process.wait()


def main() -> None:
    """Runs in a temporary folder."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="clasp-demo-") as folder, contextlib.suppress(KeyboardInterrupt):
        run(Path(folder), has_chat="--faders" not in sys.argv and packaged_app() is not None)


if __name__ == "__main__":
    main()
