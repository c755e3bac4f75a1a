"""Builds the image without an engine: each stage is a layer over this machine's own root, in mounts of its own.

What a layer holds afterwards is what the image would add to its base. Containers run the same way: their own mounts,
processes and network, without a right more than an engine would leave them.
"""

from __future__ import annotations

import atexit
import functools
import glob
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.deploy import tools
from tests.deploy.dockerfile import Stage, Step, copy_context, read_dockerfile
from tests.deploy.processes import PATIENCE_S, Background, wait_until

BASE_PYTHON = "/usr/local/base-python"
"""Stands for the base image's own Python and pip."""

BASE_PATH = f"{BASE_PYTHON}/bin:{os.environ.get('PATH', os.defpath)}"

_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "gshadow": "root:*::\n",
}
"""The users of a base image: nobody else is there."""

_MOUNTS = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir=$LAYER/upper,workdir=$LAYER/work "$LAYER/root"
mount --rbind /dev "$LAYER/root/dev"
"""
_BUILD = f'{_MOUNTS} mount -t proc proc "$LAYER/root/proc"; exec chroot "$LAYER/root" /bin/sh -c "$1"'

_CONTAINER = f"""{_MOUNTS}
mount --bind "$VOLUME" "$LAYER/root/data"
mount -t tmpfs tmpfs "$LAYER/root/tmp"
mount -t proc proc "$LAYER/root/proc"
ip link set lo up
mount -o remount,ro "$LAYER/root"
cd "$LAYER/root"
exec chroot . setpriv --reuid=999 --regid=999 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
    env --ignore-environment --chdir=/data "$@"
"""

BUILD_PATIENCE_S = 300


class Layer:
    """What a stage adds to its base.

    Args:
        folder: where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upper = folder / "upper"
        for name in ("upper/etc", "work", "root"):
            (folder / name).mkdir(parents=True)
        for name, text in _ETC.items():
            (self.upper / "etc" / name).write_text(text)

    def inside(self, path: str) -> Path:
        """Returns where a path of the image is kept."""
        return self.upper / path.lstrip("/")

    def run(self, script: str, folder: str) -> None:
        """Runs a script as RUN does.

        Raises:
            AssertionError: it failed.
        """
        result = subprocess.run(
            [*_unshare("--mount"), "/bin/sh", "-c", _BUILD, "sh", f"cd {folder} && {script}"],
            env=_outer_environment() | {"LAYER": str(self.folder), "HOME": "/root", "PATH": BASE_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_PATIENCE_S,
        )
        if result.returncode != 0:
            raise AssertionError(f"RUN {script}: exit status {result.returncode}\n{result.stdout}{result.stderr}")


def _outer_environment() -> dict[str, str]:
    """Returns this process's environment, which says how packages are got here, without what is about Python's."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def _unshare(*what: str) -> list[str]:
    return [str(tools.required(tools.unshare)), "--propagation", "private", *what]


class Builder:
    """Builds the stages one after the other.

    Args:
        context: the folder that COPY takes from.
        folder: where the layers are kept.
    """

    def __init__(self, context: Path, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self.layers: dict[str, Layer] = {}

    def build(self, stage: Stage, *, with_python: bool = False, programs: Mapping[str, str] | None = None) -> Layer:
        """Builds one stage.

        Args:
            stage: which.
            with_python: the base has a Python and a pip.
            programs: scripts that stand for programs of the base.
        """
        layer = self.layers[stage.name] = Layer(self._folder / stage.name)
        if with_python:
            layer.run(f"{shlex.quote(sys.executable)} -m venv {BASE_PYTHON}", "/")
        for name, script in (programs or {}).items():
            path = layer.inside(f"{BASE_PYTHON}/bin/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script)
            path.chmod(0o755)
        folder = "/"
        for step in stage.steps:
            if step.word == "WORKDIR":
                folder = step.rest
                layer.inside(folder).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                self._copy(step, layer, folder)
            elif step.word == "RUN":
                layer.run(step.rest, folder)
        return layer

    def _copy(self, step: Step, layer: Layer, folder: str) -> None:
        *sources, target = step.rest.split()
        root = self._context
        if sources[0].startswith("--from="):
            root = self.layers[sources.pop(0).removeprefix("--from=")].upper
        found = [Path(path) for source in sources for path in sorted(glob.glob(str(root / source.lstrip("/"))))]
        if not found:
            raise AssertionError(f"COPY {step.rest}: nothing found")
        into = layer.inside(os.path.normpath(os.path.join(folder, target)))
        for path in found:
            if path.is_dir():
                shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
            elif len(sources) > 1 or target.endswith("/"):
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)


@functools.cache
def built_image() -> Layer:
    """Returns the image, built once per process from a checkout without the app."""
    tools.required(tools.unshare)
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    context = Path(folder.name) / "context"
    copy_context(context, without="apps/")
    builder = Builder(context, Path(folder.name) / "layers")
    app, wheels, runtime = read_dockerfile()
    builder.build(app)
    builder.build(wheels, with_python=True)
    return builder.build(runtime)


class Container:
    """The image, running: process 1 of its own processes, alone in its network, as the Compose files start it.

    Args:
        volume: the folder at /data.
        folder: for the log.
        command: in place of the image's.
        variables: more environment.
    """

    def __init__(
        self,
        volume: Path,
        folder: Path,
        command: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        runtime = read_dockerfile()[-1]
        image = built_image()
        path = f"/opt/clasp/bin:{os.defpath}"
        environment = runtime.environment | {"PATH": path, "HOME": "/data"} | dict(variables or {})
        self._variables = [f"{name}={value}" for name, value in environment.items()]
        entrypoint, default = runtime.last("ENTRYPOINT").exec_form, runtime.last("CMD").exec_form
        assert entrypoint is not None
        assert default is not None
        # Another place for each: a layer is mounted by one at a time, and only read here.
        place = Path(tempfile.mkdtemp(dir=folder))
        for name in ("work", "root"):
            (place / name).mkdir()
        shutil.copytree(image.upper, place / "upper", symlinks=True, copy_function=os.link)
        # This machine's Python may lie in root's home, where the image's user could not go.
        (place / "upper" / "root").mkdir(exist_ok=True)
        (place / "upper" / "root").chmod(0o755)
        self._background = Background(
            [
                *_unshare("--mount", "--net", "--pid", "--fork", "--kill-child"),
                *("/bin/sh", "-c", _CONTAINER, "sh", *self._variables, *entrypoint),
                *(default if command is None else command),
            ],
            folder,
            _outer_environment() | {"LAYER": str(place), "VOLUME": str(volume)},
        )

    @property
    def said(self) -> str:
        """What it wrote."""
        return self._background.said

    @property
    def process_one(self) -> int:
        """The number, outside, of the container's process 1."""
        outer = self._background.process.pid
        wait_until(lambda: bool(self._children(outer)), "process 1")
        return int(self._children(outer)[0])

    def kill(self, signal_number: int) -> int:
        """Sends a signal to process 1; returns the exit status of the container."""
        os.kill(self.process_one, signal_number)
        return self._background.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """Ends it if it runs."""
        self._background.process.kill()
        self._background.process.wait(PATIENCE_S)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as ``docker exec`` and the health check do."""
        target = str(self.process_one)
        inside = ["nsenter", "--target", target, "--mount", "--net", "--pid", "--root", "--wd", "--setuid=999"]
        return subprocess.run(
            [*inside, "--setgid=999", "env", "--ignore-environment", *self._variables, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    @staticmethod
    def _children(pid: int) -> list[str]:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
