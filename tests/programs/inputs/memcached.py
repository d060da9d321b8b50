"""Talks to a memcached on a unix socket. Usage: memcached.py session SOCKET | load SOCKET OPERATIONS"""

import hashlib
import random
import socket
import sys
import threading


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rwb")

    def ask(self, line, data=None):
        self.file.write(line.encode() + b"\r\n" + (data + b"\r\n" if data is not None else b""))
        self.file.flush()
        return self.file.readline().decode().strip()

    def get(self, key, command="get"):
        """The value, or None."""
        head = self.ask(f"{command} {key}").split()
        if head == ["END"]:
            return None
        assert head[0] == "VALUE" and head[1] == key, head
        value = self.file.read(int(head[3]))
        assert self.file.readline() == b"\r\n"
        assert self.file.readline() == b"END\r\n"
        return value

    def put(self, key, value, command="set"):
        return self.ask(f"{command} {key} 0 0 {len(value)}", value)


def session(path):
    client = Client(path)
    print(client.ask("version").split()[0])
    print(client.put("a", b"one"), client.get("a"))
    print(client.put("a", b"two", "add"), client.put("b", b"two", "add"), client.put("c", b"3", "replace"))
    print(client.put("a", b" more", "append"), client.put("a", b"less ", "prepend"), client.get("a"))
    print(client.put("n", b"41"), client.ask("incr n 1"), client.ask("decr n 40"), client.ask("incr a 1"))
    print(client.ask("delete b"), client.ask("delete b"), client.get("b"))
    for power in range(4, 20):
        value = bytes(i * 31 % 251 for i in range(1 << power))
        print(power, client.put(f"size{power}", value), hashlib.sha256(client.get(f"size{power}")).hexdigest()[:16])
    print(client.put("huge", b"h" * (2 << 20)), client.ask("get huge"))
    client = Client(path)
    print(client.ask("touch a 1000"), client.ask("nonsense"), client.ask("get " + "k" * 251))
    for i in range(5000):
        client.put(f"key{i}", str(i).encode() * (i % 90 + 1))
    print(sum(client.get(f"key{i}") == str(i).encode() * (i % 90 + 1) for i in range(5000)))
    print(client.ask("flush_all"), client.get("key77"))


def load(path, operations):
    """Six clients at once; each checks what it reads, whatever was evicted meanwhile."""
    failures = []

    def work(seed):
        try:
            client, rng, stored = Client(path), random.Random(seed), {}
            for _ in range(operations):
                key = f"k{seed}.{rng.randrange(500)}"
                if rng.random() < 0.4:
                    stored[key] = (rng.randrange(256), int(rng.paretovariate(0.5) * 40) % 200_000)
                    byte, size = stored[key]
                    assert client.put(key, bytes([byte]) * size) == "STORED"
                elif rng.random() < 0.1:
                    assert client.ask(f"delete {key}") in ("DELETED", "NOT_FOUND")
                    stored.pop(key, None)
                else:
                    value = client.get(key)
                    byte, size = stored.get(key, (0, -1))
                    assert value is None or value == bytes([byte]) * size, key
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    # Connections that come and go meanwhile.
    for i in range(200):
        Client(path).put("visitor", b"v" * i)
    for thread in threads:
        thread.join()
    print("failures:", failures)


if sys.argv[1] == "session":
    session(sys.argv[2])
else:
    load(sys.argv[2], int(sys.argv[3]))
