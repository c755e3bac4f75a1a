"""Paths of the benchmarks' files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

BUILD = ROOT / "build" / "bench"
"""The folder of compiled, installed and written files; git ignores it."""

GENERATOR_SOURCES = ROOT / "bench" / "c"
