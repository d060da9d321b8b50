"""`tide bench` and `tide battle`: the project's own measurements, with a bar and the time that is left.

Both start bench/run.py or bench/battle/run.py of the project's tree with --progress and follow what these say on
stderr: `progress plan NAME*WEIGHT ...`, `progress done NAME*WEIGHT`, and lines for people. The tables they print come
out when they have ended. An installation has no benchmarks: the tree is found from build/tide, or named.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import messages, status


@dataclass(frozen=True)
class Set:
    script: str
    summary: str
    description: str
    only: str
    example: str
    quick: str


SETS = {
    "bench": Set(
        "bench/run.py",
        "measure time and peak memory against other allocators",
        "Run the project's benchmark set: every program under every allocator, in interleaved rounds, and the verdict "
        "for each promise about speed and size. Takes about ten minutes; --quick two minutes.",
        "benchmarks whose name matches this regular expression",
        "tide bench --quick --only 'burst|pair'",
        "a sixth of the work, two rounds",
    ),
    "battle": Set(
        "bench/battle/run.py",
        "measure what memory comes back after a burst of work",
        "Run the project's battle test: burst, then rest, in every mode and with other allocators, and the verdict for "
        "each promise about memory that is given back. Takes an hour or so; --quick three minutes.",
        "scenarios: names separated by commas, * allowed",
        "tide battle --quick --only 'burst-*'",
        "three configurations, one round, 3 s of silence",
    ),
}


def register(subparsers):
    for name, chosen in SETS.items():
        parser = subparsers.add_parser(
            name,
            help=chosen.summary,
            usage=f"tide {name} [OPTION]... [-- ARG...]",
            description=chosen.description,
            epilog=f"example:\n  {chosen.example}\n\n"
            "Exit status: 0 all promises hold; 1 one does not, or a run failed; 2 bad usage, or something is missing.",
            allow_abbrev=False,
        )
        parser.add_argument(
            "--source", metavar="DIR", type=Path, help="the project's tree (default: the one of this tide)"
        )
        parser.add_argument("--quick", action="store_true", help=chosen.quick)
        parser.add_argument("--runs", metavar="N", type=int, help="rounds that count")
        parser.add_argument("--only", metavar="NAMES", help=chosen.only)
        parser.add_argument(
            "arguments", metavar="ARG", nargs=argparse.REMAINDER, help=f"passed on to {chosen.script}, see its --help"
        )
        parser.set_defaults(main=main, parser=parser, chosen=chosen, who=f"tide {name}")


def main(args):
    source = find_source(args.source, args.chosen.script)
    if source is None:
        where = f"{args.source} has no {args.chosen.script}" if args.source else "this tide is not in a source tree"
        messages.error(args.who, f"{where}: get the project's sources, build them, and name them with --source DIR")
        return status.USAGE
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    if arguments[:1] and not arguments[0].startswith("-") and "=" not in arguments[0]:
        args.parser.error(f"unrecognized arguments: {' '.join(arguments)}")
    command = [sys.executable, str(source / args.chosen.script), "--progress"]
    command += ["--quick"] if args.quick else []
    command += ["--runs", str(args.runs)] if args.runs is not None else []
    command += ["--only", args.only] if args.only is not None else []
    return follow([*command, *arguments], args.who)


def find_source(given, script):
    """The project's tree: as given, or seen from this tool, which is build/tide or the folder tools/."""
    tool = Path(__file__).resolve().parents[1]
    places = [given] if given is not None else [tool.parent, tool.parent.parent]
    return next((place.resolve() for place in places if (place / script).is_file()), None)


def follow(command, who):
    """Run the script to its end, show how far it is, then what it printed; returns its exit status."""
    from .children import Child
    from .progress import Progress

    with tempfile.TemporaryFile("w+") as output, contextlib.ExitStack() as stack:
        # Ctrl-C comes here alone: what the script runs is in its session, and ends with it, after it has tidied up.
        child = stack.enter_context(Child(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE))
        progress = stack.enter_context(Progress())
        try:
            with open(child.stderr.fileno(), errors="replace", closefd=False) as lines:
                for line in lines:
                    take(line.rstrip("\n"), progress, who)
            child.wait()
        except BaseException:
            child.end(first=signal.SIGINT)
            raise
        progress.__exit__()
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout)
        sys.stdout.flush()
    return child.returncode if child.returncode >= 0 else status.FAILED


def step(word):
    """NAME*WEIGHT, as the scripts write it."""
    name, _, weight = word.rpartition("*")
    return name, float(weight)


def take(line, progress, who):
    """One line of the script's stderr."""
    words = line.split()
    if words[:2] == ["progress", "plan"]:
        progress.plan(map(step, words[2:]))
    elif words[:2] == ["progress", "done"] and len(words) == 3:
        progress.done(*step(words[2]))
        progress.working_on(words[2].rpartition("*")[0])
    elif line.startswith("run.py: "):
        messages.error(who, line.removeprefix("run.py: "))
    elif " done, " in line:
        progress.milestone(line)
    elif line:
        progress.note(line)
