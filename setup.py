"""Compiles the relay's core with mypyc where CLASP_RELAY_COMPILE=1 asks for it; all else is in setup.cfg.

The same sources run either way. What compiling gives is in docs/performance.md.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

COMPILER = "mypy >= 2.4, < 3"

INTERPRETED = ("ports.py", "port.py", "observer.py", "waiting.py", "identity.py")
"""Not compiled: what programs that embed the relay implement or derive from, and a class that is referred to weakly."""


def modules() -> list[str]:
    """Returns the paths of what is compiled: what every message passes, and nothing that knows Twisted."""
    package = Path("src") / "clasp_relay"
    core = package / "core"
    folders = (package / "wire", core, *(core / name for name in ("state", "rights", "fanout", "session", "handlers")))
    found = (path for folder in folders for path in sorted(folder.glob("*.py")))
    return [str(path) for path in found if path.name not in INTERPRETED]


def extensions() -> list[object]:
    """Returns what is to be compiled; nothing before pip has fetched the compiler that we ask it for."""
    try:
        from mypyc.build import mypycify  # noqa: PLC0415  a build without it needs no compiler
    except ImportError:
        if {"bdist_wheel", "build_ext", "editable_wheel"} & set(sys.argv):
            raise SystemExit(f"CLASP_RELAY_COMPILE=1 needs {COMPILER}: pip install mypy") from None
        return []
    # Our settings for checking name plugins that only checking needs.
    return list(
        mypycify(
            ["--config-file=", "--ignore-missing-imports", *modules()],
            opt_level=os.environ.get("CLASP_RELAY_COMPILE_LEVEL", "3"),
        )
    )


if os.environ.get("CLASP_RELAY_COMPILE") == "1":
    setup(setup_requires=[COMPILER], ext_modules=extensions())
else:
    setup()
