"""`tide report`: what it says is what the records hold, and no more; what is hostile in them is inert."""

import html.parser
import json
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path

from record_made import COMMAND, HOSTILE, MIB, ablation, burst
from tide_case import TideCase

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import report_figures, report_page, report_tables  # noqa: E402  the tool under test, by the path above
from tide import report_text, series  # noqa: E402

HAS_CHART = any(Path(place).is_file() for place in report_page.CHART_PLACES)
NEEDS_CHART = unittest.skipUnless(HAS_CHART, "libjs-chart.js is not installed")


class FolderCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tide-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def report(self, *paths, **options):
        return report_figures.build([(path, series.load(path)) for path in paths], **options)

    def table(self, report, key):
        return next(table for table in report.tables if table.key == key)


class Sentences(FolderCase):
    def said(self, *paths):
        return self.report(*paths).findings

    def test_what_is_saved(self):
        said = self.said(burst(self.folder / "a"), burst(self.folder / "b", "tidemalloc", "hybrid", 8.3))
        self.assertEqual(
            said[0], "At rest tidemalloc hybrid holds 125.7 MiB less than glibc (94%): 8.3 MiB instead of 134.0 MiB."
        )

    def test_the_course_of_one_run(self):
        self.assertEqual(
            self.said(burst(self.folder / "a"))[0],
            "glibc grew from 8.0 MiB to 166.0 MiB and rested at 134.0 MiB: 20% of its growth had gone back.",
        )
        self.assertEqual(
            self.said(burst(self.folder / "b", "tidemalloc", "hybrid", 8.3))[0],
            "tidemalloc hybrid grew from 8.0 MiB to 166.0 MiB and came back to 8.3 MiB when it rested.",
        )
        self.assertIn("none of its growth", self.said(burst(self.folder / "c", rest_mib=166))[0])

    def test_nothing_is_saved(self):
        said = self.said(burst(self.folder / "a", rest_mib=9), burst(self.folder / "b", "tidemalloc", "hybrid", 8.8))
        self.assertIn("Nothing is saved", said[0])
        self.assertIn("as much as glibc", said[1])

    def test_more_than_the_other(self):
        said = self.said(burst(self.folder / "a", rest_mib=9), burst(self.folder / "b", "tidemalloc", "hybrid", 30))
        self.assertIn("Nothing is saved", said[0])
        self.assertIn("holds 21.0 MiB more than glibc", said[1])

    def test_no_rest(self):
        said = self.said(burst(self.folder / "a", share=0.9), self.restless(self.folder / "b"))
        self.assertIn("cannot be said: tidemalloc hybrid did not come to rest", said[0])
        self.assertTrue(any("nothing about memory at rest" in sentence for sentence in said), said)

    def restless(self, path):
        header = {"command": list(COMMAND), "allocator": "tidemalloc", "mode": "hybrid"}
        with series.Recorder(str(path), header) as recorder:
            for i in range(100):
                recorder.sample(i * 20.0, {"rss": (8 + i) * MIB}, i * 19.0)
        return str(path)

    def test_where_static_keeps_it(self):
        said = " ".join(self.said(*ablation(self.folder)))
        self.assertIn("tidemalloc static keeps 132.0 MiB of free memory at rest, 75% of it in the large pool", said)
        self.assertIn("1.8 MiB of free blocks are pinned", said)

    def test_the_price(self):
        other = burst(self.folder / "b", "tidemalloc", "hybrid", 8, peak_mib=190, share=0.5)
        said = " ".join(self.said(burst(self.folder / "a"), other))
        self.assertIn("The peak of tidemalloc hybrid is 24.0 MiB (14%) higher than that of glibc", said)
        self.assertRegex(said, r"tidemalloc hybrid used 4\d% less processor time than glibc .* in one run each")

    def test_differences_that_do_not_count_are_not_claimed(self):
        other = burst(self.folder / "b", "tidemalloc", "hybrid", 8, peak_mib=168, share=0.85)
        said = " ".join(self.said(burst(self.folder / "a"), other))
        self.assertNotIn("peak of", said)
        self.assertNotIn("processor time", said)

    def test_one_run_alone(self):
        self.assertIn("record the same program with", self.said(burst(self.folder / "a"))[-1])
        self.assertIn("--mode static", self.said(burst(self.folder / "b", "tidemalloc", "hybrid", 8))[-1])
        said = self.said(burst(self.folder / "c", "tidemalloc", "static", 140))
        self.assertIn("static keeps 132.0 MiB of free memory at rest: that is what", said[-1])

    def test_cautions(self):
        cautions = self.report(
            burst(self.folder / "a"), burst(self.folder / "b", count=200, command=("other",), ends=False)
        ).cautions  # fmt: skip
        text = " ".join(cautions)
        for words in ("different programs", "4.0 to 12.0 s long", "other, glibc: the recording was cut off"):
            self.assertIn(words, text)
        self.assertEqual(self.report(*ablation(self.folder)).cautions, [])


