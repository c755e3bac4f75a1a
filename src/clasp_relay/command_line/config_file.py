"""The config file: options in TOML. The command line and the environment take precedence over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from clasp_relay.command_line.option_table import NOT_SUPPORTED, OPTIONS, Option
from clasp_relay.command_line.upstream_options import IGNORED, reason_against

__all__ = ["ConfigError", "read_config"]

_BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS if option.name != "config"}


class ConfigError(Exception):
    """A config file that cannot be used. The text is one line that names the file and the key."""


def read_config(path: Path) -> dict[Option, str]:
    """Reads a config file.

    Args:
        path: the file: the long names of options without their dashes, and their values.

    Returns:
        The value of each option as it would stand on the command line; not checked yet.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has a key that is not an option.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give another --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    found: dict[Option, str] = {}
    for key, value in document.items():
        option = _BY_NAME.get(key)
        if option is None:
            raise ConfigError(f"{path}: {key}: {_why_not(key)}")
        text = _text_of(option, value)
        if text is None:
            raise ConfigError(f"{path}: {key}: got {_shown(value)}, expected {option.expected}")
        found[option] = text
    return found


def _why_not(key: str) -> str:
    """Returns why a key is not accepted."""
    if key == "config":
        return "a config file cannot name another config file"
    if key in NOT_SUPPORTED:
        return f"not supported{reason_against(key)}"
    if key in IGNORED:
        return f"has no effect: {IGNORED[key][1]}; leave it out"
    for option in OPTIONS:
        if key.replace("_", "-") in (option.name, *option.aliases):
            return f"unknown key; write {option.name}"
    return "unknown key; keys are the long option names, see --help"


def _text_of(option: Option, value: object) -> str | None:
    """Returns a value as text, or None where it is of a type that the option cannot have."""
    if isinstance(value, bool):
        return str(value).lower() if option.is_flag else None
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # Without an exponent, which no option accepts; NaN and infinity are refused by every option, too.
        return format(Decimal(repr(value)), "f")
    if isinstance(value, list) and option.is_list and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return None


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value).lower() if isinstance(value, bool) else str(value)
