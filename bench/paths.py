"""Where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

BUILD = ROOT / "build" / "bench"
"""What is compiled, installed and written while measuring; git ignores it."""

GENERATOR_SOURCES = ROOT / "bench" / "c"
