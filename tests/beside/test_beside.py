"""The library preloaded where somebody else wants to be malloc, too: one line says who is, and nothing crashes or misleads."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

LIBRARY = os.environ["TIDEMALLOC_LIBRARY"]
SOURCE = Path(__file__).parent / "program.c"
CLEAN = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS", "TSAN_OPTIONS", "MSAN_OPTIONS")}
# ThreadSanitizer of clang 14 and gcc 12 knows the usual address layout only, not one with more random bits.
PLAIN_LAYOUT = ["setarch", "-R"] if shutil.which("setarch") and subprocess.run(["setarch", "-R", "true"], check=False).returncode == 0 else []
NOT_IN_USE = "tidemalloc: not in use: this program has the malloc of {}\n"
NEEDS_ITS_OWN = "tidemalloc: this program is built with {}, which needs a malloc of its own: run it without tidemalloc\n"


class BesideTest(unittest.TestCase):
    folder: Path

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="tide-beside-"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def build(self, compiler, sanitizer, *flags):
        if shutil.which(compiler) is None:
            self.skipTest(f"no {compiler}")
        program = self.folder / f"{compiler}-{sanitizer}{''.join(flags)}"
        flag = [f"-fsanitize={sanitizer}"] if sanitizer else []
        if not program.exists():
            result = subprocess.run([compiler, "-O0", "-g", "-pthread", "-fno-builtin", *flag, *flags, SOURCE, "-o", program],
                                    capture_output=True, text=True, check=False)
            if result.returncode != 0:
                self.skipTest(f"no {sanitizer} sanitizer for {compiler}")
        return program

    def run_preloaded(self, *command, **environment):
        return subprocess.run(["env", f"LD_PRELOAD={LIBRARY}", *map(str, command)], env={**CLEAN, **environment},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    def expect(self, result, status, output, error):
        self.assertEqual((result.returncode, result.stdout, result.stderr), (status, output, error))

    # Theirs: clang links the runtime into the program.

    def test_clang_goes_on_without_us(self):
        for sanitizer, name in (("address", "AddressSanitizer"), ("thread", "ThreadSanitizer"), ("memory", "MemorySanitizer"),
                                ("leak", "LeakSanitizer")):
            with self.subTest(sanitizer):
                program = self.build("clang", sanitizer)
                result = self.run_preloaded(*PLAIN_LAYOUT, program, ASAN_OPTIONS="detect_leaks=0")
                self.expect(result, 0, "done\n", NOT_IN_USE.format(name))

    def test_clang_finds_what_it_looks_for(self):
        result = self.run_preloaded(self.build("clang", "address"), "overflow", ASAN_OPTIONS="detect_leaks=0")
        self.assertEqual((result.returncode, result.stdout), (1, "done\n"))
        self.assertIn("heap-buffer-overflow", result.stderr)

    # Ours: gcc's runtimes are libraries behind us.

    def test_gcc_stops(self):
        for sanitizer, name in (("thread", "ThreadSanitizer"), ("leak", "LeakSanitizer")):
            with self.subTest(sanitizer):
                program = self.build("gcc", sanitizer)
                self.expect(self.run_preloaded(*PLAIN_LAYOUT, program), 1, "", NEEDS_ITS_OWN.format(name))

    def test_gcc_address_stops(self):
        """AddressSanitizer says so itself; where that is turned off, we do."""
        program = self.build("gcc", "address")
        result = self.run_preloaded(program)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("ASan runtime does not come first in initial library list", result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)
        result = self.run_preloaded(program, ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0")
        self.expect(result, 1, "", NEEDS_ITS_OWN.format("AddressSanitizer"))

    def test_gcc_goes_on_where_its_runtime_comes_first(self):
        program = self.build("gcc", "address")
        runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
        result = subprocess.run(["env", f"LD_PRELOAD={os.path.realpath(runtime)}:{LIBRARY}", program],
                                env={**CLEAN, "ASAN_OPTIONS": "detect_leaks=0"}, capture_output=True, text=True, timeout=60, check=False)
        self.expect(result, 0, "done\n", NOT_IN_USE.format("AddressSanitizer"))

    def test_no_malloc_of_its_own(self):
        for compiler in ("gcc", "clang"):
            with self.subTest(compiler):
                self.expect(self.run_preloaded(self.build(compiler, "undefined")), 0, "done\n", "")

    # Valgrind

    def valgrind(self, *arguments, error_status=9):
        if shutil.which("valgrind") is None:
            self.skipTest("no valgrind")
        return self.run_preloaded("valgrind", "-q", f"--error-exitcode={error_status}", *arguments)

    def test_memcheck_takes_our_place(self):
        program = self.build("gcc", "")
        result = self.valgrind(program)
        self.expect(result, 0, "done\n", "tidemalloc: not in use: Valgrind has put a malloc of its own in place of it "
                    "(to keep this one: --soname-synonyms=somalloc=nouserintercepts)\n")
        result = self.valgrind(program, "overflow")
        self.assertEqual(result.returncode, 9)
        self.assertIn("Invalid write of size 1", result.stderr)

    def test_memcheck_leaves_us(self):
        result = self.valgrind("--soname-synonyms=somalloc=nouserintercepts", self.build("gcc", ""))
        self.expect(result, 0, "done\n", "tidemalloc: in use under Valgrind, which sees its mappings, but not the blocks in them: "
                    "for what Valgrind finds in blocks, run without tidemalloc\n")

    def test_tools_without_malloc(self):
        result = self.run_preloaded("valgrind", "-q", "--tool=none", self.build("gcc", ""), TIDE_PRINT_STATS="1")
        self.assertEqual((result.returncode, result.stdout), (0, "done\n"))
        self.assertNotIn("Valgrind", result.stderr)
        self.assertIn("tidemalloc: allocated bytes", result.stderr)


if __name__ == "__main__":
    unittest.main()
