"""Tests of clasp_relay.command_line.journal_commands: what ``clasp-relay journal`` prints, writes and refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from argparse import ArgumentTypeError
from contextlib import closing
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.journal_commands import MOST_KEYS, parse_before, run
from clasp_relay.storage.folder import FileLock
from clasp_relay.storage.journal.journal_file import Entry
from clasp_relay.storage.journal.opening import SCHEMA_VERSION, open_journal, open_to_read
from tests.command_line.commands import CommandTestCase
from tests.storage.journal.test_journal_file import write_of
from tests.storage.values import TIME_US, make_folder


class BeforeTests(SynchronousTestCase):
    """Up to when history goes."""

    def test_row_or_time_is_understood(self) -> None:
        """Times are in UTC unless they say otherwise."""
        noon_us = 1_769_860_800_000_000
        for text, expected in (
            ("17", (17, None)),
            ("2026-01-31", (None, noon_us - 12 * 3_600_000_000)),
            ("2026-01-31T12:00:00Z", (None, noon_us)),
            ("2026-01-31T13:00:00.5+01:00", (None, noon_us + 500_000)),
        ):
            with self.subTest(text):
                self.assertEqual(parse_before(text), expected)
        before_us = time.time_ns() // 1000
        _, day_us = parse_before("1d")
        assert day_us is not None
        self.assertGreaterEqual(day_us + 86_400_000_000, before_us)

    def test_anything_else_is_refused(self) -> None:
        """With what is expected."""
        for text in ("", "-1", "yesterday", "never", "0d", "2026-13-01", "1" * 19):
            with (
                self.subTest(text),
                self.assertRaisesRegex(ArgumentTypeError, "expected a row's number, a time such as 2026-01-31"),
            ):
                parse_before(text)


class CommandTests(CommandTestCase):
    """Commands on a folder with a journal."""

    command = staticmethod(run)

    def setUp(self) -> None:
        """A journal of ten rows, and an environment that sets nothing."""
        self.folder = make_folder(self)
        self.path = self.folder / "journal.db"
        super().setUp()
        file = open_journal(self.path, syncs_each_commit=True)
        file.write([Entry(seq, write_of(seq), f"0:/{seq}" if seq > 5 else None) for seq in range(1, 11)])
        file.close()

    def kept(self) -> list[int]:
        """Returns the rows that history keeps."""
        file = open_to_read(self.path)
        self.addCleanup(file.close)
        return [seq for (seq,) in file.ask("SELECT seq FROM history ORDER BY seq")]

    def test_inspect_says_what_is_there(self) -> None:
        """With what a start would do, and what history keeps."""
        (self.folder / "state.json").write_text('{"version":1,"journal_seq":4,"params":[]}', "utf-8")
        said = self.ask("inspect")
        self.assertIn(f"journal   {self.path}: version {SCHEMA_VERSION}, read with SQLite", said)
        self.assertIn("rows      10, from 1 to 10, none of them damaged", said)
        self.assertIn("times     from 2023-11-14T22:13:21Z to 2023-11-14T22:13:30Z", said)
        self.assertIn("kinds     write: 10", said)
        self.assertIn("the state file goes up to row 4; a start applies the 6 behind it", said)
        self.assertIn("history   5 entries under 5 keys", said)
        self.assertIn("         1  2023-11-14T22:13:26Z to 2023-11-14T22:13:26Z  0:/6\n", said)
        (self.folder / "state.json").rename(self.folder / "state")
        os.mkfifo(self.folder / "state.json")
        self.assertIn("the state file goes up to row 0", self.ask("inspect"))
        (self.folder / "state").rename(self.folder / "state.json")
        shown = json.loads(self.ask("inspect", "--json"))
        self.assertEqual((shown["rows"], shown["state_seq"], len(shown["history"])), (10, 4, 5))
        self.assertEqual(shown["history"][0]["key"], "0:/10")
        self.assertEqual(shown["sizes"]["oldest_us"], TIME_US + 1_000_000)

    def test_inspect_shows_some_of_many_keys(self) -> None:
        """And an empty journal as one."""
        file = open_journal(self.path, syncs_each_commit=True)
        file.write([Entry(seq, write_of(seq), f"0:/{seq}") for seq in range(11, 11 + MOST_KEYS)])
        file.close()
        said = self.ask("inspect")
        self.assertEqual(said.count("  0:/"), MOST_KEYS)
        self.assertTrue(said.endswith("  and 5 keys more; --json shows all\n"))
        self.path.unlink()
        open_journal(self.path, syncs_each_commit=True).close()
        self.assertIn("rows      none\ntrimmed   up to row 0", self.ask("inspect"))

    def test_export_writes_one_object_a_line(self) -> None:
        """To stdout, or to a new file that only its owner reads."""
        lines = self.ask("export").splitlines()
        first = json.loads(lines[0])
        self.assertEqual((len(lines), first["seq"], first["value"], first["msg_type"]), (10, 1, 1, 33))
        self.assertEqual([json.loads(line)["seq"] for line in self.ask("export", "--after", "8").splitlines()], [9, 10])
        to = self.folder / "entries.jsonl"
        self.assertEqual(self.ask("export", "--history", "--to", str(to)), "")
        self.assertEqual(to.read_text("utf-8").splitlines(), lines[5:])
        self.assertEqual(to.stat().st_mode & 0o777, 0o600)
        self.assertTrue(self.stderr.getvalue().endswith("5 entries exported\n"))
        self.assertIn("exists; name a new file", self.refusal("export", "--to", str(to)))
        self.assertEqual(len(to.read_text("utf-8").splitlines()), 5)
        self.assertIn("may write to", self.refusal("export", "--to", str(self.folder / "none" / "x")))

    def test_export_that_fails_leaves_no_file(self) -> None:
        """Half of the entries would look like all of them."""
        file = open_journal(self.path, syncs_each_commit=True)
        file.ask("UPDATE entries SET body = substr(body, 1, 9) WHERE seq = 7")
        file.close()
        to = self.folder / "entries.jsonl"
        said = self.refusal("export", "--to", str(to))
        self.assertIn(f"{self.path}: the journal is damaged (row 7 is damaged", said)
        self.assertFalse(to.exists())
        self.assertIn("row 7 is damaged", self.refusal("inspect"))

    def test_export_to_a_full_disk_leaves_no_file(self) -> None:
        """One line names it."""
        if not Path("/dev/full").exists():
            return
        to = self.folder / "entries.jsonl"
        real = os.open

        def full(path: object, flags: int, *given: int) -> int:
            return real("/dev/full", os.O_WRONLY) if path == to else real(path, flags, *given)  # type: ignore[arg-type]

        self.patch(os, "open", full)
        self.assertIn(f"--to: {to}: No space left on device; make room", self.refusal("export", "--to", str(to)))

    def test_trim_erases_history(self) -> None:
        """By row, or by time; what a start needs stays."""
        self.ask("trim", "--before", "8")
        self.assertEqual(self.kept(), [8, 9, 10])
        self.ask("trim", "--before", "2023-11-14T22:13:30Z")
        self.assertEqual(self.kept(), [10])
        self.assertEqual(
            self.stderr.getvalue().splitlines(), [f"{count} entries of history erased" for count in (2, 2)]
        )
        self.ask("trim", "--before", "1d")
        self.assertEqual(self.kept(), [])
        self.assertEqual(len(self.ask("export").splitlines()), 10)

    def test_trim_leaves_a_damaged_journal_as_it_is(self) -> None:
        """One with a page of an index that is nonsense: a part of what is to be erased may have gone already."""
        whole = bytearray(self.path.read_bytes())
        with closing(sqlite3.connect(self.path)) as other:
            ((page,),) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'history'").fetchall()
            ((size,),) = other.execute("PRAGMA page_size").fetchall()
        whole[(page - 1) * size + 8 : page * size] = b"\xff" * (size - 8)
        self.path.write_bytes(whole)
        self.assertIn("damaged", self.refusal("trim", "--before", "8"))
        self.assertEqual(self.path.read_bytes(), bytes(whole))

    def test_trim_keeps_off_a_relay_that_runs(self) -> None:
        """Reading goes on."""
        lock = FileLock("--data-dir", self.path)
        self.addCleanup(lock.release)
        self.assertIn("is in use by another relay (process", self.refusal("trim", "--before", "8"))
        self.assertEqual(self.kept(), [6, 7, 8, 9, 10])
        self.assertIn("10, from 1 to 10", self.ask("inspect"))

    def test_what_is_no_journal_is_named(self) -> None:
        """By every command, in one line, and nothing is made of it."""
        commands = (("inspect",), ("export",), ("trim", "--before", "8"))
        for content, words in (
            (b"{" * 5_000, "not a journal"),
            (self.path.read_bytes()[:-1], "is cut off"),
            (None, "cannot be read (No such file or directory)"),
        ):
            for command in commands:
                with self.subTest(words, command=command):
                    self.path.unlink(missing_ok=True)
                    if content is not None:
                        self.path.write_bytes(content)
                    said = self.refusal(*command)
                    self.assertTrue(said.startswith(str(self.path)), said)
                    self.assertIn(words, said)
                    self.assertEqual(self.path.exists(), content is not None)

    def test_wrong_arguments_are_refused(self) -> None:
        """Each with what is right."""
        for arguments, words in (
            ((), "journal: the following arguments are required: verb"),
            (("shred",), "journal: argument verb: invalid choice: 'shred'"),
            (("trim",), "the following arguments are required: --before"),
            (("trim", "--before", "soon"), "expected a row's number"),
            (("export", "--after", "x"), "expected the number of a row"),
        ):
            with self.subTest(arguments):
                self.stderr.truncate(0)
                with self.assertRaises(SystemExit):
                    run(arguments, StringIO())
                self.assertIn(words, self.stderr.getvalue())
