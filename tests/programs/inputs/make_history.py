"""Writes a history for git fast-import. Usage: make_history.py COMMITS"""

import random
import sys

commits = int(sys.argv[1])
rng = random.Random(11)
out = sys.stdout.buffer
files = {}


def data(content):
    out.write(b"data %d\n%s\n" % (len(content), content))


for number in range(1, commits + 1):
    out.write(b"commit refs/heads/main\nmark :%d\ncommitter Tide <tide@example.org> %d +0000\n" % (number, 1_700_000_000 + number * 60))
    data(b"commit %d" % number)
    if number > 1:
        out.write(b"from :%d\n" % (number - 1))
    for _ in range(rng.randrange(1, 4)):
        name = f"file{rng.randrange(40)}.txt"
        if rng.random() < 0.2:
            name = f"folder{rng.randrange(8)}/{name}"
        lines = files.setdefault(name, [f"line {i} of {name} word{i % 7}" for i in range(rng.randrange(20, 300))])
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(lines))
            if rng.random() < 0.3 and len(lines) > 10:
                del lines[at]
            else:
                lines.insert(at, f"line {at} added by {number} word{rng.randrange(9)}")
        out.write(b"M 100644 inline %s\n" % name.encode())
        data("\n".join(lines).encode() + b"\n")
    if number % 50 == 0 and len(files) > 10:
        gone = rng.choice(sorted(files))
        del files[gone]
        out.write(b"D %s\n" % gone.encode())
out.write(b"done\n")
