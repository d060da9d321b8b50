"""gdb commands for programs that run on tidemalloc: what an address is, whose it is, and what the heaps hold.

    (gdb) source tide.py
    (gdb) tide block ADDRESS     the block that holds an address: its size, its state, its owner, its neighbours
    (gdb) tide span ADDRESS      the span that holds an address
    (gdb) tide heaps             the heaps, and the threads that have them
    (gdb) tide runs [all]        what the 64 KiB slices are used for; the free runs
    (gdb) tide stats             totals

Values of type `struct span` and `struct heap` are printed as a summary (`print /r` shows them as they are).

Only memory is read, and no function of the program is called, so all of it works on a core file, and on a process that is stopped in the
middle of malloc; there, what is half done looks half done. Layouts come from the debug information of the library, the numbers below
from its headers, which are named beside them.
"""

import struct

import gdb
import gdb.printing

SLICE_BYTES = 64 * 1024  # span/span.h
CHUNK_SLICES = 32
GRANULE_BYTES = 16  # tier/classes.h
TINY_CLASSES = 32
REMOTE_QUEUED = 1 << 32  # heap/remote.h
EMERGENCY_LIVE = 0xFFFFFFFF  # heap/emergency.c
PAGE_BYTES = 4096  # until the library has asked the system
RUNS_SHOWN = 20
WORD = (1 << 64) - 1


class Unknown(gdb.GdbError):
    """What was asked for cannot be told; gdb prints the text without a stack trace of Python's."""


# --- reading memory ------------------------------------------------------------------------------------------------------


class Layout:
    """Where the members of a struct are, those of members without a name included. Bytes taken apart by offsets are some hundred times
    faster than one gdb.Value after the other."""

    def __init__(self, type_):
        self.size = type_.sizeof
        self.members = {}
        self._add(type_, 0, "")

    def _add(self, type_, base, prefix):
        for field in type_.strip_typedefs().fields():
            at = base + field.bitpos // 8
            inner = field.type.strip_typedefs()
            if inner.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
                self._add(inner, at, prefix + field.name + "." if field.name else prefix)
            elif inner.code == gdb.TYPE_CODE_ARRAY:
                self.members[prefix + field.name] = (at, inner.target().sizeof, inner.sizeof // inner.target().sizeof)
            else:
                self.members[prefix + field.name] = (at, inner.sizeof, 0)

    def take(self, data, name):
        at, size, count = self.members[name]
        if not count:
            return int.from_bytes(data[at : at + size], "little")
        return [int.from_bytes(data[at + i * size : at + (i + 1) * size], "little") for i in range(count)]


class Record:
    """A struct in memory, read at once; its members are attributes, those of named inner structs by `record["large.bytes"]`."""

    def __init__(self, layout, data, address):
        self.layout, self.data, self.address = layout, data, address

    def __getattr__(self, name):
        if name not in self.layout.members:
            raise AttributeError(name)
        return self.layout.take(self.data, name)

    def __getitem__(self, name):
        return self.layout.take(self.data, name)

    def has(self, name):
        return name in self.layout.members


def read(address, count):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, count))
    except gdb.MemoryError:
        raise Unknown(f"cannot read memory at {address:#x}") from None


def mix(word):
    """guard_mix of span/guard.h."""
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & WORD
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & WORD
    return word ^ word >> 33


def symbol_value(name):
    symbol = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
    if symbol is None:
        raise Unknown(f"no tidemalloc in this program, or no debug information for it ({name} is not known)")
    return symbol.value()


def enum_names(name):
    """{value: word in lower case, without the prefix that all have}"""
    return {field.enumval: field.name for field in gdb.lookup_type("enum " + name).fields()}


def plain(names, prefix):
    return {value: name.removeprefix(prefix).lower().replace("_", " ") for value, name in names.items()}


# --- the allocator -------------------------------------------------------------------------------------------------------