class Tables(FolderCase):
    def test_levels_are_those_of_the_summaries(self):
        paths = ablation(self.folder)
        report = self.report(*paths)
        for path, row in zip(paths, self.table(report, "levels").rows):
            found = series.summarize(series.load(path))
            wanted = [found.baseline, found.peak, found.idle, found.idle - found.baseline, found.after_flush]
            self.assertEqual([cell.value for cell in row[1:6]], wanted)
            self.assertEqual(row[2].text, f"{found.peak / MIB:,.1f}")

    def test_savings_by_tier(self):
        table = self.table(self.report(*ablation(self.folder)), "tiers")
        self.assertEqual(table.columns[-1], "Saved, MiB")
        saved = {row[0]: row[-1].text for row in table.rows}
        self.assertEqual(saved["tiny: empty spans"], "32.9")  # 33.0 less 0.1
        self.assertEqual(saved["large: free page runs, whatever they served"], "98.8")
        self.assertEqual(saved["tiny: pinned beside live blocks"], "0.0")
        self.assertEqual(saved["live: tiny"], "–")

    def test_modes(self):
        table = self.table(self.report(*reversed(ablation(self.folder))), "ablation")
        self.assertEqual([row[0] for row in table.rows], ["static", "flush", "hybrid"])
        self.assertEqual([row[2].text for row in table.rows], ["0.0", "131.6", "131.7"])
        self.assertEqual([row[4].text for row in table.rows], ["0.0", "163.0", "163.0"])
        alone = self.report(burst(self.folder / "x", "tidemalloc", "hybrid", 8))
        self.assertFalse([table for table in alone.tables if table.key == "ablation"])

    def test_events(self):
        report = self.report(*ablation(self.folder))
        table = self.table(report, "events")
        row = next(row for row in table.rows if row[0] == "tidemalloc hybrid")
        by_name = dict(zip(table.columns[1:], (cell.text for cell in row[1:])))
        self.assertEqual(by_name["Idle, all given back"], "2")
        self.assertEqual(by_name["Given back in them, MiB"], "163.0")
        texts = [row[2] for row in self.table(report, "event-list").rows]
        self.assertIn("idle, some held: gave back 100.0 MiB, held for 120 ms", texts)
        self.assertIn("busy again: after 900 ms of quiet", texts)

    def test_many_events_are_cut_to_the_weightiest(self):
        path = self.folder / "many.jsonl"
        with series.Recorder(str(path), {"command": ["x"], "allocator": "tidemalloc", "mode": "flush"}) as recorder:
            for i in range(1000):
                recorder.sample(i, {"rss": MIB})
                recorder.event(i, "flush", given=i)
        table = self.table(self.report(str(path)), "event-list")
        self.assertEqual(len(table.rows), report_tables.MOST_EVENT_ROWS)
        self.assertEqual(table.rows[-1][0].value, 999)
        self.assertIn("940 more", table.note)

    def test_labels_are_different(self):
        os.mkdir(self.folder / "x")
        paths = [burst(self.folder / name) for name in ("one.jsonl", "two.jsonl", "x/two.jsonl")]
        labels = [run.label for run in self.report(*paths).runs]
        self.assertEqual(labels, ["glibc, one", "glibc, two", "glibc, two (3)"])
        csv = self.folder / "plain.csv"
        with series.Recorder(str(csv), {}, "csv") as recorder:
            recorder.sample(0, {"rss": MIB})
        self.assertEqual(self.report(str(csv)).runs[0].label, "plain.csv")


