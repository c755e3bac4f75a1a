"""The Dockerfile: what it says, and what its steps leave."""

from __future__ import annotations

import re
import stat
import tempfile
from configparser import ConfigParser
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.dockerfile import copy_context, in_context, read_dockerfile
from tests.deploy.image import Builder, built_image
from tests.deploy.tools import ROOT

POLICIES = ROOT / "src" / "clasp_relay" / "access" / "policies"


LOCKED = re.compile(r"^([a-z0-9-]+)==([\d.]+)(.*(?:\n .*)*)", re.MULTILINE)
"""Name, version, and what stands behind, of each line of the lock file."""

PROGRAMS = {
    "npm": '#!/bin/sh\n[ -f package-lock.json ] && [ ! -e src ] && echo "npm $*" >>/said\n',
    "npx": '#!/bin/sh\necho "npx $*" >>/said\nmkdir -p "$4" && cp index.html "$4"\n',
}
"""Stand for npm, which must not need the sources, and vite."""


class RuleTests(SynchronousTestCase):
    """What may stand in it."""

    def setUp(self) -> None:
        """Reads it."""
        self.stages = read_dockerfile()
        self.runtime = self.stages[-1]

    def test_bases_are_pinned_by_their_minor_version(self) -> None:
        """None is whatever is the latest."""
        for stage in self.stages:
            with self.subTest(stage=stage.name):
                self.assertRegex(stage.base, r"^[a-z]+:\d+\.\d+-slim$")
        self.assertEqual(self.runtime.base, "python:3.13-slim")
        self.assertEqual(self.stages[1].base, self.runtime.base, "the environment is made for the Python that runs it")

    def test_image_runs_as_a_user_with_a_fixed_number(self) -> None:
        """Not as root; and the files of a volume stay its own from image to image."""
        self.assertEqual(self.runtime.last("USER").rest, "clasp")
        made = next(step.rest for step in self.runtime.all("RUN") if "useradd" in step.rest)
        self.assertIn("--uid 999 --gid 999", made)

    def test_commands_are_in_exec_form(self) -> None:
        """The relay is process 1 and gets the signals; no shell stands before it."""
        self.assertEqual(self.runtime.last("ENTRYPOINT").exec_form, ["clasp-relay"])
        self.assertEqual(
            self.runtime.last("CMD").exec_form, ["--data-dir", "/data", "--health-port", "7360", "--app-config", "chat"]
        )
        self.assertEqual(self.runtime.health_command[:2], ["python", "-c"])

    def test_health_is_asked_for_without_help(self) -> None:
        """Neither curl nor wget is in the image."""
        self.assertNotRegex(" ".join(self.runtime.health_command), r"curl|wget")
        compile(self.runtime.health_command[2], "HEALTHCHECK", "exec")

    def test_steps_keep_to_the_rules(self) -> None:
        """No ADD, no sudo, no cd; pip keeps nothing, and the runtime installs nothing."""
        for stage in self.stages:
            self.assertEqual(stage.all("ADD"), [])
            for step in stage.all("RUN"):
                with self.subTest(step=step.rest):
                    self.assertNotRegex(step.rest, r"\b(sudo|cd|curl|wget|apt|chmod 777)\b")
                    pips = len(re.findall(r"\bpip (?:\S+ \S+ )?(?:wheel|install)\b", step.rest))
                    self.assertEqual(pips, step.rest.count("--no-cache-dir"))
            for step in stage.all("WORKDIR"):
                self.assertTrue(step.rest.startswith("/"), step.rest)
        self.assertNotRegex(" ".join(step.rest for step in self.runtime.all("RUN")), r"\b(pip|apt-get|gcc|npm)\b")

    def test_dependencies_are_pinned_by_their_hashes(self) -> None:
        """Whatever pip gets is in the lock file: the relay's dependencies, theirs, and what builds its wheel."""
        fetching = [step.rest for step in self.stages[1].all("RUN") if "pip wheel" in step.rest]
        self.assertIn("--require-hashes", fetching[0])
        self.assertIn("--only-binary :all:", fetching[0])
        self.assertIn("--requirement requirements.lock", fetching[0])
        for rest in fetching[1:]:
            self.assertEqual(rest.count("--no-index"), len(re.findall(r"\bpip (?:wheel|install)\b", rest)), rest)
            self.assertIn("--no-build-isolation", rest)
        pins = LOCKED.findall((ROOT / "requirements.lock").read_text(encoding="utf-8"))
        self.assertEqual([name for name, _, hashes in pins if "--hash=sha256:" not in hashes], [])
        versions = {name: version for name, version, _ in pins}
        self.assertIn("setuptools", versions)
        config = ConfigParser()
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        wanted = re.findall(r"^([\w-]+) >= ([\d.]+)$", config["options"]["install_requires"], re.MULTILINE)
        self.assertGreaterEqual(len(wanted), 10)
        for name, lowest in wanted:
            with self.subTest(name):
                self.assertGreaterEqual(_numbers(versions[name]), _numbers(lowest))

    def test_context_holds_what_is_copied_and_no_secrets(self) -> None:
        """.dockerignore lets in sources only."""
        files = {str(path) for path in in_context()}
        for stage in self.stages:
            for step in stage.all("COPY"):
                sources = [source for source in step.rest.split()[:-1] if not step.rest.startswith("--from")]
                for source in sources:
                    with self.subTest(source):
                        found = any(re.match(_glob(source), name) for name in files)
                        self.assertTrue(found or "[" in source)
        first = {name.split("/")[0] for name in files}
        allowed = {"LICENSE", "README.md", "pyproject.toml", "requirements.lock", "setup.cfg", "src", "twisted"}
        allowed |= {"apps", "deploy"}
        self.assertEqual(first - allowed, set())
        kept_out = re.compile(r"__pycache__|node_modules|\.egg-info|/dist/|\.env|\.git/|\.db$")
        self.assertEqual([name for name in files if kept_out.search(name)], [])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _glob(source: str) -> str:
    """Returns what finds a source of COPY, or anything below it."""
    pattern = re.escape(source).replace(r"\*", "[^/]*")
    return re.sub(r"\\\[(.)\\\]", r"\1", pattern) + r"(/|$)"


