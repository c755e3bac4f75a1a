"""The description of the auth API, as OpenAPI 3.0.

``openapi.json`` is what is served; ``docs/openapi.yaml`` is the same for people to read.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["load_openapi"]


def load_openapi() -> dict[str, Any]:
    """Returns the document."""
    text = (files("clasp_relay.http") / "openapi.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document
