"""Tests of clasp_relay.logs.ring: the last lines of the log, in memory."""

import sys
from threading import Thread

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.ring import MAX_CHARACTERS, MAX_LINES, LogRing

TOKEN = "cpsk_" + "0123456789abcdef" * 2


class LogRingTests(SynchronousTestCase):
    """Fed by loggers of its own."""

    def setUp(self) -> None:
        """Makes one."""
        self.ring = LogRing(LogLevels.parse("info,net=debug"))

    def log(self, text: str, part: str = "auth", level: str = "info") -> None:
        """Logs a line."""
        getattr(Logger(namespace=f"clasp_relay.{part}", observer=self.ring), level)("{text}", text=text)

    def test_lines_are_those_of_the_log(self) -> None:
        """With its levels, one line each, and tokens masked."""
        self.log(f"token {TOKEN}\nand more")
        self.log("quiet", level="debug")
        self.log("heard", part="net", level="debug")
        first, second = self.ring.after(0)
        self.assertEqual((first.seq, first.level, first.part), (1, "info", "auth"))
        self.assertEqual((second.seq, second.level, second.part), (2, "debug", "net"))
        self.assertNotIn(TOKEN, first.text)
        self.assertNotIn("\n", first.text)
        self.assertTrue(first.text.endswith("and more"), first.text)
        self.assertGreater(first.at_s, 0)

    def test_oldest_lines_go(self) -> None:
        """And a reader goes on where it was, also where that is gone."""
        for number in range(MAX_LINES + 10):
            self.log(str(number))
        self.assertEqual([len(self.ring.after(seq)) for seq in (0, 5, 10, 11)], [MAX_LINES] * 3 + [MAX_LINES - 1])
        self.assertEqual(self.ring.after(0)[0].seq, 11)
        self.assertEqual([line.seq for line in self.ring.after(MAX_LINES + 8)], [MAX_LINES + 9, MAX_LINES + 10])
        self.assertEqual(self.ring.after(MAX_LINES + 10), [])
        self.assertEqual(self.ring.after(MAX_LINES + 99), [])

    def test_lines_of_several_threads_have_numbers_of_their_own(self) -> None:
        """Threads log, too, as those that hash passwords."""
        interval_s = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, interval_s)
        sys.setswitchinterval(1e-6)

        def log_some() -> None:
            for _ in range(200):
                self.log("x")

        threads = [Thread(target=log_some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([line.seq for line in self.ring.after(0)], list(range(1, 801)))

    def test_long_line_is_cut(self) -> None:
        """The log itself has all of it."""
        self.log("x" * (2 * MAX_CHARACTERS))
        (line,) = self.ring.after(0)
        self.assertEqual(len(line.text), MAX_CHARACTERS + 2)
