"""What each mapping is for: `mappings` on made-up address spaces, `pages` and `segments` on real ones."""

import ctypes
import mmap
import os
import struct
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools")))

from tide import mappings, pages, segments  # noqa: E402
from tide.mappings import Facts, Piece  # noqa: E402
from tide.process import Process  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PROGRAM = "/usr/bin/program"
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"


def smaps(*lines):
    """The text of smaps for lines of (start, bytes, permissions, name, figures in KiB, flags)."""
    text = []
    for start, size, permissions, name, *rest in lines:
        figures = {"Size": size // KIB, **(rest[0] if rest else {})}
        flags = rest[1] if len(rest) > 1 else "mr mw me"
        offset = figures.pop("offset", 0)
        inode = 1 if name.startswith("/") else 0
        text.append(f"{start:x}-{start + size:x} {permissions} {offset:08x} fe:00 {inode}    {name}".rstrip())
        text += [f"{field + ':':16}{value:>8} kB" for field, value in figures.items()]
        text += ["THPeligible:           0", f"VmFlags: {flags} "]
    return "\n".join(text) + "\n"


def kinds_of(*lines, **facts):
    """The kind of each mapping, or its pieces where it has several."""
    classified = mappings.classify(mappings.parse(smaps(*lines)), Facts(**facts))
    return [
        parts.pieces[0].kind if len(parts.pieces) == 1 else [tuple(piece) for piece in parts.pieces]
        for parts in classified.parts
    ]


class Parse(unittest.TestCase):
    def test_figures_name_and_flags(self):
        figures = {"Rss": 4, "Pss": 3, "LazyFree": 2, "Swap": 1, "Anonymous": 4}
        text = smaps((0x1000, 8 * KIB, "rw-p", "/a file (deleted)", figures))
        (mapping,) = mappings.parse(text)
        self.assertEqual((mapping.start, mapping.end, mapping.name), (0x1000, 0x3000, "/a file (deleted)"))
        self.assertEqual(mapping.figures["rss"], 4 * KIB)
        self.assertEqual(mapping.figures["pss"], 3 * KIB)
        self.assertEqual(mapping.figures["lazy_free"], 2 * KIB)
        self.assertEqual(mapping.figures["swap"], 1 * KIB)
        self.assertEqual(mapping.figures["anon_huge"], 0)
        self.assertEqual(mapping.anonymous_bytes, 4 * KIB)
        self.assertEqual(mapping.flags, {"mr", "mw", "me"})

    def test_a_line_of_figures_is_no_header_whatever_the_name(self):
        text = smaps((0x1000, 4 * KIB, "r--p", "/Rss: 12 kB"), (0x2000, 4 * KIB, "r--p", "/x\\012y"))
        self.assertEqual([mapping.name for mapping in mappings.parse(text)], ["/Rss: 12 kB", "/x\ny"])

    def test_own_smaps(self):
        with Process(os.getpid()) as process:
            text = process.read("smaps")
        found = mappings.parse(text)
        self.assertEqual(len(found), text.count("VmFlags:"))
        self.assertTrue(all(mapping.size_bytes == mapping.figures["size"] for mapping in found))


class Files(unittest.TestCase):
    def test_program_libraries_and_the_rest(self):
        kinds = kinds_of(
            (0x10000, 64 * KIB, "r-xp", PROGRAM),
            (0x20000, 64 * KIB, "rw-p", PROGRAM),
            (0x100000, MIB, "rw-p", "[heap]"),
            (0x700000, 64 * KIB, "r-xp", LIBC),
            (0x710000, 64 * KIB, "r--p", LIBC, {"Anonymous": 16}),
            (0x720000, 64 * KIB, "rw-p", LIBC),
            (0x800000, 64 * KIB, "r--p", "/usr/lib/locale/locale-archive"),
            (0x810000, 64 * KIB, "rw-s", "/dev/shm/mine"),
            (0x820000, 64 * KIB, "rw-s", "/dev/zero (deleted)"),
            (0x900000, 64 * KIB, "rw-p", "[stack]"),
            (0x910000, 8 * KIB, "r-xp", "[vdso]"),
            (0x912000, 8 * KIB, "r--p", "[vvar]"),
            (0x914000, 4 * KIB, "--xp", "[vsyscall]"),
            program=PROGRAM,
        )
        self.assertEqual(
            kinds,
            [
                "program text", "program data", "heap [brk]", "library text", "library data", "library data",
                "other files", "shared memory", "shared memory", "main stack", "vdso", "vdso", "vdso",
            ],
        )  # fmt: skip

    def test_zero_initialised_data_ends_with_the_image(self):
        lines = (
            (0x10000, 64 * KIB, "r-xp", LIBC),
            (0x20000, 64 * KIB, "rw-p", LIBC, {"offset": 0x10000}),
            (0x30000, 1 * MIB, "rw-p", ""),
        )
        data = [(0x30000, 0x38000, "library data"), (0x38000, 0x130000, "other anonymous")]
        self.assertEqual(kinds_of(*lines, image_bytes=lambda path: 0x28000)[2], data)
        self.assertEqual(kinds_of(*lines, image_bytes=lambda path: None)[2], "library data")
        self.assertEqual(kinds_of(*lines, image_bytes=lambda path: 0x20000)[2], "other anonymous")


class Stacks(unittest.TestCase):
    STACK = 8 * MIB

    def lines(self, *sizes):
        """Guard and stack of threads, one above the other."""
        at, lines = 0x7000_0000_0000, []
        for size in sizes:
            lines += [(at, 4 * KIB, "---p", ""), (at + 4 * KIB, size, "rw-p", "")]
            at += 4 * KIB + size
        return lines

    def test_by_stack_pointer(self):
        lines = self.lines(256 * KIB)
        pointer = lines[1][0] + 100 * KIB
        self.assertEqual(kinds_of(*lines, stack_pointers=(pointer,))[1], "thread stacks")
        self.assertEqual(kinds_of(*lines, stack_pointers=(pointer + GIB,))[1], "other anonymous")

    def test_by_size_beside_a_known_one(self):
        lines = self.lines(256 * KIB, 256 * KIB, 512 * KIB)
        found = mappings.classify(mappings.parse(smaps(*lines)), Facts(stack_pointers=(lines[1][0] + 8,)))
        kinds = [parts.pieces[0].kind for parts in found.parts]
        self.assertEqual(kinds[1::2], ["thread stacks", "thread stacks", "other anonymous"])
        self.assertEqual(kinds[0::2], ["reserved (no access)"] * 3)
        self.assertEqual((found.stacks_by_pointer, found.stacks_by_layout), (1, 1))

    def test_by_default_size(self):
        lines = self.lines(self.STACK)
        self.assertEqual(kinds_of(*lines, stack_bytes=self.STACK)[1], "thread stacks")
        self.assertEqual(kinds_of(*lines, stack_bytes=2 * MIB)[1], "other anonymous")

    def test_memory_above_a_large_reserve_is_no_stack_by_its_size(self):
        at = 0x7000_0000_0000
        lines = [(at, GIB, "---p", ""), (at + GIB, self.STACK, "rw-p", "")]
        self.assertEqual(kinds_of(*lines, stack_bytes=self.STACK)[1], "other anonymous")
        self.assertEqual(kinds_of(*lines, stack_pointers=(at + GIB + 8,))[1], "thread stacks")

    def test_a_pointer_into_a_heap_makes_no_stack(self):
        heap = (0x7000_0000_0000, 64 * MIB, "rw-p", "")
        self.assertEqual(kinds_of(heap, stack_pointers=(heap[0] + MIB,)), ["other anonymous"])
        self.assertEqual(kinds_of((*heap, {}, "rd wr gu"), stack_pointers=(heap[0] + MIB,)), ["thread stacks"])


class OtherAllocators(unittest.TestCase):
    def test_glibc_arena(self):
        at = 0x7000_0000_0000
        lines = [
            (at, 132 * KIB, "rw-p", ""),
            (at + 132 * KIB, 64 * MIB - 132 * KIB, "---p", ""),
            (at + 2 * GIB, 64 * KIB, "r-xp", LIBC),
        ]
        self.assertEqual(kinds_of(*lines)[:2], ["glibc arenas", "reserved (no access)"])
        shifted = [(start + MIB, *rest) for start, *rest in lines]
        self.assertEqual(kinds_of(*shifted)[0], "other anonymous")
        short = [lines[0], (at + 132 * KIB, MIB, "---p", ""), lines[2]]
        self.assertEqual(kinds_of(*short)[0], "other anonymous")

    def test_named_and_known_allocators(self):
        at = 0x7000_0000_0000
        self.assertEqual(kinds_of((at, MIB, "rw-p", "[anon:mimalloc]"))[0], "anonymous (mimalloc)")
        lines = [(at, MIB, "rw-p", ""), (at + GIB, MIB, "r-xp", "/usr/lib/libjemalloc.so.2")]
        self.assertEqual(kinds_of(*lines)[0], "anonymous (jemalloc and others)")
        self.assertEqual(kinds_of((at, MIB, "rw-p", "[anon:glibc: malloc arena]"))[0], "glibc arenas")

    def test_who_the_allocator_is(self):
        def allocator(*names):
            return mappings.allocator_of(
                mappings.parse(smaps(*((i << 20, MIB, "r-xp", name) for i, name in enumerate(names, 1))))
            )

        self.assertEqual(allocator(LIBC), "glibc")
        self.assertEqual(allocator("/lib/ld-musl-x86_64.so.1"), "musl")
        self.assertEqual(allocator(LIBC, "/x/libtidemalloc-count.so"), "tidemalloc")
        self.assertEqual(allocator(LIBC, "/usr/lib/libtcmalloc_minimal.so.4"), "tcmalloc")
        self.assertEqual(allocator(LIBC, "[anon:tidemalloc: heap]"), "tidemalloc")
        linked = "/usr/lib/libjemalloc.so.2"
        self.assertEqual(allocator("/x/libtidemalloc.so.0", linked, LIBC), "tidemalloc")
        self.assertEqual(allocator(linked, LIBC, "/usr/lib/libmimalloc.so.2.0"), "mimalloc", "the preloaded one")
        self.assertEqual(allocator("/usr/bin/static"), "")


class Tidemalloc(unittest.TestCase):
    """A region without labels: metadata at its start, then the heap, then the reserve."""

    START = 0x7000_0000_0000
    BASE = START + 8 * MIB
    LIBRARY = (0x7fff_0000_0000, MIB, "r-xp", "/opt/libtidemalloc.so")

    def region(self, label=False, flags="rd wr nh"):
        metadata, heap = ("[anon:tidemalloc: metadata]", "[anon:tidemalloc: heap]") if label else ("", "")
        return [
            (self.START, 128 * KIB, "rw-p", metadata, {}, flags),
            (self.START + 128 * KIB, 4 * MIB - 128 * KIB, "---p", metadata, {}, flags),
            (self.START + 4 * MIB, 64 * KIB, "rw-p", metadata, {}, flags),
            (self.START + 4 * MIB + 64 * KIB, 4 * MIB - 64 * KIB, "---p", metadata, {}, flags),
            (self.BASE, 4 * MIB, "rw-p", heap, {"Rss": 1024}, flags),
            (self.BASE + 4 * MIB, 1 << 40, "---p", heap, {}, flags),
            self.LIBRARY,
        ]

    WITHOUT_WINDOW = [
        "tidemalloc metadata", "reserved (no access)", "tidemalloc metadata", "reserved (no access)",
        "tidemalloc heap", "reserved (no access)", "library text",
    ]  # fmt: skip

    def test_by_labels(self):
        self.assertEqual(kinds_of(*self.region(label=True)), self.WITHOUT_WINDOW)

    def test_by_layout(self):
        self.assertEqual(kinds_of(*self.region()), self.WITHOUT_WINDOW)
        other = kinds_of(*self.region()[:-1])
        self.assertEqual(other[4], "other anonymous", "nothing says that it is tidemalloc's")
        self.assertEqual(kinds_of(*self.region(flags="rd wr"))[4], "other anonymous", "huge pages are not forbidden")

    def test_by_the_window(self):
        kinds = bytes([2, 2, 3, 4]) + bytes([1]) * 28 + bytes([0]) * 31 + bytes([5])
        for label in (False, True):
            found = kinds_of(*self.region(label), regions=((self.BASE, kinds),))
            self.assertEqual(found[:4] + found[5:], self.WITHOUT_WINDOW[:4] + self.WITHOUT_WINDOW[5:])
            names = ["tidemalloc tiny", "tidemalloc mid", "tidemalloc large", "tidemalloc free (dirty)"]
            names += ["tidemalloc free (clean)", "tidemalloc metadata"]
            ends = [self.BASE + slices * 64 * KIB for slices in (0, 2, 3, 4, 32, 63, 64)]
            self.assertEqual(found[4], list(zip(ends, ends[1:], names)))

    def test_a_heap_that_has_grown_or_is_in_pieces(self):
        lines = self.region()
        lines[4:5] = [
            (self.BASE, 96 * KIB, "rw-p", "", {}, "rd wr nh"),
            (self.BASE + 96 * KIB, 4 * MIB - 96 * KIB, "rw-p", "", {}, "rd wr nh lo"),
        ]
        found = kinds_of(*lines, regions=((self.BASE, bytes([2, 3, 3, 4])),))
        middle, last = self.BASE + 96 * KIB, self.BASE + 4 * MIB
        self.assertEqual(
            found[4],
            [(self.BASE, self.BASE + 64 * KIB, "tidemalloc tiny"), (self.BASE + 64 * KIB, middle, "tidemalloc mid")],
        )
        self.assertEqual(
            found[5],
            [
                (middle, self.BASE + 192 * KIB, "tidemalloc mid"),
                (self.BASE + 192 * KIB, self.BASE + 256 * KIB, "tidemalloc large"),
                (self.BASE + 256 * KIB, last, "tidemalloc heap"),
            ],
        )

    def test_a_window_that_lies_changes_nothing_else(self):
        found = kinds_of(*self.region(), regions=((0x1000, bytes([9]) * 8),))
        self.assertEqual(found, self.WITHOUT_WINDOW)


class Sums(unittest.TestCase):
    def test_share_out(self):
        self.assertEqual(mappings.share_out(10, [1, 1, 1]), [4, 3, 3])
        self.assertEqual(mappings.share_out(10, [0, 5, 0]), [0, 10, 0])
        self.assertEqual(mappings.share_out(10, [0, 0]), [10, 0])
        for total in range(50):
            self.assertEqual(sum(mappings.share_out(total, [3, 0, 7, 1, 19])), total)

    def figures(self, rss_kib, counts, **more):
        text = smaps((0x10000, 64 * KIB, "rw-p", "", {"Rss": rss_kib, **more}))
        (mapping,) = mappings.parse(text)
        pieces = tuple(Piece(0x10000 + i * 16 * KIB, 0x14000 + i * 16 * KIB, kind) for i, kind in enumerate("abca"))
        return mappings.figures_by_kind(mappings.Parts(mapping, pieces), counts, 4 * KIB)

    def test_counted_pages_stand_as_counted(self):
        found = self.figures(32, [(4, 0, 0), (1, 0, 2), (0, 0, 0), (3, 0, 1)], Swap=12, Private_Dirty=16)
        self.assertEqual({kind: row["rss"] // KIB for kind, row in found.items()}, {"a": 28, "b": 4, "c": 0})
        self.assertEqual({kind: row["swap"] // KIB for kind, row in found.items()}, {"a": 4, "b": 8, "c": 0})
        self.assertEqual({kind: row["private_dirty"] // KIB for kind, row in found.items()}, {"a": 14, "b": 2, "c": 0})
        self.assertEqual({kind: row["size"] // KIB for kind, row in found.items()}, {"a": 32, "b": 16, "c": 16})

    def test_the_zero_page_does_not_count_and_shared_pages_do(self):
        zero = self.figures(4, [(1, 0, 0), (0, 4, 0), (0, 0, 0), (0, 0, 0)])
        self.assertEqual([zero[kind]["rss"] // KIB for kind in "abc"], [4, 0, 0])
        shared = self.figures(20, [(1, 0, 0), (0, 4, 0), (0, 0, 0), (0, 0, 0)])
        self.assertEqual([shared[kind]["rss"] // KIB for kind in "abc"], [4, 16, 0])

    def test_sums_hold_when_pages_came_or_went_between_the_readings(self):
        for rss in (0, 4, 12, 64):
            found = self.figures(rss, [(2, 0, 0), (1, 1, 0), (0, 0, 0), (3, 0, 0)], Pss=rss // 2)
            self.assertEqual(sum(row["rss"] for row in found.values()), rss * KIB)
            self.assertEqual(sum(row["pss"] for row in found.values()), rss // 2 * KIB)


class Pages(unittest.TestCase):
    def test_counts_of_own_memory(self):
        page = os.sysconf("SC_PAGE_SIZE")
        memory = mmap.mmap(-1, 64 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[0 : 3 * page] = b"x" * (3 * page)
        memory[20 * page] = 1
        self.assertEqual(memory[40 * page], 0)  # read, never written: the zero page
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        cuts = [at + pages_in * page for pages_in in (0, 2, 16, 32, 64)]
        pieces = [Piece(start, end, "") for start, end in zip(cuts, cuts[1:])]
        with Process(os.getpid()) as process, pages.PageMap(process) as pagemap:
            self.assertEqual(pagemap.count(pieces), [[2, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
            before, pages.READ_BYTES = pages.READ_BYTES, 7 * pages.ENTRY_BYTES
            try:
                self.assertEqual(pagemap.count(pieces), [[2, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
            finally:
                pages.READ_BYTES = before

    def test_meaning_of_an_entry(self):
        def meaning(*bits):
            return pages.MEANING[sum(1 << (bit - 56) for bit in bits)]

        self.assertEqual(meaning(), pages.NONE)
        self.assertEqual(meaning(63, 56), pages.OWN)
        self.assertEqual(meaning(63, 61), pages.OWN)
        self.assertEqual(meaning(63), pages.DOUBTFUL)
        self.assertEqual(meaning(62), pages.SWAPPED)


class Segments(unittest.TestCase):
    def image(self, content):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            return segments.image_bytes(file.name, 4096)

    def elf(self, bits, loads):
        """An ELF file of these (address, bytes in memory)."""
        count = len(loads)
        if bits == 64:
            numbers = (3, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
            header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, *numbers)
            table = [struct.pack("<IIQQQQQQ", 1, 0, 0, at, 0, 0, size, 0) for at, size in loads]
        else:
            numbers = (3, 3, 1, 0, 52, 0, 0, 52, 32, count, 0, 0, 0)
            header = struct.pack("<4sBBB9xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, *numbers)
            table = [struct.pack("<IIIIIIII", 1, 0, at, 0, 0, size, 0, 0) for at, size in loads]
        return header + b"".join(table)

    def test_images(self):
        for bits in (64, 32):
            loads = [(0x400000, 0x800), (0x401000, 0x1000), (0x403e00, 0x1300)]
            self.assertEqual(self.image(self.elf(bits, loads)), 0x6000, bits)

    def test_what_is_no_elf_file(self):
        self.assertIsNone(self.image(b""))
        self.assertIsNone(self.image(b"#!/bin/sh\n"))
        self.assertIsNone(self.image(self.elf(64, [(0, 1)])[:70]))
        self.assertIsNone(self.image(self.elf(64, [])))
        self.assertIsNone(segments.image_bytes("/no/such/file"))


if __name__ == "__main__":
    unittest.main()
