#!/usr/bin/env python3
"""Run every attack on every allocator, each in a process of its own, and say what came of it.

    run.py PROGRAM --default LIB --secure LIB             the tests: each cell of our three variants is as it should be
    run.py PROGRAM --default LIB --secure LIB --table     the table with the packaged allocators beside, as Markdown
    run.py PROGRAM --default LIB --secure LIB --write F   put that table between the markers of a file
    run.py PROGRAM --default LIB --secure LIB --show NAME what one attack says everywhere
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import allocators  # noqa: E402

TIMEOUT_S = 60
OUTCOMES = {0: "harmless", 10: "undetected", 11: "guard", 12: "crash", 13: "-"}
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"

# What each attack must come to: in the default build, with TIDE_SECURE=1, in the secure build. One word: in all three.
# A word of several, `a|b`: either, where chance decides which of the two defences is met first.
EXPECTED = {
    "overflow-tiny": "undetected undetected detected",
    "overflow-mid": "undetected undetected detected",
    "overflow-large": "undetected guard guard",
    "underflow-tiny": "undetected undetected detected",
    "underflow-mid": "undetected undetected detected",
    "underflow-large": "undetected guard guard",
    "nul-tiny": "undetected undetected detected",
    "nul-mid": "undetected undetected detected",
    "slack": "harmless harmless detected",
    "overread-tiny": "undetected",
    "overread-large": "undetected guard guard",
    "metadata-above": "harmless harmless|guard detected|guard",
    "metadata-below": "harmless|guard|detected",
    "double-free-tiny": "detected",
    "double-free-mid": "detected",
    "double-free-large": "detected",
    "double-free-a-b-a": "detected",
    "double-free-many": "detected",
    "double-free-many-mid": "detected",
    "double-free-there": "detected",
    "double-free-here": "detected",
    "double-free-there-mid": "detected",
    "double-free-key": "undetected undetected detected",
    "free-misaligned": "detected",
    "free-inside": "detected",
    "free-inside-mid": "detected",
    "free-inside-large": "detected",
    "free-stack": "detected",
    "free-static": "detected",
    "free-foreign": "detected",
    "realloc-freed-tiny": "detected",
    "realloc-freed-mid": "detected",
    "realloc-freed-large": "detected",
    "realloc-freed-there": "detected",
    "usable-size-freed": "detected",
    "sized-delete-larger": "harmless harmless detected",
    "sized-delete-smaller": "harmless harmless detected",
    "free-sized": "harmless harmless detected",
    "poison": "undetected undetected detected",
    "poison-near": "undetected undetected detected",
    "poison-part": "undetected undetected detected",
    "poison-fork": "undetected undetected detected",
    "poison-fork-near": "undetected undetected detected",
    "read-freed-tiny": "undetected undetected harmless",
    "read-freed-mid": "undetected undetected harmless",
    "read-freed-large": "undetected guard guard",
    "write-freed-tiny": "undetected undetected detected",
    "write-freed-mid": "undetected undetected detected",
    "write-freed-large": "undetected guard guard",
    "write-reused-soon": "undetected undetected harmless",
    "write-reused-late": "undetected undetected undetected|harmless",
    "write-reused-large": "undetected|harmless harmless harmless",
    "left-over-tiny": "undetected undetected harmless",
    "left-over-mid": "undetected undetected harmless",
    "left-over-large": "undetected harmless harmless",
    "reuse-tiny": "undetected undetected harmless",
    "reuse-mid": "undetected undetected harmless",
    "reuse-large": "undetected harmless harmless",
    "row-tiny": "undetected undetected harmless",
    "row-mid": "undetected undetected harmless",
    "layout-tiny": "undetected undetected harmless",
    "layout-mid": "undetected harmless|undetected harmless",
    "layout-large": "undetected harmless harmless",
}


class Subject:
    """A way to run a program on one allocator."""

    def __init__(self, title, library=None, **variables):
        self.title = title
        self.environment = {name: value for name, value in os.environ.items()
                            if name != "LD_PRELOAD" and not name.startswith("TIDE_")}
        if library is not None:
            self.environment["LD_PRELOAD"] = str(library)
        self.environment.update(variables)


def attack(program, name, subject):
    """(outcome, the attack's line, what the allocator said)"""
    try:
        run = subprocess.run([program, name], env=subject.environment, capture_output=True, text=True,
                             errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "crash", "it hangs", ""
    said = run.stderr.strip()
    if run.returncode in OUTCOMES:
        return OUTCOMES[run.returncode], run.stdout.strip(), said
    if run.returncode == -signal.SIGABRT or (run.returncode < 0 and said):
        return "detected", run.stdout.strip(), said
    if run.returncode < 0:
        return "crash", f"signal {-run.returncode}", said
    raise RuntimeError(f"{name} on {subject.title}: status {run.returncode}, {said}")


def list_attacks(program):
    listing = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return [tuple(line.split("\t")) for line in listing.stdout.splitlines()]


def ours(arguments):
    return [Subject("default", arguments.default), Subject("`TIDE_SECURE=1`", arguments.default, TIDE_SECURE="1"),
            Subject("secure build", arguments.secure)]


def peers():
    return [Subject("glibc")] + [Subject(name, allocators.find_peer(name).library) for name in allocators.PEERS]


def make_table(program, subjects):
    lines = ["| attack | " + " | ".join(subject.title for subject in subjects) + " |",
             "|---" * (len(subjects) + 1) + "|"]
    for name, title in list_attacks(program):
        cells = []
        for subject in subjects:
            outcome, line, _ = attack(program, name, subject)
            percent = re.search(r"\d+ %$", line)
            cells.append(f"{outcome}, {percent[0]}" if percent else outcome)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(path, table):
    text = path.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    path.write_text(f"{text[:begin]}\n{table}\n{text[end:]}")


class Cells(unittest.TestCase):
    program = None
    subjects = []

    def test_every_attack_is_expected(self):
        self.assertEqual([name for name, _ in list_attacks(self.program)], list(EXPECTED))

    def test_cells(self):
        for name, expected in EXPECTED.items():
            words = expected.split()
            for column, subject in enumerate(self.subjects):
                wanted = words[column if len(words) > 1 else 0].split("|")
                with self.subTest(attack=name, on=subject.title):
                    outcome, line, said = attack(self.program, name, subject)
                    self.assertIn(outcome, wanted, f"{line}; {said}")
                    if outcome == "detected":
                        self.assertRegex(said, r"^tidemalloc: [^\n]+$")
                    else:
                        self.assertEqual(said, "")

    def test_guards_on_older_kernels(self):
        """Where the kernel has no guards in page tables, they are mappings."""
        for column, subject in enumerate(self.subjects):
            older = Subject(subject.title)
            older.environment = {**subject.environment, "ATTACKS_WITHOUT_MARKS": "1"}
            for name, expected in EXPECTED.items():
                words = expected.split()
                wanted = words[column if len(words) > 1 else 0].split("|")
                if column == 0 or "guard" not in wanted:
                    continue
                with self.subTest(attack=name, on=subject.title):
                    outcome, line, said = attack(self.program, name, older)
                    if outcome == "-":
                        self.skipTest(line)
                    self.assertIn(outcome, wanted, f"{line}; {said}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--default", required=True, type=Path)
    parser.add_argument("--secure", required=True, type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--show")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    if arguments.show:
        for subject in ours(arguments) + peers():
            print(f"{subject.title:16}", *attack(arguments.program, arguments.show, subject), sep=" | ")
    elif arguments.table or arguments.write:
        table = make_table(arguments.program, ours(arguments) + peers())
        if arguments.write:
            write_table(arguments.write, table)
        else:
            print(table)
    else:
        Cells.program, Cells.subjects = arguments.program, ours(arguments)
        unittest.main(argv=sys.argv[:1], verbosity=2)


if __name__ == "__main__":
    main()
