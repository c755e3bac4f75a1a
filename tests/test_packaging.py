"""A wheel, built and installed as a user would: the commands are there, and twistd finds the plugin."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import __version__
from tests.deploy import tools

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "src", "twisted")


def run(folder: Path, *command: str | Path) -> str:
    """Returns the stdout of a command that must succeed, run outside the repository."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"{command}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


class WheelTests(SynchronousTestCase):
    """One test, since an installation takes its time."""

    def test_wheel_runs_in_an_empty_environment(self) -> None:
        """The wheel has code, data and plugin; ``clasp-relay`` and ``twistd clasp-relay`` answer."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        # A copy: setuptools leaves a build folder beside what it builds, and would take old modules from it.
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dropin.cache")
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / "project" / name, ignore=ignored)
            else:
                (folder / "project").mkdir(exist_ok=True)
                shutil.copy(ROOT / name, folder / "project" / name)
        run(folder, sys.executable, "-m", "venv", "venv")
        binaries = folder / "venv" / "bin"
        run(folder, binaries / "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", "./project")
        (wheel,) = (folder / "wheels").iterdir()
        self.assertEqual(wheel.name, f"clasp_relay-{__version__}-py3-none-any.whl")

        files = zipfile.ZipFile(wheel).namelist()
        sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
        self.assertEqual(sources - set(files), set())
        self.assertIn("clasp_relay/py.typed", files)
        self.assertEqual(
            [name for name in files if name.startswith("twisted/")], ["twisted/plugins/clasp_relay_plugin.py"]
        )

        run(folder, binaries / "pip", "install", "--quiet", wheel)
        self.assertEqual(run(folder, binaries / "clasp-relay", "--version"), f"clasp-relay {__version__}\n")
        for command in ([binaries / "clasp-relay"], [binaries / "twistd", "clasp-relay"]):
            self.assertIn("--data-dir=", run(folder, *command, "--help"))
        # Everything that the relay imports at its start is among what the wheel requires.
        run(folder, binaries / "python", "-c", "import clasp_relay.service, clasp_relay.cli")


class MetadataTests(SynchronousTestCase):
    """What setup.cfg says."""

    def test_setup_cfg_lists_the_plugin(self) -> None:
        """The plugin is one module of a package that is Twisted's."""
        config = ConfigParser(interpolation=None)
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        self.assertEqual(config["options"]["py_modules"].split(), ["twisted.plugins.clasp_relay_plugin"])
        self.assertFalse((ROOT / "twisted" / "plugins" / "__init__.py").exists())
        self.assertFalse((ROOT / "twisted" / "__init__.py").exists())


class MakeTests(SynchronousTestCase):
    """``make`` in a folder whose name the shell would take apart."""

    def setUp(self) -> None:
        """Makes a checkout without sources, and programs that write down what they are called with."""
        self.folder = Path(self.mktemp()).absolute() / "a b's $HOME"
        self.folder.mkdir(parents=True)
        for name in ("Makefile", "setup.cfg"):
            shutil.copy(ROOT / name, self.folder)
        app = self.folder / "apps" / "chat"
        app.mkdir(parents=True)
        (app / "package.json").write_text("{}")
        (app / "package-lock.json").write_text("{}")
        self.programs = self.folder.parent / "programs"
        self.programs.mkdir()
        self.calls = self.folder.parent / "calls"
        write_down = f'printf "%s" "$0" >> {self.calls}; for each; do printf "|%s" "$each" >> {self.calls}; done'
        write_down += f"; echo >> {self.calls}"
        for name in ("node", "npm", "npx", "python3"):
            self.program(self.programs / name, write_down)
        made = f"mkdir -p .venv/bin; cp {self.programs}/npm .venv/bin/pip; "
        made += f"cp {self.programs}/npm .venv/bin/clasp-relay; "
        # The new environment's own Python is asked for the folder of its packages.
        made += 'printf "#!/bin/sh\\necho .venv" > .venv/bin/python; chmod +x .venv/bin/python'
        self.program(self.programs / "python3", made)
        self.program(self.programs / "npx", write_down + '; mkdir -p "$4"; touch "$4/index.html"')

    def program(self, path: Path, script: str) -> None:
        """Writes a program."""
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def test_run_works_in_a_folder_with_spaces(self) -> None:
        """The app is built into that folder and no other one, which would be emptied."""
        result = subprocess.run(
            ["make", "run", "PYTHON=python3"],
            cwd=self.folder,
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": "/nowhere"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        calls = [line.split("|") for line in self.calls.read_text("utf-8").splitlines()]
        (build,) = [arguments for program, *arguments in calls if program.endswith("npx")]
        self.assertEqual(build[:4], ["vite", "build", "--outDir", f"{self.folder}/src/clasp_relay/web"])
        self.assertEqual(calls[-1], [".venv/bin/clasp-relay", "--data-dir", "./data"])
        self.assertEqual((self.folder / ".venv" / "clasp_relay_root.pth").read_text("utf-8"), f"{self.folder}\n")

    def test_benchmark_of_the_chat_finds_its_files_in_a_folder_with_spaces(self) -> None:
        """It names them to Vite by paths that are there."""
        app = self.folder / "apps" / "chat"
        for name in ("bench", "src"):
            (app / name).mkdir()
        shutil.copy(ROOT / "apps" / "chat" / "bench" / "run.mjs", app / "bench")
        vite = app / "node_modules" / "vite"
        vite.mkdir(parents=True)
        (vite / "package.json").write_text('{"type": "module", "exports": "./vite.js"}')
        says = "console.log(JSON.stringify([path, options.resolve.alias['@']]))"
        (vite / "vite.js").write_text(f"export const runnerImport = (path, options) => {says}")
        result = subprocess.run(
            [tools.required(tools.node), app / "bench" / "run.mjs"], capture_output=True, text=True, check=False
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout), [str(app / "bench" / "measure.ts"), str(app / "src")])

    def test_checkout_runs_in_a_folder_with_spaces(self) -> None:
        """``python -m clasp_relay`` and twistd with its plugin, from there."""
        for name in ("src", "twisted"):
            (self.folder / name).symlink_to(ROOT / name)
        paths = f"{self.folder / 'src'}{os.pathsep}{self.folder}"
        twistd = "from twisted.scripts.twistd import run; run()"
        for command in (["-m", "clasp_relay"], ["-c", twistd, "clasp-relay"]):
            with self.subTest(command=command):
                result = subprocess.run(
                    [sys.executable, *command, "--help"],
                    cwd=self.folder,
                    env={**os.environ, "PYTHONPATH": paths},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                self.assertIn("--data-dir=", result.stdout)
