"""What errors say, and what a ``RequestError`` carries to the wire."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import (
    ClaspError,
    CloseCode,
    DecodeError,
    Disconnect,
    ErrorCode,
    RequestError,
    StartError,
    cause_text,
)


class ErrorTests(SynchronousTestCase):
    """The tree of errors."""

    def test_equal_one_can_be_raised_instead_of_one_that_is_kept(self) -> None:
        """The kept one stays without a traceback."""
        refusal, end = RequestError(ErrorCode.LIMIT, "slow down", "/a"), Disconnect(CloseCode.TOO_BIG, "too big")
        for kept in (refusal, end):
            with self.assertRaises(type(kept)) as caught:
                raise kept.again()
            self.assertEqual(vars(caught.exception), vars(kept))
            self.assertEqual(str(caught.exception), str(kept))
            self.assertIsNone(kept.__traceback__)

    def test_errors_say_code_cause_and_address(self) -> None:
        """What is logged has the code, the words, and the address when there is one."""
        cases: list[tuple[Exception, str]] = [
            (RequestError(ErrorCode.LOCKED, "locked by a", "/a"), "401: locked by a (/a)"),
            (RequestError(ErrorCode.LIMIT, "slow down"), "429: slow down"),
            (DecodeError("no such code"), "101: no such code"),
            (DecodeError("no magic", ErrorCode.FRAME), "100: no magic"),
            (Disconnect(CloseCode.TOO_BIG, "too big"), "close 1009: too big"),
            (StartError("port 7330: in use"), "port 7330: in use"),
        ]
        for error, text in cases:
            with self.subTest(text):
                self.assertEqual(str(error), text)

    def test_errors_carry_what_the_wire_needs(self) -> None:
        """Code, words and address are there for an ERROR; close code and reason for a close."""
        request = RequestError(ErrorCode.POLICY, "refused", "/a")
        self.assertEqual((request.code, request.message, request.address), (403, "refused", "/a"))
        end = Disconnect(CloseCode.TRY_AGAIN_LATER, "full", ErrorCode.OVERLOADED)
        self.assertEqual((end.close_code, end.reason, end.code), (1013, "full", 503))
        self.assertIsNone(Disconnect(CloseCode.NORMAL, "bye").code)

    def test_errors_have_one_root(self) -> None:
        """One except clause tells the relay's own errors from faults."""
        for kind in (RequestError, DecodeError, Disconnect, StartError):
            with self.subTest(kind=kind):
                self.assertTrue(issubclass(kind, ClaspError))
        self.assertTrue(issubclass(DecodeError, RequestError))
        self.assertFalse(issubclass(Disconnect, RequestError))

    def test_cause_is_one_line_without_pythons_notation(self) -> None:
        """Path and reason of an OSError; the text of any other exception, else its name."""
        for error, text in (
            (
                FileNotFoundError(2, "No such file or directory", "/data/state.json"),
                "/data/state.json: No such file or directory",
            ),
            (OSError(18, "Invalid cross-device link", "/a", None, b"/b"), "/b: Invalid cross-device link"),
            (OSError(28, "No space left on device"), "No space left on device"),
            (ValueError("two\nlines"), "two lines"),
            (KeyError(), "KeyError"),
        ):
            with self.subTest(text):
                self.assertEqual(cause_text(error), text)
