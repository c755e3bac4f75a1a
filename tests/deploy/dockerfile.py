"""Reads the Dockerfile and .dockerignore as far as this project uses them."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.deploy.tools import ROOT


class Step(NamedTuple):
    """One instruction."""

    word: str
    """Which one, in capitals."""
    rest: str
    """What follows it, on one line."""

    @property
    def exec_form(self) -> list[str] | None:
        """The words of an instruction in exec form; None for the shell form."""
        if not self.rest.startswith("["):
            return None
        words: list[str] = json.loads(self.rest)
        return words


@dataclass
class Stage:
    """What stands between a FROM and the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, word: str) -> list[Step]:
        """Returns the steps of one kind."""
        return [step for step in self.steps if step.word == word]

    def last(self, word: str) -> Step:
        """Returns the step of its kind that counts."""
        return self.all(word)[-1]

    @property
    def health_command(self) -> list[str]:
        """The command of the HEALTHCHECK."""
        command = Step("CMD", self.last("HEALTHCHECK").rest.partition(" CMD ")[2]).exec_form
        assert command is not None, "a health check in shell form"
        return command

    @property
    def environment(self) -> dict[str, str]:
        """What the ENV steps set; ``$PATH`` stands for what the base has."""
        pairs = (pair.partition("=") for step in self.all("ENV") for pair in shlex.split(step.rest))
        return {name: value for name, _, value in pairs}


def read_dockerfile() -> list[Stage]:
    """Returns the stages of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    for line in joined.splitlines():
        step = Step(*line.split(maxsplit=1))
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            stages.append(Stage(base, name or str(len(stages))))
        else:
            stages[-1].steps.append(step)
    return stages


def in_context() -> Iterator[PurePosixPath]:
    """Yields the files that .dockerignore lets into the build, relative to the repository; the last rule wins."""
    rules = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for folder, names, files in os.walk(ROOT):
        here = PurePosixPath(Path(folder).relative_to(ROOT).as_posix())
        names[:] = [name for name in names if name not in {".git", "node_modules"}]
        yield from (here / name for name in files if not _ignored(here / name, rules))


def _ignored(path: PurePosixPath, rules: list[str]) -> bool:
    ignored = False
    parents = [path, *path.parents][:-1]
    for rule in rules:
        pattern = rule.removeprefix("!")
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatch(part, pattern[3:]) for part in path.parts)
        else:
            matches = any(fnmatch.fnmatchcase(str(parent), pattern) for parent in parents)
        if matches:
            ignored = not rule.startswith("!")
    return ignored


def copy_context(target: Path, *, without: str = "") -> None:
    """Copies what .dockerignore lets in; ``without`` leaves out a folder as if the project had none."""
    for path in in_context():
        if without and str(path).startswith(without):
            continue
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target / path)
