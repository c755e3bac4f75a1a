"""Skeletons of names: names that look alike have the same skeleton (Unicode Technical Standard #39, section 4).

The table beside this module is generated from Unicode's ``confusables.txt``::

    python -m clasp_relay.access.confusables confusables.txt > src/clasp_relay/access/confusables.json

Skeletons are stored in users.db, so another table needs a schema step that clears them.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["make_table", "skeleton"]

_LINE = re.compile(r"([0-9A-F]+) ;\t([0-9A-F ]+) ;\tMA\t")
_FACTS = re.compile(r"# (Date|Version): (.+)")


def skeleton(name: str) -> str:
    """Returns the skeleton of a name: NFD, each character by its prototype, NFD again.

    Two names with the same skeleton are confusable. A skeleton is for comparison, not for display.
    """
    prototypes = _prototypes()
    decomposed = unicodedata.normalize("NFD", name)
    return unicodedata.normalize("NFD", "".join(prototypes.get(character, character) for character in decomposed))


@cache
def _prototypes() -> Mapping[str, str]:
    text = (files("clasp_relay.access") / "confusables.json").read_text(encoding="utf-8")
    prototypes: dict[str, str] = json.loads(text)["prototypes"]
    return prototypes


def make_table(lines: Iterable[str]) -> dict[str, Any]:
    """Returns the table from the lines of Unicode's ``confusables.txt``.

    Raises:
        ValueError: the lines are not those of such a file.
    """
    facts: dict[str, str] = {}
    prototypes: dict[str, str] = {}
    for line in lines:
        if found := _FACTS.match(line):
            facts[found[1].lower()] = found[2].strip()
        elif found := _LINE.match(line):
            source, prototype = (_text(codes) for codes in found.groups())
            prototypes[source] = prototype
        elif not line.lstrip("\ufeff").startswith("#") and line.strip():
            raise ValueError(f"not a line of confusables.txt: {line!r}")
    if facts.keys() != {"date", "version"} or not prototypes:
        raise ValueError("not Unicode's confusables.txt: no date, version or mappings")
    return {
        "source": f"Unicode confusables.txt {facts['version']} of {facts['date']}",
        "notice": "Copyright Unicode, Inc.; for terms of use, see https://www.unicode.org/terms_of_use.html",
        "prototypes": prototypes,
    }


def _text(codes: str) -> str:
    return "".join(chr(int(code, 16)) for code in codes.split())


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8-sig") as source:
        json.dump(make_table(source), sys.stdout, ensure_ascii=False, indent=0)
        sys.stdout.write("\n")
