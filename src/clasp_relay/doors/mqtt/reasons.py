"""The reason codes of MQTT 5 and the return codes of 3.1.1, and which ones refusals and closes have."""

from __future__ import annotations

from enum import IntEnum

from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.mqtt.packets import V5


class Reason(IntEnum):
    """The reason codes of version 5 ([5] 2.4) that are sent or read."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_USER_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_INVALID = 0x90
    PACKET_TOO_LARGE = 0x95
    RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_INVALID = 0x99


_CONNACK_V4 = {
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_NOT_VALID: 2,
    Reason.SERVER_BUSY: 3,
    Reason.BAD_USER_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
}
"""The return codes of a CONNACK ([3.1.1] 3.2.2.3)."""

_REFUSALS = {
    ErrorCode.ADDRESS: Reason.TOPIC_INVALID,
    ErrorCode.SCOPE: Reason.NOT_AUTHORIZED,
    ErrorCode.POLICY: Reason.NOT_AUTHORIZED,
    ErrorCode.LOCKED: Reason.NOT_AUTHORIZED,
    ErrorCode.VALUE: Reason.PAYLOAD_INVALID,
    ErrorCode.LIMIT: Reason.QUOTA_EXCEEDED,
    ErrorCode.OVERLOADED: Reason.QUOTA_EXCEEDED,
}

_ENDS = {
    CloseCode.GOING_AWAY: Reason.SERVER_SHUTTING_DOWN,
    CloseCode.TRY_AGAIN_LATER: Reason.QUOTA_EXCEEDED,
    CloseCode.TOO_BIG: Reason.PACKET_TOO_LARGE,
    CloseCode.POLICY_VIOLATION: Reason.NOT_AUTHORIZED,
    CloseCode.PROTOCOL_ERROR: Reason.PROTOCOL_ERROR,
}


def connack_code(reason: Reason, version: int) -> int:
    """Returns the code of a CONNACK that refuses a client, in its version."""
    return reason if version == V5 else _CONNACK_V4[reason]


def refusal_reason(code: int) -> Reason:
    """Returns the reason for an ERROR of the core."""
    return _REFUSALS.get(ErrorCode(code), Reason.UNSPECIFIED)


def end_reason(close_code: CloseCode) -> Reason:
    """Returns the reason for the end of a session ([5] 3.14.2.1)."""
    return _ENDS.get(close_code, Reason.UNSPECIFIED)
