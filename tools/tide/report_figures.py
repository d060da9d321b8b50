"""A report before it is shown: its runs, named so that they can be told apart, its tables and its sentences."""

import os
from dataclasses import dataclass, field

from . import report_sentences, series
from . import report_tables as tables


Figure, Table, NOTHING = tables.Figure, tables.Table, tables.NOTHING


@dataclass
class Run:
    label: str
    series: series.Series
    summary: series.Summary
    number: int  # its place among the records
    style: int = 0  # its colour, dash and letter: the first is for the run that the others are compared with

    @property
    def allocator(self):
        return self.series.header.get("allocator")

    @property
    def mode(self):
        return self.series.header.get("mode")

    @property
    def program(self):
        return program_name(self.series.header["command"])

    @property
    def rest(self):
        """Its level at rest; that of a process that never grew is one level throughout."""
        return self.summary.idle if self.summary.grew else self.summary.baseline


@dataclass
class Report:
    title: str
    runs: list
    tables: list = field(default_factory=list)
    findings: list = field(default_factory=list)  # in plain words; the first is the answer
    cautions: list = field(default_factory=list)


def build(records, title=None):
    """A Report of [(path, Series)]."""
    runs = _runs(records)
    programs = {run.program for run in runs}
    named = next(iter(programs)) if len(programs) == 1 else None
    report = Report(series.printable(title) if title else f"Memory of {named}" if named else "Memory over time", runs)
    report.tables = [
        table
        for table in (
            tables.levels(runs), tables.savings_by_tier(runs), tables.ablation(runs),
            *(tables.phases(run) for run in runs), tables.event_counts(runs), tables.event_list(runs),
        )
        if table is not None
    ]  # fmt: skip
    report.findings = report_sentences.findings(runs)
    report.cautions = report_sentences.cautions(runs)
    return report


def program_name(command):
    """What a command line runs, also behind `env NAME=VALUE`; None if it is not known."""
    words = list(command)
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if "=" not in word and not word.startswith("-")] or words
    return series.printable(os.path.basename(words[0]))[:60] if words else None


def _runs(records):
    labels = [_label(record, path) for path, record in records]
    programs = {program_name(record.header["command"]) for _, record in records} - {None}
    runs = []
    for number, ((path, record), label) in enumerate(zip(records, labels)):
        program = program_name(record.header["command"])
        if len(programs) > 1 and program:
            label = f"{program}, {label}"
        runs.append(Run(label, record, series.summarize(record), number))
    for label in {run.label for run in runs}:
        same = [run for run in runs if run.label == label]
        for run in same if len(same) > 1 else ():
            stem = os.path.splitext(os.path.basename(str(records[run.number][0])))[0]
            run.label = f"{label}, {series.printable(stem)[:40]}"
    for position, run in enumerate(runs):  # files of the same name in different folders
        if run.label in {other.label for other in runs[:position]}:
            run.label += f" ({position + 1})"
    best = tables.target(runs) or runs[0]
    for style, run in enumerate([best, *(run for run in runs if run is not best)]):
        run.style = style
    return runs


def _label(record, path):
    allocator, mode = record.header.get("allocator"), record.header.get("mode")
    if allocator is None:
        return series.printable(os.path.basename(str(path)))
    label = f"{allocator} {mode}" if mode else allocator
    return series.printable(label)[:60]
