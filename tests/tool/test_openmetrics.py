"""Metrics: each figure is exposed once, under a name that Prometheus's own checks accept, and those that contrib's
dashboard and alerts ask for exist."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from fake_window import MIB, TOTALS

from tide import openmetrics, window
from tide import process as processes

try:
    import prometheus_client
    from prometheus_client.openmetrics import parser
except ImportError:
    prometheus_client = None

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
RULES = CONTRIB / "prometheus/tidemalloc.rules.yml"
DASHBOARD = CONTRIB / "grafana/tidemalloc.json"

MEMORY = {"rss": 50 * MIB, "pss": 40 * MIB, "private_dirty": 30 * MIB, "anon_huge": 0, "swap": 4096}

# What tide_stats knows and metrics leave out, and why.
LEFT_OUT = {
    "nested_count",  # a matter of signal handlers: tide stat --json
    "keeper_running",  # there is one, else there was no answer
    "claim_wait_p99_ns",  # cannot be added up; the longest wait is there
}


class FakeProcess:
    def __init__(self, pid, name, memory=MEMORY):
        self.pid, self.name, self.memory = pid, name, memory

    def rollup(self):
        if self.memory is None:
            raise processes.ProcessError(3, "ended")
        return self.memory


def snapshot(**changes):
    return window.Snapshot(1, TOTALS | changes, [], [], 0)


@unittest.skipUnless(prometheus_client, "needs prometheus_client for this Python: python3-prometheus-client")
class Exposition(unittest.TestCase):
    def samples(self, observations):
        """{(name of the sample, labels): value} of the text, read back by the library's own parser."""
        text = openmetrics.render(observations)
        self.assertTrue(text.endswith("# EOF\n"))
        found = {}
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                self.assertNotIn(key, found)
                found[key] = sample.value
        return found

    def setUp(self):
        self.seen = self.samples([(FakeProcess(7, "redis"), snapshot())])

    def value(self, metric, **labels):
        return self.seen[(f"tidemalloc_{metric}", tuple(sorted({"name": "redis", "pid": "7", **labels}.items())))]

    def test_memory(self):
        self.assertEqual(self.value("resident_bytes"), 50 * MIB)
        self.assertEqual(self.value("swapped_bytes"), 4096)
        self.assertEqual(self.value("allocated_bytes"), TOTALS["allocated_bytes"])
        self.assertEqual(self.value("retained_bytes"), TOTALS["retained_bytes"])
        self.assertEqual(self.value("keeper_answered"), 1)

    def test_counters_and_units(self):
        self.assertEqual(self.value("returned_bytes_total"), TOTALS["returned_bytes"])
        self.assertEqual(self.value("regret_bytes_total"), TOTALS["refault_bytes"])
        self.assertEqual(self.value("misses_total"), TOTALS["refill_count"])
        self.assertAlmostEqual(self.value("keeper_cpu_seconds_total"), 0.025)
        self.assertAlmostEqual(self.value("patience_seconds"), 0.35)

    def test_tiers_and_states(self):
        self.assertEqual(self.value("tier_allocated_bytes", tier="mid"), TOTALS["mid_bytes"])
        self.assertEqual(self.value("tier_pinned_bytes", tier="tiny"), TOTALS["tiny_pinned_bytes"])
        self.assertEqual(self.value("tier_taken_bytes_per_second", tier="mid"), 10 * MIB)
        for state, value in {"memory": 0, "balanced": 1, "performance": 0}.items():
            self.assertEqual(self.value("pool_state", tier="mid", state=state), value)
        for state in window.KEEPER_STATES:
            self.assertEqual(self.value("keeper_state", state=state), int(state == "still"))

    def test_every_figure_is_there(self):
        """A figure that changes is seen, but for those that are left out on purpose."""
        for name in window.TOTALS:
            changed = self.samples([(FakeProcess(7, "redis"), snapshot(**{name: TOTALS[name] + 12345}))])
            self.assertEqual(changed == self.seen, name in LEFT_OUT, name)

    def test_allocations_only_where_they_are_counted(self):
        self.assertNotIn("tidemalloc_allocations_total", [name for name, _ in self.seen])
        self.seen = self.samples([(FakeProcess(7, "redis"), snapshot(allocation_count=5))])
        self.assertEqual(self.value("allocations_total"), 5)

    def test_without_an_answer(self):
        self.seen = self.samples([(FakeProcess(7, "redis"), None)])
        self.assertEqual(self.value("keeper_answered"), 0)
        self.assertEqual(self.value("resident_bytes"), 50 * MIB)
        self.assertNotIn("tidemalloc_allocated_bytes", [name for name, _ in self.seen])

    def test_several_processes(self):
        self.seen = self.samples(
            [
                (FakeProcess(7, "redis"), snapshot()),
                (FakeProcess(8, "redis"), snapshot(allocated_bytes=5)),
                (FakeProcess(9, "gone", memory=None), snapshot()),
            ]
        )
        self.assertEqual(self.value("allocated_bytes"), TOTALS["allocated_bytes"])
        self.assertEqual(self.value("allocated_bytes", pid="8"), 5)
        self.assertNotIn("gone", str(self.seen))
        self.assertEqual(self.samples([]), {})

    def test_names_cannot_forge_metrics(self):
        name = 'a"} 1\n# EOF \\'
        self.seen = self.samples([(FakeProcess(7, name), snapshot())])
        self.assertEqual(self.value("resident_bytes", name=name), 50 * MIB)

    def test_numbers_as_big_as_they_get(self):
        totals = dict.fromkeys(window.TOTALS, 2**64 - 1)
        self.seen = self.samples([(FakeProcess(7, "redis"), window.Snapshot(1, totals, [], [], 0))])
        self.assertEqual(self.value("allocated_bytes"), float(2**64 - 1))

    @unittest.skipUnless(shutil.which("promtool"), "needs promtool: apt install prometheus")
    def test_promtool_finds_nothing_to_say(self):
        text = openmetrics.render_textfile(
            lambda: openmetrics.families([(FakeProcess(7, "redis"), snapshot(allocation_count=5))])
        )
        result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, b"", b""))


