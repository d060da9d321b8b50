"""What is compared: tidemalloc in each of its modes, other allocators as they are and as their manuals tune them."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import allocators as known
from allocators import Allocator, AllocatorError

MODES = ("static", "flush", "shrink", "adaptive", "hybrid")
# A peer told to give memory back by itself, as far as it can.
TUNED = {"jemalloc-bg": ("jemalloc",
                         {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0"})}
DEFAULT = (*MODES, "glibc", "mimalloc", "jemalloc", "jemalloc-bg", "tcmalloc")
QUICK = ("static", "hybrid", "glibc")


class Rank(Enum):
    """How often a configuration runs: in every round, where times are compared, or in the first round alone."""

    JUDGED = 1
    COMPARED = 2
    SHOWN = 3


@dataclass(frozen=True)
class Configuration:
    name: str
    allocator: Allocator
    environment: dict[str, str] = field(default_factory=dict)
    rank: Rank = Rank.JUDGED


def rank_of(name: str) -> Rank:
    if name == "hybrid":
        return Rank.JUDGED
    return Rank.COMPARED if name in MODES or name == "glibc" else Rank.SHOWN


def find_one(name: str, tide_library: Path, named: bool) -> Configuration:
    source, environment = TUNED.get(name, (name, {}))
    if name in MODES:
        source, environment = "tide", {"TIDE_MODE": name}
    allocator = known.find_all([source], {}, tide_library)[0]
    return Configuration(name, allocator, environment, Rank.JUDGED if named else rank_of(name))


def find_all(names: list[str], extra: dict[str, Path], tide_library: Path, named: bool) -> list[Configuration]:
    """`named`: the user chose these, so all of them run in every round."""
    found = [find_one(name, tide_library, named) for name in names if name not in extra]
    return found + [Configuration(a.name, a) for a in known.find_all([], extra, tide_library)]


__all__ = ["MODES", "DEFAULT", "QUICK", "Rank", "Configuration", "AllocatorError", "find_all"]
