"""The completions, tried in the shells themselves."""

import argparse
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

from tide_case import CLEAN, COMPLETIONS, TOOLS, TideCase

sys.path.insert(0, TOOLS)
from tide import cli  # noqa: E402

MODES = {"static", "flush", "shrink", "adaptive", "hybrid"}


class Shell(TideCase):
    """What each shell must offer; `offers(line)` asks it."""

    def setUp(self):
        super().setUp()
        (self.folder / "alpha beta.jsonl").write_text("")
        (self.folder / "sub").mkdir()

    def offers(self, line):
        raise NotImplementedError

    def check_all(self):
        self.assertEqual(self.offers("tide sta"), {"stat"})
        self.assertLessEqual(set(cli.COMMANDS), self.offers("tide "))
        self.assertEqual(self.offers("tide run --mo"), {"--mode"})
        self.assertEqual(self.offers("tide run --mode "), MODES)
        self.assertEqual(self.offers("tide run --mode st"), {"static"})
        self.assertEqual(self.offers("tide flush --tier "), {"tiny", "mid", "large"})
        self.assertEqual(self.offers("tide help inv"), {"investigate"})
        self.assertEqual(self.offers("tide investigate --peer mi"), {"mimalloc"})

    def check_program(self):
        """Behind the wrapper's own options it is the program's turn."""
        self.assertIn("seq", self.offers("tide run --mode static se"))
        self.assertIn("seq", self.offers("tide run -- se"))
        self.assertNotIn("--mode", self.offers("tide run ls --m"))

    def check_files(self):
        self.assertEqual({name.rstrip("/") for name in self.offers("tide report al")}, {"alpha beta.jsonl"})
        self.assertIn("sub", {name.rstrip("/") for name in self.offers("tide run --record s")})

    def check_processes(self):
        script = "x = b'x' * (8 << 20); import time; print('up', flush=True); time.sleep(60)"
        ours = self.start("run", sys.executable, "-c", script)
        self.assertEqual(ours.stdout.readline(), "up\n")
        for _ in range(500):
            if any(path.read_text() == "tide-keeper\n" for path in Path(f"/proc/{ours.pid}/task").glob("*/comm")):
                break
            time.sleep(0.01)
        other = subprocess.Popen(["sleep", "30"])
        self.addCleanup(other.communicate)
        self.addCleanup(other.kill)
        asked = self.offers("tide flush ")
        self.assertIn(str(ours.pid), asked)
        self.assertNotIn(str(other.pid), asked)
        anything = self.offers("tide smaps ")
        self.assertLessEqual({str(ours.pid), str(other.pid)}, anything)


class Bash(Shell):
    def offers(self, line, *libraries):
        script = "\n".join(
            [
                *(f". {library}" for library in libraries),
                f'. "{COMPLETIONS}/bash/tide"',
                "compopt() { :; }",  # readline is not at work here
                'COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9; read -ra COMP_WORDS <<<"$1"',
                '[[ $1 == *" " ]] && COMP_WORDS+=("")',
                "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))",
                '_tide tide "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"',
                'if [ "${#COMPREPLY[@]}" -gt 0 ]; then printf "%s\\n" "${COMPREPLY[@]}"; fi',
            ]
        )
        result = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", line], env=CLEAN, cwd=self.folder, capture_output=True, text=True,
            timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return {word.strip() for word in result.stdout.splitlines()}

    def test_words(self):
        self.check_all()
        self.assertIn("--version", self.offers("tide --"))

    def test_program(self):
        self.check_program()

    def test_files(self):
        self.check_files()

    def test_processes(self):
        self.check_processes()

    def test_value_behind_an_equals_sign(self):
        # Readline splits words at '='.
        script = f'. "{COMPLETIONS}/bash/tide"; COMP_WORDS=(tide run --mode = st) COMP_CWORD=4; _tide; '
        script += 'echo "${COMPREPLY[*]}"'
        result = subprocess.run(["bash", "--norc", "-c", script], env=CLEAN, capture_output=True, text=True, timeout=30)
        self.assertEqual((result.stdout, result.stderr), ("static\n", ""))

    def test_with_the_distribution_s_package(self):
        library = "/usr/share/bash-completion/bash_completion"
        if not os.path.exists(library):
            self.skipTest("bash-completion is not installed")
        self.assertIn("seq", self.offers("tide run -- se", library))


