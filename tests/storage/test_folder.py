"""The folder of the relay's files is made, or the operator reads why not."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage.folder import prepare_folder


class PrepareFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a place for folders."""
        self.place = Path(self.mktemp())
        self.place.mkdir()

    def test_folder_is_made_with_those_above_it(self) -> None:
        """And is empty: trying to write leaves nothing."""
        folder = self.place / "a" / "b"
        prepare_folder("--data-dir", folder)
        self.assertEqual(list(folder.iterdir()), [])

    def test_folder_that_is_there_is_left_as_it_is(self) -> None:
        """What is in it stays."""
        (self.place / "state.json").write_text("x")
        prepare_folder("--data-dir", self.place)
        self.assertEqual([path.read_text() for path in self.place.iterdir()], ["x"])

    def test_operator_reads_which_folder_cannot_be_used_and_why(self) -> None:
        """One line with the option, the path, the cause and the cure."""
        file = self.place / "file"
        file.write_text("")
        for folder, cause in ((file, "File exists"), (file / "below", "Not a directory")):
            with self.subTest(folder=folder):
                with self.assertRaises(StartError) as caught:
                    prepare_folder("--persist", folder)
                self.assertEqual(
                    str(caught.exception),
                    f"--persist: cannot write to {folder} ({cause}); make it a folder that I may write to",
                )
