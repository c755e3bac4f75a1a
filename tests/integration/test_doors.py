"""The doors of a relay that runs as a process, with real sockets and the commands of the documentation."""

from __future__ import annotations

import re
import select
import socket
import struct
import subprocess
import sys
import time

from pythonosc import osc_bundle_builder, osc_message_builder, tcp_client, udp_client
from pythonosc.osc_message import OscMessage as TheirMessage

from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Ack, Hello, Publish, Set, Subscribe
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.doors import door_port, receive_exactly
from tests.integration.node import NodeProcess
from tests.integration.process import PATIENCE_S, ROOT, RelayProcess, RelayTestCase
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

    def test_first_command_of_the_documentation_works(self) -> None:
        """It prints a WELCOME."""
        relay = self.start("--tcp-port", "0")
        (program,) = re.findall(r"python3 -c '\n(.*?)'\n```", DOCUMENT.read_text("utf-8"), re.DOTALL)
        program = program.replace("7340", str(door_port(relay, "CLASP over TCP")))
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertIn("CLASP Relay", printed)
