"""The scenarios: what each does, which promise it is about, and who runs it how often."""

from dataclasses import dataclass

from battle.configurations import Rank

TIMES = (0, 10, 20, 50, 100, 200, 500, 1000, 3000, 12000)
TIMES_AFTER_RECURRING = (0, 200, 500, 1000, 1500, 3000, 4500)
QUICK_UNTIL_MS = 3000
GAPS_MS = (20, 50, 100, 200, 500, 1000, 2000)
P4_GAPS_MS = (50, 1000)  # from, to
QUICK_GAPS_MS = (50, 200, 1000)
QUICK_REPEATS = 2  # of recurring bursts: one pair of runs says too little about 10 %
GAPS_FOR_ALL_MS = (100, 500)  # the gaps that every configuration runs, not only those of P4
SIDE_BY_SIDE_FROM_MS = 50  # gaps in which another process has room for its own burst
TIERS = ("tiny", "mid", "large", "mixed")
MANY_CYCLES, CYCLES, MANY_UP_TO_MS = 28, 14, 100  # short gaps have time for more cycles
ALONE = ("recur", "cost", "load")  # kinds whose times are compared: no silent process goes on beside them


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    command: tuple[str, ...]  # of the program `battle`; the real ones have their own code
    kind: str = "idle"  # idle, cost, recur, load or real
    promise: str = ""  # P2, P3, P5: judged in its silence
    mib: int = 128  # about what the process may hold while it is silent
    gap_ms: int = 0
    quick: bool = True
    rounds: int = 99
    repeats: int = 1  # in a round
    times: tuple[int, ...] = TIMES

    def arguments(self, until_ms: int, delay_ms: int = 0) -> list[str]:
        times = ",".join(str(t) for t in self.times if t <= until_ms)
        return [*self.command, f"at={times}"] + ([f"delay={delay_ms}"] if delay_ms else [])


def idle(name: str, what: str, promise: str, *options: str, **more) -> Scenario:
    return Scenario(name, what, ("idle", *options), promise=promise, **more)


def recurring(gap_ms: int) -> Scenario:
    # The quiet time starts late: a learned hold ends 1.25 s after the last burst at the latest.
    cycles = MANY_CYCLES if gap_ms <= MANY_UP_TO_MS else CYCLES
    command = ("recur", "kind=mixed", "mib=64", "order=fifo", f"gap={gap_ms}", f"cycles={cycles}", "quiet=3000")
    return Scenario(f"recur-{gap_ms}", f"{cycles} bursts of 64 MiB with {gap_ms} ms of silence between them", command,
                    kind="recur", mib=64, gap_ms=gap_ms, quick=gap_ms in QUICK_GAPS_MS,
                    rounds=99 if gap_ms <= P4_GAPS_MS[1] else 1, times=TIMES_AFTER_RECURRING)


def all_scenarios() -> list[Scenario]:
    """Those that measure time alone come first, so that silent processes have to be waited for once a round."""
    return [
        *map(recurring, GAPS_MS),
        Scenario("steady-heavy", "two threads that replace random blocks without a pause",
                 ("steady", "load=heavy", "threads=2", "work=60000000"), kind="load", mib=0, repeats=2),
        Scenario("steady-light", "400 blocks replaced every 10 ms, for 3 s: 1 % of a core",
                 ("steady", "load=light", "work=300"), kind="load", mib=0, quick=False, rounds=1),
        *(Scenario(f"cost-{tier}", f"the burst of burst-{tier} alone, for its time", ("idle", f"kind={tier}"),
                   kind="cost", mib=0, repeats=4, times=(0,)) for tier in TIERS),
        *(idle(f"burst-{tier}", f"one thread, 128 MiB of {tier} blocks", "P2", f"kind={tier}") for tier in TIERS),
        idle("burst-512", "one thread, 512 MiB of mixed blocks", "P2", "mib=512", mib=512),
        idle("sleepers-32", "32 threads free their own blocks and sleep", "P2", "threads=32"),
        idle("sleepers-64", "64 threads free their own blocks and sleep", "P2", "threads=64"),
        idle("remote-next", "8 threads, each frees the blocks of the next one", "P2", "threads=8", "free=next"),
        idle("remote-main", "32 threads allocate and sleep, the main thread frees", "P2", "threads=32", "free=main"),
        Scenario("churn", "2,000 threads, 8 at a time, allocate, free and end", ("churn", "count=2000"),
                 promise="P2", mib=8),
        idle("runs-mixed", "one MiB in 8 stays, as a run of neighbours", "P3", "keep=runs"),
        *(idle(f"scattered-{tier}", f"one of 50 {tier} blocks stays", "P3", f"kind={tier}", "keep=scattered")
          for tier in TIERS[:3]),
        idle("scattered-sleepers", "16 threads sleep, one of 50 mixed blocks stays", "P3", "threads=16",
             "keep=scattered"),
        idle("small", "1.5 MiB in all, blocks up to 32 KiB", "P5", "kind=small", "mib=1", "kib=512", mib=2),
        idle("trickle", "one small malloc and free every 20 ms after the burst", "", "trickle=20",
             times=TIMES[:-1]),
        Scenario("redis", "redis-server: 100,000 values set, then FLUSHALL", (), kind="real", quick=False, rounds=1),
        Scenario("python", "python with PYTHONMALLOC=malloc: 150 MiB of objects, dropped", (), kind="real", mib=150,
                 rounds=1),
    ]


def runs_in_round(scenario: Scenario, number: int, name: str, rank: Rank) -> bool:
    """Whether a configuration runs a scenario in this round (from 1)."""
    if number > scenario.rounds or (scenario.kind == "cost" and rank == Rank.SHOWN):
        return False
    if scenario.kind == "recur" and name not in ("static", "hybrid"):
        return number == 1 and scenario.gap_ms in GAPS_FOR_ALL_MS
    compared = scenario.kind in ALONE or scenario.name in [f"burst-{tier}" for tier in TIERS]
    return number == 1 or rank == Rank.JUDGED or (rank == Rank.COMPARED and compared)
