#!/usr/bin/env python3
"""Shows that the fuzz targets find defects: puts one at a time into a copy of the sources, and fuzzes that.

    fuzz/mutants.py [--seconds N] [--folder F] [NAME...]

Each mutant is a defect that a reviewer could miss, with the target that should see it. Prints how much processor time
that took, from the kept corpus on, or `NOT FOUND`; the exit status counts those.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Mutant = namedtuple("Mutant", "name target file old new")

MUTANTS = [
    Mutant(
        "refused-purge-is-clean", "runs", "span/run.c",
        "chunk_set_dirty(chunk, chunk_dirty(chunk) & ~purged);", "chunk_set_dirty(chunk, chunk_dirty(chunk) & ~mask);",
    ),
    Mutant(
        "extend-by-one-too-many", "runs", "span/run.c",
        "done = range_is_free(region, end, more);", "done = range_is_free(region, end, more - 1);",
    ),
    Mutant(
        "bin-summary-stays", "runs", "span/bins.h",
        "if (--bins->count[bin] == 0) bins->occupied", "if (--bins->count[bin] == 1) bins->occupied",
    ),
    Mutant(
        "alignment-lost-across-chunks", "runs", "span/run.c",
        "from = size_round_up(at, alignment);", "from = at;",
    ),
    Mutant(
        "punch-drops-a-page-too-many", "claims", "tier/mid.c",
        "for (size_t page = first; page <= last; page++)",
        "for (size_t page = first; page < last || page == first; page++)",
    ),
    Mutant(
        "in-hand-forever", "claims", "heap/own.c",
        "    span->flags &= (uint8_t)~SPAN_IN_HAND;\n", "",
    ),
    Mutant(
        "fork-forgets-the-claimer", "claims", "heap/fork.c",
        "if (claimer_is_gone) claim_settle();", "(void)claimer_is_gone;",
    ),
    Mutant(
        "renew-fails-unseen", "claims", "tier/large.c",
        "bytes, REGION_LABEL) == 0 ? RUN_CLEAN : RUN_DIRTY;", "bytes, REGION_LABEL) <= 0 ? RUN_CLEAN : RUN_DIRTY;",
    ),
    Mutant(
        "lost-remote-free", "claims", "heap/own.c",
        "for (uint32_t i = 0; i < count; i++) {\n        uint32_t index = link - 1;",
        "for (uint32_t i = 0; i < count - (count > 3); i++) {\n        uint32_t index = link - 1;",
    ),
    Mutant(
        "claim-beside-the-owner", "claims", "heap/claim.c",
        "if (survey->possible && !is_inside(heap)) {", "if (survey->possible) {",
    ),
    Mutant(
        "used-memory-is-clean", "api", "tier/mid.h",
        "*clean = (head->flags & SPAN_CLEAN) != 0;", "*clean = true;",
    ),
    Mutant(
        "realloc-copies-less", "api", "heap/whole.c",
        "memcpy(block, address, size_min(size, old.usable_bytes));",
        "memcpy(block, address, size_min(size, old.usable_bytes) & ~(size_t)7);",
    ),
    Mutant(
        "statistics-beyond-the-buffer", "api", "api/stats.c",
        "memcpy(stats, &all, all.size);", "memcpy(stats, &all, sizeof all);",
    ),
    Mutant(
        "patience-without-bound", "policy", "keeper/policy.c",
        "policy->patience_ns = u64_min(u64_max(gap + gap / 4, u64_min(longest, PATIENCE_FREE_NS)), PATIENCE_MAX_NS);",
        "policy->patience_ns = u64_max(gap + gap / 4, u64_min(longest, PATIENCE_FREE_NS));",
    ),
    Mutant(
        "trim-more-than-spare", "policy", "keeper/policy.c",
        "size_t give = size_max((spare - slack) / 2, POLICY_WORTH_BYTES);",
        "size_t give = size_max(spare + slack / 2, POLICY_WORTH_BYTES);",
    ),
    Mutant(
        "get-without-room-for-the-zero", "options", "os/options.c",
        "size <= line.length", "size < line.length",
    ),
    Mutant(
        "size-overflows", "options", "base/format.c",
        "if (__builtin_add_overflow(number, (size_t)(*at - '0'), &number)) return false;",
        "number += (size_t)(*at - '0');",
    ),
]  # fmt: skip


def copy_sources(folder):
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def build(folder, target):
    command = ["scripts/build.sh", "fuzz", "-DTIDE_TESTS=OFF", f"fuzz_{target}"]
    quiet = os.environ | {"WERROR": "OFF", "TIDEMALLOC_SETUP": "off"}
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=quiet)
    if made.returncode != 0:
        sys.exit(f"mutants: does not build:\n{made.stdout}{made.stderr}")


def processor_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(folder, target, seconds):
    """How much processor time it took to find something; None: nothing was found. And the first line of what was."""
    fresh = tempfile.mkdtemp(dir=folder)
    command = [
        folder / f"build/libfuzzer/fuzz/fuzz_{target}",
        "-detect_leaks=0", "-rss_limit_mb=3000", "-timeout=20", "-max_len=2048",
        f"-max_total_time={seconds}", f"-artifact_prefix={fresh}/", fresh, folder / f"fuzz/corpus/{target}",
    ]  # fmt: skip
    begun = processor_time()
    ran = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"},
    )  # fmt: skip
    took = processor_time() - begun
    signs = ("fuzz: ", "runtime error", "tidemalloc:", "ERROR: AddressSanitizer", "ERROR: libFuzzer", ".c:")
    said = [line for line in ran.stderr.splitlines() if any(sign in line for sign in signs)]
    return (took if ran.returncode != 0 else None), (said[0].strip()[:110] if said else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", help="work there, and leave it (default: a temporary one)")
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not args.names or mutant.name in args.names]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="tide-mutants-") as temporary:
        folder = Path(args.folder or temporary)
        copy_sources(folder)
        for mutant in chosen:
            path = folder / "src" / mutant.file
            whole = path.read_text()
            if whole.count(mutant.old) != 1:
                sys.exit(f"mutants: {mutant.name}: its place is there {whole.count(mutant.old)} times in {mutant.file}")
            path.write_text(whole.replace(mutant.old, mutant.new))
            build(folder, mutant.target)
            took, said = fuzz(folder, mutant.target, args.seconds)
            path.write_text(whole)
            missed += took is None
            verdict = "NOT FOUND" if took is None else f"{took:5.1f} s"
            print(f"{mutant.name:32} {mutant.target:8} {verdict}  {said}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return missed


if __name__ == "__main__":
    sys.exit(main())
