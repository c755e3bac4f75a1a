"""The relay with its core compiled does the same: built in a folder of its own, started, and asked by a client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest

from clasp_relay.wire.messages import Ack, Error, Publish, Set, Snapshot, Subscribe
from clasp_relay.wire.values import encode_value
from tests.integration.process import ROOT, RelayTestCase
from tests.integration.raw import RawClient

CLASP_RELAY = ("-c", "from clasp_relay.cli import main; main()")

ORIGIN = (
    "import clasp_relay.core.relay, clasp_relay.wire.codec as c; print(clasp_relay.core.relay.__file__, c.__file__)"
)


def build(folder: Path) -> Path:
    """Compiles a copy of the sources and returns where Python finds the package.

    Raises:
        SkipTest: there is no compiler.
    """
    if shutil.which("cc") is None:
        raise SkipTest("left out: no C compiler (apt-get install gcc libc6-dev)")
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise SkipTest("left out: mypyc or setuptools is missing (pip install mypy setuptools)")
    project = folder / "project"
    project.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    for name in ("src", "twisted"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "web"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Unoptimised: what is tried here is that it does the same, and the compiler takes a third of the time.
    environment |= {"CLASP_RELAY_COMPILE": "1", "CLASP_RELAY_COMPILE_LEVEL": "0"}
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=project,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return project / "src"


class CompiledTests(RelayTestCase):
    """One test, since compiling takes its time."""

    def test_compiled_relay_passes_values_on(self) -> None:
        """What is set, refused, published and asked for is what it is without a compiler."""
        package = build(self.folder)
        variables = {"PYTHONPATH": str(package)}
        where = subprocess.run(
            [sys.executable, "-c", ORIGIN], env=os.environ | variables, capture_output=True, text=True, check=True
        )
        self.assertTrue(all(path.endswith(".so") for path in where.stdout.split()), where.stdout)
        relay = self.start(command=CLASP_RELAY, variables=variables)
        writer, reader = RawClient.live(relay.port), RawClient.live(relay.port)
        self.addCleanup(writer.close)
        self.addCleanup(reader.close)
        reader.send(Subscribe(1, "/room/**"))
        reader.settle()
        for number in range(1, 4):
            writer.send(Set("/room/1", encode_value(number)), qos=1)
            self.assertEqual(writer.receive(Ack).revision, number)
            self.assertEqual(reader.receive(Set), Set("/room/1", encode_value(number), number))
        writer.send(Set("/room/1", encode_value(0), revision=1), qos=1)
        self.assertEqual(writer.receive(Error).error, 400)
        writer.send(Publish("/room/2", value=encode_value({"text": "hello"})))
        self.assertEqual(reader.receive(Publish).value, encode_value({"text": "hello"}))
        newcomer = RawClient.live(relay.port)
        self.addCleanup(newcomer.close)
        newcomer.send(Subscribe(1, "/room/*"))
        self.assertEqual([param.revision for param in newcomer.receive(Snapshot).params], [3])
        self.assertEqual(relay.stop(), 0)
