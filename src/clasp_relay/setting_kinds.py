"""Kinds of settings: what values a field accepts, the words for error messages, and how a text is parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from clasp_relay.access.addresses import Network, parse_networks
from clasp_relay.errors import RequestError
from clasp_relay.logs.levels import LOG_LEVELS, LogLevels
from clasp_relay.wire.address import Pattern, check_address

__all__ = [
    "Choice",
    "FilePath",
    "Flag",
    "Kind",
    "Levels",
    "Namespace",
    "Networks",
    "Number",
    "OffOr",
    "OrNone",
    "OriginList",
    "Targets",
    "Text",
    "Whole",
    "split_target",
]


LOCAL_PAGES = ("null", "file://")
"""What browsers send as Origin of a page that comes from a file, or from a sandbox."""


class Kind(Protocol):
    """The kind of a field's values."""

    @property
    def expected(self) -> str:
        """What is accepted, as the end of the sentence «expected …»."""

    def accepts(self, value: object) -> bool:
        """Tells whether a field of this kind may hold ``value``."""

    def parse(self, text: str) -> object:
        """Parses a text; a ValueError when it has another form (limits are checked by ``accepts``)."""


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
        return f"a number {'greater than' if self.above else 'of at least'} {self.low:.0f} and at most {self.high:.0f}"

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
    """A path."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "a path"

    def accepts(self, value: object) -> bool:
        """See ``Kind``; the start checks whether the path exists."""
        return isinstance(value, Path) and "\0" not in str(value)

    def parse(self, text: str) -> Path:
        """See ``Kind``; an empty text is refused: it would name the working directory, which is hardly ever meant."""
        if not text:
            raise ValueError(text)
        return Path(text)


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "true or false"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, bool)

    def parse(self, text: str) -> bool:
        """See ``Kind``."""
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"


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


@dataclass(frozen=True, slots=True)
class Levels:
    """A log level, optionally followed by levels for parts."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return f"one of {', '.join(LOG_LEVELS)}, optionally followed by levels for parts (info,net=debug)"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        try:
            return isinstance(value, str) and bool(LogLevels.parse(value))
        except ValueError:
            return False

    def parse(self, text: str) -> str:
        """See ``Kind``; irrespective of case, as ``RUST_LOG`` is read."""
        return text.lower()


