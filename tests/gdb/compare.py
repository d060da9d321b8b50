"""Run by gdb with a program or a core of known.c stopped in stop_here(): compare every command of tide.py with what the program knows.

Ends gdb with status 1 and a line when something differs."""

import re
import traceback

import gdb


def tide(command):
    return gdb.execute("tide " + command, to_string=True)


def field(text, name):
    found = re.search(rf"^  {re.escape(name)} +(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def expect(true, what, text):
    if not true:
        raise AssertionError(f"{what}\n{text}")


def compare_block(entry):
    address, start, size = int(entry["address"]), int(entry["start"]), int(entry["bytes"])
    kind, state, thread = entry["kind"].string(), entry["state"].string(), int(entry["thread"])
    if kind == "foreign":
        try:
            text = tide(f"block {address:#x}")
        except gdb.error as error:
            text = str(error)
        expect(state in text, f"{address:#x} is not ours", text)
        return
    text = tide(f"block {address:#x}")
    if kind == "none":
        expect("is in no block" in text and field(text, "slice").endswith(state), "a free slice", text)
        return
    expect(kind in text.splitlines()[0], f"{address:#x} is {kind}", text)
    expect(field(text, "block") == f"{start:#x}, {size} bytes; offset {address - start}", "the block", text)
    expect(state in field(text, "state"), f"it is {state}", text)
    # "free" is not "freed", and "live" not a part of anything else.
    expect(state != "free" or field(text, "state") == "free", "it is free and nothing else", text)
    if thread == 0:
        expect("an orphan" in field(text, "heap"), "of an orphan", text)
    elif thread > 0:
        expect(f"of thread {thread} (gdb's thread " in field(text, "heap"), f"of thread {thread}", text)
    if kind in ("tiny", "mid"):
        span = tide(f"span {address:#x}")
        low, high = re.match(r"(0x[0-9a-f]+) to (0x[0-9a-f]+)", field(span, "memory")).groups()
        expect(int(low, 16) <= start < int(high, 16), "the span holds the block", span)
        expect(f" of {size} bytes made" in field(span, "blocks"), "the span's blocks", span)


def compare_neighbours(entries):
    """Three that lie side by side: live, free, freed by another thread."""
    free = next(e for e in entries if e["kind"].string() == "tiny" and e["state"].string() == "free")
    text = tide(f"block {int(free['start']):#x}")
    behind = f"{int(free['start']) + int(free['bytes']):#x}, freed by another thread, not collected yet"
    expect(field(text, "behind") == behind, "what is behind it", text)
    expect(field(text, "before").endswith(", live"), "what is before it", text)


def compare_totals():
    stats = gdb.parse_and_eval("known_stats")
    text = tide("stats")
    for name, member in (("live", "allocated_bytes"), ("  tiny", "tiny_bytes"), ("  mid", "mid_bytes"),
                         ("  large", "large_bytes"), ("active", "active_bytes"), ("committed", "committed_bytes")):
        expect(int(field(text, name).split()[0]) == int(stats[member]), f"{name} is {int(stats[member])}", text)
    expect(field(text, "heaps") == f"{int(stats['heap_count'])}, {int(stats['thread_count'])} of threads", "heaps", text)

    text = tide("heaps")
    bound = [row for row in text.splitlines() if row.split()[1] == "bound"]
    expect(len(bound) == int(stats["thread_count"]), "a line for each thread", text)
    small = int(stats["tiny_bytes"]) + int(stats["mid_bytes"])
    expect(sum(int(row.split()[5]) for row in text.splitlines()[1:]) == small, f"{small} bytes in heaps", text)

    text = tide("runs all")
    slices = sum(int(number) for number in re.findall(r"^  (?:live|dirty|clean|purging) +(\d+) slices", text, re.MULTILINE))
    expect(slices * 65536 == int(stats["committed_bytes"]), "all slices are counted", text)
    free = sum(int(number) for number in re.findall(r"^  run .*, (\d+) slices", text, re.MULTILINE))
    live = int(field(text, "live").split()[0])
    expect(free == slices - live, "free runs and live slices are all there is", text)


def compare_printers(entries):
    large = next(e for e in entries if e["kind"].string() == "large")
    number = f"(({int(large['start']):#x} - region_main.base) >> 16)"
    text = gdb.execute(f"print region_main.spans[{number}]", to_string=True)
    expect(f"large block of {int(large['bytes'])} bytes at {int(large['start']):#x}" in text, "a span", text)
    text = gdb.execute("print *heap_all", to_string=True)
    expect(re.search(r"= heap 0x[0-9a-f]+ of thread \d+|an orphan", text), "a heap", text)
    expect("slices_from_head" in gdb.execute("print /r region_main.spans[0]", to_string=True), "raw", "")


def main():
    table, count = gdb.parse_and_eval("known"), int(gdb.parse_and_eval("known_count"))
    entries = [table[i] for i in range(count)]
    expect(count >= 18, "the program has told what it knows", count)
    for entry in entries:
        compare_block(entry)
    compare_neighbours(entries)
    compare_totals()
    compare_printers(entries)
    print(f"compared {count} blocks")


try:
    main()
except Exception:
    traceback.print_exc()
    gdb.execute("quit 1")
