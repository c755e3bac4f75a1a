"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from clasp_relay.wire.messages import Ack, Set
from clasp_relay.wire.values import encode_value
from tests.integration.node import MODULES, node_command
from tests.integration.process import PATIENCE_S, ROOT, RelayTestCase, environment, wait_until
from tests.integration.raw import RawClient

_PORT = re.compile(r"the relay listens on port (\d+)")


def snippet(section: str, language: str) -> str:
    """Returns the code of a section of the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, section
    code = re.findall(rf"^```{language}\n(.*?)^```$", found[1], re.DOTALL | re.MULTILINE)
    assert len(code) == 1, section
    return str(code[0])


class ReadmeTests(RelayTestCase):
    def run_snippet(self, *command: str) -> str:
        """Runs a program against a new relay and returns what it prints."""
        relay = self.start()
        result = subprocess.run(
            [*command, relay.url],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout

    def test_newcomer_pastes_the_js_snippet(self) -> None:
        """It prints what its comments say."""
        node = node_command()
        (self.folder / "node_modules").symlink_to(MODULES)
        (self.folder / "hello.mjs").write_text(snippet("Use it from JavaScript", "js"), "utf-8")
        printed = self.run_snippet(node, "hello.mjs").splitlines()
        for line in ("/kitchen/light = 0.75", "missing: null", "light: 0.75"):
            self.assertIn(line, printed)
        self.assertNotIn("doorbell", "".join(printed))

    def test_newcomer_pastes_the_python_snippet(self) -> None:
        """It prints what its comments say."""
        (self.folder / "hello.py").write_text(snippet("Use it from Python", "python"), "utf-8")
        printed = self.run_snippet(sys.executable, "hello.py").splitlines()
        for line in ("/garden/light = 0.75", "missing: None", "light: 0.75"):
            self.assertIn(line, printed)
        self.assertNotIn("gate", "".join(printed))

    def test_program_embeds_the_relay(self) -> None:
        """It serves while the program runs, and saves when the program ends."""
        path = self.folder / "embed.py"
        path.write_text(snippet("Embed it", "python"), "utf-8")
        log = self.folder / "log"
        with log.open("wb") as output:
            program = subprocess.Popen(
                [sys.executable, str(path), "0"], cwd=self.folder, env=environment(), stdout=output, stderr=output
            )
        self.addCleanup(_end, program)
        wait_until(lambda: _PORT.search(log.read_text("utf-8")) or program.poll() is not None, "it listens")
        found = _PORT.search(log.read_text("utf-8"))
        assert found is not None, log.read_text("utf-8")
        client = RawClient.live(int(found[1]))
        self.addCleanup(client.close)
        client.send(Set("/embedded", encode_value(1)), qos=1)
        client.receive(Ack)
        program.send_signal(signal.SIGINT)
        self.assertEqual(client.end()[1].code, 1001)
        program.wait(PATIENCE_S)
        self.assertIn('"/embedded"', Path(self.folder, "data", "state.json").read_text("utf-8"))
        self.assertNotIn("Traceback", log.read_text("utf-8"))


def _end(program: subprocess.Popen[bytes]) -> None:
    if program.poll() is None:
        program.kill()
        program.wait()