class Allocator:
    """One look at the allocator's state; every command makes a new one."""

    def __init__(self):
        self.layouts = {}
        main = symbol_value("region_main")
        self.page_bytes = int(symbol_value("os_page_bytes")) or PAGE_BYTES
        self.kinds = plain(enum_names("span_kind"), "SPAN_")
        self.kind = {name: value for value, name in self.kinds.items()}
        self.flags = plain(enum_names("span_flag"), "SPAN_")
        self.flag = {name: value for value, name in self.flags.items()}
        self.states = plain(enum_names("heap_state"), "HEAP_")
        self.claims = plain(enum_names("heap_claim"), "HEAP_")
        self.span_none = int(symbol_value("span_none").address)
        self.regions = []
        address = int(main.address)
        while address:
            region = self.record("region", address)
            if region.base:
                self.regions.append(Region(self, region))
            address = region.next
        if not self.regions:
            raise Unknown("tidemalloc is there, but nothing was allocated yet")
        self.heaps = self._heaps()
        # The secure build encodes links, and lets freed blocks wait before they are free.
        self.secret = None
        self.waiting = set()
        if self.layout("heap").members.get("delayed.tiny"):
            self.secret = int(symbol_value("guard_secrets")["link"])
            for heap in self.heaps.values():
                self.waiting.update(heap["delayed.tiny"], heap["delayed.mid"])
        self._gdb_threads = None

    def link(self, at):
        """Where the first word of a free block leads."""
        word = struct.unpack("<Q", read(at, 8))[0]
        return word if self.secret is None else word ^ mix(at ^ self.secret)

    def layout(self, name):
        if name not in self.layouts:
            self.layouts[name] = Layout(gdb.lookup_type("struct " + name))
        return self.layouts[name]

    def record(self, name, address):
        layout = self.layout(name)
        return Record(layout, read(address, layout.size), address)

    def _heaps(self):
        heaps = {}
        shared = symbol_value("heap_shared").address
        heaps[int(shared)] = self.record("heap", int(shared))
        address = int(symbol_value("heap_all"))
        while address and address not in heaps:
            heaps[address] = self.record("heap", address)
            address = heaps[address].next_heap
        self.shared = int(shared)
        return heaps

    def gdb_thread(self, thread_id):
        """gdb's own number of a thread of the system, as text; empty where there is no such thread."""
        if self._gdb_threads is None:
            self._gdb_threads = {thread.ptid[1]: thread.num for thread in gdb.selected_inferior().threads()}
        number = self._gdb_threads.get(thread_id)
        return f" (gdb's thread {number})" if number is not None else ""

    def heap_text(self, address):
        """Whose heap it is."""
        if address == 0:
            return "of no thread"
        heap = self.heaps.get(address)
        if heap is None:
            return f"{address:#x}, which is no heap"
        if address == self.shared:
            return f"{address:#x}, shared by threads without one"
        state = self.states.get(heap.state, f"state {heap.state}")
        if state == "bound":
            return f"{address:#x} of thread {heap.thread_id}{self.gdb_thread(heap.thread_id)}"
        if state == "orphan":
            return f"{address:#x}, an orphan; thread {heap.thread_id} has ended"
        return f"{address:#x}, {state}"

    def region_of(self, address):
        """(region, slice) of an address below the top of a region; None for others."""
        for region in self.regions:
            if region.base <= address < region.base + region.top_bytes:
                return region, (address - region.base) // SLICE_BYTES
        return None

    def span_of(self, address):
        """The span that holds an address, or None where a slice is free. An address that is not ours is an error."""
        place = self.region_of(address)
        if place is None:
            for region in self.regions:
                if region.base <= address < region.base + region.size_bytes:
                    raise Unknown(f"{address:#x} is reserved by tidemalloc, but was never used")
                if region.start <= address < region.base:
                    raise Unknown(f"{address:#x} is in tidemalloc's own descriptors")
            raise Unknown(f"{address:#x} is not tidemalloc's")
        region, number = place
        return region.span_around(number)


