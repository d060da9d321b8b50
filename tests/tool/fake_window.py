"""A process with a window, played by a thread of the test: it answers as the library's keeper does, or wrongly."""

import ctypes
import fcntl
import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import window as windows  # noqa: E402  the tool under test, by the path above

MIB = 1 << 20
NAME = "tidemalloc-window"

TOTALS = dict.fromkeys(windows.TOTALS, 0) | {
    "allocated_bytes": 20 * MIB,
    "active_bytes": 22 * MIB,
    "tiny_bytes": 12 * MIB,
    "mid_bytes": 5 * MIB,
    "large_bytes": 3 * MIB,
    "retained_bytes": 4 * MIB,
    "metadata_bytes": MIB // 2,
    "committed_bytes": 64 * MIB,
    "reserved_bytes": 1 << 40,
    "returned_bytes": 100 * MIB,
    "refill_count": 1000,
    "span_retire_count": 70,
    "remote_free_count": 30,
    "heap_count": 3,
    "thread_count": 2,
    "keeper_running": 1,
    "keeper_wakeup_count": 500,
    "keeper_cpu_ns": 25_000_000,
    "flush_count": 9,
    "hold_count": 5,
    "hold_hit_count": 3,
    "hold_miss_count": 1,
    "trim_count": 7,
    "pressure_count": 2,
    "refault_bytes": 10 * MIB,
    "patience_ns": 350_000_000,
    "claim_possible": 1,
    "claim_mark_count": 400,
    "claim_wake_count": 80,
    "claim_wait_count": 4,
    "claim_wait_p99_ns": 8191,
    "claim_wait_max_ns": 90_000,
    "mid_state": 1,
    "large_state": 2,
    "tiny_rate_bytes": 100_000,
    "mid_rate_bytes": MIB,
    "large_rate_bytes": 8 * MIB,
    "tiny_retained_bytes": MIB,
    "mid_retained_bytes": 2 * MIB,
    "large_retained_bytes": MIB // 2,
    "tiny_pinned_bytes": MIB // 4,
    "mid_pinned_bytes": 3 * MIB // 4,
    "locked_bytes": MIB // 8,
    "keeper_state": 3,
}
# block_bytes, spans, live, free, resident free bytes, allocations, refills, tier, state
CLASSES = [(64, 3, 1000, 24, 1536, 0, 900, 0, 2), (4096, 2, 100, 28, 65536, 0, 100, 1, 1), (32, 0, 0, 0, 0, 0, 0, 0, 0)]
# tid, state, claim, live_bytes, retained_bytes, spans, refills, allocations
THREADS = [(os.getpid(), 1, 0, 15 * MIB, MIB, 20, 600, 0), (0, 0, 2, 5 * MIB, 2 * MIB, 9, 400, 0)]
FLUSHED = (3 * MIB, 4096, 8192, 12288)
REGIONS = [(0x10_0000_0000, bytes([0, 1, 2, 3, 4, 5])), (0x20_0000_0000, bytes([4] * 10))]


def sealed_memfd(size=windows.FILE_BYTES, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, name=NAME):
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


class FakeKeeper:
    """Owns a window and answers on a thread. `answering` False: asleep for ever. `prepare(fake, at_ns)` runs before an
    answer is written, `spoil(fake, command)` after it was, and before it counts as given."""

    def __init__(self, process_id=None, page_bytes=4096):
        self.descriptor = sealed_memfd()
        self.map = mmap.mmap(self.descriptor, windows.FILE_BYTES)
        self.totals, self.classes, self.threads = dict(TOTALS), list(CLASSES), list(THREADS)
        self.left_out = 0
        self.regions, self.flushed = list(REGIONS), FLUSHED
        self.error = 0
        self.answering = True
        self.delay_s = 0.0
        self.prepare = self.spoil = None
        self.asked = []  # (command, argument)
        self._end = threading.Event()
        struct.pack_into("<II", self.map, 8, windows.VERSION, windows.FILE_BYTES)
        struct.pack_into("<I", self.map, 44, page_bytes)
        struct.pack_into("<II", self.map, 72, windows.EVENT_BYTES, process_id or os.getpid())
        self.map[0:8] = b"tidewin\0"
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def open(self, process=None):
        """The tool's end."""
        return windows.Window(os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR), os.getpid(), process)

    def close(self):
        self._end.set()
        self._thread.join()
        self.map.close()
        os.close(self.descriptor)

    def word(self, offset):
        return struct.unpack_from("<I", self.map, offset)[0]

    def event(self, kind, given=0, argument=0, number=None):
        """Write the next event into the ring."""
        (count,) = struct.unpack_from("<Q", self.map, 64)
        at = windows.EVENT_RING_AT + count % windows.EVENT_RING_LENGTH * windows.EVENT_BYTES
        struct.pack_into("<QIIQQ", self.map, at + 8, time.monotonic_ns(), kind, 0, given, argument)
        struct.pack_into("<Q", self.map, at, count + 1 if number is None else number)
        struct.pack_into("<Q", self.map, 64, count + 1)

    def resident_answer_bytes(self):
        """How much memory the file has beyond page 0."""
        return os.fstat(self.descriptor).st_blocks * 512 - mmap.PAGESIZE

    def _work(self):
        while not self._end.is_set():
            asked = self.word(20)
            if not self.answering or asked == self.word(24):
                time.sleep(0.0005)
                continue
            command, (argument,) = self.word(28), struct.unpack_from("<Q", self.map, 32)
            self.asked.append((command, argument))
            time.sleep(self.delay_s)
            answer = {windows.STATS: self._stats, windows.FLUSH: self._flush, windows.SLICES: self._slices}
            at_ns = time.monotonic_ns()
            if self.prepare is not None:
                self.prepare(self, at_ns)
            answer[command](argument)
            if self.spoil is not None:
                self.spoil(self, command)
            struct.pack_into("<i", self.map, 40, self.error)
            struct.pack_into("<Q", self.map, 48, at_ns)
            ctypes.c_uint32.from_buffer(self.map, 24).value = asked

    def _stats(self, _):
        struct.pack_into("<II", self.map, windows.STATS_AT, 3, 8 + 8 * len(windows.TOTALS))
        struct.pack_into(f"<{len(windows.TOTALS)}Q", self.map, windows.STATS_AT + 8, *self.totals.values())
        struct.pack_into("<IIII", self.map, windows.CLASSES_AT, len(self.classes), 72, 0, 0)
        for index, row in enumerate(self.classes):
            struct.pack_into("<9Q", self.map, windows.CLASSES_AT + 16 + 72 * index, *row)
        struct.pack_into("<IIII", self.map, windows.THREADS_AT, len(self.threads), 64, self.left_out, 0)
        for index, row in enumerate(self.threads):
            struct.pack_into("<8Q", self.map, windows.THREADS_AT + 16 + 64 * index, *row)

    def _flush(self, _):
        struct.pack_into("<4Q", self.map, windows.FLUSH_AT, *self.flushed)

    def _slices(self, skip):
        table, kinds = [], b""
        for base, all_kinds in self.regions:
            piece = all_kinds[skip : skip + windows.MOST_KINDS - len(kinds)]
            if piece:
                table += [base, skip, len(piece)]
                kinds += piece
            skip = max(0, skip - len(all_kinds))
        struct.pack_into(f"<{1 + len(table)}Q", self.map, windows.SLICES_AT, len(table) // 3, *table)
        self.map[windows.KINDS_AT : windows.KINDS_AT + len(kinds)] = kinds
