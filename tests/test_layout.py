"""The shape of the project: tests mirror modules, modules stay small, layers stay apart."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "clasp_relay"

LONGEST_MODULE = 400
"""Lines. What outgrows it has two jobs."""

WITHOUT_TESTS = {
    "core/ports.py": "interfaces, implemented and tested in net and by the tests of core",
    "wire/constants.py": "numbers",
    "wire/messages.py": "fields; the tests of the codec make one of each",
}
"""Modules without a test of their own, and why."""

WITHOUT_A_MODULE = {"test_layout.py", "test_packaging.py"}
"""Tests about the project as a whole; so are all in the folders of ``ACROSS``."""

ACROSS = ("deploy", "integration", "pytest_only")
LINT = ("-m", "ruff", "check", "--no-cache", "--output-format=concise")
SKIPPED_FOLDERS = {"node_modules", "coverage", "build", "dist", "data", "config", "__pycache__"}
BELOW_EVERYTHING = ("twisted", "autobahn", "sqlite3", "time", "clasp_relay.net", "clasp_relay.service")


def modules() -> dict[str, Path]:
    """Returns the package's modules by their path below it."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {path.relative_to(PACKAGE).as_posix(): path for path in sorted(paths)}


def project_files() -> Iterator[Path]:
    """Yields the files that somebody wrote: none that a tool made."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [
            name
            for name in names
            if name not in SKIPPED_FOLDERS
            and not name.startswith("_trial_temp")
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
        ]
        written = (Path(folder, name) for name in files if name != "dropin.cache" and not name.startswith(".coverage"))
        yield from (path for path in written if path.is_file())  # trial's lock is a link to nowhere


class MirrorTests(SynchronousTestCase):
    """Tests stand where their module stands."""

    def test_every_module_has_a_test_of_its_own(self) -> None:
        """src/clasp_relay/a/b.py is tested by tests/a/test_b.py, unless ``WITHOUT_TESTS`` says why not."""
        missing = [
            name
            for name in modules()
            if name not in WITHOUT_TESTS
            and not (ROOT / "tests" / Path(name).parent / f"test_{Path(name).name}").exists()
        ]
        self.assertEqual(missing, [])

    def test_every_test_has_a_module(self) -> None:
        """A test whose module is gone, or was renamed, is found."""
        tests = (path.relative_to(ROOT / "tests") for path in sorted((ROOT / "tests").rglob("test_*.py")))
        stray = [
            str(path)
            for path in tests
            if path.parts[0] not in ACROSS
            and str(path) not in WITHOUT_A_MODULE
            and (path.parent / path.name.removeprefix("test_")).as_posix() not in modules()
        ]
        self.assertEqual(stray, [])

    def test_every_exception_is_about_a_module(self) -> None:
        """An exception does not outlive its module."""
        self.assertEqual(set(WITHOUT_TESTS) - set(modules()), set())

    def test_every_folder_of_tests_is_a_package(self) -> None:
        """Without ``__init__.py`` two tests of one name would be one module."""
        folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts}
        self.assertEqual([str(folder) for folder in folders if not (folder / "__init__.py").exists()], [])


class SizeTests(SynchronousTestCase):
    """Modules keep to one job."""

    def test_no_module_is_longer_than_its_budget(self) -> None:
        """The longest module can be read at one sitting."""
        lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
        self.assertEqual({name: length for name, length in lengths.items() if length > LONGEST_MODULE}, {})


class LayerTests(SynchronousTestCase):
    """Imports point one way."""

    def test_linter_refuses_io_in_the_layers_below(self) -> None:
        """A module of wire or core that imports a socket, a clock or a layer above it does not pass the linter."""
        for layer in ("wire", "core"):
            for name in BELOW_EVERYTHING:
                with self.subTest(layer=layer, name=name):
                    result = subprocess.run(
                        [sys.executable, *LINT, "--stdin-filename", str(PACKAGE / layer / "probe.py"), "-"],
                        input=f"import {name}\n",
                        capture_output=True,
                        text=True,
                        cwd=ROOT,
                        check=False,
                    )
                    self.assertIn("TID251", result.stdout, result.stderr)


class StandaloneTests(SynchronousTestCase):
    """The project can be read and built anywhere."""

    def test_no_file_mentions_a_machine(self) -> None:
        """Nothing points outside the repository, at a folder of one machine."""
        places = [("/" + name + "/").encode() for name in ("work", "tmp/v")] + [b"../" + b"shared"]
        found = [str(path.relative_to(ROOT)) for path in project_files() if any(p in path.read_bytes() for p in places)]
        self.assertEqual(found, [])