class Text(FolderCase):
    def render(self, *paths, **options):
        return report_text.render(self.report(*paths), **options)

    def test_fits_the_terminal(self):
        paths = ablation(self.folder)
        for width in (80, 100):
            text = self.render(*paths, width=width)
            self.assertEqual([line for line in text.split("\n") if len(line) > width], [])
        self.assertLess(max(map(len, self.render(paths[0], width=40).split("\n"))), 60)

    def test_holds_the_figures(self):
        text = self.render(*ablation(self.folder))
        for words in ("125.7 MiB less than glibc (94%)", "Resident memory, MiB", "The modes side by side", "12.0 s"):
            self.assertIn(words, text.replace("\n", " "))
        self.assertNotIn("\033", text)

    def test_colour_and_plain_signs(self):
        paths = ablation(self.folder)
        self.assertIn("\033[36m#\033[0m", self.render(*paths, colour=True))
        plain = self.render(*paths, encoding="ascii")
        self.assertTrue(plain.isascii())
        self.assertNotIn("?", plain)

    def test_the_plot_shows_each_column_s_lowest_and_highest(self):
        samples = [series.Sample(t, [value] * 6) for t, value in ((0, 5), (10, 50), (12, 1), (30, 7), (99, 7))]
        found = report_text.extents(samples, 100, 10)
        self.assertEqual(found[0], (5, 5))
        self.assertEqual(found[1], (1, 50))
        self.assertEqual(found[2], (1, 1))  # nothing new: the level holds
        self.assertEqual(found[3:], [(7, 7)] * 7)

    def test_top_of_the_axis(self):
        for value, top in ((0.9, 1), (1.0, 1.5), (166, 200), (99, 100), (7.2, 8), (2100, 2500)):
            self.assertAlmostEqual(report_text.nice_top(value), top)

    def test_hostile_names(self):
        for name in HOSTILE:
            path = burst(self.folder / "h.jsonl", command=(name, name), allocator=name)
            text = self.render(path)
            self.assertTrue(all(c.isprintable() or c == "\n" for c in text), text)


