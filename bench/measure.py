"""Runs one benchmark once under one allocator and returns what it cost."""

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from allocators import Allocator, AllocatorError, check_bindings

TIMEOUT_S = 120


class RunFailed(Exception):
    """One line for the user: why a run does not count."""


@dataclass(frozen=True)
class Sample:
    wall_s: float
    cpu_s: float
    peak_kib: int
    digest: str  # of the output, to compare allocators


@dataclass(frozen=True)
class Benchmark:
    """A program to run. `argv` may name files in the directory of inputs, which is the working directory."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None
    outputs: tuple[str, ...] = ()  # files it writes: removed before a run, part of the digest after it
    scratch: tuple[str, ...] = ()  # files it writes that may differ: removed before a run
    needs: tuple[tuple[str, str], ...] = ()  # (program, Debian package)
    prepare: object = None  # a function (directory, scale) that makes the inputs
    real: bool = False

    def run(self, allocator: Allocator, place: "Place", verify: bool) -> "Sample":
        return run_once(self, allocator, place, verify)


@dataclass(frozen=True)
class Place:
    """Where runs happen: the compiled programs, and a directory for inputs and outputs."""

    programs: Path
    directory: Path


def tool_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def launch_command(place: Place, report: Path, variables: dict[str, str], argv: list[str]) -> list[str]:
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return [str(place.programs / "launch"), str(report), *assignments, "--", *argv]


def allocator_variables(allocator: Allocator, debug: Path | None, links_other: bool = False) -> dict[str, str]:
    variables = {}
    preload = allocator.preload(links_other)
    if preload:
        variables["LD_PRELOAD"] = str(preload)
    if debug:
        variables |= {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(debug)}
    return variables


def verify_bindings(allocator: Allocator, debug: Path) -> None:
    try:
        check_bindings(allocator, list(debug.parent.glob(debug.name + ".*")))
    except AllocatorError as error:
        raise RunFailed(f"does not use {allocator.name}: {error}") from error


def last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().split("\n")
    return lines[-1][:200]


def digest_of(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def run_once(benchmark: Benchmark, allocator: Allocator, place: Place, verify: bool) -> Sample:
    """One run. With `verify`, the loader is asked which library the allocation functions come from."""
    for name in benchmark.outputs + benchmark.scratch:
        (place.directory / name).unlink(missing_ok=True)
    argv = list(benchmark.argv)
    if not benchmark.real:
        argv[0] = str(place.programs / argv[0])
    with tempfile.TemporaryDirectory(dir=place.directory) as scratch:
        report, output, debug = (Path(scratch) / name for name in ("report", "output", "debug"))
        variables = benchmark.environment | allocator_variables(allocator, debug if verify else None)
        with output.open("wb") as stdout:
            stdin = open(place.directory / benchmark.stdin, "rb") if benchmark.stdin else subprocess.DEVNULL
            try:
                done = subprocess.run(launch_command(place, report, variables, argv), stdin=stdin, stdout=stdout,
                                      stderr=subprocess.PIPE, cwd=place.directory, env=tool_environment(),
                                      timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise RunFailed(f"did not end within {TIMEOUT_S} s") from error
            finally:
                if benchmark.stdin:
                    stdin.close()
        if done.returncode != 0:
            raise RunFailed(f"exit code {done.returncode}: {last_line(done.stderr)}")
        if b"cannot be preloaded" in done.stderr:
            raise RunFailed(last_line(done.stderr))
        if verify:
            verify_bindings(allocator, debug)
        used = json.loads(report.read_text())
        digest = digest_of([output, *(place.directory / name for name in benchmark.outputs)])
    return Sample(used["wall_ns"] / 1e9, (used["user_us"] + used["system_us"]) / 1e6, used["peak_kib"], digest)
