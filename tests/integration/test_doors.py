"""The doors of a relay that runs as a process, with real sockets and the commands of the documentation."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys

from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Ack, Hello, Set, Subscribe
from clasp_relay.wire.values import encode_value
from tests.integration.doors import door_port, receive_exactly
from tests.integration.process import ROOT, RelayTestCase
from tests.integration.raw import RawClient

DOCUMENT = ROOT / "docs" / "doors.md"


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
