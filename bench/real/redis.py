"""redis as a benchmark: a server under the allocator, its own load generator beside it.

Time is that of the load generator from its first request to its last answer, CPU time and peak RSS are the server's.
Debian links redis to jemalloc. A preloaded library comes before it, but "nothing preloaded" would measure jemalloc, so
for glibc the C library itself is preloaded; the check of the bindings proves both.
"""

import hashlib
import json
import random
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from allocators import Allocator
from measure import (Benchmark, Place, RunFailed, Sample, allocator_variables, last_line, launch_command,
                     tool_environment, verify_bindings)

SERVER = ("redis-server", "--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no")
# Each test with its number of requests and the size of its values.
LOAD = (("set", 120000, 100), ("get", 100000, 100), ("lpush,lpop", 60000, 400), ("hset,sadd,zadd", 40000, 60),
        ("lpush,lrange_100", 10000, 200), ("set", 20000, 4000), ("incr,mset", 10000, 1000))
START_TIMEOUT_S = 10


def encode(*words: object) -> bytes:
    """A request in redis' protocol."""
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def session() -> list[tuple[object, ...]]:
    """Requests whose answers depend on nothing but their order."""
    rng = random.Random(3)
    requests = [("FLUSHALL",)]
    for i in range(4000):
        key, value = rng.randrange(500), "v" * rng.randint(1, 300)
        requests += [("SET", f"s{key}", value), ("APPEND", f"s{rng.randrange(500)}", value[:20]),
                     ("HSET", f"h{key % 50}", f"f{i % 200}", value), ("RPUSH", f"l{key % 20}", value),
                     ("ZADD", f"z{key % 10}", i % 777, f"m{key}")]
        if i % 100 == 0:
            requests += [("LRANGE", f"l{key % 20}", 0, 50), ("ZRANGE", f"z{key % 10}", 0, -1), ("DEL", f"h{key % 50}"),
                         ("DBSIZE",)]
    return requests


def read_answers(connection: socket.socket, last: bytes) -> bytes:
    """Everything up to the answer `last`, which must end the stream."""
    received = bytearray()
    while not received.endswith(last):
        chunk = connection.recv(1 << 16)
        if not chunk:
            raise RunFailed("the server closed the connection")
        received += chunk
    return bytes(received)


def session_digest(connection: socket.socket) -> str:
    digest = hashlib.sha256()
    requests = session()
    for start in range(0, len(requests), 200):
        connection.sendall(b"".join(encode(*r) for r in requests[start:start + 200]) + encode("ECHO", "<<end>>"))
        digest.update(read_answers(connection, b"<<end>>\r\n"))
    return digest.hexdigest()[:16]


def connect(path: Path, server: subprocess.Popen) -> socket.socket:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        try:
            connection.connect(str(path))
            connection.sendall(encode("PING"))
            read_answers(connection, b"+PONG\r\n")
            return connection
        except OSError:
            connection.close()
            time.sleep(0.01)
    raise RunFailed("the server did not start")


def load(path: Path, scale: int) -> float:
    """Run the load generator; returns the seconds it took."""
    taken_s = 0.0
    for tests, requests, size in LOAD:
        command = ["redis-benchmark", "-s", str(path), "-q", "-c", "20", "-P", "16", "-r", "30000", "-t", tests,
                   "-n", str(requests // scale), "-d", str(size)]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, env=tool_environment(), timeout=120)
        taken_s += time.monotonic() - start
        if done.returncode != 0 or b"rror" in done.stderr:
            raise RunFailed(f"redis-benchmark: {last_line(done.stderr)}")
    return taken_s


class Redis(Benchmark):
    """Not one process but two, so it runs by a method of its own."""

    def __init__(self, scale: int):
        super().__init__("redis", SERVER, needs=(("redis-server", "redis-server"), ("redis-benchmark", "redis-tools")),
                         real=True)
        object.__setattr__(self, "scale", scale)

    def run(self, allocator: Allocator, place: Place, verify: bool) -> Sample:
        # A path of a socket has at most 107 bytes, so it cannot be below a directory that the user names.
        with tempfile.TemporaryDirectory(prefix="tide-") as scratch:
            report, path, debug = (Path(scratch) / name for name in ("report", "socket", "debug"))
            variables = allocator_variables(allocator, debug if verify else None, links_other=True)
            argv = [*SERVER, "--dir", scratch, "--unixsocket", str(path)]
            server = subprocess.Popen(launch_command(place, report, variables, argv), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=tool_environment())
            try:
                with connect(path, server) as connection:
                    digest = session_digest(connection)
                    wall_s = load(path, self.scale)
                    connection.sendall(encode("SHUTDOWN", "NOSAVE"))
                _, errors = server.communicate(timeout=30)
            except (subprocess.TimeoutExpired, OSError) as error:
                raise RunFailed(f"the server stopped answering: {type(error).__name__}") from error
            except RunFailed as error:
                server.terminate()
                raise RunFailed(f"{error}: {last_line(server.communicate()[1])}") from error
            finally:
                if server.poll() is None:
                    server.terminate()
                    server.communicate()
            if server.returncode != 0:
                raise RunFailed(f"exit code {server.returncode}: {last_line(errors)}")
            if verify:
                verify_bindings(allocator, debug)
            used = json.loads(report.read_text())
        return Sample(wall_s, (used["user_us"] + used["system_us"]) / 1e6, used["peak_kib"], digest)
