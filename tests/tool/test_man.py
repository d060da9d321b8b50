"""The man pages: one for each command, with each of its options, and nothing that groff complains about."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from tide_case import SOURCE, TOOLS

sys.path.insert(0, TOOLS)
from tide import cli  # noqa: E402

PAGES = Path(SOURCE, "docs/man")


def plain(text):
    """The source of a page without its fonts and escapes."""
    return re.sub(r"\\f[A-Z]|\\&", "", text).replace("\\-", "-").replace("\\~", " ")


def options_of(parser):
    return [option for action in parser._actions for option in action.option_strings]


class Pages(unittest.TestCase):
    def setUp(self):
        subparsers = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
        self.parsers = subparsers.choices
        self.summaries = {choice.dest: choice.help for choice in subparsers._choices_actions}

    def page(self, name):
        return plain((PAGES / name).read_text())

    def test_every_command_has_a_page_and_every_page_a_command(self):
        wanted = {"tide.1", *(f"tide-{name}.1" for name in self.parsers)}
        self.assertEqual({path.name for path in PAGES.glob("*.1")}, wanted)
        main = self.page("tide.1")
        for name in self.parsers:
            self.assertIn(f"tide-{name}(1)", main)

    def test_every_option_is_in_the_page_of_its_command(self):
        for name, parser in self.parsers.items():
            tags = re.findall(r"^\.TP\n(.*)$", self.page(f"tide-{name}.1"), re.MULTILINE)
            described = {word for tag in tags for word in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", tag)}
            with self.subTest(command=name):
                self.assertEqual(set(options_of(parser)) - described, set(), "not in the page")
                self.assertEqual(described - set(options_of(parser)), set(), "in the page only")

    def test_every_choice_is_in_the_page(self):
        for name, parser in self.parsers.items():
            text = self.page(f"tide-{name}.1")
            for action in parser._actions:
                if action.choices and action.option_strings:
                    for choice in action.choices:
                        self.assertRegex(text, rf"\b{re.escape(str(choice))}\b", (name, action.option_strings))

    def test_exit_statuses_are_those_of_status_py(self):
        from tide import status

        numbers = {value for name, value in vars(status).items() if name.isupper()}
        found = set(map(int, re.findall(r"^\.TP\n(\d+)$", self.page("tide.1"), re.MULTILINE)))
        self.assertEqual(found, numbers)

    @unittest.skipUnless(shutil.which("man") and shutil.which("groff"), "needs man-db and groff")
    def test_groff_is_silent(self):
        for path in PAGES.glob("*.1"):
            with self.subTest(page=path.name):
                result = subprocess.run(
                    ["man", "--warnings", "--encoding=UTF-8", "--local-file", "-Tutf8", "-Z", path],
                    env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
                    capture_output=True, text=True, timeout=30,
                )  # fmt: skip
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertIn("EXIT STATUS", re.sub(r"\x1b\[\d*m|.\x08", "", self.rendered(path)))

    def rendered(self, path):
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80", "GROFF_NO_SGR": "1"}
        return subprocess.run(["man", "--local-file", path], env=environment, capture_output=True, text=True).stdout


if __name__ == "__main__":
    unittest.main()
