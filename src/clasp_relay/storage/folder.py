"""The folder of the relay's files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from clasp_relay.errors import StartError


def prepare_folder(option: str, folder: Path) -> None:
    """Makes a folder if it is missing, and finds out now whether files can be written there.

    Args:
        option: what named it, for the message.
        folder: its path.

    Raises:
        StartError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{option}: cannot write to {folder} ({error.strerror}); make it a folder that I may write to"
        raise StartError(text) from error
