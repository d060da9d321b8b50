"""`tide run`: the program starts on tidemalloc, and nothing stands between it and the caller."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from tide_case import CLEAN, LIBRARY, SOURCE, TOOL, TOOLS, TideCase

sys.path.insert(0, TOOLS)
from tide import options  # noqa: E402


class ExitStatus(TideCase):
    def test_status_of_the_program_passes(self):
        for status in (0, 3, 125):
            with self.subTest(status=status):
                self.assertEqual(self.tide("run", "sh", "-c", f"exit {status}").returncode, status)

    def test_death_by_signal_passes(self):
        result = self.tide("run", "--", "sh", "-c", "kill -TERM $$")
        self.assertEqual(result.returncode, -signal.SIGTERM)
        self.assertEqual(result.stderr, "")

    def test_signal_reaches_the_program_itself(self):
        process = self.start("run", "sh", "-c", "trap 'exit 42' USR1; echo $$; while :; do sleep 0.05; done")
        self.assertEqual(int(process.stdout.readline()), process.pid)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=20), 42)

    def test_ignored_signals_of_python_are_not_inherited(self):
        result = self.tide("run", "grep", "SigIgn", "/proc/self/status")
        ignored = int(result.stdout.split()[1], 16)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            self.assertFalse(ignored >> (number - 1) & 1, number.name)

    def test_program_not_found(self):
        self.assert_one_line_error(self.tide("run", "no-such-program-here"), 127, "not found: 'no-such-program-here'")
        self.assert_one_line_error(self.tide("run", self.folder / "missing"), 127, "not found")
        self.assert_one_line_error(self.tide("run", ""), 127, "not found")

    def test_program_not_executable(self):
        plain = self.script("plain", "text")
        plain.chmod(0o644)
        self.assert_one_line_error(self.tide("run", plain), 126, "cannot execute")
        self.assert_one_line_error(self.tide("run", self.folder), 126, "cannot execute")
        self.assert_one_line_error(self.tide("run", "plain", env={"PATH": path_with(self.folder)}), 126, "'plain'")
        self.assert_one_line_error(self.tide("run", self.script("odd", "\0\1\2")), 126, "Exec format error")

    def test_interpreter_missing(self):
        script = self.script("orphan", "#!/no/such/interpreter\n")
        self.assert_one_line_error(self.tide("run", script), 127, "interpreter")

    def test_mistakes_in_the_command_line(self):
        for arguments in ((), ("--",), ("--no-such-option", "true"), ("--lib", LIBRARY, "true")):
            with self.subTest(arguments=arguments):
                self.assert_one_line_error(self.tide("run", *arguments), 125, "tide run --help")


class Arguments(TideCase):
    def test_arguments_pass_untouched(self):
        wanted = ["-o", "a b", "--", "", "--library", "é*"]
        for separator in ([], ["--"]):
            with self.subTest(separator=separator):
                result = self.tide("run", *separator, "printf", "<%s>", *wanted)
                self.assertEqual(result.stdout, "".join(f"<{word}>" for word in wanted))

    def test_program_keeps_its_name(self):
        result = self.tide("run", "sh", "-c", "tr '\\0' '\\n' < /proc/$$/cmdline | head -n 1")
        self.assertEqual(result.stdout, "sh\n")

    def test_standard_streams_pass(self):
        result = self.tide("run", "sh", "-c", "echo out; echo err >&2")
        self.assertEqual((result.stdout, result.stderr), ("out\n", "err\n"))


class Environment(TideCase):
    def variables(self, *arguments, env=None):
        result = self.tide("run", *arguments, "env", "-0", env=env)
        self.assertEqual(result.returncode, 0, result.stderr)
        return dict(entry.split("=", 1) for entry in result.stdout.rstrip("\0").split("\0"))

    def test_library_is_preloaded(self):
        self.assertEqual(self.variables()["LD_PRELOAD"], LIBRARY)
        maps = self.tide("run", "cat", "/proc/self/maps").stdout
        self.assertIn(os.path.realpath(LIBRARY), maps)

    def test_existing_preload_is_kept_after_ours(self):
        libc = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
        self.assertEqual(self.variables(env={"LD_PRELOAD": libc})["LD_PRELOAD"], f"{LIBRARY}:{libc}")
        self.assertEqual(self.variables(env={"LD_PRELOAD": ""})["LD_PRELOAD"], LIBRARY)

    def test_options_become_variables(self):
        seen = self.variables("-o", "first_name=1=2", "--option", "other=", env={"TIDE_FIRST_NAME": "old"})
        self.assertEqual(seen["TIDE_FIRST_NAME"], "1=2")
        self.assertEqual(seen["TIDE_OTHER"], "")

    def test_bad_options_are_refused(self):
        for option, words in {
            "Mode=x": "bad option name",
            "mo-de=x": "bad option name",
            "a1=x": "bad option name",
            "=x": "bad option name",
            "mode\n=x": "bad option name",
            "mode": "NAME=VALUE",
        }.items():
            with self.subTest(option=option):
                self.assert_one_line_error(self.tide("run", "-o", option, "true"), 125, words)

    def test_nothing_else_is_added(self):
        # Python, when started in the C locale, sets LC_CTYPE for itself.
        seen = self.variables(env={"LANG": "C", "LC_ALL": "", "PLAIN": "é"})
        self.assertNotIn("LC_CTYPE", seen.keys() - os.environ.keys())
        self.assertEqual(seen["PLAIN"], "é")


class Options(TideCase):
    """Each option of the allocator is a flag, from one table that mirrors the documentation and the C source."""

    def variables(self, *arguments):
        result = self.tide("run", *arguments, "env")
        self.assertEqual(result.returncode, 0, result.stderr)
        return dict(line.split("=", 1) for line in result.stdout.splitlines() if line.startswith("TIDE_"))

    def test_flags_become_variables(self):
        found = self.variables(
            "--mode", "static", "--keeper=off", "--log", "keeper", "--reserve", "1G", "--visible", "off",
            "--print-stats",
        )  # fmt: skip
        wanted = {"MODE": "static", "KEEPER": "off", "LOG": "keeper", "RESERVE": "1G", "VISIBLE": "off"}
        wanted["PRINT_STATS"] = "1"
        self.assertEqual(found, {f"TIDE_{name}": value for name, value in wanted.items()})

    def test_the_last_mention_wins_in_whatever_form(self):
        self.assertEqual(self.variables("--mode", "static", "-o", "mode=flush")["TIDE_MODE"], "flush")
        self.assertEqual(self.variables("-o", "mode=flush", "--mode", "static")["TIDE_MODE"], "static")

    def test_values_that_do_not_exist(self):
        self.assert_one_line_error(self.tide("run", "--mode", "bold", "true"), 125, "bold")
        self.assert_one_line_error(self.tide("run", "--keeper", "1", "true"), 125, "--keeper")

    def test_table_is_that_of_the_documentation_and_of_the_library(self):
        page = Path(SOURCE, "docs/OPTIONS.md").read_text()
        rows = re.findall(r"^\| `TIDE_(\w+)` \| `(\w+)` \| (.*?) \|", page, re.MULTILINE)
        self.assertEqual({name.lower() for name, _, _ in rows}, set(options.OPTIONS))
        table = Path(SOURCE, "src/os/options.c").read_text().partition("option_table[] = {")[2].partition("\n};")[0]
        self.assertEqual(set(re.findall(r'\{"(\w+)",', table)), set(options.OPTIONS))
        for name, _, values in rows:
            wanted = options.OPTIONS[name.lower()][0]
            if isinstance(wanted, tuple):
                self.assertEqual(set(re.findall(r"`(\w+)`", values)) & set(wanted), set(wanted), name)

    def test_library_takes_the_values(self):
        # A value that it does not know makes it write a line.
        for name, (values, _) in options.OPTIONS.items():
            for value in values if isinstance(values, tuple) else ("64M",):
                result = self.tide("run", "-o", f"{name}={value}", "true")
                self.assertNotIn("default instead of the bad value", result.stderr, name)
        self.assertIn("bad value", self.tide("run", "-o", "mode=bold", "true").stderr)


# Allocates 8 MiB, says "full" and waits for a line.
HOLDER = "x = [bytearray(65536) for _ in range(128)]; print('full', flush=True); input()"


class Record(TideCase):
    """--record: tide stays beside the program, and nobody notices."""

    def lines(self, path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_record_is_written_and_the_status_passes(self):
        path = self.folder / "memory.jsonl"
        script = "x = bytearray(32 << 20); import time; time.sleep(0.5); raise SystemExit(7)"
        result = self.tide("run", "--record", path, "--", sys.executable, "-c", script)
        self.assertEqual((result.returncode, result.stdout), (7, ""), result.stderr)
        first, *middle, last = self.lines(path)
        self.assertEqual((first["allocator"], first["command"][0]), ("tidemalloc", sys.executable))
        self.assertEqual(last["end"], {"exit_status": 7})
        self.assertGreater(max(line.get("rss", 0) for line in middle), 32 << 20)

    def test_death_by_signal_passes(self):
        path = self.folder / "memory.jsonl"
        result = self.tide("run", "--record", path, "sh", "-c", "sleep 0.3; kill -KILL $$")
        self.assertEqual(result.returncode, -signal.SIGKILL)
        self.assertEqual(self.lines(path)[-1]["end"], {"signal": signal.SIGKILL})

    def test_signals_sent_to_tide_reach_the_program(self):
        path = self.folder / "memory.jsonl"
        process = self.start(
            "run", "--record", path, "sh", "-c", "trap 'exit 42' USR1; echo up; while :; do sleep 0.05; done"
        )
        self.assertEqual(process.stdout.readline(), "up\n")
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=20), 42)

    def test_program_that_stops_stops_tide(self):
        process = self.start("run", "--record", self.folder / "m.jsonl", "sh", "-c", "echo up; kill -STOP $$; echo on")
        self.assertEqual(process.stdout.readline(), "up\n")
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.stdout.readline(), "on\n")
        self.assertEqual(process.wait(timeout=20), 0)

    def test_program_starts_with_the_caller_s_signals(self):
        result = self.tide("run", "--record", self.folder / "m.jsonl", "grep", "Sig", "/proc/self/status")
        found = dict(line.split(":\t") for line in result.stdout.splitlines() if line.startswith(("SigBlk", "SigIgn")))
        plain = subprocess.run(["grep", "Sig", "/proc/self/status"], env=CLEAN, capture_output=True, text=True).stdout
        self.assertIn(f"SigBlk:\t{found['SigBlk']}", plain)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            self.assertFalse(int(found["SigIgn"], 16) >> (number - 1) & 1, number.name)

    def test_standard_streams_pass(self):
        result = subprocess.run(
            [TOOL, "run", "--record", self.folder / "m.jsonl", sys.executable, "-c", HOLDER],
            env=CLEAN, input="\n", capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual((result.returncode, result.stdout), (0, "full\n"), result.stderr)

    def test_program_is_not_found_and_leaves_no_file(self):
        path = self.folder / "m.jsonl"
        self.assert_one_line_error(self.tide("run", "--record", path, "no-such-program-here"), 127, "not found")
        odd = self.script("odd", "\0\1")
        self.assert_one_line_error(self.tide("run", "--record", path, odd), 126, "cannot execute")
        self.assertFalse(path.exists())

    def test_record_that_cannot_be_written(self):
        result = self.tide("run", "--record", self.folder / "none/m.jsonl", "true")
        self.assert_one_line_error(result, 125, "m.jsonl")
        # A full disk costs the record, not the program.
        result = self.tide("run", "--record", "/dev/full", "sh", "-c", "sleep 0.3; echo done; exit 3")
        self.assertEqual((result.returncode, result.stdout), (3, "done\n"))
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("No space left", result.stderr)


class Count(TideCase):
    def test_counting_library_is_preloaded(self):
        result = self.tide("run", "--count", "sh", "-c", 'echo "$LD_PRELOAD"')
        self.assertEqual(result.stdout.strip(), str(Path(LIBRARY).with_name("libtidemalloc-count.so")), result.stderr)

    def test_excludes_another_library(self):
        self.assert_one_line_error(self.tide("run", "--count", "--library", LIBRARY, "true"), 125, "exclude")


class Start(TideCase):
    def test_what_run_does_not_need_is_not_imported(self):
        # tide run stands before every start of a program: it must stay quick, whatever other commands need.
        result = subprocess.run(
            [sys.executable, "-X", "importtime", TOOL, "run", "true"],
            env=CLEAN, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        imported = set(re.findall(r"\|\s*([\w.]+)$", result.stderr, re.MULTILINE))
        self.assertIn("tide.elf", imported)
        ours = {name for name in imported if name.startswith("tide.")}
        self.assertLessEqual(ours, {f"tide.{name}" for name in ("cli", "messages", "run", "elf", "options")})
        self.assertFalse(imported & {"json", "ctypes", "threading", "subprocess", "tempfile", "rich", "urwid"})


class Library(TideCase):
    """Where tide looks for the library, tried with copies of the tool in folders with and without one."""

    def copy_tool(self, place):
        place.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy2(TOOL, place)

    def preloaded(self, *arguments, tool=TOOL):
        result = self.tide("run", *arguments, "sh", "-c", 'echo "$LD_PRELOAD"', tool=tool)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.rstrip("\n")

    def test_missing_library(self):
        tool = self.copy_tool(self.folder / "bin/tide")
        self.assert_one_line_error(self.tide("run", "true", tool=tool), 125, "--library")
        self.assert_one_line_error(self.tide("run", "--library", "/no/such.so", "true"), 125, "/no/such.so")

    def test_library_that_is_none(self):
        text = self.script("fake.so", "not a library")
        self.assert_one_line_error(self.tide("run", "--library", text, "true"), 125, "not a shared library")

    def test_library_beside_the_tool(self):
        tool = self.copy_tool(self.folder / "bin/tide")
        library = shutil.copy(LIBRARY, self.folder / "bin/libtidemalloc.so")
        self.assertEqual(self.preloaded(tool=tool), str(library))

    def test_installed_library(self):
        for directory in ("lib", "lib64", f"lib/{os.uname().machine}-linux-gnu"):
            with self.subTest(directory=directory):
                prefix = self.folder / directory.replace("/", "-")
                tool = self.copy_tool(prefix / "bin/tide")
                library = prefix / directory / "libtidemalloc.so"
                library.parent.mkdir(parents=True)
                shutil.copy(LIBRARY, library)
                self.assertEqual(self.preloaded(tool=tool), str(library))

    def test_tool_behind_a_symbolic_link(self):
        link = self.folder / "tide"
        link.symlink_to(TOOL)
        self.assertEqual(self.preloaded(tool=link), LIBRARY)

    def test_library_option_wins_and_may_be_relative(self):
        library = shutil.copy(LIBRARY, self.folder / "other.so")
        relative = os.path.relpath(library)
        self.assertEqual(os.path.realpath(self.preloaded("--library", relative)), os.path.realpath(library))

    def test_path_that_preload_cannot_hold(self):
        for name in ("with space", "with:colon"):
            with self.subTest(name=name):
                folder = self.folder / name
                tool = self.copy_tool(folder / "tide")
                library = shutil.copy(LIBRARY, folder / "libtidemalloc.so")
                self.assert_one_line_error(self.tide("run", "true", tool=tool), 125, "space or colon")
                link = self.folder / f"{name[5:]}.so"
                link.symlink_to(library)
                self.assertEqual(self.preloaded("--library", link, tool=tool), str(link))


class Warnings(TideCase):
    def assert_one_warning(self, result, words):
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("tide run: warning: ", result.stderr)
        self.assertIn(words, result.stderr)

    def static_program(self):
        """An ELF file without PT_INTERP: the kernel starts it alone, and it exits with status 7."""
        # mov edi, 7; mov eax, SYS_exit; syscall
        code = bytes.fromhex("bf07000000b83c0000000f05")
        header = b"\x7fELF\2\1\1" + bytes(9) + number(2, 2) + number(62, 2) + number(1, 4) + number(0x400078, 8)
        header += number(64, 8) + bytes(8) + bytes(4) + number(64, 2) + number(56, 2) + number(1, 2) + bytes(6)
        segment = number(1, 4) + number(5, 4) + bytes(8) + number(0x400000, 8) * 2
        segment += number(120 + len(code), 8) * 2 + number(4096, 8)
        path = self.folder / "static"
        path.write_bytes(header + segment + code)
        path.chmod(0o755)
        return path

    @unittest.skipUnless(os.uname().machine == "x86_64", "the program is x86-64 code")
    def test_static_program(self):
        program = self.static_program()
        result = self.tide("run", program)
        self.assertEqual(result.returncode, 7)
        self.assert_one_warning(result, "statically linked")

        script = self.script("script", f"#!{program}\n")
        result = self.tide("run", script)
        self.assertEqual(result.returncode, 7)
        self.assert_one_warning(result, f"'{script}' keeps its own allocator")

    @unittest.skipUnless(os.getuid() == 0, "only root can give a file to another user")
    def test_set_user_id_program(self):
        program = shutil.copy("/bin/true", self.folder / "true")
        os.chown(program, 65534, 65534)
        for mode in (0o4755, 0o2755):
            with self.subTest(mode=oct(mode)):
                os.chmod(program, mode)
                self.assert_one_warning(self.tide("run", program), "other rights")
        os.chmod(program, 0o755)
        self.assertEqual(self.tide("run", program).stderr, "")

    def test_no_warning_for_an_ordinary_program(self):
        self.assertEqual(self.tide("run", "true").stderr, "")
        self.assertEqual(self.tide("run", self.script("script", "#!/bin/sh\n")).stderr, "")


def path_with(folder):
    return f"{folder}:{os.environ['PATH']}"


def number(value, size):
    return value.to_bytes(size, "little")


if __name__ == "__main__":
    unittest.main()