class AppStageTests(SynchronousTestCase):
    """The stage that builds the app; npm and vite themselves are the app's own tests' business."""

    def test_app_is_built_from_its_lock_file_and_sources(self) -> None:
        """Packages first, so that a change of the sources alone does not fetch them again."""
        if not (ROOT / "apps" / "chat" / "package.json").exists():
            raise SkipTest("there is no app")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        copy_context(Path(folder.name) / "context")
        stage = read_dockerfile()[0]
        layer = Builder(Path(folder.name) / "context", Path(folder.name) / "layers").build(stage, programs=PROGRAMS)
        said = layer.inside("/said").read_text().splitlines()
        self.assertEqual(said, ["npm ci --no-audit --no-fund", "npx vite build --outDir /web --emptyOutDir"])
        self.assertEqual(layer.inside("/web/index.html").read_bytes(), (ROOT / "apps/chat/index.html").read_bytes())
        for name in ("package.json", "package-lock.json", "index.html", "vite.config.ts", "tsconfig.json", "src"):
            self.assertTrue(layer.inside(f"/app/{name}").exists(), name)


class BuiltImageTests(SynchronousTestCase):
    """What is in the image besides its base, once every step has run."""

    def setUp(self) -> None:
        """Builds it."""
        self.image = built_image()

    def files(self) -> list[str]:
        """Returns the paths of all files that the image adds."""
        upper = self.image.upper
        return ["/" + path.relative_to(upper).as_posix() for path in upper.rglob("*") if not path.is_dir()]

    def test_image_adds_only_what_the_relay_needs(self) -> None:
        """Its environment, the app, the policy, the user: no cache, no pip, no wheel, no compiler."""
        places = ("/opt/clasp/", "/usr/share/clasp/chat/", "/etc/", "/var/log/")
        files = self.files()
        self.assertEqual([path for path in files if not path.startswith(places)], [])
        unwanted = re.compile(r"/\.cache/|/site-packages/pip/|\.whl$|/gcc|/node_modules/|/tests/deploy/")
        self.assertEqual([path for path in files if unwanted.search(path)], [])
        self.assertEqual(
            [path for path in files if path.endswith(".json") and path.startswith("/etc/")], ["/etc/clasp/chat.json"]
        )

    def test_image_carries_the_policy_that_the_rust_relay_has_there(self) -> None:
        """Under the same path, with the rules that its users' app keeps to."""
        policy = self.image.inside("/etc/clasp/chat.json")
        self.assertEqual(policy.read_bytes(), (POLICIES / "chat-compat.json").read_bytes())

    def test_data_belongs_to_the_user(self) -> None:
        """A new volume takes over who owns the folder."""
        data = self.image.inside("/data").stat()
        self.assertEqual((data.st_uid, data.st_gid, stat.S_IMODE(data.st_mode)), (999, 999, 0o700))
        users = self.image.inside("/etc/passwd").read_text()
        self.assertIn("clasp:x:999:999::/data:/usr/sbin/nologin", users)

    def test_program_is_where_the_image_looks_for_it(self) -> None:
        """And runs with the Python of its environment."""
        program = self.image.inside("/opt/clasp/bin/clasp-relay")
        self.assertRegex(program.read_text().splitlines()[0], r"^#!/opt/clasp/bin/python")
        self.assertEqual(stat.S_IMODE(program.stat().st_mode) & 0o111, 0o111)

    def test_image_has_a_page_even_without_the_app(self) -> None:
        """A checkout without apps/chat builds too."""
        page = self.image.inside("/usr/share/clasp/chat/index.html")
        self.assertEqual(page.read_bytes(), Path(ROOT, "deploy/placeholder/index.html").read_bytes())
