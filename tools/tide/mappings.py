"""The mappings of a process, from the text of /proc/PID/smaps, and what each of them is for.

Pure functions: text and facts go in, kinds come out; `pages` and `smaps` do the reading. A mapping can be cut into
pieces of several kinds:

    | metadata of a region       | gap  | slices of 64 KiB: tiny, mid, large, free ... | reserve             |
    | rw  none  rw  none ...     | none | rw                                           | none                |
    ^ labelled, or found below the base of the heap   ^ base, as the window tells      ^ top

    | file: r-- | r-x | r-- | rw- | anonymous: bss ........ | whatever the kernel merged with it |
                                                            ^ end of the file's image, by its program headers

Kernels built without CONFIG_ANON_VMA_NAME keep no labels. There the heap is known by the base that the window tells,
or by its layout: one run of anonymous mappings that all forbid huge pages, whose last writable ones are the heap.
"""

import re
from bisect import bisect_right
from collections import namedtuple
from dataclasses import dataclass, field

# Figure of a mapping and the line of smaps(5) that it comes from.
FIGURES = {
    "size": "Size",
    "rss": "Rss",
    "pss": "Pss",
    "private_dirty": "Private_Dirty",
    "lazy_free": "LazyFree",
    "anon_huge": "AnonHugePages",
    "swap": "Swap",
}

HEAP = "tidemalloc heap"
METADATA = "tidemalloc metadata"
BRK = "heap [brk]"
GLIBC_ARENAS = "glibc arenas"
THREAD_STACKS = "thread stacks"
MAIN_STACK = "main stack"
PROGRAM_TEXT = "program text"
PROGRAM_DATA = "program data"
LIBRARY_TEXT = "library text"
LIBRARY_DATA = "library data"
OTHER_FILES = "other files"
SHARED = "shared memory"
KERNEL = "vdso"
OTHER_ANONYMOUS = "other anonymous"
RESERVED = "reserved (no access)"

# By the number that the window gives each slice of the heap.
TIERS = (
    "tidemalloc free (clean)",
    "tidemalloc free (dirty)",
    "tidemalloc tiny",
    "tidemalloc mid",
    "tidemalloc large",
    METADATA,
)
# The order of the rows; "anonymous (NAME)" of other allocators follows the heaps.
ORDER = (
    *(TIERS[number] for number in (2, 3, 4, 1, 0)),
    HEAP,
    METADATA,
    BRK,
    GLIBC_ARENAS,
    "anonymous (",
    OTHER_ANONYMOUS,
    THREAD_STACKS,
    MAIN_STACK,
    PROGRAM_TEXT,
    PROGRAM_DATA,
    LIBRARY_TEXT,
    LIBRARY_DATA,
    OTHER_FILES,
    SHARED,
    KERNEL,
    RESERVED,
)

SLICE_BYTES = 64 << 10
EQUAL_BYTES = re.compile(rb"(.)\1*", re.DOTALL)
GLIBC_HEAP_MAX_BYTES = 64 << 20  # glibc aligns the heaps of its arenas to this, so that a block finds its heap
GUARD_MOST_BYTES = 64 << 10  # a thread's guard is one page, unless the program wants it larger
ALLOCATOR_FILE = re.compile(r"/lib(tidemalloc|jemalloc|mimalloc|tcmalloc|snmalloc|rpmalloc|scudo|hoard)[^/]*\.so")
ALLOCATOR_LABEL = re.compile(r"\[anon:(tidemalloc|jemalloc|mimalloc|tcmalloc|snmalloc|rpmalloc|scudo)", re.IGNORECASE)
HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ (\d+)(?: +(.*))?$")


@dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    permissions: str  # "rw-p"
    offset: int
    name: str  # a path, "[heap]", "[anon:label]", or "" for anonymous memory without a label
    figures: dict = field(compare=False)  # of FIGURES, in bytes
    anonymous_bytes: int = 0  # resident pages that belong to no file
    flags: frozenset = frozenset()  # of two letters each, see smaps(5)

    @property
    def size_bytes(self):
        return self.end - self.start

    @property
    def is_anonymous(self):
        return self.permissions[3] == "p" and (self.name == "" or self.name.startswith("[anon:"))

    @property
    def is_writable(self):
        return self.permissions[1] == "w"

    @property
    def is_forbidden(self):
        return self.permissions[:3] == "---"


@dataclass(frozen=True)
class Facts:
    """What the text of smaps does not tell."""

    program: str = ""  # the path of the executable
    stack_pointers: tuple = ()  # of all threads that tell
    stack_bytes: int = 0  # of a thread's stack by default, 0 if unknown
    regions: tuple = ()  # (base, kind of each slice as bytes) of tidemalloc's heap, empty where nobody answers
    image_bytes: object = lambda path: None  # bytes from the first to the last byte that an ELF file loads


