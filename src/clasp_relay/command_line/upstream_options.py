"""Command lines of the Rust relay: which options are accepted, ignored with a warning, or refused with a reason.

So an operator of that relay can keep its command line. Options that both relays have are in ``option_table``.
"""

from __future__ import annotations

from collections.abc import Mapping

from clasp_relay.setting_kinds import FilePath, Kind, Whole

__all__ = ["ABOUT_ACCOUNTS", "IGNORED", "OPEN_SOURCE", "UpstreamOptions", "reason_against", "reason_against_value"]

_NO_RENDEZVOUS = "rendezvous is not offered"
_NO_CAPABILITIES = "capability and entity tokens are not offered, and such tokens are refused"

IGNORED: Mapping[str, tuple[Kind, str]] = {
    "rendezvous-port": (Whole(0, 65_535), _NO_RENDEZVOUS),
    "rendezvous-ttl": (Whole(0), _NO_RENDEZVOUS),
    "cap-max-depth": (Whole(0), _NO_CAPABILITIES),
    "trust-anchor": (FilePath(), _NO_CAPABILITIES),
    "registry-db": (FilePath(), _NO_CAPABILITIES),
}
"""Options without effect that its set-up script always writes: which values they take, and what the warning says."""

SPELLINGS = frozenset({"ws-port", "cert", "key", *IGNORED})
"""Names of options that this relay accepts only because the Rust relay has them."""

ABOUT_ACCOUNTS = frozenset(
    {
        "admin_token",
        "app_config",
        "auth_db",
        "auth_endpoint",
        "auth_port",
        "guests",
        "max_guest_tokens_per_address",
        "registration",
        "token_ttl_s",
        "web_root",
    }
)
"""Settings that only a relay with accounts has: whoever sets one of them wants accounts."""

OPEN_SOURCE = "{spelling}, without an option about accounts"
"""The source of auth port 0, for ``check-config``, where the Rust relay would be in open mode."""

_REASONS = {
    "artnet-port": "Art-Net is not offered",
    "defra-url": "DefraDB is not offered; params are kept in the file of --persist",
    "federation": "relays cannot be joined to a federation",
    "lenses": "lenses are not offered; a policy's snapshot_transforms hide fields (--app-config)",
    "no-websocket": "WebSocket is what clients connect with",
    "quic-port": "QUIC is not offered; clients connect with WebSocket (--port)",
}
"""Why an option is not supported, by its name or the first word of its name."""


def reason_against(name: str) -> str:
    """Returns why an option of the Rust relay is not supported, as the end of a sentence; empty if there is no reason.

    Args:
        name: the option without its dashes.
    """
    reason = _REASONS.get(name) or _REASONS.get(name.partition("-")[0])
    return f": {reason}" if reason else ""


_VALUE_REASONS = {
    ("journal-backend", "defra"): "DefraDB is not offered; the journal is an SQLite file (--journal)",
}
"""Why a value that the Rust relay takes is not supported, by option and value."""


def reason_against_value(name: str, text: str) -> str | None:
    """Returns why a value that the Rust relay accepts is not supported; None for other values.

    Args:
        name: the option without its dashes.
        text: its value.
    """
    return _VALUE_REASONS.get((name, text.lower()))


class UpstreamOptions:
    """The options of the Rust relay in one command line.

    Attributes:
        spelling: the first option with a name that only the Rust relay has, as it was given; empty for none.
    """

    def __init__(self) -> None:
        self.spelling = ""
        self._ignored: dict[str, list[str]] = {}

    def note(self, shown: str) -> None:
        """Notes an option, with its dashes."""
        if not self.spelling and shown.startswith("--") and shown[2:] in SPELLINGS:
            self.spelling = shown

    def ignore(self, name: str, text: str) -> None:
        """Notes an option without effect.

        Args:
            name: without its dashes, one of ``IGNORED``.
            text: its value.

        Raises:
            ValueError: the option does not accept it.
        """
        kind, why = IGNORED[name]
        if not kind.accepts(kind.parse(text)):
            raise ValueError(text)
        self.note(f"--{name}")
        if name == "rendezvous-port" and int(text) == 0:
            return  # 0 turns it off in the Rust relay, too
        self._ignored.setdefault(why, []).append(f"--{name}")

    @property
    def notices(self) -> list[str]:
        """What was ignored, one line for each reason."""
        return [
            f"{', '.join(dict.fromkeys(names))} {'is' if len(set(names)) == 1 else 'are'} ignored: {why}"
            for why, names in self._ignored.items()
        ]
