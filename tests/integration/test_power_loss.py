"""What an ACK promises when the power fails: the journal's statements on a disk that forgets what was not synced."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import apsw
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, Param
from clasp_relay.storage.journal.journal_file import Entry, JournalFile
from clasp_relay.storage.journal.opening import open_journal, open_to_check, prepare
from clasp_relay.storage.journal.recovery import recover
from clasp_relay.wire.values import encode_value
from tests.integration.forgetful_disk import ForgetfulDisk

LOSSES = int(os.environ.get("POWER_LOSSES", "80"))
"""How often the power fails, for each kind of journal."""

KINDS = ("power", "kill")
"""The kinds of journal."""

SHARED_MEMORY = Path("/dev/shm")
"""Where there is one, no sync of a start waits for the machine's disk."""

LONGEST = 600
"""The last call to the system during which it may fail: the journal is made, grows, is checkpointed, and trimmed."""


class Life:
    """A journal's life, until the power fails.

    Args:
        kind: of the journal: power or kill.
        seed: of all that happens by chance.
        folder: where it is.
    """

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        self._chance = chance = random.Random(seed)
        self._kind = kind
        self._path = folder / "journal.db"
        self.disk = ForgetfulDisk(f"{kind} {seed}", chance, chance.randrange(1, LONGEST))
        self.written: list[Entry] = []
        """What was given to it, the last batch included."""
        self.ends = [0]
        """The last rows of its batches."""
        self.promised = 0
        """The last row that was acknowledged (power), or synced (kill)."""
        self.returned = 0
        """The last row whose commit has returned."""
        self.saved = 0
        """The last row that two state files have."""

    def live(self) -> None:
        """Writes, syncs and trims until the power fails."""
        connection = self.disk.connect(self._path)
        try:
            prepare(cast(Any, connection), syncs_each_commit=self._kind == "power")
            connection.execute("PRAGMA wal_autocheckpoint = 12").fetchall()
            file = JournalFile(self._path, cast(Any, connection), syncs_each_commit=self._kind == "power")
            while True:
                self._step(file)
        except (apsw.Error, OSError):
            if not self.disk.is_off:
                raise
        finally:
            with contextlib.suppress(apsw.Error):
                connection.close()

    def _step(self, file: JournalFile) -> None:
        chance = self._chance
        batch = [self._entry(self.ends[-1] + number) for number in range(1, chance.randrange(2, 9))]
        self.written += batch
        self.ends.append(batch[-1].seq)
        file.write(batch)
        self.returned = batch[-1].seq
        if self._kind == "power":
            self.promised = self.returned
        elif chance.random() < 0.3:
            file.sync()
            self.promised = self.returned
        if chance.random() < 0.2:
            self.saved = chance.randrange(self.saved, self.promised + 1)
            file.trim(self.saved, 1 << 30)

    def _entry(self, seq: int) -> Entry:
        value = encode_value("x" * self._chance.choice((1, 40, 3_000)))
        change = Change(Param(f"/a/{seq}", value, seq, "w", 1_700_000_000_000_000 + seq * 20_000_000))
        return Entry(seq, change, "0:/a" if self._chance.random() < 0.3 else None)


class PowerLossTests(SynchronousTestCase):
    def live(self, kind: str, seed: int) -> tuple[Life, list[Entry]]:
        """Lives until the power fails; returns the life, and what is found afterwards behind the state file."""
        where = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=where) as before, tempfile.TemporaryDirectory(dir=where) as after:
            life = Life(kind, seed, Path(before))
            patch = self.patch(os, "fsync", life.disk.fsync)
            life.live()
            patch.restore()
            self.assertTrue(life.disk.is_off)
            life.disk.after_the_loss(Path(after))
            return life, self.found(Path(after, "journal.db"), life)

    def found(self, path: Path, life: Life) -> list[Entry]:
        """Starts on what is there, as a relay does, and goes on."""
        applied: list[Change] = []
        last_seq = life.saved
        if (checked := open_to_check(path)) is not None:
            with closing(checked):
                last_seq = recover(checked, life.saved, applied.append, has_state=life.saved > 0).last_seq
        with closing(open_journal(path, syncs_each_commit=True)) as file:
            keys = dict(file.ask("SELECT seq, key FROM history"))
            rows = [Entry(seq, change, keys.get(seq)) for seq, change in file.read(life.saved)]
            self.assertEqual([entry.change for entry in rows], applied)
            self.assertEqual(file.ask("PRAGMA integrity_check"), [("ok",)])
            file.write(
                [Entry(last_seq + 1, life.written[0].change if life.written else Change(Param("", b"", 1, "", 1)))]
            )
        with closing(sqlite3.connect(path)) as connection:
            self.assertEqual(connection.execute("SELECT max(seq) FROM entries").fetchone(), (last_seq + 1,))
        return rows

    def test_what_was_promised_is_there(self) -> None:
        """And what is there is a beginning of all that was written, in whole batches."""
        missing = dict.fromkeys(KINDS, 0)
        for kind in KINDS:
            promised = 0
            for seed in range(LOSSES):
                with self.subTest(kind, seed=seed):
                    life, rows = self.live(kind, seed)
                    last_seq = max(life.saved, rows[-1].seq if rows else 0)
                    self.assertGreaterEqual(last_seq, life.promised)
                    self.assertIn(last_seq, {*life.ends, life.saved})
                    self.assertEqual(rows, life.written[life.saved : last_seq])
                    promised += life.promised
                    missing[kind] += max(0, life.returned - last_seq)
            self.assertGreater(promised, 20 * LOSSES)
        # Or nothing would be tested: the disk forgets what was committed and not synced.
        self.assertEqual(missing["power"], 0)
        self.assertGreater(missing["kill"], LOSSES // 3)