Piece = namedtuple("Piece", "start end kind")


@dataclass(frozen=True)
class Parts:
    """A mapping and the pieces that it consists of, in order and without a gap."""

    mapping: Mapping
    pieces: tuple


@dataclass(frozen=True)
class Classified:
    parts: list
    allocator: str
    stacks_by_pointer: int
    stacks_by_layout: int
    has_labels: bool  # some mapping carries a label


def parse(text):
    """The mappings that the text of /proc/PID/smaps describes."""
    mappings = []
    header, values, flags = None, {}, frozenset()

    def finish():
        if header is None:
            return
        start, end, permissions, offset, _, name = header.groups()
        figures = {figure: values.get(line, 0) for figure, line in FIGURES.items()}
        mappings.append(
            Mapping(
                int(start, 16),
                int(end, 16),
                permissions,
                int(offset, 16),
                (name or "").replace("\\012", "\n"),
                figures,
                values.get("Anonymous", 0),
                flags,
            )
        )

    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and value.endswith(" kB") and " " not in name:
            values[name] = int(value[:-3]) << 10
        elif name == "VmFlags":
            flags = frozenset(value.split())
        else:
            found = HEADER.match(line)
            if found:
                finish()
                header, values, flags = found, {}, frozenset()
    finish()
    return mappings


def allocator_of(mappings):
    """The name of the allocator, by the libraries and labels among the mappings; "" if nothing tells.

    A program that is linked to one may have another one preloaded, which then serves it. What is preloaded is mapped
    first, and so at a higher address."""
    for pattern in (ALLOCATOR_FILE, ALLOCATOR_LABEL):
        found = [match[1].lower() for mapping in mappings if (match := pattern.search(mapping.name))]
        if found:
            return "tidemalloc" if "tidemalloc" in found else found[-1]
    for mapping in mappings:
        base = mapping.name.rpartition("/")[2]
        if base.startswith(("libc.so", "libc-")):
            return "glibc"
        if base.startswith("ld-musl"):
            return "musl"
    return ""


def classify(mappings, facts):
    """Tell what each mapping is for."""
    allocator = allocator_of(mappings)
    if facts.regions:
        allocator = "tidemalloc"
    heap = tide_pieces(mappings, facts, allocator)
    images = image_pieces(mappings, facts, heap)
    stacks = find_stacks(mappings, facts, heap.keys() | images.keys(), allocator)
    libraries = {m.name for m in mappings if m.name.startswith("/") and (m.permissions[2] == "x" or is_library(m.name))}

    parts = []
    for index, mapping in enumerate(mappings):
        rest = kind_of(mappings, index, facts, allocator, libraries, stacks)
        pieces = heap.get(index) or images.get(index) or (Piece(mapping.start, mapping.end, None),)
        parts.append(Parts(mapping, tuple(p if p.kind else p._replace(kind=rest) for p in pieces)))
    return Classified(
        parts,
        allocator,
        sum(how == "pointer" for how in stacks.values()),
        sum(how == "layout" for how in stacks.values()),
        any(m.name.startswith("[anon:") for m in mappings),
    )


def is_library(path):
    return re.search(r"\.so(\.[0-9.]+)?( \(deleted\))?$", path) is not None