class Library(unittest.TestCase):
    def test_missing_library_is_one_line(self):
        hidden = {name: module for name, module in sys.modules.items() if name.startswith("prometheus_client")}
        for name in hidden:
            del sys.modules[name]
        sys.modules["prometheus_client"] = None
        try:
            with self.assertRaises(processes.ProcessError) as caught:
                openmetrics.families([])
            self.assertIn("apt install python3-prometheus-client", str(caught.exception))
        finally:
            del sys.modules["prometheus_client"]
            sys.modules.update(hidden)


def exposed():
    """The names under which samples appear."""
    names = {family.name + ("_total" if family.kind == "counter" else "") for family in openmetrics.INSIDE}
    names |= {family.name for family in (*openmetrics.OUTSIDE, openmetrics.ANSWERED)}
    return names | {"tidemalloc_exporter_processes", "tidemalloc_exporter_collect_seconds"}


def metrics_in(text):
    return set(re.findall(r"\btidemalloc_\w+", text))


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


class Contrib(unittest.TestCase):
    def test_dashboard_asks_for_what_exists(self):
        dashboard = json.loads(DASHBOARD.read_text())
        queries = [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
        self.assertEqual(len(queries), 4)
        for expression in expressions(dashboard) + queries:
            with self.subTest(expression=expression):
                self.assertTrue(metrics_in(expression))
                self.assertEqual(metrics_in(expression) - exposed(), set())

    def test_dashboard_is_whole(self):
        dashboard = json.loads(DASHBOARD.read_text())
        panels = dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            self.assertEqual(len({target["refId"] for target in panel["targets"]}), len(panel["targets"]))
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__range", "__all"}
        self.assertEqual(used, variables)

    def test_alerts_ask_for_what_exists(self):
        text = RULES.read_text()
        used = metrics_in(text)
        self.assertEqual(used - exposed(), set())
        self.assertEqual(text.count("- alert:"), text.count("expr:"))
        self.assertEqual(text.count("- alert:"), text.count("summary:"))
        self.assertGreaterEqual(len(used), 8)

    @unittest.skipUnless(shutil.which("promtool"), "needs promtool: apt install prometheus")
    def test_promtool_accepts_rules_and_configuration(self):
        for command in (
            ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES)],
            ["promtool", "check", "config", "--lint=all", "--lint-fatal", str(CONTRIB / "prometheus/prometheus.yml")],
        ):
            result = subprocess.run(command, capture_output=True, text=True, timeout=30)
            self.assertEqual(result.returncode, 0, result)

    @unittest.skipUnless(shutil.which("promtool"), "needs promtool: apt install prometheus")
    def test_alerts_fire_when_they_should(self):
        """Each alert, with series that must set it off, and for a healthy program of another name, none."""
        labels = 'job="tidemalloc", instance="i", name="sick", pid="1"'
        series = {
            'up{job="tidemalloc", instance="i"}': "0x120",
            f"tidemalloc_retained_bytes{{{labels}}}": "104857600x120",
            f"tidemalloc_misses_total{{{labels}}}": "7x120",
            f"tidemalloc_allocated_bytes{{{labels}}}": "1073741824x120",
            f'tidemalloc_tier_pinned_bytes{{{labels}, tier="tiny"}}': "536870912x120",
            f'tidemalloc_tier_pinned_bytes{{{labels}, tier="mid"}}': "107374182x120",
            f"tidemalloc_regret_bytes_total{{{labels}}}": "0+1258291200x120",
            f"tidemalloc_returned_bytes_total{{{labels}}}": "0+1468006400x120",
            f"tidemalloc_keeper_cpu_seconds_total{{{labels}}}": "0+6x120",
            f"tidemalloc_keeper_answered{{{labels}}}": "0x120",
            f"tidemalloc_resident_bytes{{{labels}}}": "1073741824x120",
            f"tidemalloc_claim_possible{{{labels}}}": "0x120",
            f"tidemalloc_pressure_events_total{{{labels}}}": "0+1x120",
        }
        well = labels.replace("sick", "well")
        series |= {
            f"tidemalloc_retained_bytes{{{well}}}": "104857600x120",
            f"tidemalloc_misses_total{{{well}}}": "0+100x120",
            f"tidemalloc_allocated_bytes{{{well}}}": "1073741824x120",
            f'tidemalloc_tier_pinned_bytes{{{well}, tier="tiny"}}': "1048576x120",
            f"tidemalloc_regret_bytes_total{{{well}}}": "0+1000x120",
            f"tidemalloc_returned_bytes_total{{{well}}}": "0+1468006400x120",
            f"tidemalloc_keeper_cpu_seconds_total{{{well}}}": "0+0.1x120",
            f"tidemalloc_keeper_answered{{{well}}}": "1x120",
            f"tidemalloc_resident_bytes{{{well}}}": "1073741824x120",
            f"tidemalloc_claim_possible{{{well}}}": "1x120",
            f"tidemalloc_pressure_events_total{{{well}}}": "3x120",
        }
        names = re.findall(r"- alert: (\w+)", RULES.read_text())
        self.assertEqual(len(names), 8)
        lines = [f"rule_files: [{json.dumps(str(RULES))}]", "evaluation_interval: 1m", "tests:", "  - interval: 1m"]
        lines.append("    input_series:")
        for name, values in series.items():
            lines += [f"      - series: {json.dumps(name)}", f"        values: {json.dumps(values)}"]
        # The number of alerts that fire, by name; `well` appears in none.
        lines.append("    promql_expr_test:")
        for expression, samples in {
            'count by (alertname) (ALERTS{alertstate="firing"})': [f'{{alertname="{name}"}}' for name in names],
            'count(ALERTS{name="well"})': [],
        }.items():
            lines += [f"      - expr: {json.dumps(expression)}", "        eval_time: 90m", "        exp_samples:"]
            lines += [f"          - {{labels: {json.dumps(sample)}, value: 1}}" for sample in samples]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "test.yml")
            Path(path).write_text("\n".join(lines) + "\n")
            result = subprocess.run(
                ["promtool", "test", "rules", path], capture_output=True, text=True, timeout=60, cwd=folder
            )
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