class Region:
    def __init__(self, allocator, record):
        self.allocator = allocator
        self.base, self.top_bytes, self.size_bytes = record.base, record.top_bytes, record.size_bytes
        self.start, self.spans, self.chunks_at = record.spans, record.spans, record.chunks
        self.slices = self.top_bytes // SLICE_BYTES
        self._descriptors = None
        self._chunks = None

    def span(self, number):
        layout = self.allocator.layout("span")
        address = self.spans + number * layout.size
        data = self._descriptors
        if data is not None:
            data = data[number * layout.size : (number + 1) * layout.size]
        else:
            data = read(address, layout.size)
        return Span(self, number, Record(layout, data, address))

    def span_around(self, number):
        """The span whose slice this is; None where the slice is free."""
        span = self.span(number)
        if span.kind == "inner":
            return self.span(number - span.record.slices_from_head)
        if span.kind != "free":
            return span
        # The slices of a large block behind its first one have descriptors of zeros.
        for before in range(number - 1, -1, -1):
            head = self.span(before)
            if head.kind == "free":
                continue
            return head if head.kind in ("large", "held") and number - before < head.slices else None
        return None

    def all_spans(self):
        """Every span, in the order of addresses."""
        self._descriptors = read(self.spans, self.slices * self.allocator.layout("span").size)
        number = 0
        while number < self.slices:
            span = self.span(number)
            if span.kind not in ("free", "inner"):
                yield span
            number += max(span.slices, 1) if span.kind != "free" else 1

    def chunk(self, index):
        layout = self.allocator.layout("chunk")
        if self._chunks is None:
            count = self.slices // CHUNK_SLICES
            self._chunks = read(self.chunks_at, count * layout.size)
        return Record(layout, self._chunks[index * layout.size : (index + 1) * layout.size], 0)

    def slice_state(self, number):
        """What the page runs know of a slice: live, clean, dirty or purging."""
        chunk, bit = self.chunk(number // CHUNK_SLICES), 1 << number % CHUNK_SLICES
        if chunk.purging & bit:
            return "purging"
        if not chunk.free & bit:
            return "live"
        return "dirty" if chunk.dirty & bit else "clean"


class Span:
    """A span by its head's descriptor."""

    def __init__(self, region, number, record):
        self.region, self.number, self.record = region, number, record
        self.allocator = region.allocator
        self.kind = self.allocator.kinds.get(record.kind, f"kind {record.kind}")
        self.address = record.address
        self.start = region.base + number * SLICE_BYTES
        if self.kind in ("large", "held"):
            self.slices, self.block_bytes = record["large.slices"], record["large.bytes"]
        else:
            self.slices = max(record.slices, 1) if self.kind in ("tiny", "mid") else 1
            self.block_bytes = record.block_bytes if self.kind != "free" else 0
        self.flags = [name for bit, name in sorted(self.allocator.flags.items()) if record.flags & bit]
        self._free = None
        self._remote = None

    # Numbers of blocks

    @property
    def carved(self):
        return self.record.carved if self.kind in ("tiny", "mid") else SLICE_BYTES // self.block_bytes

    @property
    def used(self):
        """Blocks that are not free, as the owner counts them: those that others have freed are among them."""
        return self.record.used - ("current" in self.flags)

    @property
    def live(self):
        if self.kind in ("large", "held"):
            return self.kind == "large"
        if self.kind == "emergency":
            return sum(self.state(i) == "live" for i in range(self.carved))
        waiting = sum(self.start <= at < self.start + self.slices * SLICE_BYTES for at in self.allocator.waiting)
        return max(self.used - len(self.remote()) - waiting, 0)

    def block_start(self, index):
        return self.start + index * self.block_bytes

    # States of blocks

    def remote(self):
        """The numbers of the blocks that other threads have freed, and the owner has not collected yet."""
        if self._remote is None:
            word = self.record.remote
            link, count = word & 0xFFFF, word >> 16 & 0xFFFF
            self._remote = set()
            for _ in range(count):
                if link == 0:
                    break
                at = self.start + (link - 1) * (GRANULE_BYTES if self.kind == "tiny" else self.block_bytes)
                self._remote.add((at - self.start) // self.block_bytes)
                link = self.allocator.link(at) & 0xFFFF
        return self._remote

    def ready(self):
        """The numbers of the blocks that malloc takes next: of a tiny span the list, of a mid span the bits."""
        if self._free is not None:
            return self._free
        self._free = set()
        if self.kind == "mid":
            for word, mask in enumerate(self.record.free_mask):
                self._free.update(word * 64 + bit for bit in range(64) if mask >> bit & 1)
        elif self.kind == "tiny":
            at = self.record.free
            while at:
                index, rest = divmod(at - self.start, self.block_bytes)
                if rest or not 0 <= index < self.carved or index in self._free:
                    raise Unknown(f"the free list of the span at {self.start:#x} is damaged: it leads to {at:#x}")
                self._free.add(index)
                at = self.allocator.link(at)
        return self._free

    def is_withheld(self, index):
        """Of a tiny span: whether a page of the block was given back."""
        punched = self.record.punched if self.kind == "tiny" else 0
        first = index * self.block_bytes // self.allocator.page_bytes
        last = ((index + 1) * self.block_bytes - 1) // self.allocator.page_bytes
        return any(punched >> page & 1 for page in range(first, last + 1))

    def state(self, index):
        if self.kind == "large":
            return "live"
        if self.kind == "held":
            return "freed, held back from use"
        if self.kind == "emergency":
            slot = index + self.emergency_first()
            if slot >= int(symbol_value("emergency_fresh")):
                return "never used"
            return "live" if int(symbol_value("emergency_next")[slot]) == EMERGENCY_LIVE else "free"
        if index >= self.carved:
            return "never used"
        if self.block_start(index) in self.allocator.waiting:
            return "freed, waits in quarantine"
        if index in self.remote():
            return "freed by another thread, not collected yet"
        if self.kind == "tiny" and self.is_withheld(index):
            return "free, its page was given back"
        if index in self.ready():
            if self.kind == "mid" and index >= self.record.limit:
                return "free, never used"
            return "free"
        return "live"

    def emergency_first(self):
        start = int(symbol_value("emergency_start"))
        return (self.start - start) // self.block_bytes

    # Words

    def place(self):
        """What its heap does with it."""
        for name in ("current", "listed", "in hand"):
            if name in self.flags:
                return name
        return "full"

    def title(self):
        if self.kind in ("large", "held"):
            return f"{self.kind} block of {self.block_bytes} bytes"
        if self.kind == "emergency":
            return f"emergency span, {self.carved} blocks of {self.block_bytes} bytes"
        return f"{self.kind} span, {self.live} of {self.record.capacity} blocks of {self.block_bytes} bytes live, {self.place()}"


# --- words for people ----------------------------------------------------------------------------------------------------


def line(name, text):
    print(f"  {name:<10}{text}")


def size_text(count):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def address_argument(text):
    if not text.strip():
        raise Unknown("which address?")
    value = gdb.parse_and_eval(text)
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_ARRAY:
        value = value.address
    return int(value.cast(gdb.lookup_type("unsigned long")))


class Tide(gdb.Command):
    """Look at the memory of a program that runs on tidemalloc."""

    def __init__(self):
        super().__init__("tide", gdb.COMMAND_DATA, prefix=True)


class TideBlock(gdb.Command):
    """tide block ADDRESS: the block that holds an address, its state and its neighbours."""

    def __init__(self):
        super().__init__("tide block", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        address = address_argument(argument)
        allocator = Allocator()
        mapped = mapping_of_handler(address)
        if mapped is not None:
            print(f"{address:#x} is in a mapping that a signal handler allocated")
            line("block", f"{mapped[0]:#x}, {mapped[1]} bytes; offset {address - mapped[0]}")
            line("state", "live")
            return
        span = allocator.span_of(address)
        if span is None:
            region, number = allocator.region_of(address)
            state = region.slice_state(number)
            print(f"{address:#x} is in no block")
            line("slice", f"{region.base + number * SLICE_BYTES:#x}, {state}")
            return
        index = 0 if span.kind in ("large", "held") else (address - span.start) // span.block_bytes
        if span.kind in ("tiny", "mid") and index >= span.record.capacity:
            print(f"{address:#x} is behind the last block of a {span.kind} span")
            line("span", f"{span.start:#x}, {span.title()}")
            return
        start = span.block_start(index)
        if span.kind in ("large", "held") and address - start >= span.block_bytes:
            print(f"{address:#x} is behind the end of a large block, in its last slice")
        else:
            print(f"{address:#x} is in a {span.kind} block")
        line("block", f"{start:#x}, {span.block_bytes} bytes; offset {address - start}")
        line("state", span.state(index))
        if span.kind not in ("large", "held"):
            line("span", f"{span.start:#x}, block {index} of {span.title()}")
        if span.kind in ("tiny", "mid"):
            line("heap", allocator.heap_text(span.record.heap))
        self.neighbours(span, index)

    @staticmethod
    def neighbours(span, index):
        if span.kind in ("large", "held"):
            for name, number in (("before", span.number - 1), ("behind", span.number + span.slices)):
                if not 0 <= number < span.region.slices:
                    line(name, "the end of the region" if name == "behind" else "the start of the region")
                    continue
                other = span.region.span_around(number)
                at = span.region.base + number * SLICE_BYTES
                line(name, f"{other.start:#x}, {other.title()}" if other else f"{at:#x}, {span.region.slice_state(number)}")
            return
        count = span.carved if span.kind == "emergency" else span.record.capacity
        for name, other in (("before", index - 1), ("behind", index + 1)):
            if 0 <= other < count:
                line(name, f"{span.block_start(other):#x}, {span.state(other)}")
            else:
                line(name, "the end of the span" if name == "behind" else "the start of the span")


def mapping_of_handler(address):
    """(start, bytes) of the mapping that holds an address, if a handler made one there (heap/emergency.c)."""
    maps = symbol_value("emergency_maps")
    low, high = maps.type.range()
    for i in range(low, high + 1):
        start, count = int(maps[i]["address"]), int(maps[i]["bytes"])
        if start > 1 and start <= address < start + count:
            return start, count
    return None


class TideSpan(gdb.Command):
    """tide span ADDRESS: the span that holds an address."""

    def __init__(self):
        super().__init__("tide span", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        address = address_argument(argument)
        allocator = Allocator()
        span = allocator.span_of(address)
        if span is None:
            region, number = allocator.region_of(address)
            print(f"{address:#x} is in no span")
            line("slice", f"{region.base + number * SLICE_BYTES:#x}, {region.slice_state(number)}")
            return
        print(f"{address:#x} is in a {span.kind} span")
        line("memory", f"{span.start:#x} to {span.start + span.slices * SLICE_BYTES:#x}, slices: {span.slices}")
        line("described", f"at {span.address:#x}")
        if span.flags:
            line("flags", ", ".join(span.flags))
        if span.kind in ("large", "held"):
            line("block", f"{span.block_bytes} bytes")
            return
        line("blocks", f"{span.carved} of {span.block_bytes} bytes made"
             + (f", {span.record.capacity} fit" if span.kind != "emergency" else ""))
        line("live", span.live)
        if span.kind == "emergency":
            return
        withheld = sum(span.is_withheld(i) for i in range(span.carved)) if span.kind == "tiny" else 0
        line("free", f"{len(span.ready())}" + (f", and {withheld} whose pages were given back" if withheld else ""))
        queued = ", queued" if span.record.remote & REMOTE_QUEUED else ""
        line("remote", f"{len(span.remote())} freed by other threads{queued}")
        line("heap", allocator.heap_text(span.record.heap))
        owner = span.record.owner & ~1 if span.kind == "mid" else span.record.owner
        line("hot path", "of its heap" if owner and owner == span.record.heap else "of nobody: the next free is a slow one")


class TideHeaps(gdb.Command):
    """tide heaps: the heaps, the threads that have them, and what they hold."""

    def __init__(self):
        super().__init__("tide heaps", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        allocator = Allocator()
        spans, live, free = {}, {}, {}
        for region in allocator.regions:
            for span in region.all_spans():
                if span.kind not in ("tiny", "mid"):
                    continue
                heap = span.record.heap
                spans[heap] = spans.get(heap, 0) + 1
                live[heap] = live.get(heap, 0) + span.live * span.block_bytes
                free[heap] = free.get(heap, 0) + (span.carved - span.live) * span.block_bytes
        print(f"{'heap':<16} {'state':<8} {'thread':>8} {'claim':<8} {'spans':>6} {'live':>12} {'free':>12}  now")
        for address, heap in allocator.heaps.items():
            state = "shared" if address == allocator.shared else allocator.states.get(heap.state, "?")
            thread = heap.thread_id if state == "bound" else "-"
            claim = allocator.claims.get(heap.claim, "?")
            now = self.now(allocator, heap) if state == "bound" else ""
            print(f"{address:<#16x} {state:<8} {thread:>8} {claim:<8} {spans.get(address, 0):>6} {live.get(address, 0):>12} "
                  f"{free.get(address, 0):>12}  {now}")

    @staticmethod
    def now(allocator, heap):
        """What its thread is doing."""
        words = []
        if heap.record:
            record = allocator.record("thread_record", heap.record)
            if record.busy:
                words.append("inside an operation" + (" (slow)" if record.slow else ""))
        if heap.waiting:
            words.append("waits for a lock")
        if heap.remote or heap.undrained:
            words.append("spans wait to be collected")
        return ", ".join(words) or "-"


class TideRuns(gdb.Command):
    """tide runs [all]: what the slices of 64 KiB are used for, and the free runs; without `all` the longest ones."""

    def __init__(self):
        super().__init__("tide runs", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        allocator = Allocator()
        for region in allocator.regions:
            count, runs = {"live": 0, "dirty": 0, "clean": 0, "purging": 0}, []
            for number in range(region.slices):
                state = region.slice_state(number)
                count[state] += 1
                if state == "live":
                    continue
                if runs and runs[-1][1] == state and runs[-1][0] + runs[-1][2] == number:
                    runs[-1][2] += 1
                else:
                    runs.append([number, state, 1])
            print(f"region {region.base:#x}: {size_text(region.top_bytes)} in use of {size_text(region.size_bytes)}")
            for state, slices in count.items():
                line(state, f"{slices} slices, {size_text(slices * SLICE_BYTES)}")
            shown = runs if argument.strip() == "all" else sorted(runs, key=lambda run: -run[2])[:RUNS_SHOWN]
            for number, state, slices in sorted(shown):
                line("run", f"{region.base + number * SLICE_BYTES:#x}, {slices} slices, {state}")
            if len(shown) < len(runs):
                line("", f"and {len(runs) - len(shown)} shorter ones: tide runs all")


class TideStats(gdb.Command):
    """tide stats: totals."""

    def __init__(self):
        super().__init__("tide stats", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        allocator = Allocator()
        live = {"tiny": 0, "mid": 0, "large": 0}
        blocks = {"tiny": 0, "mid": 0, "large": 0}
        active = free = empty = 0
        for region in allocator.regions:
            for span in region.all_spans():
                if span.kind not in live:
                    continue
                count = span.live
                live[span.kind] += count * span.block_bytes
                blocks[span.kind] += count
                if span.kind == "large":
                    active += span.slices * SLICE_BYTES
                    continue
                spare = (span.carved - count) * span.block_bytes
                active += span.slices * SLICE_BYTES if count else 0
                free, empty = (free + spare, empty) if count else (free, empty + spare)
        dirty = sum(region.slice_state(n) == "dirty" for region in allocator.regions for n in range(region.slices))
        bound = sum(allocator.states.get(heap.state) == "bound" for heap in allocator.heaps.values())
        line("live", f"{sum(live.values())} bytes")
        for tier, count in live.items():
            line("  " + tier, f"{count} bytes in {blocks[tier]} blocks")
        line("active", f"{active} bytes of spans with a live block")
        line("free", f"{free} bytes beside live blocks, {empty} in empty spans, {dirty * SLICE_BYTES} in free runs")
        line("committed", f"{sum(region.top_bytes for region in allocator.regions)} bytes")
        line("heaps", f"{len(allocator.heaps) - 1}, {bound} of threads")
        line("keeper", "runs" if int(symbol_value("keeper_figures")["runs"]) else "does not run")


# --- printers ------------------------------------------------------------------------------------------------------------


class SpanPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        try:
            allocator = Allocator()
            address = int(self.value.address)
            if address == allocator.span_none:
                return "no span"
            layout = allocator.layout("span")
            for region in allocator.regions:
                number, rest = divmod(address - region.spans, layout.size)
                if rest == 0 and 0 <= number < region.slices:
                    return self.words(region, region.span(number))
        except (gdb.error, gdb.GdbError, TypeError):
            pass  # a copy, or before the first allocation
        return "a span outside of the regions"

    @staticmethod
    def words(region, span):
        if span.kind == "free":
            return f"slice {span.start:#x}, {region.slice_state(span.number)}, no span of its own"
        if span.kind == "inner":
            return f"slice {span.start:#x} of the mid span at {span.start - span.record.slices_from_head * SLICE_BYTES:#x}"
        return f"{span.title()} at {span.start:#x}"


class HeapPrinter:
    def __init__(self, value):
        self.value = value

    def to_string(self):
        try:
            return "heap " + Allocator().heap_text(int(self.value.address))
        except (gdb.error, gdb.GdbError, TypeError):
            return "a heap"


class Printers(gdb.printing.PrettyPrinter):
    """By members, not by name alone: a program may have structs of these names, too."""

    known = {"span": ("slices_from_head", SpanPrinter), "heap": ("borrow_misses", HeapPrinter)}

    def __init__(self):
        super().__init__("tidemalloc", [])

    def __call__(self, value):
        type_ = value.type.strip_typedefs().unqualified()
        if type_.code != gdb.TYPE_CODE_STRUCT or type_.tag not in self.known:
            return None
        member, printer = self.known[type_.tag]
        return printer(value) if member in Layout(type_).members else None


for command in (Tide, TideBlock, TideSpan, TideHeaps, TideRuns, TideStats):
    command()
gdb.printing.register_pretty_printer(gdb.current_objfile(), Printers(), replace=True)
