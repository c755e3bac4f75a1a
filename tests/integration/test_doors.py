"""The doors of a relay that runs as a process, with real sockets and the commands of the documentation."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pythonosc import osc_bundle_builder, osc_message_builder, tcp_client, udp_client
from pythonosc.osc_message import OscMessage as TheirMessage
from twisted.trial.unittest import SkipTest

from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Ack, Hello, Publish, Set, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.accounts import AccountsTestCase, put
from tests.integration.doors import door_port, receive_exactly
from tests.integration.node import NodeProcess
from tests.integration.process import PATIENCE_S, ROOT, RelayProcess, RelayTestCase, environment, wait_until
from tests.integration.raw import RawClient
from tests.ports import free_port

DOCUMENT = ROOT / "docs" / "doors.md"


class OscTests(RelayTestCase):
    def test_npm_package_sends_and_is_sent_to(self) -> None:
        """Values, a bundle, and what a browser sets comes back with its types."""
        relay = self.start("--osc-port", "0")
        browser = self.hear(relay)
        script = NodeProcess("osc.mjs", str(door_port(relay, "OSC")))
        self.addCleanup(script.kill)
        came = [browser.receive(Set) for _ in range(4)]
        expected = [("/osc/js/float", 0.5), ("/osc/js/many", [7, "text", True]), ("/osc/js/a", 1), ("/osc/js/b", 2)]
        self.assertEqual([(each.address, decode_value(each.value)) for each in came], expected)
        browser.send(Set("/osc/lamp", encode_value([0.25, "on"])))
        self.assertEqual(script.hear(), ["/lamp", [["f", 0.25], ["s", "on"]]])
        self.assertEqual(script.end()[0], 0)

    def hear(self, relay: RelayProcess) -> RawClient:
        """Returns a CLASP session that hears all OSC."""
        browser = RawClient.live(relay.port)
        self.addCleanup(browser.close)
        browser.send(Subscribe(1, "/osc/**"))
        browser.settle()
        return browser

    def test_liblo_sends_and_is_sent_to(self) -> None:
        """Oscsend writes; oscdump, a target, prints what a browser sets."""
        port = free_port()
        dump = subprocess.Popen(["oscdump", "-L", str(port)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(dump.communicate)
        self.addCleanup(dump.kill)
        relay = self.start("--osc-port", "0", "--osc-target", f"127.0.0.1:{port}=/lamp/**")
        browser = self.hear(relay)
        osc_port = str(door_port(relay, "OSC"))
        for types, arguments, value in (
            ("f", ["0.5"], 0.5),
            ("ihd", ["1", "2", "0.1"], [1, 2, 0.1]),
            ("sT", ["text"], ["text", True]),
        ):
            subprocess.run(["oscsend", "127.0.0.1", osc_port, "/mixer/fader", types, *arguments], check=True)
            self.assertEqual(decode_value(browser.receive(Set).value), value)
        subprocess.run(["oscsend", "127.0.0.1", osc_port, "/go"], check=True)
        self.assertEqual(browser.receive(Publish), Publish("/osc/go", Signal.EVENT))
        assert dump.stdout is not None
        # oscdump may not listen yet when the first ones are sent.
        for number in range(200):
            browser.send(Set("/osc/lamp/1", encode_value([number, 0.1, "on", True])))
            time.sleep(0.05)
            if select.select([dump.stdout], [], [], 0)[0]:
                break
        line = dump.stdout.readline()
        self.assertRegex(line, r'/lamp/1 idsT \d+ 0\.100000 "on" #T')

    def test_python_osc_gets_what_others_change(self) -> None:
        """At the port that it sends from; a resync brings what is set."""
        relay = self.start("--osc-port", "0")
        browser = self.hear(relay)
        client = udp_client.SimpleUDPClient("127.0.0.1", door_port(relay, "OSC"))
        self.addCleanup(client._sock.close)
        client._sock.settimeout(PATIENCE_S)

        def received() -> TheirMessage:
            return TheirMessage(client._sock.recv(65_536))

        client.send_message("/hello", [1, 2.5, "x", b"\1", True, None])
        self.assertEqual(decode_value(browser.receive(Set).value), [1, 2.5, "x", b"\1", True, None])
        browser.send(Set("/osc/lamp", encode_value([1, 0.5])))
        self.assertEqual((received().address, browser.receive(Set).address), ("/lamp", "/osc/lamp"))
        client.send_message("/clasp/resync", [])
        found = {message.address: message.params for message in (received(), received())}
        self.assertEqual(found, {"/hello": [1, 2.5, "x", b"\1", True, None], "/lamp": [1, 0.5]})

    def test_bundle_of_python_osc_is_kept_to_its_time(self) -> None:
        """Within some milliseconds; all of it at once."""
        relay = self.start("--osc-tcp-port", "0")
        browser = self.hear(relay)
        bundle = osc_bundle_builder.OscBundleBuilder(time.time() + 0.5)  # type: ignore[arg-type]  # an int, it says
        for number in range(2):
            message = osc_message_builder.OscMessageBuilder(f"/step/{number}")
            message.add_arg(number)
            bundle.add_content(message.build())
        client = tcp_client.TCPClient("127.0.0.1", door_port(relay, "OSC"))
        self.addCleanup(client.close)
        sent_s = time.monotonic()
        client.send(bundle.build())
        self.assertEqual([browser.receive(Set).address for _ in range(2)], ["/osc/step/0", "/osc/step/1"])
        self.assertGreater(time.monotonic() - sent_s, 0.45)


class FramedTcpTests(RelayTestCase):
    def test_board_sets_what_a_browser_hears(self) -> None:
        """Over real sockets; a stop ends the board's connection in order."""
        relay = self.start("--tcp-port", "0")
        browser = RawClient.live(relay.port)
        self.addCleanup(browser.close)
        browser.send(Subscribe(1, "/board/**"))
        browser.settle()
        with socket.create_connection(("127.0.0.1", door_port(relay, "CLASP over TCP"))) as board:
            for message in (Hello(1, 0, "board"), Set("/board/led", encode_value(True))):
                frame = encode_frame(encode(message), 1)
                board.sendall(struct.pack(">I", len(frame)) + frame)
            self.assertEqual(browser.receive(Set), Set("/board/led", encode_value(True), 1))
            frame = encode_frame(encode(Ack("/board/led", 1)))
            data = b""
            while frame not in data:
                (length,) = struct.unpack(">I", receive_exactly(board, 4))
                data = receive_exactly(board, length)
            self.assertEqual(relay.stop(), 0)
            self.assertEqual(board.recv(1), b"")