class Fish(Shell):
    def setUp(self):
        super().setUp()
        if not shutil.which("fish"):
            self.skipTest("fish is not installed")

    def offers(self, line):
        result = subprocess.run(
            ["fish", "--no-config", "-c", f'source "{COMPLETIONS}/fish/tide.fish"; complete -C $argv[1]', line],
            env={**CLEAN, "HOME": str(self.folder)}, cwd=self.folder, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return {word.split("\t")[0].replace("\\ ", " ") for word in result.stdout.splitlines()}

    def test_words(self):
        self.check_all()

    def test_program(self):
        self.check_program()

    def test_files(self):
        self.check_files()

    def test_processes(self):
        self.check_processes()


class Zsh(Shell):
    """In a terminal, since zsh completes nowhere else: Tab lists what matches."""

    def setUp(self):
        super().setUp()
        if not shutil.which("zsh"):
            self.skipTest("zsh is not installed")
        (self.folder / "functions").mkdir()
        shutil.copy(Path(COMPLETIONS, "zsh/_tide"), self.folder / "functions/_tide")
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(self.folder)
            more = {"TERM": "dumb", "PS1": "", "HOME": str(self.folder), "COLUMNS": "200", "LINES": "2000"}
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**CLEAN, **more})
        self.addCleanup(self.end)
        for line in (
            "unsetopt zle_bracketed_paste prompt_cr prompt_sp; PROMPT= RPROMPT= LISTMAX=100000",
            f"fpath=({self.folder}/functions $fpath); autoload -Uz compinit; compinit -u -D",
            "zstyle ':completion:*' verbose no; setopt list_packed no_always_last_prompt; bindkey '^I' list-choices",
            "stty cols 200 rows 2000; PS1='' ; print -r -- re''ady",
        ):
            os.write(self.terminal, line.encode() + b"\n")
        self.read_until("ready\r\n")

    def end(self):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)

    def read_until(self, mark, timeout=20.0):
        text, end = "", time.monotonic() + timeout
        while mark not in text:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, end - time.monotonic()))
            self.assertTrue(ready, f"zsh did not answer: {text!r}")
            text += os.read(self.terminal, 65536).decode(errors="replace")
        return text

    def read_while_it_writes(self, silence=0.7):
        text = ""
        while select.select([self.terminal], [], [], silence)[0]:
            text += os.read(self.terminal, 65536).decode(errors="replace")
        return text

    def offers(self, line):
        # With more input waiting zsh may leave the list out. Ctrl-U clears the line.
        os.write(self.terminal, line.encode() + b"\t")
        text = self.read_while_it_writes()
        os.write(self.terminal, b"\x15print -r -- e''nd\n")
        text += self.read_until("end\r\n")
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\x08", "", text)
        text = text.partition(line.strip())[2].partition("print -r -- e''nd")[0]
        found = set()
        for row in text.replace("\r", "\n").split("\n"):
            found |= {word.strip().rstrip("/*@") for word in re.split(r" {2,}", row) if word.strip()}
        return {word.replace("\\ ", " ") for word in found if not word.startswith("tide ")}

    def test_words(self):
        self.check_all()

    def test_program(self):
        self.check_program()

    def test_files(self):
        self.check_files()

    def test_processes(self):
        self.check_processes()


class Generated(unittest.TestCase):
    def test_every_option_is_in_every_shell_s_file(self):
        subparsers = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
        for file, spelling in (("bash/tide", "{}"), ("zsh/_tide", "{}"), ("fish/tide.fish", "-l {}")):
            text = Path(COMPLETIONS, file).read_text()
            for name, parser in subparsers.choices.items():
                for option in (option for action in parser._actions for option in action.option_strings):
                    if option.startswith("--"):
                        wanted = spelling.format(option[2:] if "-l" in spelling else option)
                        self.assertIn(wanted, text, (file, name))


del Shell  # it has no shell of its own

if __name__ == "__main__":
    unittest.main()
