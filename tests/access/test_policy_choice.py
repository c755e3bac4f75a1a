"""Which policy is in force, and how the log says so."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy_choice import choose_policy, load_policy
from clasp_relay.errors import StartError


class ChoiceTests(SynchronousTestCase):
    """What was said, what was found, or the default."""

    def setUp(self) -> None:
        """Makes the two folders."""
        self.root = Path(self.mktemp())
        self.folders = (self.root / "etc", self.root / "config")
        for folder in self.folders:
            folder.mkdir(parents=True)

    def write(self, path: Path, text: str = "{}") -> Path:
        """Writes a policy."""
        path.write_text(text, "utf-8")
        return path

    def chosen(self, app_config: str | None = None) -> tuple[str | None, str]:
        """Returns the source of the policy in force, and the words for the log."""
        policy, words = choose_policy(app_config, self.folders)
        return None if policy is None else policy.document.source, words

    def test_chat_is_in_force_when_nothing_is_said_or_found(self) -> None:
        """Missing folders are as good as empty ones, and so is a file in the place of one."""
        default = ("chat", f"chat, the default (no JSON file in {self.folders[0]} or {self.folders[1]})")
        self.assertEqual(self.chosen(), default)
        self.folders[0].rmdir()
        self.folders[1].rmdir()
        self.write(self.folders[1])
        self.assertEqual(self.chosen(), default)

    def test_the_one_json_file_is_in_force(self) -> None:
        """In either folder; what is hidden, a folder or of another kind does not count."""
        for folder in self.folders:
            with self.subTest(folder.name):
                (folder / "more.json").mkdir()
                self.write(folder / "._app.json")
                self.write(folder / "app.yaml")
                path = self.write(folder / "app.json")
                self.assertEqual(self.chosen(), (str(path), f"{path}, the one JSON file that was found"))
                path.unlink()

    def test_chat_is_in_force_when_several_files_are_found(self) -> None:
        """In one folder or in both; the log names them."""
        one = self.write(self.folders[0] / "a.json")
        other = self.write(self.folders[1] / "b.json")
        self.assertEqual(self.chosen(), ("chat", f"chat, the default ({one}, {other} are more than one file)"))

    def test_what_is_said_is_in_force_whatever_is_found(self) -> None:
        """A packaged name, none, or a path."""
        self.write(self.folders[0] / "a.json", "no JSON")
        path = self.write(self.root / "mine.json")
        cases: list[tuple[str, str | None]] = [
            ("chat", "chat"),
            ("chat-compat", "chat-compat"),
            ("none", None),
            (str(path), str(path)),
        ]
        for app_config, source in cases:
            with self.subTest(app_config):
                self.assertEqual(self.chosen(app_config), (source, f"{app_config}, as --app-config says"))

    def test_choice_names_the_file_when_it_is_no_policy(self) -> None:
        """And, when nobody named it, how to take another one."""
        path = self.write(self.folders[1] / "a.json", '{"scope": []}')
        with self.assertRaisesRegex(StartError, r"a\.json: scope: is not known here.*found by itself; --app-config"):
            self.chosen()
        with self.assertRaisesRegex(StartError, r"a\.json: scope: is not known here") as caught:
            self.chosen(str(path))
        self.assertNotIn("found by itself", str(caught.exception))

    def test_choice_names_a_folder_that_cannot_be_searched(self) -> None:
        """What might be in it might be stricter than the default."""
        loop = self.root / "loop"
        loop.symlink_to("loop")
        with self.assertRaisesRegex(StartError, "loop: cannot be searched for a policy .*--app-config"):
            choose_policy(None, (loop,))

    def test_load_takes_a_packaged_name_or_a_path(self) -> None:
        """A name that is not packaged is a path."""
        self.assertEqual(load_policy("chat").document.source, "chat")
        with self.assertRaisesRegex(StartError, "nothing: the policy cannot be read"):
            load_policy("nothing")
