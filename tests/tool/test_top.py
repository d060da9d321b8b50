"""`tide top`: its lines as pure functions, and the whole of it in a terminal that is drawn by pyte."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest
from pathlib import Path

import pyte

from tide_case import CLEAN, LIBRARY, TOOL, TideCase

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, TOOLS)

from tide import top, top_view  # noqa: E402
from tide.top_view import Row  # noqa: E402
from tide.window import TOTALS, FlushReport, ThreadFigures  # noqa: E402

MIB = 1 << 20
PATIENCE_S = 20

# On each line of input: a number = so many MiB of blocks of 16 KiB and of 256 bytes, drop = free them, spin = be busy.
PROGRAM = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = []
print("ready", flush=True)
for line in sys.stdin:
    if line == "drop\\n":
        while blocks:
            libc.free(blocks.pop())
    elif line == "spin\\n":
        while True:
            pass
    else:
        for size in (256, 16384):
            for _ in range((int(line) << 19) // size):
                blocks.append(libc.malloc(size))
                libc.memset(blocks[-1], 1, size)
    print("done", flush=True)
"""

# tide top whose screen breaks as soon as there is something to show.
BROKEN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from tide import cli, top
def broken(self, rows):
    raise RuntimeError("broken on purpose")
top.Top.on_rows = broken
sys.exit(cli.main(["top"]))
"""


def totals(**known):
    return {**dict.fromkeys(TOTALS, 0), **known}


class Lines(unittest.TestCase):
    def test_fit(self):
        self.assertEqual(top_view.fit("abc", 5), "abc  ")
        self.assertEqual(top_view.fit("abc", 5, right=True), "  abc")
        self.assertEqual(top_view.fit("abcdef", 4), "abc~")
        self.assertEqual(top_view.fit("abc", 0), "")
        self.assertEqual(top_view.fit("日本語", 5), "日本~")
        self.assertEqual(top_view.fit("日本語", 4), "日~ ")
        self.assertEqual(top_view.fit("e\u0301tat", 5), "e\u0301tat ")
        self.assertEqual(top_view.fit("日本", 4, plain=True), "??  ")

    def test_sizes(self):
        self.assertEqual(top_view.size(None), "-")
        self.assertEqual(top_view.size(0), "0.0")
        self.assertEqual(top_view.size(99999 * MIB), "99999.0")
        self.assertEqual(top_view.size(2 << 40), "2048G")

    def test_sparkline(self):
        self.assertEqual(top_view.sparkline([], 3, False), "   ")
        self.assertEqual(top_view.sparkline([0, 0], 3, False), " ▁▁")
        self.assertEqual(top_view.sparkline([9, 1, 4, 8], 3, False), "▂▅█")
        self.assertEqual(top_view.sparkline([1, 4, 8], 3, True), ".=#")
        self.assertEqual(len(set(top_view.ASCII_BLOCKS)), len(top_view.BLOCKS))

    def test_order(self):
        rows = [
            Row(3, "b", 10, 0.0, totals(allocated_bytes=5)),
            Row(1, "A", 30, 2.0),
            Row(2, "c", 20, 1.0, totals(allocated_bytes=7)),
        ]

        def pids(key, other_way=False):
            return [row.pid for row in top_view.ordered(rows, key, other_way)]

        self.assertEqual(pids("r"), [1, 2, 3])
        self.assertEqual(pids("r", True), [3, 2, 1])
        self.assertEqual(pids("p"), [1, 2, 3])
        self.assertEqual(pids("n"), [1, 3, 2])
        self.assertEqual(pids("c"), [1, 2, 3])
        self.assertEqual(pids("l"), [2, 3, 1], "those that do not tell come last")
        self.assertEqual(pids("l", True), [3, 2, 1], "the other way round, too")

    def test_every_line_has_the_width_of_the_screen(self):
        row = Row(4194303, "a very long name", 123456789012, 1234.5, totals(returned_bytes=1 << 50), history=(1, 2, 3))
        for width in (80, 81, 100, 200, 40):
            for plain in (False, True):
                self.assertEqual(len(top_view.row_line(row, width, plain)), width)
        headings = "".join(cell for _, cell in top_view.heading_cells(80))
        self.assertLessEqual(len(headings), 80 - top_view.GRAPH_LEAST)
        for text in (top_view.ACTIONS, top_view.SORT_KEYS, *top_view.HELP.splitlines()):
            self.assertLessEqual(len(text), 80)
        self.assertLessEqual(len(top_view.HELP.splitlines()), 24 - 2)

    def test_footer_and_help_name_every_key(self):
        for key in top_view.SORTS:
            self.assertRegex(top_view.SORT_KEYS, rf"\b{key} \w")
            self.assertRegex(top_view.HELP, rf"(?m)^(. )*{key} (. )* *sort")

    def test_pools(self):
        row = Row(1, "x", 0, 0.0, totals(tiny_state=2, mid_state=1, large_state=0))
        self.assertEqual((row.pools, row.keeper), ("P/B/M", "watch"))
        self.assertEqual((Row(1, "x", 0, 0.0).pools, Row(1, "x", 0, 0.0).keeper), ("-", "none"))

    def test_details(self):
        heaps = [ThreadFigures(tid, "bound", "own", 0, kept * MIB, 0, 0, 0) for tid, kept in ((11, 1), (12, 5), (0, 3))]
        row = Row(11, "x", 0, 0.0, totals(mid_retained_bytes=7 * MIB), heaps, 4, {11: "x", 12: "worker"})
        text = "\n".join(top_view.details(row))
        self.assertRegex(text, r"(?m)^mid +0\.0 +7\.0 ")
        self.assertRegex(text, r"(?s)12 worker +active .* 5\.0.*- - +ended .* 3\.0.*11 x .* 1\.0.*and 4 more")
        self.assertIn("no keeper here", "\n".join(top_view.details(Row(1, "x", 0, 0.0, problem="no keeper here"))))

    def test_flush_message(self):
        report = FlushReport(10 * MIB, 0, 2 * MIB, 0, 1.25)
        text = top_view.flush_message("x", 7, ("tiny", "mid", "large"), report, 30 * MIB, 20 * MIB)
        self.assertEqual(text, "x (7), all tiers: 10.0 MiB went back in 1.2 ms, RSS 30.0 to 20.0; 2.0 pinned")
        self.assertIn(", tiny: ", top_view.flush_message("x", 7, ("tiny",), report, 0, 0))

    def test_utf8_is_that_of_the_user(self):
        self.assertTrue(top.is_utf8({b"LANG": b"de_DE.UTF-8"}))
        self.assertTrue(top.is_utf8({b"LC_CTYPE": b"C.utf8", b"LANG": b"C"}))
        self.assertTrue(top.is_utf8({b"LC_ALL": b"", b"LANG": b"de_DE.UTF-8@euro"}))
        self.assertFalse(top.is_utf8({b"LC_ALL": b"C", b"LANG": b"de_DE.UTF-8"}))
        self.assertFalse(top.is_utf8({}))

    def test_what_terminals_can_do(self):
        ask = f"import sys; sys.path.insert(0, {TOOLS!r}); from tide import top; print(*top.terminal({{b'TERM': %r}}))"

        def terminal(name):  # curses reads terminfo once in a process
            found = subprocess.run([sys.executable, "-c", ask % name], capture_output=True, text=True, timeout=30)
            can_place_cursor, colours = found.stdout.split()
            return can_place_cursor == "True", int(colours) >= 8

        self.assertEqual(terminal(b""), (False, False))
        self.assertEqual(terminal(b"dumb"), (False, False))
        self.assertEqual(terminal(b"vt100"), (True, False))
        self.assertEqual(terminal(b"xterm"), (True, True))
        self.assertEqual(terminal(b"no-such-terminal"), (True, False))


class Terminal:
    """A terminal with a program in it, drawn by pyte. The program's end of the line stays open here, too, so that its
    settings can be read afterwards."""

    def __init__(self, command, rows=24, columns=80, **env):
        self.master, self.line = pty.openpty()
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(rows, columns)
        self.settings = termios.tcgetattr(self.line)
        self.process = subprocess.Popen(
            command, stdin=self.line, stdout=self.line, stderr=self.line, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**CLEAN, "TERM": "xterm", "LC_ALL": "C.UTF-8", **env},
        )  # fmt: skip

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)
        os.close(self.line)

    def resize(self, rows, columns):
        fcntl.ioctl(self.line, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, text):
        os.write(self.master, text.encode())

    def draw(self, seconds=0.05):
        """Draw what the program has written."""
        while select.select([self.master], [], [], seconds)[0]:
            data = os.read(self.master, 65536)
            self.raw += data
            self.stream.feed(data)
            seconds = 0

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, is_so, what=""):
        """Draw until `is_so()` is true, and return that."""
        end = time.monotonic() + PATIENCE_S
        while not (found := is_so()):
            if time.monotonic() > end:
                raise AssertionError(f"never: {what}\n{self.text()}")
            self.draw()
        return found

    def wait_for(self, pattern):
        return self.wait(lambda: re.search(pattern, self.text()), pattern)

    def wait_for_end(self):
        self.wait(lambda: self.process.poll() is not None, "the end")
        self.draw()
        return self.process.returncode

    def marked(self):
        """The line that is shown in reverse or in colours of its own: the selected one."""
        for number in range(2, self.screen.lines):
            cell = self.screen.buffer[number][0]
            if cell.reverse or cell.bg != "default":
                return self.screen.display[number]
        return ""

    def is_in_alternate_screen(self):
        modes = re.findall(rb"\033\[\?(?:47|1047|1049)([hl])", self.raw)
        return modes[-1:] == [b"h"]


class TopCase(TideCase):
    def program(self, mib, **options):
        env = {**CLEAN, "LD_PRELOAD": LIBRARY, **{"TIDE_" + name.upper(): value for name, value in options.items()}}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        self.assertEqual(process.stdout.readline(), "ready\n")
        self.tell(process, mib)
        return process

    def tell(self, process, word):
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")

    def terminal(self, command, **options):
        terminal = Terminal(command, **options)
        self.addCleanup(terminal.close)
        return terminal

    def top(self, *arguments, **options):
        return self.terminal([TOOL, "top", "-i", "0.2", *arguments], **options)

    def shows(self, terminal, process):
        return terminal.wait_for(rf"(?m)^ *{process.pid} .*$")[0]

    def select(self, terminal, process):
        self.shows(terminal, process)
        for _ in range(50):
            if terminal.marked().split()[:1] == [str(process.pid)]:
                return
            before = terminal.marked()
            terminal.type("\033[B")
            end = time.monotonic() + 1
            while terminal.marked() == before and time.monotonic() < end:
                terminal.draw()
            if terminal.marked() == before:
                terminal.type("\033[H")
        self.fail(f"{process.pid} cannot be selected\n{terminal.text()}")


class Screen(TopCase):
    def test_a_process_and_its_figures(self):
        process = self.program(40)
        terminal = self.top()
        row = self.shows(terminal, process).split()
        lines = terminal.screen.display
        self.assertRegex(lines[0], r"^tide top: \d+ process(es)?, \d+\.\d MiB; by RSS, largest first; every 0.2 s *$")
        self.assertEqual(
            lines[1].split(), ["PID", "NAME", "RSS", "LIVE", "RETAINED", "RETURNED", "POOLS", "KEEPER", "CPU%"]
        )
        self.assertEqual(lines[-2].rstrip(), top_view.ACTIONS)
        self.assertEqual(lines[-1].rstrip(), top_view.SORT_KEYS)
        rss, live = float(row[2]), float(row[3])
        self.assertTrue(40 < live < rss < 80, row)
        self.assertRegex(row[6], "^[MBP]/[MBP]/[MBP]$")
        self.assertIn(row[7], ("watch", "look", "quiet", "still"))
        terminal.wait_for(rf"(?m)^ *{process.pid} .*█ *$")

    def test_processes_come_and_go(self):
        terminal = self.top()
        process = self.program(10)
        self.shows(terminal, process)
        process.kill()
        process.wait()
        terminal.wait(lambda: not re.search(rf"(?m)^ *{process.pid} ", terminal.text()), "it goes")

    def test_one_without_a_keeper(self):
        process = self.program(10, keeper="off")
        terminal = self.top()
        row = self.shows(terminal, process).split()
        self.assertEqual(row[3:8], ["-", "-", "-", "-", "none"])
        self.select(terminal, process)
        terminal.type("f")
        terminal.wait_for("no keeper to ask")

    def test_sorting(self):
        small, big = self.program(10), self.program(60)
        small_first, big_first = (rf"(?s) {a.pid} .* {b.pid} " for a, b in ((small, big), (big, small)))
        terminal = self.top()
        terminal.wait_for(big_first)
        for keys, order in (("r", small_first), ("r", big_first), ("l", big_first), ("l", small_first)):
            terminal.type(keys)
            terminal.wait_for(order)
        terminal.type("p")
        terminal.wait_for("by PID, rising")
        pids = [int(line.split()[0]) for line in terminal.screen.display[2:] if re.match(r" *\d+ ", line)]
        self.assertEqual(pids, sorted(pids))
        for key, heading in (("n", "NAME"), ("t", "RETAINED"), ("b", "RETURNED"), ("c", "CPU%")):
            terminal.type(key)
            terminal.wait_for(f"by {heading},")

    def test_flush(self):
        process = self.program(60, mode="static")
        self.tell(process, "drop")
        terminal = self.top()
        self.select(terminal, process)
        before = float(self.shows(terminal, process).split()[2])
        terminal.type("f")
        message = terminal.wait_for(rf"\({process.pid}\), all tiers: (\d+\.\d) MiB went back in (\d+\.\d) ms")
        self.assertGreater(float(message[1]), 50)
        self.assertGreater(before, 60)
        terminal.wait(lambda: float(self.shows(terminal, process).split()[2]) < before - 50, "RSS falls")

    def test_flush_one_tier(self):
        process = self.program(60, mode="static")
        self.tell(process, "drop")
        terminal = self.top()
        self.select(terminal, process)
        terminal.type("F")
        terminal.wait_for("t tiny  m mid  l large  a all")
        terminal.type("x")
        terminal.wait(lambda: "which tier" not in terminal.text(), "the question goes")
        terminal.type("F")
        terminal.wait_for("which tier")
        terminal.type("l")
        terminal.wait_for(r", large: \d+\.\d MiB went back")

    def test_details(self):
        process = self.program(20)
        terminal = self.top()
        self.select(terminal, process)
        terminal.type("\r")
        terminal.wait_for(r"(?m)^tiny +1\d\.\d ")
        terminal.wait_for(rf"(?m)^ +{process.pid} \S+ .*\d\.\d")
        self.assertEqual(terminal.screen.display[-1].rstrip(), top_view.SORT_KEYS)
        self.assertTrue(terminal.marked())
        terminal.type(" ")
        terminal.wait(lambda: "THREAD" not in terminal.text(), "the pane closes")

    def test_more_processes_than_lines(self):
        sleepers = [subprocess.Popen(["sleep", "100"], env={**CLEAN, "LD_PRELOAD": LIBRARY}) for _ in range(8)]
        for sleeper in sleepers:
            self.addCleanup(sleeper.wait)
            self.addCleanup(sleeper.kill)
        terminal = self.top(rows=10)
        terminal.wait_for("sort:")
        terminal.type("p")
        terminal.wait_for("by PID, rising")
        terminal.wait(lambda: int(re.search(r"(\d+) process", terminal.text())[1]) >= 8, "all are found")
        terminal.type("\033[F")  # End
        last = max(sleeper.pid for sleeper in sleepers)
        terminal.wait(lambda: int((terminal.marked().split() or ["0"])[0]) >= last, "the last one is selected")
        self.assertNotIn(f" {min(sleeper.pid for sleeper in sleepers)} ", terminal.text())
        self.assertEqual(terminal.screen.display[-1].rstrip(), top_view.SORT_KEYS)

    def test_help(self):
        terminal = self.top()
        terminal.wait_for("sort:")
        terminal.type("?")
        terminal.wait_for("Any key closes this")
        terminal.type("q")
        terminal.wait_for("sort: p pid")
        self.assertIsNone(terminal.process.poll())

    def test_resize(self):
        process = self.program(10)
        terminal = self.top()
        self.shows(terminal, process)
        for rows, columns in ((10, 50), (40, 132), (24, 80), (3, 20), (1, 1), (24, 80)):
            terminal.resize(rows, columns)
            os.killpg(terminal.process.pid, signal.SIGWINCH)
            terminal.draw(0.5)
            self.assertIsNone(terminal.process.poll())
            if rows >= 10:
                terminal.wait(
                    lambda: terminal.screen.display[-1].startswith(top_view.SORT_KEYS[: columns - 1]), "the footer"
                )
                self.shows(terminal, process)

    def test_kinds_of_terminals(self):
        process = self.program(10)
        colour = re.compile(rb"\033\[(\d+;)*(3[0-7]|4[0-7]|9[0-7]|10[0-7])(;\d+)*m")
        for term in ("xterm", "vt100", "screen"):
            for no_colour in ("", "1"):
                with self.subTest(term=term, no_colour=no_colour):
                    terminal = self.top(TERM=term, NO_COLOR=no_colour)
                    self.shows(terminal, process)
                    self.assertTrue(terminal.marked())
                    coloured = colour.search(terminal.raw) is not None
                    self.assertEqual(coloured, term != "vt100" and not no_colour)
                    terminal.type("q")
                    self.assertEqual(terminal.wait_for_end(), 0)

    def test_ascii_where_the_locale_is(self):
        process = self.program(10)
        terminal = self.top(LC_ALL="C")
        terminal.wait_for(rf"(?m)^ *{process.pid} .*#+ *$")
        self.assertTrue(terminal.raw.isascii())


class Ending(TopCase):
    """However it ends: settings as before, cursor visible, normal screen."""

    def assert_restored(self, terminal):
        self.assertEqual(termios.tcgetattr(terminal.line), terminal.settings)
        self.assertFalse(terminal.screen.cursor.hidden)
        self.assertIn(b"\033[?47h", terminal.raw)
        self.assertFalse(terminal.is_in_alternate_screen())

    def begun(self, **options):
        terminal = self.top(**options)
        terminal.wait_for("sort:")
        self.assertNotEqual(termios.tcgetattr(terminal.line), terminal.settings)
        self.assertTrue(terminal.is_in_alternate_screen())
        return terminal

    def test_q(self):
        terminal = self.begun()
        terminal.type("q")
        self.assertEqual(terminal.wait_for_end(), 0)
        self.assert_restored(terminal)

    def test_ctrl_c(self):
        terminal = self.begun()
        terminal.type("\x03")
        self.assertIn(terminal.wait_for_end(), (-signal.SIGINT, 130))
        self.assert_restored(terminal)
        self.assertNotIn("Traceback", terminal.text())

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
            with self.subTest(number):
                terminal = self.begun()
                terminal.process.send_signal(number)
                self.assertIn(terminal.wait_for_end(), (-number, 128 + number))
                self.assert_restored(terminal)

    def test_at_once(self):
        """A signal at any moment of the start leaves a whole terminal, too."""
        moments = [(False, ms) for ms in range(50, 400, 50)] + [(True, ms) for ms in (0, 2, 5, 20)]
        for after_output, delay_ms in moments:
            terminal = self.top()
            if after_output:
                terminal.wait(lambda: terminal.raw, "its first byte")
            time.sleep(delay_ms / 1000)
            terminal.process.send_signal(signal.SIGTERM)
            terminal.wait_for_end()
            with self.subTest(after_output=after_output, delay_ms=delay_ms):
                self.assertEqual(termios.tcgetattr(terminal.line), terminal.settings)
                self.assertFalse(terminal.screen.cursor.hidden)
                self.assertFalse(terminal.is_in_alternate_screen())

    def test_an_exception(self):
        terminal = self.terminal(["/usr/bin/python3", "-c", BROKEN, TOOLS])
        self.assertEqual(terminal.wait_for_end(), 1)
        self.assertIn("broken on purpose", terminal.text())
        self.assert_restored(terminal)

    def test_a_terminal_that_is_gone(self):
        terminal = self.begun()
        os.close(terminal.line)
        os.close(terminal.master)
        self.addCleanup(lambda: None)
        terminal.process.wait(timeout=PATIENCE_S)
        terminal.master, terminal.line = pty.openpty()  # for close

    def test_suspend_and_resume(self):
        """As a job of a shell: Ctrl-Z, then the shell has its terminal; fg, then the screen is back."""
        shell = self.terminal(["bash", "--norc", "--noprofile", "-i"], PS1="PROMPT> ")
        shell.wait_for(r"(?m)^PROMPT>$")
        before = self.settings_in(shell, "before")
        shell.type(f"{TOOL} top -i 0.2\n")
        for turn in ("first", "second"):
            shell.wait_for("sort:")
            shell.type("\x1a")
            shell.wait(lambda: not shell.is_in_alternate_screen() and "Stopped" in shell.text(), "the shell")
            self.assertFalse(shell.screen.cursor.hidden)
            self.assertEqual(self.settings_in(shell, turn), before)
            self.assertFalse(shell.is_in_alternate_screen())
            shell.screen.reset()
            shell.type("fg\n")
            shell.wait(shell.is_in_alternate_screen, "the screen")
        shell.wait_for("sort:")
        shell.type("q")
        shell.wait(lambda: not shell.is_in_alternate_screen(), "the end")
        shell.type(f"echo status $? >{self.folder}/status\n")
        self.assertEqual(self.settings_in(shell, "after"), before)
        self.assertEqual((self.folder / "status").read_text(), "status 0\n")

    def settings_in(self, shell, name):
        """What stty says of the terminal when the shell starts it."""
        path = self.folder / name
        shell.type(f"stty -a >{path}.tmp; mv {path}.tmp {path}\n")
        shell.wait(path.exists, "stty")
        shell.draw(0.2)  # until the prompt is there
        return path.read_text()

    def test_stopped_from_outside(self):
        shell = self.terminal(["bash", "--norc", "--noprofile", "-i"], PS1="PROMPT> ")
        shell.wait_for(r"(?m)^PROMPT>$")
        shell.type(f"{TOOL} top -i 0.2 & echo $! >{self.folder}/pid; fg\n")
        shell.wait_for("sort:")
        pid = int((self.folder / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        shell.wait_for("Stopped")
        shell.screen.reset()
        shell.type("fg\n")
        shell.wait_for("(?s)by RSS.*sort:")
        shell.type("q")
        shell.wait(lambda: not shell.is_in_alternate_screen(), "the end")


class Once(TopCase):
    def test_a_table(self):
        process = self.program(30)
        result = self.tide("top", "--once")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        heading, *rows = result.stdout.splitlines()
        self.assertEqual(heading.split(), [column.heading for column in top_view.COLUMNS])
        (row,) = [row.split() for row in rows if row.split()[0] == str(process.pid)]
        self.assertTrue(30 < float(row[2]) < 70, row)
        self.assertNotIn("\033", result.stdout)

    def test_a_pipe_or_a_plain_terminal_gets_a_table(self):
        process = self.program(10)
        self.assertIn(f" {process.pid} ", " " + self.tide("top").stdout.replace("\n", " "))
        for env in ({"TERM": "dumb"}, {"TERM": ""}):
            terminal = self.terminal([TOOL, "top"], **env)
            self.assertEqual(terminal.wait_for_end(), 0)
            self.assertIn(f"{process.pid} ", terminal.text())
            self.assertNotIn(b"\033", terminal.raw)

    def test_processor_time(self):
        process = self.program(10)
        process.stdin.write("spin\n")
        process.stdin.flush()
        rows = [line.split() for line in self.tide("top", "--once").stdout.splitlines()]
        (row,) = [row for row in rows if row[0] == str(process.pid)]
        self.assertGreater(float(row[8]), 5)

    def test_mistakes(self):
        for arguments in (("-i", "0"), ("-i", "nan"), ("-i", "x"), ("1234",)):
            self.assertEqual(self.tide("top", *arguments).returncode, 2, arguments)
            self.assertEqual(self.tide("top", *arguments).stderr.count("\n"), 1)

    def test_without_urwid(self):
        hide = f"import sys; sys.path.insert(0, {TOOLS!r}); sys.modules['urwid'] = None\nfrom tide import cli\n"
        terminal = self.terminal(["/usr/bin/python3", "-c", hide + "sys.exit(cli.main(['top']))"])
        self.assertEqual(terminal.wait_for_end(), 1)
        self.assertRegex(terminal.text(), "needs urwid: apt install python3-urwid")


if __name__ == "__main__":
    unittest.main()
