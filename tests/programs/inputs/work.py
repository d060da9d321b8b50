"""Strings, containers, threads, processes, C extensions. Prints only what does not depend on time or addresses."""

import concurrent.futures
import ctypes
import decimal
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import threading
import zlib

scale = int(sys.argv[1])
rng = random.Random(20240607)
sys.set_int_max_str_digits(0)


def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def containers(seed, turns):
    rng = random.Random(seed)
    table, items, total = {}, [], 0
    for i in range(turns):
        choice = rng.random()
        if choice < 0.5:
            table[f"key{rng.randrange(5000)}"] = [i] * rng.randrange(60)
        elif choice < 0.8:
            items.append("x" * rng.randrange(3000))
        elif items:
            total += len(items.pop(rng.randrange(len(items))))
        if i % 20000 == 0:
            table.clear()
    return total, len(items), digest(sorted(table.items()))


def in_thread(box, seed):
    # Freed by another thread than made it: the next one empties the box.
    previous = box.get("blocks", [])
    box["blocks"] = [bytes(random.Random(seed + i).randrange(5000)) for i in range(2000)]
    previous.clear()


def in_process(seed):
    return containers(seed, 20000)


def main():
    print("containers", containers(1, 40_000 * scale))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        print("threads", list(pool.map(lambda seed: containers(seed, 4_000 * scale), range(6))))
    box = {}
    for turn in range(20):
        group = [threading.Thread(target=in_thread, args=(box, turn)) for _ in range(4)]
        for thread in group:
            thread.start()
        for thread in group:
            thread.join()
    print("box", len(box["blocks"]))

    with multiprocessing.get_context("fork").Pool(3) as pool:
        print("forked", pool.map(in_process, range(6)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print("spawned", pool.map(in_process, range(2)))
    for i in range(10):
        child = subprocess.run([sys.executable, "-c", "import sys; print(sum(map(len, sys.stdin)))"],
                               input="line\n" * (i * 1000), capture_output=True, text=True)
        print("child", child.returncode, child.stdout.strip(), child.stderr)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            [bytearray(n * 37) for n in range(300)]

    workers = [threading.Thread(target=churn) for _ in range(3)]
    for worker in workers:
        worker.start()
    statuses = []
    for _ in range(30):  # fork while other threads are inside malloc
        pid = os.fork()
        if pid == 0:
            blocks = [bytearray(n * 41) for n in range(500)]
            os._exit(len(blocks) % 256)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for worker in workers:
        worker.join()
    print("fork among threads", set(statuses), len(statuses))

    data = [{"id": i, "name": "é" * (i % 50), "tags": [str(i), None, i / 7]} for i in range(20_000)]
    text = json.dumps(data)
    print("json", digest(text), json.loads(text) == data, pickle.loads(pickle.dumps(data)) == data)
    packed = zlib.compress(text.encode(), 9)
    print("zlib", len(packed), zlib.decompress(packed).decode() == text)
    print("re", len(re.findall(r'"(\w+)": (\d+)', text)), digest(re.sub(r"(\d)(\d)", r"\2\1", text)))
    base = sqlite3.connect(":memory:")
    base.execute("create table t (a integer, b text)")
    base.executemany("insert into t values (?, ?)", ((i, "b" * (i % 400)) for i in range(30_000)))
    print("sqlite", base.execute("select count(*), sum(a), sum(length(b)) from t where a % 3").fetchone())
    decimal.getcontext().prec = 2000
    print("numbers", digest(decimal.Decimal(2).sqrt()), digest(3**50_000), digest(rng.getrandbits(100_000)))
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    copies = [libc.strdup(b"c" * n) for n in range(3000)]
    print("ctypes", all(ctypes.string_at(copy) == b"c" * n for n, copy in enumerate(copies)))
    for copy in copies:
        libc.free(copy)
    knots = [[] for _ in range(50_000)]
    for knot in knots:
        knot.append(knot)
    del knots, knot
    print("cycles", gc.collect() >= 49_999)


if __name__ == "__main__":
    main()