def kind_of(mappings, index, facts, allocator, libraries, stacks):
    """The kind of a mapping that is neither tidemalloc's heap nor the end of a file's image."""
    mapping = mappings[index]
    name = mapping.name
    if mapping.is_anonymous:
        if index in stacks or name.startswith(("[anon:glibc: pthread", "[anon:stack_and_tls")):
            return THREAD_STACKS
        if name.startswith("[anon:glibc: malloc") or is_glibc_arena(mappings, index, allocator):
            return GLIBC_ARENAS
        if name.startswith("[anon:tidemalloc"):
            return RESERVED if mapping.is_forbidden else METADATA if "metadata" in name else HEAP
        if mapping.is_forbidden:
            return RESERVED
        label = ALLOCATOR_LABEL.match(name)
        if label:
            return f"anonymous ({label[1].lower()})"
        if name == "" and allocator not in ("", "glibc", "musl", "tidemalloc"):
            return f"anonymous ({allocator} and others)"
        return OTHER_ANONYMOUS
    if name == "[heap]":
        return BRK
    if name == "[stack]":
        return MAIN_STACK
    if name.startswith("[stack:"):
        return THREAD_STACKS
    if name.startswith(("[v", "[uprobes]")):
        return KERNEL
    if name.startswith("/memfd:tidemalloc"):
        return METADATA
    if name.startswith(("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "[anon_shmem:")) or name == "":
        return SHARED
    if name.startswith("/anon_hugepage"):
        return OTHER_ANONYMOUS
    is_data = mapping.is_writable or (mapping.permissions[:3] == "r--" and mapping.anonymous_bytes > 0)
    if name == facts.program:
        return RESERVED if mapping.is_forbidden else PROGRAM_DATA if is_data else PROGRAM_TEXT
    if name in libraries:
        return RESERVED if mapping.is_forbidden else LIBRARY_DATA if is_data else LIBRARY_TEXT
    return OTHER_FILES


# --- tidemalloc's heap --------------------------------------------------------------------------------------------


def tide_pieces(mappings, facts, allocator):
    """Index of a mapping -> its pieces, for the heap and the metadata of tidemalloc."""
    pieces = {}
    if allocator != "tidemalloc":
        return pieces
    for base, kinds in facts.regions:
        top = base + len(kinds) * SLICE_BYTES
        for index, mapping in enumerate(mappings):
            if mapping.start < top and mapping.end > base and mapping.is_anonymous and not mapping.is_forbidden:
                pieces[index] = tuple(cut(mapping, base, kinds))
    if any(m.name.startswith("[anon:tidemalloc") for m in mappings):
        return pieces  # the labels tell the rest

    for run in region_runs(mappings):
        bases = [base for base, _ in facts.regions if mappings[run[0]].start <= base < mappings[run[-1]].end]
        base = bases[0] if bases else heap_start(mappings, run)
        for index in run:
            mapping = mappings[index]
            if index not in pieces and not mapping.is_forbidden:
                pieces[index] = (Piece(mapping.start, mapping.end, METADATA if mapping.start < base else HEAP),)
    return pieces


def cut(mapping, base, kinds):
    """Cut a mapping along the slices of a region, neighbours of one kind together. What lies outside of the slices was
    committed after they were told."""
    top = base + len(kinds) * SLICE_BYTES
    if mapping.start < base:
        yield Piece(mapping.start, base, HEAP)
    at, stop = max(mapping.start, base), min(mapping.end, top)
    for run in EQUAL_BYTES.finditer(kinds, (at - base) // SLICE_BYTES, -((base - stop) // SLICE_BYTES)):
        end = min(stop, base + run.end() * SLICE_BYTES)
        yield Piece(at, end, TIERS[run[0][0]] if run[0][0] < len(TIERS) else HEAP)
        at = end
    if mapping.end > top:
        yield Piece(top, mapping.end, HEAP)


def region_runs(mappings):
    """Runs of neighbouring anonymous mappings, as lists of indexes, that can be regions: all forbid huge pages, and
    they end in a reserve without access."""
    run = []
    for index, mapping in enumerate(mappings):
        fits = mapping.is_anonymous and mapping.name == "" and "nh" in mapping.flags
        if run and not (fits and mappings[run[-1]].end == mapping.start):
            if is_region(mappings, run):
                yield run
            run = []
        if fits:
            run.append(index)
    if is_region(mappings, run):
        yield run


def is_region(mappings, run):
    return len(run) >= 4 and any(mappings[i].is_writable for i in run) and mappings[run[-1]].is_forbidden


def heap_start(mappings, run):
    """Where the last writable mappings of a run begin."""
    start = None
    for index in run:
        previous_is_forbidden = index == run[0] or mappings[index - 1].is_forbidden
        if mappings[index].is_writable and previous_is_forbidden:
            start = mappings[index].start
    return start


# --- what the dynamic linker and glibc lay out ---------------------------------------------------------------------


def image_pieces(mappings, facts, taken):
    """Index -> pieces of the anonymous mappings that begin with the zero-initialised data of a file. The kernel may
    have merged them with an anonymous neighbour, so the end comes from the file's program headers, where these can be
    read."""
    pieces = {}
    first = {}  # path -> where its image begins
    for index, mapping in enumerate(mappings):
        if mapping.name.startswith("/") and mapping.offset == 0:
            first[mapping.name] = mapping.start
        before = mappings[index - 1] if index else None
        if index in taken or not (mapping.is_anonymous and mapping.name == "" and mapping.is_writable) or not before:
            continue
        if before.end != mapping.start or not before.name.startswith("/") or not before.is_writable:
            continue
        if before.permissions[3] != "p" or before.name not in first:
            continue
        kind = PROGRAM_DATA if before.name == facts.program else LIBRARY_DATA
        image_bytes = facts.image_bytes(before.name)
        end = mapping.end if image_bytes is None else min(mapping.end, first[before.name] + image_bytes)
        if end > mapping.start:
            rest = (Piece(end, mapping.end, None),) if end < mapping.end else ()
            pieces[index] = (Piece(mapping.start, end, kind), *rest)
    return pieces


def find_stacks(mappings, facts, taken, allocator):
    """Index -> "pointer" or "layout" of the threads' stacks.

    glibc maps a stack as one piece whose lowest pages lose all access, the guard. Those that hold a thread's stack
    pointer are certain. Stacks of ended threads, which glibc keeps for the next thread, and of threads that do not tell
    their pointer have the same layout, and the size of a certain one or of the default."""
    starts = [mapping.start for mapping in mappings]
    stacks = {}

    def may_be(index):
        mapping = mappings[index]
        if index in taken or not (mapping.is_anonymous and mapping.is_writable) or mapping.permissions[2] == "x":
            return False
        guard = mappings[index - 1] if index else None
        is_guarded = guard and guard.end == mapping.start and guard.is_anonymous and guard.is_forbidden
        return is_guarded or "gu" in mapping.flags

    for pointer in facts.stack_pointers:
        index = bisect_right(starts, pointer) - 1
        if index >= 0 and pointer < mappings[index].end and may_be(index):
            stacks[index] = "pointer"
    sizes = {mappings[index].size_bytes for index in stacks}
    sizes.add(facts.stack_bytes)
    for index, mapping in enumerate(mappings):
        if index not in stacks and mapping.size_bytes in sizes and may_be(index):
            has_guard = "gu" in mapping.flags or mappings[index - 1].size_bytes <= GUARD_MOST_BYTES
            if has_guard and not is_glibc_arena(mappings, index, allocator):
                stacks[index] = "layout"
    return stacks


def is_glibc_arena(mappings, index, allocator):
    """The heap of an arena: aligned, writable from its start, without access from there to its end."""
    if allocator not in ("glibc", ""):
        return False
    mapping = mappings[index]
    if not mapping.is_anonymous or mapping.start % GLIBC_HEAP_MAX_BYTES:
        return False
    end = mapping.start + GLIBC_HEAP_MAX_BYTES
    after = mappings[index + 1] if index + 1 < len(mappings) else None
    return (
        mapping.is_writable
        and mapping.end < end
        and after is not None
        and after.is_anonymous
        and after.is_forbidden
        and after.start == mapping.end
        and after.end >= end
    )


# --- sums ----------------------------------------------------------------------------------------------------------


def share_out(total, weights):
    """Whole numbers in the proportion of `weights` whose sum is `total`; all in the first where no weight tells."""
    whole = sum(weights)
    if whole == 0:
        return [total, *(0 for _ in weights[1:])]
    shares = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: total * weights[i] % whole, reverse=True)
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def figures_by_kind(parts, counts, page_bytes):
    """The figures of one mapping, kind by kind. `counts` has (own, doubtful, swapped) pages of each piece.

    Rss and Swap are counted; the other figures are shared out in the proportion of Rss. Doubtful pages are present but
    belong to nobody alone: shared with a forked process, or the zero page, which smaps does not count."""
    kinds, sizes, own, doubtful, swapped = [], [], [], [], []
    for piece, count in zip(parts.pieces, counts):
        if piece.kind not in kinds:
            kinds.append(piece.kind)
            for column in (sizes, own, doubtful, swapped):
                column.append(0)
        i = kinds.index(piece.kind)
        sizes[i] += piece.end - piece.start
        own[i] += count[0] * page_bytes
        doubtful[i] += count[1] * page_bytes
        swapped[i] += count[2] * page_bytes

    figures = parts.mapping.figures
    in_doubt = figures["rss"] - sum(own)
    if 0 <= in_doubt <= sum(doubtful):
        rss = [a + b for a, b in zip(own, share_out(in_doubt, doubtful))]
    else:  # pages came and went between the two readings
        rss = share_out(figures["rss"], [a + b for a, b in zip(own, doubtful)])
    result = {"size": sizes, "rss": rss, "swap": share_out(figures["swap"], swapped)}
    for figure in FIGURES.keys() - result.keys():
        result[figure] = share_out(figures[figure], rss)
    return {kind: {figure: result[figure][i] for figure in FIGURES} for i, kind in enumerate(kinds)}


def order_of(kind):
    for place, known in enumerate(ORDER):
        if kind == known or (known.endswith("(") and kind.startswith(known)):
            return place, kind
    return len(ORDER), kind
