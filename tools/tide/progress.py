"""How far a long command is, and how long it will take: a bar on a terminal, plain lines everywhere else.

The steps are planned ahead by name, and may have weights. A step that ran before is expected to take as long as it
did, by weight; one that has not, as long as the mean of all.
"""

import os
import sys
import time


class Estimate:
    """The time that is left, from the time that steps of the same name took. Without a clock of its own."""

    def __init__(self, plan):
        """`plan`: (name, weight) of each step, in any order."""
        self.left = {}
        for name, weight in plan:
            self.left[name] = self.left.get(name, 0.0) + weight
        self.seen = {}  # name -> [weight, seconds]

    def done(self, name, weight, seconds):
        self.left[name] = max(0.0, self.left.get(name, 0.0) - weight)
        seen = self.seen.setdefault(name, [0.0, 0.0])
        seen[0] += weight
        seen[1] += seconds

    def spent_s(self):
        return sum(seconds for _, seconds in self.seen.values())

    def left_s(self):
        """Seconds, or None as long as nothing is known."""
        weight = sum(weight for weight, _ in self.seen.values())
        if weight == 0:
            return None
        usual = self.spent_s() / weight
        rates = {name: seconds / weight for name, (weight, seconds) in self.seen.items() if weight}
        return sum(weight * rates.get(name, usual) for name, weight in self.left.items())


def in_words(seconds):
    """A duration as one would say it: 40 s, 7 min, 2 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def bar_possible(stream):
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Progress:
    """A context manager; everything goes to stderr, so that the standard output stays the command's result."""

    def __init__(self, plan=(), stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.begun = self.step_begun = time.monotonic()
        self.estimate = Estimate(plan)
        self.bar = self.task = None

    def plan(self, plan):
        self.estimate = Estimate(plan)
        self.begun = self.step_begun = time.monotonic()

    def __enter__(self):
        if bar_possible(self.stream):
            self._start_bar()
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.stop()

    def _start_bar(self):
        try:
            from rich import progress
            from rich.console import Console
        except ImportError:  # plain lines will do
            return

        class TimeLeft(progress.ProgressColumn):
            def render(column, task):
                return progress.Text(self.left_text(), style="progress.remaining")

        self.bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=30),
            progress.TextColumn("{task.percentage:>3.0f} %"),
            TimeLeft(),
            console=Console(file=self.stream),
            transient=True,
        )
        self.task = self.bar.add_task("", total=1.0)
        self.bar.start()

    def left_s(self):
        """What is left, less what the step at work has taken so far."""
        left = self.estimate.left_s()
        return None if left is None else max(0.0, left - (time.monotonic() - self.step_begun))

    def left_text(self):
        left = self.left_s()
        return "" if left is None or not any(self.estimate.left.values()) else f"about {in_words(left)} left"

    def working_on(self, text):
        """Name what begins now."""
        if self.bar is not None:
            self.bar.update(self.task, description=text)

    def done(self, name, weight=1.0):
        """A step of the plan is finished."""
        now = time.monotonic()
        self.estimate.done(name, weight, now - self.step_begun)
        self.step_begun = now
        if self.bar is not None:
            spent, left = self.estimate.spent_s(), self.estimate.left_s() or 0.0
            self.bar.update(self.task, completed=spent / (spent + left) if spent + left else 0.0, refresh=True)

    def milestone(self, text):
        """Something worth a line where there is no bar: with the time that is left."""
        left = self.left_text()
        self._line(f"{text}, {left}" if left else text) if self.bar is None else self.working_on(text)

    def note(self, text):
        """A line that stays, bar or not."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            self._line(text)

    def _line(self, text):
        if self.stream is not None:
            print(text, file=self.stream, flush=True)
