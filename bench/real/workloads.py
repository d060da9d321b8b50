"""Real programs from Debian's packages, with inputs that are made here by rule and not stored.

Each is one process that reads its input, works for about a second and writes a result that must be the same under
every allocator. The server (redis) is in redis.py.
"""

import random
import subprocess
from pathlib import Path

from measure import Benchmark
from real import redis

SCRIPTS = Path(__file__).resolve().parent / "scripts"


def script(name: str, directory: Path, scale: int) -> None:
    """Copy a script into the directory of inputs with its amount of work filled in."""
    text = (SCRIPTS / name).read_text()
    (directory / name).write_text(text.replace("@SCALE@", str(scale)))


def make_sqlite(directory: Path, scale: int) -> None:
    script("queries.sql", directory, scale)


def make_lua(directory: Path, scale: int) -> None:
    script("tables.lua", directory, scale)


def make_python(directory: Path, scale: int) -> None:
    script("objects.py", directory, scale)


def c_function(number: int, rng: random.Random) -> str:
    """One C function with structs, loops and a switch, for the compiler to chew on."""
    fields = rng.randint(3, 9)
    body = [f"struct s{number} {{ " + " ".join(f"int f{i};" for i in range(fields)) + " };"]
    body.append(f"int g{number}(struct s{number} *p, int n) {{ int r = {rng.randint(1, 99)};")
    body.append("for (int i = 0; i < n; i++) {")
    for i in range(fields):
        other = rng.randrange(fields)
        body.append(f"p[i].f{i} = p[i].f{other} * {rng.randint(2, 50)} + (r ^ {rng.randint(1, 999)});")
        body.append(f"if (p[i].f{i} > {rng.randint(10, 999)}) r += p[i].f{i} / {rng.randint(3, 17)};")
    body.append(f"switch (r & {rng.choice([3, 7, 15])}) {{")
    for case in range(4):
        callee = rng.randrange(number) if number else -1
        call = f"r += g{callee}((struct s{callee} *)p, {case})" if number and case % 2 else f"r *= {case + 3}"
        body.append(f"case {case}: {call}; break;")
    body.append("} } return r; }")
    return "\n".join(body)


def make_gcc(directory: Path, scale: int) -> None:
    rng = random.Random(1)
    (directory / "generated.c").write_text("\n".join(c_function(i, rng) for i in range(70 // scale)) + "\n")


def make_ghostscript(directory: Path, scale: int) -> None:
    """Pages of text in several sizes, curves with patterns of dashes, and a clipped shading each."""
    rng = random.Random(2)
    lines = ["%!PS-Adobe-3.0"]
    for page in range(max(2, 24 // scale)):
        for _ in range(45):
            font = rng.choice(["Times-Roman", "Helvetica", "Courier", "Times-Italic"])
            words = " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(9))
            lines.append(f"/{font} {rng.randint(6, 14)} selectfont 40 {rng.randint(40, 780)} moveto ({words}) show")
        for _ in range(120):
            points = " ".join(str(rng.randint(20, 580)) for _ in range(6))
            lines.append(f"[{rng.randint(1, 9)} 2] 0 setdash {rng.random():.2f} {rng.random():.2f} 0.5 setrgbcolor")
            lines.append(f"newpath {rng.randint(20, 580)} {rng.randint(20, 780)} moveto {points} curveto stroke")
        lines.append("<< /ShadingType 2 /ColorSpace /DeviceRGB /Coords [0 0 600 800] /Function << /FunctionType 2"
                     f" /Domain [0 1] /C0 [1 0 0] /C1 [0 {page % 2} 1] /N 1 >> >> shfill showpage")
    (directory / "pages.ps").write_text("\n".join(lines) + "\n")


def compiler_proper() -> str:
    """The compiler itself, without the driver that would start it as a child."""
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True)
    return found.stdout.strip() or "cc1"


SQLITE = (("sqlite3", "sqlite3"),)
PYTHON = (("/usr/bin/python3", "python3"),)
HASH_SEED = {"PYTHONHASHSEED": "0"}


def benchmarks(scale: int) -> list[Benchmark]:
    return [
        Benchmark("sqlite-memory", ("sqlite3", "-batch", ":memory:"), stdin="queries.sql", needs=SQLITE,
                  prepare=make_sqlite, real=True),
        Benchmark("sqlite-file", ("sqlite3", "-batch", "test.db"), stdin="queries.sql", needs=SQLITE,
                  prepare=make_sqlite, scratch=("test.db", "test.db-journal"), real=True),
        Benchmark("lua", ("lua5.4", "tables.lua"), needs=(("lua5.4", "lua5.4"),), prepare=make_lua, real=True),
        Benchmark("python", ("/usr/bin/python3", "-I", "objects.py"), needs=PYTHON, prepare=make_python, real=True,
                  environment=HASH_SEED),
        Benchmark("python-malloc", ("/usr/bin/python3", "objects.py"), needs=PYTHON, prepare=make_python, real=True,
                  environment=HASH_SEED | {"PYTHONMALLOC": "malloc"}),
        Benchmark("gcc", (compiler_proper(), "-quiet", "-O2", "-o", "generated.s", "generated.c"),
                  needs=(("gcc", "gcc"),), prepare=make_gcc, outputs=("generated.s",), real=True),
        Benchmark("ghostscript", ("gs", "-q", "-dBATCH", "-dNOPAUSE", "-dSAFER", "-sDEVICE=ppmraw", "-r60",
                                  "-sOutputFile=pages.ppm", "pages.ps"),
                  needs=(("gs", "ghostscript"),), prepare=make_ghostscript, outputs=("pages.ppm",), real=True),
        redis.Redis(scale),
    ]
