"""The shape of the project: tests mirror modules, functions stay short, layers stay apart."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "clasp_relay"

LONGEST_FUNCTION = 80
"""Lines, with its docstring. What outgrows it has two jobs."""

WITHOUT_TESTS = {
    "__main__.py": "one call, made by the tests of cli",
    "core/ports.py": "interfaces, implemented and tested in net and by the tests of core",
    "cluster/exchange/ports.py": "interfaces, implemented and tested in cluster/nats and by the tests of the node",
    "wire/constants.py": "numbers",
    "wire/messages.py": "fields; the tests of the codec make one of each",
}
"""Modules without a test of their own, and why."""

WITHOUT_A_MODULE = {"test_layout.py", "test_packaging.py", "access/test_sessions_fuzz.py", "core/test_codecs.py"}
"""Tests about the project or a folder as a whole; so are all in the folders of ``ACROSS``."""

ACROSS = ("deploy", "integration", "pytest_only")
LINT = ("-m", "ruff", "check", "--no-cache", "--output-format=concise")
SKIPPED_FOLDERS = {"node_modules", "coverage", "build", "dist", "data", "config", "__pycache__"}
ABOVE_THE_LAYERS = ("assembly", "command_line")
LAYERS = (("wire",), ("core",), ("access", "storage", "net"), ("doors",), ("rules",), ("push",), ("http",))
"""From the lowest one up; the folders of one entry are beside each other."""
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
        made = ("dropin.cache", ".git")  # the latter is a file in a second working tree
        written = (Path(folder, name) for name in files if name not in made and not name.startswith(".coverage"))
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
    """Functions keep to one job."""

    def test_no_function_is_longer_than_can_be_seen_at_once(self) -> None:
        """A module is as long as its concept; a function fits on a screen."""
        lengths = {
            f"{name}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
            for name, path in modules().items()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        self.assertEqual({name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}, {})


RAISED_ONCE = {
    "cluster/nats/engine.py: self._fault": "ends the engine",
}
"""Attributes that are raised all the same, and why."""


class RaiseTests(SynchronousTestCase):
    """What is raised is made for that: the traceback of an exception that is kept grows with each raise of it."""

    def test_no_kept_exception_is_raised(self) -> None:
        """Neither a constant nor an attribute; ``again`` makes an equal one."""
        found = {
            f"{name}: {ast.unparse(node.exc)}"
            for name, path in modules().items()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Raise)
            and (
                (isinstance(node.exc, ast.Attribute) and not node.exc.attr[0].isupper())  # a class of a module
                or (isinstance(node.exc, ast.Name) and node.exc.id.isupper())
            )
        }
        self.assertEqual(found, set(RAISED_ONCE))


class LayerTests(SynchronousTestCase):
    """Imports point one way."""

    def test_linter_refuses_io_in_the_layers_below(self) -> None:
        """A module of wire or core that imports a socket, a clock or a layer above it does not pass the linter."""
        for layer in ("wire", "core"):
            for name in BELOW_EVERYTHING:
                with self.subTest(layer=layer, name=name):
                    self.assert_refused(layer, name)

    def test_each_folder_bans_the_layers_above_it(self) -> None:
        """And the cluster, which only ``assembly`` imports."""
        for rank, folders in enumerate(LAYERS):
            above = {f"clasp_relay.{name}" for others in (*LAYERS[rank + 1 :], ("cluster",)) for name in others}
            for folder in folders:
                with self.subTest(folder=folder):
                    config = tomllib.loads((PACKAGE / folder / "ruff.toml").read_text("utf-8"))
                    banned = config["lint"]["flake8-tidy-imports"]["banned-api"]
                    self.assertEqual(above - set(banned), set())

    def test_linter_refuses_what_puts_the_relay_together(self) -> None:
        """Every folder below ``assembly`` and ``service`` may import neither."""
        for layer in sorted({Path(name).parts[0] for name in modules() if "/" in name} - set(ABOVE_THE_LAYERS)):
            for name in ("clasp_relay.assembly", "clasp_relay.service"):
                with self.subTest(layer=layer, name=name):
                    self.assert_refused(layer, name)

    def assert_refused(self, layer: str, name: str) -> None:
        """Asserts that a module of a folder that imports something does not pass the linter."""
        result = subprocess.run(
            [sys.executable, *LINT, "--stdin-filename", str(PACKAGE / layer / "probe.py"), "-"],
            input=f"import {name}\n",
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        self.assertIn("TID251", result.stdout, result.stderr)


class CircleTests(SynchronousTestCase):
    """Folders depend on each other in one direction."""

    def test_no_folder_imports_itself_through_others(self) -> None:
        """Imports that only the type checker reads count, too."""
        self.assertEqual(circles(folder_imports()), [])

    def test_no_module_of_net_imports_itself_through_others(self) -> None:
        """Nor for the type checker only."""
        net = {name for name in modules() if name.startswith("net/")}
        found: dict[str, set[str]] = {}
        for name in net:
            for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    other = node.module.replace(".", "/").removeprefix("clasp_relay/") + ".py"
                    if other in net:
                        found.setdefault(name, set()).add(other)
        self.assertEqual(circles(found), [])

    def test_a_circle_is_found(self) -> None:
        """The test above could fail."""
        self.assertEqual(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}), [{"a", "b", "c"}])


def folder_imports() -> dict[str, set[str]]:
    """Returns which folders import which; a module that stands beside folders counts as one."""
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("clasp_relay."):
                here = unit_of(name.removesuffix(".py"))
                for alias in node.names:
                    module = f"{node.module}.{alias.name}".replace(".", "/").removeprefix("clasp_relay/")
                    if not (PACKAGE / f"{module}.py").exists() and not (PACKAGE / module).is_dir():
                        module = module.rpartition("/")[0]
                    there = unit_of(module)
                    if there != here:
                        found.setdefault(here, set()).add(there)
    return found


def unit_of(module: str) -> str:
    """Returns the folder of a module; the module itself at the top and directly in ``core``."""
    if (PACKAGE / module).is_dir():
        return module
    folder = module.rpartition("/")[0]
    return module if folder in ("", "core") else folder


def circles(imports: Mapping[str, Set[str]]) -> list[set[str]]:
    """Returns the groups of which every member imports every other, through others or not."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in imports.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    reached = {name: reach(name) for name in imports}
    found: list[set[str]] = []
    for name, others in reached.items():
        group = {other for other in others if name in reached.get(other, ())}
        if group and group not in found:
            found.append(group)
    return found


class StandaloneTests(SynchronousTestCase):
    """The project can be read and built anywhere."""

    def test_no_file_mentions_a_machine(self) -> None:
        """Nothing points outside the repository, at a folder of one machine."""
        places = [("/" + name + "/").encode() for name in ("work", "tmp/v")] + [b"../" + b"shared"]
        found = [str(path.relative_to(ROOT)) for path in project_files() if any(p in path.read_bytes() for p in places)]
        self.assertEqual(found, [])
