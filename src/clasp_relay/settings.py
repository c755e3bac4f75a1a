"""The settings of a relay: unit, default and reason per field, checked once, frozen afterwards.

A field's annotation carries its *kind*: what it accepts, how that is said to people, and how it is read
from text. The command line (``options``) asks the same kinds, so a limit stands in one place only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Protocol, get_type_hints

__all__ = ["LOG_LEVELS", "Choice", "FilePath", "Kind", "Number", "Settings", "Text", "Whole", "kinds"]

LOG_LEVELS = ("error", "warn", "info", "debug", "trace")
"""What may be logged, from the fewest events to the most."""


class Kind(Protocol):
    """What a field accepts."""

    @property
    def expected(self) -> str:
        """What is accepted, in words that end a sentence: «expected …»."""

    def accepts(self, value: object) -> bool:
        """Tells whether a field of this kind may hold ``value``."""

    def parse(self, text: str) -> object:
        """Reads a value from text; a ValueError when it is none (limits are left to ``accepts``)."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from ``low`` to ``high``, both included; ``high`` None for no upper limit."""

    low: int
    high: int | None = None

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return f"a whole number from {self.low}" + ("" if self.high is None else f" to {self.high}")

    def accepts(self, value: object) -> bool:
        """See ``Kind``; True and False are no numbers here."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value and (self.high is None or value <= self.high)

    def parse(self, text: str) -> int:
        """See ``Kind``; decimal ASCII digits only, unlike ``int``."""
        if re.fullmatch(r"-?[0-9]+", text) is None:
            raise ValueError(text)
        return int(text)


@dataclass(frozen=True, slots=True)
class Number:
    """A number from ``low`` (``above``: not ``low`` itself) to ``high``, fractions included."""

    low: float
    above: bool = False
    high: float = 1_000_000_000

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return f"a number {'above' if self.above else 'from'} {self.low:.0f}, at most {self.high:.0f}"

    def accepts(self, value: object) -> bool:
        """See ``Kind``; True and False are no numbers here."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def parse(self, text: str) -> float:
        """See ``Kind``; plain decimals only, unlike ``float``."""
        if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is None:
            raise ValueError(text)
        return float(text)


@dataclass(frozen=True, slots=True)
class Text:
    """A text of 1 to ``longest_bytes`` bytes of UTF-8 without control characters."""

    longest_bytes: int

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return f"a text of 1 to {self.longest_bytes} bytes without control characters"

    def accepts(self, value: object) -> bool:
        """See ``Kind``; a lone surrogate (a byte of the command line that is no UTF-8) is no text."""
        if not isinstance(value, str) or not value.isprintable():
            return False
        return 1 <= len(value.encode("utf-8")) <= self.longest_bytes

    def parse(self, text: str) -> str:
        """See ``Kind``."""
        return text


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path; ``optional`` ones may be None."""

    optional: bool = False

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "a path"

    def accepts(self, value: object) -> bool:
        """See ``Kind``; whether the path exists is the start's business."""
        if value is None:
            return self.optional
        return isinstance(value, Path) and "\0" not in str(value)

    def parse(self, text: str) -> Path:
        """See ``Kind``; an empty text would mean the working directory, and hardly ever does."""
        if not text:
            raise ValueError(text)
        return Path(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "one of " + ", ".join(self.words)

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return value in self.words

    def parse(self, text: str) -> str:
        """See ``Kind``; irrespective of case, as ``RUST_LOG`` is read."""
        return text.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be told to a relay.

    Embedders make one directly: ``Settings(port=0, data_dir=Path("data"))``.

    Raises:
        ValueError: a field does not accept what it was given; the text names the field, the value and
            what was expected.
    """

    port: Annotated[int, Whole(0, 65_535)] = 7330
    """TCP port of the WebSocket; 0 takes any free one. 7330 is what CLASP clients try first."""

    host: Annotated[str, Text(253)] = "0.0.0.0"  # noqa: S104  a relay is there to be reached
    """Address to listen on (a DNS name has at most 253 bytes); 0.0.0.0 for all of the machine's."""

    name: Annotated[str, Text(1_024)] = "CLASP Relay"
    """The server's name in WELCOME. Bounded, so that WELCOME stays small in every frame."""

    data_dir: Annotated[Path, FilePath()] = Path("data")
    """Folder of the relay's files; made if it is missing."""

    state_path: Annotated[Path | None, FilePath(optional=True)] = None
    """The state file's own path; None: ``state.json`` in ``data_dir``."""

    persist_interval_s: Annotated[float, Number(0, above=True)] = 60.0
    """Seconds between two writes of the state file: the most that a crash may cost."""

    param_ttl_s: Annotated[int, Whole(0, 4_294_967_295)] = 0
    """Seconds that a param lives after its last access; 0 for ever, since a chat room must survive a quiet week."""

    max_params: Annotated[int, Whole(1)] = 100_000
    """Params held at most; at 290–490 B each for small ones about 50 MB."""

    max_state_bytes: Annotated[int, Whole(1)] = 256 * 1024 * 1024
    """Bytes that addresses and values may take together, since one value may have 64 KiB."""

    max_sessions: Annotated[int, Whole(1)] = 1_000
    """Sessions at once; connections that are not sessions yet are capped at twice that."""

    max_sessions_per_address: Annotated[int, Whole(1)] = 250
    """Connections at once from one client address, so that one machine cannot take every place."""

    session_timeout_s: Annotated[float, Number(0, above=True)] = 300.0
    """Seconds after which a peer that answered nothing, not even a ping, is given up."""

    drain_timeout_s: Annotated[float, Number(0)] = 5.0
    """Seconds that a stop waits for queues to empty; half of the 10 s that containers are given to stop."""

    log_level: Annotated[str, Choice(LOG_LEVELS)] = "info"
    """What is logged: events of this level and those before it in ``LOG_LEVELS``."""

    outbox_bytes: Annotated[int, Whole(65_547)] = 1024 * 1024
    """Bytes that may wait for one slow session before it is dropped from; not less than one full frame."""

    def __post_init__(self) -> None:
        """Checks every field against its kind."""
        for name, kind in kinds().items():
            value = getattr(self, name)
            if not kind.accepts(value):
                raise ValueError(f"{name}: got {value!r}, expected {kind.expected}")

    @property
    def state_file(self) -> Path:
        """Where the params are kept."""
        return self.data_dir / "state.json" if self.state_path is None else self.state_path


@cache
def kinds() -> dict[str, Kind]:
    """Returns the kind of every field of ``Settings``, in their order."""
    hints = get_type_hints(Settings, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(Settings)}
