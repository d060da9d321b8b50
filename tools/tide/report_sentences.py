"""What a report says in plain words: who holds less at rest, where it lies, and what it costs.

A difference is claimed only if it is one (worth_saying); where there is none, that is said.
"""

from . import report_tables as tables
from . import levels, series
from .report_tables import in_mib, reference, target

LEAST_BYTES = tables.MIB
LEAST_SHARE = 0.03
LEAST_CPU_MS = 300.0
CPU_DOUBT = 0.10


def worth_saying(difference, whole):
    return abs(difference) > max(LEAST_BYTES, LEAST_SHARE * whole)


def findings(runs):
    best = target(runs)
    others = [run for run in runs if run is not best]
    sentences = []
    if best is not None and others:
        sentences += comparison(best, others)
        sentences += where_it_lies(best, reference(runs, "static"))
        sentences += price(best, others)
    compared = best is not None and others and best.rest is not None
    sentences += [course(run) for run in runs if not compared or run.rest is None or not run.summary.grew]
    if best is not None and not others:
        sentences += alone(best)
    elif best is None and len(runs) == 1:
        sentences.append(
            "To see what would go back on tidemalloc, record the same program with 'tide record -- PROGRAM' and give "
            "both files to tide report."
        )
    return sentences


def comparison(best, others):
    """Who holds less at rest, and by how much: the answer that a report is made for."""
    resting = [run for run in others if run.rest is not None]
    if best.rest is None:
        return [f"What would be saved cannot be said: {best.label} did not come to rest in this record."]
    if not resting:
        return ["What would be saved cannot be said: none of the others came to rest in these records."]
    sentences, saved = [], 0
    for run in resting:
        less = run.rest - best.rest
        if not worth_saying(less, run.rest):
            sentences.append(
                f"At rest {best.label} holds as much as {run.label}: {in_mib(best.rest)} and {in_mib(run.rest)}."
            )
        elif less > 0:
            saved += 1
            sentences.append(
                f"At rest {best.label} holds {in_mib(less)} less than {run.label} ({less / run.rest:.0%}): "
                f"{in_mib(best.rest)} instead of {in_mib(run.rest)}."
            )
        else:
            sentences.append(
                f"At rest {best.label} holds {in_mib(-less)} more than {run.label}: "
                f"{in_mib(best.rest)} instead of {in_mib(run.rest)}."
            )
    if not saved:
        sentences.insert(0, "Nothing is saved: at rest no other run holds more memory.")
    return sentences


def where_it_lies(best, static):
    """In which tier static keeps what goes back, and what stays although it is free."""
    sentences = []
    if static is not None and static is not best and static.summary.at_idle and best.summary.at_idle:
        kept = {tier: static.summary.at_idle.get(f"{tier}_retained_bytes", 0) for tier in tables.TIERS}
        whole = sum(kept.values())
        if whole > LEAST_BYTES:
            largest = max(kept, key=kept.get)
            place = {"tiny": "the tiny magazines", "mid": "the mid pool", "large": "the large pool, as free page runs"}
            left = sum(best.summary.at_idle.get(f"{tier}_retained_bytes", 0) for tier in tables.TIERS)
            sentences.append(
                f"{static.label} keeps {in_mib(whole)} of free memory at rest, {kept[largest] / whole:.0%} of it in "
                f"{place[largest]}; {best.label} keeps {in_mib(left) if left > LEAST_BYTES / 20 else 'none'}."
            )
        else:
            sentences.append(
                f"{static.label} keeps no free memory to speak of at rest: there is little that could go back."
            )
    if best.summary.at_idle:
        pinned = sum(best.summary.at_idle.get(f"{tier}_pinned_bytes", 0) for tier in ("tiny", "mid"))
        if pinned > LEAST_BYTES:
            sentences.append(
                f"{in_mib(pinned)} of free blocks are pinned: they share spans with live blocks, so only pages without "
                "a live one can go back."
            )
    return sentences


def price(best, others):
    """What the saving costs: the peak, and processor time."""
    sentences = []
    for run in others:
        more = best.summary.peak - run.summary.peak
        if worth_saying(more, run.summary.peak):
            word = "higher" if more > 0 else "lower"
            sentences.append(
                f"The peak of {best.label} is {in_mib(abs(more))} ({abs(more) / run.summary.peak:.0%}) {word} than "
                f"that of {run.label}."
            )
    for run in others:
        mine, theirs = best.summary.cpu_ms, run.summary.cpu_ms
        if mine is None or theirs is None or min(mine, theirs) < LEAST_CPU_MS:
            continue
        ratio = mine / theirs
        if abs(ratio - 1) > CPU_DOUBT:
            sentences.append(
                f"{best.label} used {abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'} processor time than "
                f"{run.label} ({mine / 1000:.2f} s and {theirs / 1000:.2f} s), in one run each: measure it again "
                "before relying on it."
            )
    return sentences


def course(run):
    """What one run did."""
    s = run.summary
    if not s.grew:
        return f"{run.label} stayed at {in_mib(s.baseline)}: it did not grow in this record."
    text = f"{run.label} grew from {in_mib(s.baseline)} to {in_mib(s.peak)}"
    if s.idle is None:
        return (
            f"{text} and was never quiet for {levels.QUIET_MS / 1000:g} s after that: the record says nothing about "
            "memory at rest."
        )
    over = s.idle - s.baseline
    growth = s.peak - s.baseline
    if not worth_saying(over, growth):
        return f"{text} and came back to {in_mib(s.idle)} when it rested."
    back = f"{1 - over / growth:.0%}" if over < 0.995 * growth else "none"
    text += f" and rested at {in_mib(s.idle)}: {back} of its growth had gone back"
    live = (s.at_idle or {}).get("allocated_bytes")
    if live is not None:
        text += f"; {in_mib(live)} were live then"
    return text + "."


def alone(run):
    """One record of tidemalloc: what it says by itself."""
    sentences = []
    if run.mode == "static" and run.summary.at_idle:
        kept = run.summary.at_idle.get("retained_bytes", 0)
        sentences.append(
            f"static keeps {in_mib(kept)} of free memory at rest: that is what the other modes could give back."
            if kept > LEAST_BYTES
            else "static keeps no free memory to speak of at rest: the other modes would save nothing."
        )
    elif run.mode != "static":
        sentences += where_it_lies(run, None)
        sentences.append(
            "To see what this saves, record the same program with 'tide record --mode static', or on its own "
            "allocator with --as-is, and give both files to tide report."
        )
    return sentences


def cautions(runs):
    """What a reader must know before comparing."""
    notes = []
    if len({run.program for run in runs} - {None}) > 1:
        notes.append("The runs are of different programs.")
    durations = [run.series.duration_ms for run in runs]
    if max(durations) > 1.5 * min(durations):
        notes.append(
            f"The records are {min(durations) / 1000:.1f} to {max(durations) / 1000:.1f} s long: means and processor "
            "times are not of the same work."
        )
    for run in runs:
        if run.series.truncated:
            notes.append(f"{run.label}: the last line of the record is not whole and was left out.")
        elif run.series.end is None and run.allocator is not None:
            notes.append(f"{run.label}: the recording was cut off; its end is not the end of the process.")
        if len(run.series.samples) < 10:
            notes.append(f"{run.label}: only {len(run.series.samples)} samples.")
        if run.series.end and run.series.end.get("signal") is not None:
            number = series.printable(run.series.end["signal"])[:4]
            notes.append(f"{run.label}: the process was ended by signal {number}.")
    return notes
