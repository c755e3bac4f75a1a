"""What refusals and ends are called in both versions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.mqtt.reasons import Reason, connack_code, end_reason, refusal_reason
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.mqtt.packets import V4, V5


class ReasonTests(SynchronousTestCase):
    def test_connack_has_the_code_of_its_version(self) -> None:
        """[3.1.1] 3.2.2.3 and [5] 3.2.2.2."""
        for reason, code in (
            (Reason.UNSUPPORTED_VERSION, 1),
            (Reason.CLIENT_ID_NOT_VALID, 2),
            (Reason.SERVER_BUSY, 3),
            (Reason.BAD_USER_OR_PASSWORD, 4),
            (Reason.NOT_AUTHORIZED, 5),
        ):
            with self.subTest(reason):
                self.assertEqual((connack_code(reason, V4), connack_code(reason, V5)), (code, reason))

    def test_every_error_and_every_end_has_a_reason(self) -> None:
        """One that version 5 knows as a failure."""
        reasons = [*map(refusal_reason, ErrorCode), *map(end_reason, CloseCode)]
        self.assertEqual([reason for reason in reasons if reason < Reason.UNSPECIFIED], [])
        self.assertEqual(refusal_reason(ErrorCode.ADDRESS), 0x90)
        self.assertEqual(refusal_reason(ErrorCode.INTERNAL), 0x80)
        self.assertEqual(end_reason(CloseCode.GOING_AWAY), 0x8B)
        self.assertEqual(end_reason(CloseCode.INTERNAL), 0x80)
