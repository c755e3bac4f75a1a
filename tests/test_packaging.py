"""A wheel, built and installed as a user would: the commands are there, and twistd finds the plugin."""

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import __version__

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