@dataclass(frozen=True, slots=True)
class OrNone:
    """What another kind accepts, or None; no text is parsed to None."""

    kind: Kind

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return self.kind.expected

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return value is None or self.kind.accepts(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return self.kind.parse(text)


@dataclass(frozen=True, slots=True)
class OriginList:
    """Origins of web pages, at least one (RFC 6454); ``*`` is none, since it would mean that there is no list."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return (
            "origins as scheme://host or scheme://host:port, null or file:// for local pages, comma-separated "
            "(to allow every origin, leave the option out)"
        )

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and bool(value) and all(map(_is_origin, value))

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``; spaces around an origin and empty items do not count."""
        return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_origin(value: object) -> bool:
    """Tells whether a value is scheme, host and perhaps port, and nothing else; or what local pages send."""
    if value in LOCAL_PAGES:
        return True
    if not isinstance(value, str) or re.search(r"[\s*@?#]", value) is not None:
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    return bool(parts.scheme and parts.hostname) and not parts.path and (port is None or port > 0)


@dataclass(frozen=True, slots=True)
class Namespace:
    """The address below which the params and signals of a door's clients are, or ``/``."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "an address without wildcards, such as /studio, or / for the whole tree"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        if not isinstance(value, str):
            return False
        try:
            check_address(value)
        except RequestError:
            return value == "/"
        return value.isprintable() and not value.startswith("/clasp/")

    def parse(self, text: str) -> str:
        """See ``Kind``; a slash at the end is ignored."""
        return text.rstrip("/") or "/"


@dataclass(frozen=True, slots=True)
class Targets:
    """OSC clients by address and port, each optionally with a pattern; possibly none."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "IP addresses with a port and optionally a pattern (192.0.2.7:9000=/mixer/**), comma-separated"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and all(isinstance(each, str) and split_target(each) for each in value)

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``; a text without any is refused."""
        targets = tuple(part.strip() for part in text.split(",") if part.strip())
        if not targets:
            raise ValueError(text)
        return targets


def split_target(text: str) -> tuple[str, int, str] | None:
    """Returns address, port and pattern of an OSC target; None if the text is not one."""
    place, _, pattern = text.partition("=")
    host, _, port = place.rpartition(":")
    try:
        address = str(ip_address(host.removeprefix("[").removesuffix("]")))
        Pattern.parse(pattern or "/**")
    except (ValueError, RequestError):
        return None
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        return None
    return address, int(port), pattern or "/**"


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact: the URL of an e-mail address or of a page."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "mailto:NAME@HOST or https://HOST/…"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, str) and len(value) <= _LONGEST_CONTACT and bool(_CONTACT.fullmatch(value))

    def parse(self, text: str) -> str:
        """See ``Kind``."""
        return text


_LONGEST_CONTACT = 256
_CONTACT = re.compile(r"mailto:[^\s@]+@[^\s@]+|https://[^\s@]+")


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Hosts with their ports, possibly none."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "hosts with a port (push.example.org:8443), comma-separated"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and all(isinstance(each, str) and _HOST_PORT.fullmatch(each) for each in value)

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``; a text without any is refused."""
        places = tuple(part.strip() for part in text.split(",") if part.strip())
        if not places:
            raise ValueError(text)
        return places


_HOST_PORT = re.compile(r"[A-Za-z0-9._-]{1,253}:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Word:
    """A name of up to 32 ASCII letters, digits, ``-`` and ``_``."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "a name of 1 to 32 letters, digits, - and _"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, str) and _WORD.fullmatch(value) is not None

    def parse(self, text: str) -> str:
        """See ``Kind``."""
        return text


_WORD = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class EngineUrls:
    """URLs of NATS servers, possibly none."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "URLs as nats://HOST:PORT or tls://HOST:PORT, comma-separated"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and all(isinstance(each, str) and _is_engine(each) for each in value)

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``; a text without any is refused."""
        urls = tuple(part.strip() for part in text.split(",") if part.strip())
        if not urls:
            raise ValueError(text)
        return urls


def _is_engine(text: str) -> bool:
    try:
        url = urlsplit(text)
        return (
            url.scheme in ("nats", "tls")
            and bool(url.hostname)
            and url.port != 0
            and not (url.path.strip("/") or url.query or url.fragment)
        )
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class TurnUrls:
    """URLs of TURN and STUN servers (RFC 7064, RFC 7065), possibly none."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "URLs as turn:HOST:PORT, turns:HOST:PORT or turn:HOST:PORT?transport=tcp, comma-separated"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and all(isinstance(each, str) and _TURN_URL.fullmatch(each) for each in value)

    def parse(self, text: str) -> tuple[str, ...]:
        """See ``Kind``; a text without any is refused."""
        urls = tuple(part.strip() for part in text.split(",") if part.strip())
        if not urls:
            raise ValueError(text)
        return urls


_TURN_URL = re.compile(
    r"(?:turns?|stuns?):(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:\?transport=(?:udp|tcp))?"
)


@dataclass(frozen=True, slots=True)
class Networks:
    """IP networks, possibly none."""

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return "IP addresses or networks (10.0.0.0/8), comma-separated"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return isinstance(value, tuple) and all(isinstance(network, Network) for network in value)

    def parse(self, text: str) -> tuple[Network, ...]:
        """See ``Kind``; a text without any is refused."""
        networks = parse_networks(text)
        if not networks:
            raise ValueError(text)
        return networks


@dataclass(frozen=True, slots=True)
class OffOr:
    """The word ``off``, or what another kind accepts."""

    kind: Kind

    @property
    def expected(self) -> str:
        """See ``Kind``."""
        return f"off, or {self.kind.expected}"

    def accepts(self, value: object) -> bool:
        """See ``Kind``."""
        return value == "off" or self.kind.accepts(value)

    def parse(self, text: str) -> object:
        """See ``Kind``."""
        return text if text == "off" else self.kind.parse(text)
