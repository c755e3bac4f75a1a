"""Chooses the application policy, and the history rules with it (``docs/operations.md``, Policy)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clasp_relay.access.policy import PACKAGED, Policy
from clasp_relay.access.policy.history_rules import HistoryRules, open_entries, with_max_age
from clasp_relay.errors import StartError

__all__ = ["FOLDERS", "HISTORY_OFF", "NO_POLICY", "choose_history", "choose_policy", "load_policy"]

NO_POLICY = "none"
"""The value of ``--app-config`` for no policy."""

HISTORY_OFF = "off"
"""The value of ``--history`` for no history."""

DAY_US = 86_400_000_000

FOLDERS = (Path("/etc/clasp"), Path("config"))
"""Folders that are searched for a policy file; the second is relative to the working directory."""


def load_policy(name: str) -> Policy:
    """Returns the packaged policy of that name, else the one in the file that it names.

    Raises:
        StartError: there is no such file, or it is not a valid policy.
    """
    return Policy.packaged(name) if name in PACKAGED else Policy.load(name)


def choose_policy(app_config: str | None, folders: Sequence[Path] = FOLDERS) -> tuple[Policy | None, str]:
    """Returns the policy in force (None for none), and a text for the log that says which one it is and why.

    Args:
        app_config: the name of a packaged policy, ``none``, or a path. None: the one JSON file in all of the
            folders; if there is none or more than one, ``chat``.
        folders: the folders that are searched; a missing one counts as empty.

    Raises:
        StartError: the policy, or a folder that exists, cannot be read.
    """
    if app_config == NO_POLICY:
        return None, "none, as --app-config says"
    if app_config is not None:
        return load_policy(app_config), f"{app_config}, as --app-config says"
    found = [path for folder in folders for path in _json_files(folder)]
    if len(found) != 1:
        places = " or ".join(map(str, folders))
        why = ", ".join(map(str, found)) + " are more than one file" if found else f"no JSON file in {places}"
        return Policy.packaged(PACKAGED[0]), f"{PACKAGED[0]}, the default ({why})"
    path = str(found[0])
    try:
        return Policy.load(path), f"{path}, the one JSON file that was found"
    except StartError as error:
        raise StartError(f"{error} (found by itself; --app-config would name another one)") from error


def choose_history(policy: Policy | None, history: int | str | None, *, by_name: bool) -> HistoryRules | None:
    """Returns the history rules in force; None if nothing is kept. For a relay that has a place for entries.

    Args:
        policy: the policy in force; None for none.
        history: for how many days entries are kept, ``off``, or None for the limits of the rules.
        by_name: whether a journal was asked for by name: without a policy it keeps everything, as in the Rust relay.
    """
    if history == HISTORY_OFF:
        return None
    max_age_us = history * DAY_US if isinstance(history, int) else None
    if policy is not None:
        return policy.history_rules(max_age_us) if policy.document.history else None
    if not by_name:
        return None
    entries = open_entries()
    return HistoryRules(entries if max_age_us is None else with_max_age(entries, max_age_us))


def _json_files(folder: Path) -> list[Path]:
    """Returns the JSON files in a folder, hidden ones excepted."""
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StartError(
            f"{folder}: cannot be searched for a policy ({error.strerror}); --app-config says which one to take"
        ) from error
    return [path for path in paths if path.suffix == ".json" and not path.name.startswith(".") and path.is_file()]
