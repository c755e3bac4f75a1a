"""The table of options: no name twice, and the documentation says what the table says."""

from dataclasses import fields
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.option_table import NOT_SUPPORTED, OPTIONS, Option, variable_of
from clasp_relay.settings import Settings

ROOT = Path(__file__).parent.parent.parent
WITHOUT_AN_OPTION = {"outbox_bytes"}


def documented_rows(path: Path) -> list[list[str]]:
    """Returns the cells of the rows of a document's table of options."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `--")]


def spelled(option: Option) -> str:
    """Returns all names of an option as the documentation writes them."""
    names = sorted((option.name, *option.aliases), key=lambda name: (len(name) == 1, name != option.name, name))
    return ", ".join(f"`{'-' if len(name) == 1 else '--'}{name}`" for name in names)


class TableTests(SynchronousTestCase):
    """What has to hold for every row."""

    def test_no_name_stands_for_two_options(self) -> None:
        """Names, aliases and refused names are all different."""
        names = [name for option in OPTIONS for name in (option.name, *option.aliases)]
        names += [*NOT_SUPPORTED, "help", "version"]
        self.assertEqual(sorted(names), sorted(set(names)))

    def test_every_field_has_an_option_but_those_named_here(self) -> None:
        """A new field is either on the command line or an exception that somebody meant."""
        self.assertEqual(
            {field.name for field in fields(Settings)} - {option.field for option in OPTIONS}, WITHOUT_AN_OPTION
        )

    def test_every_flag_sets_what_its_field_accepts(self) -> None:
        """A flag's constant is a value of its field."""
        for option in OPTIONS:
            if option.is_flag:
                with self.subTest(option.name):
                    self.assertTrue(option.kind.accepts(option.constant))

    def test_variable_is_the_name_in_capitals(self) -> None:
        """Dashes become underscores after CLASP_."""
        self.assertEqual(variable_of("data-dir"), "CLASP_DATA_DIR")


class DocumentationTests(SynchronousTestCase):
    """The documents have what the table has."""

    def test_operations_list_every_option_with_variable_default_and_meaning(self) -> None:
        """docs/operations.md says exactly what the code says, in the same order."""
        rows = [row for row in documented_rows(ROOT / "docs" / "operations.md") if len(row) == 4]
        expected = [[spelled(option), f"`{option.variable}`", option.default_text, option.help] for option in OPTIONS]
        self.assertEqual(rows, expected)

    def test_readme_says_the_defaults_that_the_code_has(self) -> None:
        """The README's shorter table names options that exist, with their defaults."""
        defaults = {f"`--{option.name}`": option.default_text for option in OPTIONS}
        rows = documented_rows(ROOT / "README.md")
        self.assertTrue(rows)
        self.assertEqual([row[1] for row in rows], [defaults.get(row[0]) for row in rows])
