"""`tide smaps` on real processes: sums, tiers, stacks, phases, files, mistakes."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from tide_case import CLEAN, LIBRARY, TOOL, TideCase

MIB = 1 << 20
FIGURES = ("size", "rss", "pss", "private_dirty", "lazy_free", "anon_huge", "swap")

# On each line of input: fill = 16 MiB in each tier, drop = free them, thread = one more thread that waits.
PROGRAM = """
import ctypes, sys, threading
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = []
print("ready", flush=True)
for line in sys.stdin:
    if line == "fill\\n":
        for size in (512, 16384, 1 << 20):
            for _ in range((16 << 20) // size):
                blocks.append(libc.malloc(size))
                libc.memset(blocks[-1], 1, size)
    elif line == "drop\\n":
        while blocks:
            libc.free(blocks.pop())
    elif line == "thread\\n":
        started = threading.Event()
        threading.Thread(target=lambda: (started.set(), threading.Event().wait()), daemon=True).start()
        started.wait()
    print("done", flush=True)
"""


class SmapsCase(TideCase):
    def program(self, on_tidemalloc=False, **options):
        """Start PROGRAM, on the system's allocator or on tidemalloc."""
        env = {**CLEAN, "PYTHONMALLOC": "malloc", **{"TIDE_" + name.upper(): value for name, value in options.items()}}
        if on_tidemalloc:
            env["LD_PRELOAD"] = LIBRARY
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def tell(self, process, word):
        process.stdin.write(word + "\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")

    def snapshots(self, *arguments):
        result = self.tide("smaps", "--json", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        content = json.loads(result.stdout)
        self.assertEqual(content["tide_smaps"], 1)
        return content["snapshots"]

    def snapshot(self, *arguments):
        (snapshot,) = self.snapshots(*arguments)
        return snapshot

    def rows(self, snapshot):
        return {row["kind"]: row for row in snapshot["kinds"]}

    def rollup(self, pid):
        """smaps_rollup in bytes."""
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.endswith(" kB\n")}


class Sums(SmapsCase):
    def assert_sums(self, snapshot):
        for figure in FIGURES:
            self.assertEqual(sum(row[figure] for row in snapshot["kinds"]), snapshot["total"][figure], figure)

    def assert_like_rollup(self, snapshot, rollup):
        self.assert_sums(snapshot)
        names = {"Rss": "rss", "Private_Dirty": "private_dirty", "LazyFree": "lazy_free"}
        for line, figure in {**names, "AnonHugePages": "anon_huge", "Swap": "swap"}.items():
            self.assertEqual(snapshot["total"][figure], rollup[line], line)
        # Each mapping's Pss is cut to whole KiB, that of the rollup only once.
        self.assertLessEqual(snapshot["total"]["pss"], rollup["Pss"])
        self.assertGreater(snapshot["total"]["pss"], rollup["Pss"] - 1024 * 1024)

    def test_of_a_stopped_process_they_are_those_of_the_rollup(self):
        for on_tidemalloc in (False, True):
            process = self.program(on_tidemalloc)
            self.tell(process, "fill")
            self.tell(process, "thread")
            process.send_signal(signal.SIGSTOP)
            snapshot = self.snapshot(process.pid)
            self.assert_like_rollup(snapshot, self.rollup(process.pid))
            self.assertEqual(snapshot["allocator"], "tidemalloc" if on_tidemalloc else "glibc")
            if on_tidemalloc:
                self.assertIn("stopped", "".join(snapshot["notes"]))
                self.assertGreater(self.rows(snapshot)["tidemalloc heap"]["rss"], 48 * MIB)

    def test_of_a_quiet_process_on_tidemalloc_they_are_those_of_the_rollup(self):
        process = self.program(True, mode="static")
        self.tell(process, "fill")
        before = self.rollup(process.pid)
        snapshot = self.snapshot(process.pid)
        after = self.rollup(process.pid)
        self.assert_sums(snapshot)
        self.assertLess(abs(snapshot["total"]["rss"] - (before["Rss"] + after["Rss"]) // 2), MIB)

    def test_any_process(self):
        snapshot = self.snapshot(os.getpid())
        self.assert_sums(snapshot)
        self.assertTrue({"heap [brk]", "main stack", "program text", "library text"} <= self.rows(snapshot).keys())


class Kinds(SmapsCase):
    def test_tiers(self):
        process = self.program(True)
        self.tell(process, "fill")
        rows = self.rows(self.snapshot(process.pid))
        for tier in ("tiny", "mid", "large"):
            rss = rows[f"tidemalloc {tier}"]["rss"]
            self.assertTrue(16 * MIB <= rss < 24 * MIB, f"{tier}: {rss / MIB}")
        self.assertNotIn("tidemalloc heap", rows)
        self.assertTrue(0 < rows["tidemalloc metadata"]["rss"] < 2 * MIB)

    def test_free_memory_that_is_kept(self):
        process = self.program(True, mode="static")
        self.tell(process, "fill")
        self.tell(process, "drop")
        rows = self.rows(self.snapshot(process.pid))
        self.assertGreater(rows["tidemalloc free (dirty)"]["rss"], 40 * MIB)
        self.assertLess(rows["tidemalloc large"]["rss"], 2 * MIB)

    def test_without_a_keeper_the_heap_is_one(self):
        process = self.program(True, keeper="off")
        self.tell(process, "fill")
        snapshot = self.snapshot(process.pid)
        self.assertGreater(self.rows(snapshot)["tidemalloc heap"]["rss"], 48 * MIB)
        self.assertIn("keeper", "".join(snapshot["notes"]))

    def test_thread_stacks(self):
        process = self.program()
        self.assertNotIn("thread stacks", self.rows(self.snapshot(process.pid)))
        for _ in range(3):
            self.tell(process, "thread")
        snapshot = self.snapshot(process.pid)
        self.assertGreater(self.rows(snapshot)["thread stacks"]["rss"], 3 * 4096)
        note = next(note for note in snapshot["notes"] if note.startswith("thread stacks"))
        self.assertEqual(sum(map(int, re.findall(r"(\d+) by", note))), 3, note)

    def test_text(self):
        process = self.program(True)
        self.tell(process, "fill")
        result = self.tide("smaps", process.pid)
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.splitlines()
        self.assertRegex(lines[0], rf"^python.* \({process.pid}\), on tidemalloc; MiB$")
        self.assertEqual(
            lines[1].split(), ["kind", "Size", "Rss", "Pss", "Private_Dirty", "LazyFree", "AnonHuge", "Swap"]
        )
        self.assertRegex(result.stdout, r"\ntidemalloc tiny +\d+\.\d +1\d\.\d ")
        self.assertRegex(result.stdout, r"\ntotal +\d+\.\d +\d+\.\d ")
        self.assertEqual({len(line) for line in lines[2:] if not line.startswith("note")}, {len(lines[1])})


class Phases(SmapsCase):
    def test_baseline_heavy_idle_after_flush(self):
        process = self.program(True, mode="static")
        saved = self.folder / "phases.json"
        tide = subprocess.Popen(
            [TOOL, "smaps", str(process.pid), "--phases", "baseline,heavy,idle,after-flush", "--save", saved],
            env=CLEAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(tide.communicate)
        self.addCleanup(tide.kill)
        for index, word in enumerate((None, "fill", "drop", None)):
            self.assertIn(f"{index + 1} of 4: press Enter", tide.stderr.readline())
            if word:
                self.tell(process, word)
            tide.stdin.write("\n")
            tide.stdin.flush()
            if index == 3:
                self.assertRegex(tide.stderr.readline(), r"flushed: \d+\.\d MiB went back")
            self.assertRegex(tide.stderr.readline(), r": \d+\.\d MiB resident")
        output, rest = tide.communicate(timeout=30)
        self.assertEqual((tide.returncode, rest), (0, ""))

        snapshots = json.loads(saved.read_text())["snapshots"]
        self.assertEqual([snapshot["label"] for snapshot in snapshots], ["baseline", "heavy", "idle", "after-flush"])
        baseline, heavy, idle, flushed = (snapshot["total"]["rss"] for snapshot in snapshots)
        self.assertGreater(heavy, baseline + 46 * MIB)
        self.assertGreater(idle, baseline + 40 * MIB)
        self.assertLess(flushed, baseline + 4 * MIB)
        self.assertGreater(snapshots[3]["flush"]["returned_bytes"], 40 * MIB)
        self.assertRegex(output, r"kind +baseline +heavy +idle +after-flush\n")
        self.assertRegex(output, r"\nkind +heavy +idle +after-flush +first to last\n")

    def test_the_end_of_the_input_ends_it_early(self):
        result = subprocess.run(
            [TOOL, "smaps", str(os.getpid()), "--phases", "one,two,three", "--json"],
            env=CLEAN, input="\n\n", capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([snapshot["label"] for snapshot in json.loads(result.stdout)["snapshots"]], ["one", "two"])

    def test_at_given_seconds(self):
        start = time.monotonic()
        snapshots = self.snapshots(os.getpid(), "--at", "0,0.3,0.6", "--phases", "a,b,c")
        self.assertGreaterEqual(time.monotonic() - start, 0.6)
        self.assertEqual([snapshot["label"] for snapshot in snapshots], ["a", "b", "c"])
        unnamed = self.snapshots(os.getpid(), "--at", "0,0.1")
        self.assertEqual([snapshot["label"] for snapshot in unnamed], ["0 s", "0.1 s"])

    def test_a_process_that_ends_between(self):
        process = self.program()
        tide = self.start("smaps", process.pid, "--at", "0,20", "--json")
        time.sleep(1)
        process.communicate()
        output, errors = tide.communicate(timeout=15)
        self.assertEqual(tide.returncode, 3, errors)
        self.assertEqual(len(json.loads(output)["snapshots"]), 1)
        self.assertEqual(len([line for line in errors.splitlines() if "error" in line]), 1, errors)


class Programs(SmapsCase):
    def test_a_program_is_started_and_ended(self):
        text = "trap 'echo TERM >$0.end; exit' TERM\necho $$ >$0.pid\nsleep 100 & echo $! >$0.child\nwait"
        path = self.script("program", "#!/bin/sh\n" + text)
        snapshot = self.snapshot("--at", "0.5", "--", path)
        self.assertEqual(snapshot["name"], "program")
        self.assertEqual((self.folder / "program.end").read_text(), "TERM\n")
        for name in ("program.pid", "program.child"):
            with self.assertRaises(ProcessLookupError):
                os.kill(int((self.folder / name).read_text()), 0)

    def test_its_name_is_that_of_what_it_has_become(self):
        path = self.script("program", "#!/bin/sh\nsleep 0.2\nexec sleep 100")
        snapshots = self.snapshots("--at", "0.1,0.8", "--", path)
        self.assertEqual([snapshot["name"] for snapshot in snapshots], ["program", "sleep"])

    def test_its_output_goes_to_standard_error(self):
        result = self.tide("smaps", "--at", "0.3", "--", "sh", "-c", "echo words of the program; sleep 100")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("words of the program\n", result.stderr)
        self.assertNotIn("words", result.stdout)

    def test_options_behind_a_program_are_its_own(self):
        snapshot = self.snapshot("--at", "0.3", "--", "sh", "-c", "sleep 100; :", "--json", "--", "x")
        self.assertTrue(snapshot["command"].endswith("--json -- x"), snapshot["command"])

    def test_it_is_ended_with_tide(self):
        path = self.script("program", "#!/bin/sh\necho $$ >$0.pid\nexec sleep 100")
        tide = self.start("smaps", "--at", "50", "--", path)
        pid_file = self.folder / "program.pid"
        for _ in range(500):
            if pid_file.exists() and pid_file.read_text().endswith("\n"):
                break
            time.sleep(0.02)
        tide.send_signal(signal.SIGTERM)
        tide.communicate(timeout=20)
        pid = int(pid_file.read_text())
        with contextlib.suppress(FileNotFoundError):
            for _ in range(500):
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    if file.read().rpartition(")")[2].split()[0] in "ZX":
                        break
                time.sleep(0.02)
            else:
                self.fail("the program goes on")

    def test_programs_that_do_not_start_or_last(self):
        self.assert_one_line_error(self.tide("smaps", "--", "no-such-program"), 1, "no-such-program")
        self.assert_one_line_error(self.tide("smaps", "--", "true"), 3, "ended")


class Files(SmapsCase):
    def save(self, name, *arguments):
        path = self.folder / name
        result = self.tide("smaps", "--save", path, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return path

    def test_compare(self):
        process = self.program()
        first = self.save("first.json", process.pid, "--label", "baseline")
        self.tell(process, "fill")
        second = self.save("second.json", process.pid)
        result = self.tide("smaps", "--compare", first, second, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        compared = json.loads(result.stdout)
        self.assertEqual(compared["labels"], ["baseline", "second"])
        saved = [json.loads(path.read_text())["snapshots"][0] for path in (first, second)]
        for kind, columns in compared["kinds"].items():
            values = [self.rows(snapshot).get(kind, dict.fromkeys(FIGURES, 0)) for snapshot in saved]
            for figure in FIGURES:
                self.assertEqual(columns[figure], [row[figure] for row in values])
                change = values[1][figure] - values[0][figure]
                self.assertEqual(columns["changes"][figure], [change, change])
        self.assertEqual(compared["total"]["rss"], [snapshot["total"]["rss"] for snapshot in saved])

        text = self.tide("smaps", "--compare", first, second).stdout
        change = (saved[1]["total"]["rss"] - saved[0]["total"]["rss"]) / MIB
        self.assertRegex(text, rf"\ntotal +\+{change:.1f} +\+{change:.1f}\n")
        by = self.tide("smaps", "--compare", first, second, "--by", "private_dirty").stdout
        self.assertTrue(by.startswith("Private_Dirty of python"), by)

    def test_files_that_cannot_be_read(self):
        good = self.save("good.json", os.getpid())
        text = good.read_text()
        row, note = json.loads(text), json.loads(text)
        del row["snapshots"][0]["kinds"][0]["rss"]
        note["snapshots"][0]["notes"] = ["\033[2J"]
        for name, content, words in (
            ("truncated.json", text[: len(text) // 2], "truncated"),
            ("foreign.json", '{"some": "thing"}', "not a file of"),
            ("list.json", "[1]", "not a file of"),
            ("text.json", "PID NAME\n", "not a file of"),
            ("empty.json", "", "not a file of"),
            ("later.json", text.replace('"tide_smaps": 1', '"tide_smaps": 2'), "version 2"),
            ("damaged.json", json.dumps(row), "damaged"),
            ("escapes.json", json.dumps(note), "damaged"),
        ):
            path = self.folder / name
            path.write_text(content)
            self.assert_one_line_error(self.tide("smaps", "--compare", good, path), 7, words)
        (self.folder / "bytes.json").write_bytes(b"\xff\xfe\0")
        self.assert_one_line_error(self.tide("smaps", "--compare", good, self.folder / "bytes.json"), 7, "not a file")
        self.assert_one_line_error(self.tide("smaps", "--compare", good, self.folder / "none.json"), 1, "none.json")

    def test_files_that_cannot_be_written(self):
        for path, words in ((self.folder / "none/x.json", "none/x.json"), ("/dev/full", "No space left"),
                            (self.folder, "directory")):  # fmt: skip
            self.assert_one_line_error(self.tide("smaps", os.getpid(), "--save", path), 1, words)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_full_disk_leaves_what_was_there(self):
        path = self.folder / "x.json"
        path.write_text("old")
        result = subprocess.run(
            [TOOL, "smaps", str(os.getpid()), "--save", path], env=CLEAN, capture_output=True, text=True, timeout=30,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        )  # fmt: skip
        self.assert_one_line_error(result, 1, "x.json: File too large")
        self.assertEqual([entry.name for entry in self.folder.iterdir()], ["x.json"])
        self.assertEqual(path.read_text(), "old")

    def test_a_link_stays_a_link_and_the_mode_is_the_usual(self):
        target, link = self.folder / "target.json", self.folder / "link.json"
        target.write_text("old")
        link.symlink_to(target)
        self.save("link.json", os.getpid())
        self.assertTrue(link.is_symlink())
        self.assertIn("tide_smaps", target.read_text())
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(target.stat().st_mode & 0o777, 0o666 & ~mask)


class Mistakes(SmapsCase):
    def test_processes(self):
        self.assert_one_line_error(self.tide("smaps", 2**22 + 1), 3, "no process")
        self.assert_one_line_error(self.tide("smaps", "no-such-name"), 3, "no-such-name")
        path = self.script("twins-of-tide", "#!/bin/sh\nread x\n")
        twins = [subprocess.Popen([path], stdin=subprocess.PIPE) for _ in range(2)]
        for twin in twins:
            self.addCleanup(twin.communicate)
        self.wait_until_named(twins, "twins-of-tide")
        result = self.tide("smaps", "twins-of-tide")
        self.assert_one_line_error(result, 2, f"{min(t.pid for t in twins)}, {max(t.pid for t in twins)}")
        twins[0].communicate()
        self.assertEqual(self.snapshot("twins-of-tide")["pid"], twins[1].pid)

    def wait_until_named(self, processes, name):
        for process in processes:
            for _ in range(500):
                with open(f"/proc/{process.pid}/comm", encoding="ascii") as file:
                    if file.read() == name + "\n":
                        break
                time.sleep(0.02)

    def test_a_flush_wants_tidemalloc_and_a_keeper(self):
        process = self.program()
        self.assert_one_line_error(self.tide("smaps", process.pid, "--phases", "after-flush"), 5, "does not run on")
        alone = self.program(True, keeper="off")
        self.assert_one_line_error(self.tide("smaps", alone.pid, "--phases", "after-flush"), 6, "keeper")

    def test_command_line(self):
        pid = os.getpid()
        for arguments, words in (
            ((), "PID or NAME"),
            (("--",), "PID or NAME"),
            ((pid, pid), "one process"),
            ((pid, "--at", "3,1"), "rising"),
            ((pid, "--at", "soon"), "rising"),
            ((pid, "--at", "nan"), "rising"),
            ((pid, "--phases", "a,,b"), "list of names"),
            ((pid, "--phases", "a,b", "--at", "1"), "2 names"),
            ((pid, "--label", "x", "--phases", "a,b"), "--label"),
            ((pid, "--compare", "x"), "files only"),
            ((pid, "--by", "colour"), "--by"),
            ((pid, "--label", "a\tb"), "control characters"),
            ((pid, "--no-such-option"), "--no-such-option"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_one_line_error(self.tide("smaps", *arguments), 2, words)

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_a_process_of_another_user(self):
        tool = self.script("tide", "")
        tool.write_bytes(Path(TOOL).read_bytes())
        tool.chmod(0o755)
        self.folder.chmod(0o755)
        result = subprocess.run(
            [tool, "smaps", str(os.getpid())], env=CLEAN, user=65534, group=65534, extra_groups=[],
            capture_output=True, text=True, timeout=30, cwd="/",
        )  # fmt: skip
        self.assert_one_line_error(result, 4, "another user")


if __name__ == "__main__":
    unittest.main()