class Outline(html.parser.HTMLParser):
    """What is in a page: elements with their attributes and texts."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.problems = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **{f"@{name}": value for name, value in attributes}}
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1]["tag"] != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def named(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


class Escapes(unittest.TestCase):
    def test_json_in_a_script(self):
        text = report_page.embedded({"a": "</script><!-- & \u2028 \ud800"})
        for sign in ("<", ">", "&", "\u2028"):
            self.assertNotIn(sign, text)
        self.assertEqual(json.loads(text), {"a": "</script><!-- & \u2028 \ud800"})

    def test_a_script_in_a_script(self):
        text = report_page.inline_script("a = '</script>' + '</SCRIPT >' + '<!--'")
        self.assertNotRegex(text.lower(), "</script|<!--")

    def test_thinning_keeps_peaks_and_valleys(self):
        samples = [series.Sample(i * 1.0, [1000] * 6) for i in range(10_000)]
        for position, value in ((137, 5), (138, 9000), (9_998, 3)):
            samples[position] = series.Sample(position * 1.0, [value] * 6)
        chosen = report_page.thinned(samples, 400)
        self.assertLessEqual(len(chosen), 400)
        self.assertEqual(chosen, sorted(set(chosen)))
        for position in (0, 137, 138, 9_998, 9_999):
            self.assertIn(position, chosen)
        self.assertEqual(report_page.thinned(samples[:300], 400), list(range(300)))
        gap = [series.Sample(t, [1] * 6) for t in [*range(500), *range(100_000, 100_500)]]
        chosen = report_page.thinned(gap, 400)
        self.assertEqual((chosen[0], chosen[-1]), (0, 999))


@NEEDS_CHART
class Page(FolderCase):
    def page(self, *paths):
        report = self.report(*paths)
        page = report_page.render(report)
        return report, page, Outline(page)

    def test_structure(self):
        report, page, outline = self.page(*ablation(self.folder))
        self.assertEqual((outline.problems, [e["tag"] for e in outline.open]), ([], []))
        self.assertNotIn("{{", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
        for tag in ("main", "header", "footer", "h1", "title"):
            self.assertEqual(len(outline.named(tag)), 1, tag)
        self.assertEqual(outline.named("html")[0]["@lang"], "en")
        levels = [int(e["tag"][1]) for e in outline.named("h1", "h2", "h3", "h4")]
        self.assertTrue(all(after <= before + 1 for before, after in zip(levels, levels[1:])), levels)
        identities = [e["@id"] for e in outline.elements if "@id" in e]
        self.assertEqual(len(identities), len(set(identities)))
        for section in outline.named("section"):
            self.assertIn(section["@aria-labelledby"], identities)
        for table in outline.named("table"):
            self.assertIn(table.get("@aria-describedby", identities[0]), identities)
        self.assertEqual(len(outline.named("caption")), len(outline.named("table")))
        self.assertTrue(all(e["@scope"] in ("row", "col") for e in outline.named("th")))
        for canvas in outline.named("canvas"):
            self.assertEqual(canvas["@role"], "img")
            self.assertIn("MiB", canvas["@aria-label"])

    def test_figures_are_those_of_the_report(self):
        report, _, outline = self.page(*ablation(self.folder))
        shown = [e["@data-value"] for e in outline.elements if "@data-value" in e]
        wanted = [
            str(cell.value) for table in report.tables for row in table.rows for cell in row
            if isinstance(cell, report_figures.Figure) and cell.value is not None
        ]  # fmt: skip
        for value in wanted:
            self.assertIn(value, shown)
        texts = [e["text"] for e in outline.named("li")]
        for sentence in report.findings:
            self.assertIn(sentence, texts)

    def test_tables_that_others_add_are_shown(self):
        """tide investigate puts its verdict in front."""
        report = self.report(*ablation(self.folder))
        rows = [["saved", "go", "enough <b>"], ["price", "no-go", report_figures.Figure(7, "7 %")]]
        report.tables.insert(0, report_figures.Table("verdict", "Verdict", ["Criterion", "Verdict", "Measured"], rows))
        outline = Outline(report_page.render(report))
        (table,) = [e for e in outline.named("table") if e["@id"] == "table-verdict"]
        for words in ("Verdict", "no-go", "enough <b>", "7 %"):
            self.assertIn(words, table["text"])
        self.assertIn("Verdict", report_text.render(report))

    def test_needs_nothing_from_outside(self):
        _, page, outline = self.page(*ablation(self.folder))
        for element in outline.elements:
            for name in ("@src", "@href", "@action", "@data", "@srcset"):
                self.assertRegex(element.get(name, "#"), r"^(#|data:,$|https://www\.chartjs\.org$)")
        self.assertNotRegex(report_page.asset("report_page.css"), r"url\(|@import")
        self.assertIn("Released under the MIT License", page)
        self.assertIn("default-src 'none'", outline.named("meta")[1]["@content"])

    def test_hostile_names(self):
        for name in HOSTILE:
            for options in ({"command": (name, name)}, {"allocator": name}, {"allocator": "tidemalloc", "mode": name}):
                path = burst(self.folder / "h.jsonl", **{"count": 60, **options})
                _, page, outline = self.page(path)
                self.assertEqual(outline.problems, [])
                self.assertEqual((len(outline.named("script")), len(outline.named("img"))), (3, 0))
                self.assertFalse([e for e in outline.elements if any(key.startswith("@on") for key in e)])
                self.assertNotIn("\033", page)
                self.assertNotIn("\u202e", page)

    def test_an_hour_at_20_ms_stays_small(self):
        names = (*report_page.PLOTTED, "allocated_bytes", "retained_bytes", "metadata_bytes")
        samples = [
            series.Sample(
                i * 20.0, [(100 + i * 7919 % 60) * MIB + i * 4096] * 6, i * 1.0,
                names, [i * 4096 + n for n in range(11)],
            )
            for i in range(180_000)
        ]  # fmt: skip
        events = [{"t_ms": i * 40.0, "event": "flush", "given": i} for i in range(90_000)]
        header = {"command": ["x"], "allocator": "tidemalloc", "mode": "hybrid"}
        record = series.Series(header, samples, events, {"exit_status": 0}, end_ms=3.6e6)
        report = report_figures.build([("x", record)])
        page = report_page.render(report)
        self.assertLess(len(page.encode()), 2 << 20)
        data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
        self.assertEqual(max(data["runs"][0]["rss"]), round(max(sample.rss for sample in samples) / 1024))
        self.assertEqual(min(data["runs"][0]["rss"]), round(min(sample.rss for sample in samples) / 1024))


class Command(TideCase):
    @NEEDS_CHART
    def test_page(self):
        paths = ablation(self.folder)
        out = self.folder / "x.html"
        result = self.tide("report", *paths, "-o", out, "--title", "A <b>title</b>")
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        page = out.read_text()
        self.assertIn("<title>A &lt;b&gt;title&lt;/b&gt;</title>", page)
        left = sorted(path.name for path in self.folder.iterdir() if path.suffix != ".jsonl")
        self.assertEqual(left, ["x.html"])

    def test_text_needs_nothing(self):
        narrow = {"COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
        result = self.tide("report", "--text", *ablation(self.folder), env=narrow)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("125.7 MiB less than glibc", result.stdout)
        self.assertTrue(result.stdout.isascii())

    def test_mistakes(self):
        good = burst(self.folder / "good.jsonl")
        bad = self.folder / "bad"
        bad.write_text("no record\n")
        self.assert_one_line_error(self.tide("report"), 2, "FILE")
        self.assert_one_line_error(self.tide("report", good, bad), 7, "bad: not a record")
        self.assert_one_line_error(self.tide("report", self.folder / "none"), 1, "none: No such file")
        self.assert_one_line_error(self.tide("report", self.folder), 1, "Is a directory")
        bad.write_text('{"tide_record":9}\n')
        self.assert_one_line_error(self.tide("report", "--text", bad), 7, "version 9")

    @NEEDS_CHART
    def test_a_place_that_cannot_be_written(self):
        good = burst(self.folder / "good.jsonl")
        self.assert_one_line_error(self.tide("report", good, "-o", self.folder / "none/x.html"), 1, "x.html")

    def test_a_cut_record_is_shown_with_a_warning(self):
        good = Path(burst(self.folder / "good.jsonl"))
        good.write_text(good.read_text()[:-30])
        result = self.tide("report", "--text", good)
        self.assertEqual((result.returncode, result.stderr.count("\n")), (0, 1), result.stderr)
        self.assertIn("last line is not whole", result.stderr)
        self.assertIn("not whole and was left out", result.stdout)

    def test_without_chart_js(self):
        with self.assertRaises(report_page.Missing) as caught:
            report_page.chart_js(())
        self.assertIn("apt install libjs-chart.js", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