class FirstCommandTests(AccountsTestCase):
    """What docs/doors.md has a newcomer paste, run by a shell as it stands there, but for the port."""

    def test_framed_tcp(self) -> None:
        """It prints a WELCOME."""
        relay = self.start("--tcp-port", "0")
        (command,) = blocks("Framed TCP")
        self.assertIn("CLASP Relay", paste(command, {"7340": door_port(relay, "CLASP over TCP")}))

    def test_osc(self) -> None:
        """It sets what the document says."""
        relay = self.start("--osc-port", "0")
        browser = self.hear(relay, "/osc/**")
        (command,) = blocks("OSC")
        self.assertEqual(paste(command, {"8000": door_port(relay, "OSC")}), "")
        self.assertEqual(browser.receive(Set), Set("/osc/mixer/fader", encode_value(0.5), 1))

    def test_mqtt(self) -> None:
        """One sets, the other one prints; curl publishes and listens, too."""
        relay = self.start("--mqtt-port", "0")
        browser = self.hear(relay, "/mqtt/**")
        port = door_port(relay, "MQTT")
        publish, listen = blocks("MQTT")[0].splitlines()
        self.assertEqual(paste(publish, {"1883": port}), "")
        self.assertEqual(browser.receive(Set), Set("/mqtt/lamp/brightness", encode_value(80), 1))
        self.assertEqual(self.listens(listen, {"1883": port}).readline(), b"lamp/brightness 80\n")
        publish, listen = re.findall(r"`(curl [^`]*mqtt://[^`]*)`", section("MQTT"))
        if " mqtt" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
            raise SkipTest("this curl speaks no MQTT")
        there = {"127.0.0.1/": f"127.0.0.1:{port}/"}
        paste(publish, there)
        self.assertEqual(browser.receive(Publish).address, "/mqtt/lamp/brightness")
        self.assertEqual(self.listens(listen, there).read(19)[-2:], b"80")

    def test_http(self) -> None:
        """One makes a token, one sets, the last one prints it."""
        relay = self.start_accounts("--app-config", "none")
        ports = {"7350": relay.auth_port}
        create, change, listen = blocks("HTTP")[0].splitlines()
        words = {"clasp-relay": f"CLASP_DATA_DIR=data {sys.executable} -m clasp_relay"}
        token = paste(f"{create}; echo $TOKEN", words, self.folder).strip()
        variables = {"TOKEN": token}
        wait_until(lambda: relay.api.call("me", None, token, method="GET").status == 200, "the token is good")
        self.assertEqual(json.loads(paste(change, ports, self.folder, variables)), {"revision": 1})
        stream = self.listens(listen, ports, variables)
        heard = b"".join(iter(stream.readline, b"event: live\n"))
        self.assertIn(b'data: {"address": "/lamp/brightness", "value": 0.5, "revision": 1}', heard)

    def test_webhooks(self) -> None:
        """A room gets what is posted; the webhook is listed until it is revoked."""
        relay = self.start_accounts("--app-config", "none")
        reader = self.guest(relay, "ann")
        reader.ask(put("/chat/room/ROOM/meta", {"name": "Builds"}), Subscribe(1, "/chat/**"))
        (block,) = blocks("Webhooks", "###")
        make, post, listing, revoke = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        words = {"clasp-relay": f"CLASP_DATA_DIR=data {sys.executable} -m clasp_relay"}
        path = paste(make, words, self.folder).strip()
        self.assertRegex(path, r"^/hooks/[0-9a-f]{32}$")
        answer = paste(post, {"7350": relay.auth_port, "/hooks/0f3a…": path}, self.folder)
        self.assertEqual(answer, "{}")
        said = reader.receive(Publish)
        assert said.value is not None
        self.assertEqual(said.address, "/chat/room/ROOM/messages")
        self.assertIn("Build 7 is done.", str(decode_value(said.value)))
        header, row = paste(listing, words, self.folder).splitlines()
        self.assertEqual(header.split(), ["ID", "NAME", "TEMPLATE", "ADDRESS"])
        self.assertEqual(row.split()[1:], ["Build", "chat", "/chat/room/ROOM/messages"])
        paste(revoke, {**words, "5f0c21ab": row.split()[0]}, self.folder)
        self.assertEqual(len(paste(listing, words, self.folder).splitlines()), 1)

    def hear(self, relay: RelayProcess, pattern: str) -> RawClient:
        """Returns a CLASP session that hears something."""
        browser = RawClient.live(relay.port)
        self.addCleanup(browser.close)
        browser.send(Subscribe(1, pattern))
        browser.settle()
        return browser

    def listens(
        self, command: str, words: Mapping[str, object], variables: Mapping[str, str] | None = None
    ) -> IO[bytes]:
        """Runs a command that does not end, and returns what it prints."""
        listener = subprocess.Popen(
            ["bash", "-c", f"exec {pasted(command, words)}"],
            env={**environment(), **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        assert listener.stdout is not None
        return listener.stdout


def section(title: str, level: str = "##") -> str:
    """Returns a section of docs/doors.md, up to the next heading."""
    found = re.search(rf"^{level} {title}$(.*?)(?=^##|\Z)", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def blocks(title: str, level: str = "##") -> list[str]:
    """Returns the commands of a section: its code in no particular language."""
    return re.findall(r"^```\n(.*?)\n```$", section(title, level), re.DOTALL | re.MULTILINE)


def pasted(command: str, words: Mapping[str, object]) -> str:
    """Returns a command with other words, such as the port of the test's relay."""
    for word, other in words.items():
        assert word in command, (word, command)
        command = command.replace(word, str(other))
    return command


def paste(
    command: str,
    words: Mapping[str, object],
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Runs a command in a shell and returns what it prints."""
    done = subprocess.run(
        ["bash", "-c", pasted(command, words)],
        cwd=folder,
        env={**environment(), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
