"""The page of `tide report` in a real browser, headless: what it shows, and that it is of use to everybody.

Skipped only where Chromium, its driver or Selenium (Debian: chromium chromium-driver python3-selenium), or Chart.js is
not installed. REPORT_SCREENSHOTS=FOLDER keeps pictures of what was tested, to be looked at.
"""

import base64
import json
import os
import re
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path

from record_made import HOSTILE, MIB, ablation, burst

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import report_figures, report_page, series  # noqa: E402  the tool under test, by the path above

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    webdriver = None

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [
    name for name, there in (
        ("chromium", CHROMIUM), ("chromium-driver", DRIVER), ("python3-selenium", webdriver),
        ("libjs-chart.js", any(Path(place).is_file() for place in report_page.CHART_PLACES)),
    ) if not there
]  # fmt: skip
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
SCREENSHOTS = os.environ.get("REPORT_SCREENSHOTS")


def brightness(colour):
    """Relative luminance of WCAG of a colour as CSS computes it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def start_browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                     f"--user-data-dir={profile}"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


def setUpModule():
    """One browser and one page for all tests: both take a second or more to make."""
    if MISSING:
        return
    folder = BrowserCase.folder = Path(tempfile.mkdtemp(prefix="tide-test-"))
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    BrowserCase.browser = start_browser(folder / "profile")
    unittest.addModuleCleanup(BrowserCase.browser.quit)
    BrowserCase.paths = ablation(folder)
    BrowserCase.report = report_figures.build([(path, series.load(path)) for path in BrowserCase.paths])
    BrowserCase.page = folder / "page.html"
    BrowserCase.page.write_text(report_page.render(BrowserCase.report))


@unittest.skipIf(MISSING, f"not installed: {', '.join(MISSING)}")
class BrowserCase(unittest.TestCase):
    def show(self, page=None, size="desktop", scheme="light", media=""):
        width, height = SIZES[size]
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=size == "phone",
        )  # fmt: skip
        self.command(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.browser.get((page or self.page).as_uri())
        self.assertEqual(self.script("return document.documentElement.dataset.ready"), "yes")

    def command(self, name, **arguments):
        return self.browser.execute_cdp_cmd(name, arguments)

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def find(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def open_details(self):
        """All of them; their plots are drawn in what follows the next look at the page."""
        self.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        drawn = "return [...document.querySelectorAll('details[data-run]')].every((d) => d.dataset.drawn)"
        for _ in range(200):
            if self.script(drawn):
                return
            time.sleep(0.01)
        self.fail("plots in details that are opened are not drawn")

    def picture(self, name, whole=True):
        if SCREENSHOTS:
            shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
            Path(SCREENSHOTS, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


class Shown(BrowserCase):
    def test_no_error_and_nothing_loaded(self):
        self.browser.get_log("browser")
        for size in SIZES:
            for scheme in ("light", "dark"):
                with self.subTest(size=size, scheme=scheme):
                    self.show(size=size, scheme=scheme)
                    self.open_details()
                    self.picture(f"{size}-{scheme}")
                    self.assertEqual(self.browser.get_log("browser"), [])
                    self.assertEqual(self.script("return performance.getEntriesByType('resource').length"), 0)

    def test_tables_show_the_figures_of_the_data(self):
        self.show()
        for run, path in zip(self.report.runs, self.paths):
            found = series.summarize(series.load(path))
            rows = {row.find_element(By.TAG_NAME, "th").text: row for row in self.find("#table-levels tbody tr")}
            row = rows[run.label]
            cells = [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
            wanted = [found.baseline, found.peak, found.idle, found.idle - found.baseline]
            self.assertEqual(cells[:4], [f"{value / MIB:.1f}" for value in wanted])

    def test_plots_show_the_data(self):
        self.show()
        for number, path in enumerate(self.paths):
            record = series.load(path)
            points = self.script(
                "const c = Chart.getChart('overview'); const n = c.data.datasets.length / 2;"
                "return c.data.datasets[n + arguments[0]].data.map((p) => [p.x, p.y]);", number,
            )  # fmt: skip
            self.assertEqual(len(points), len(record.samples))  # so few that none is left out
            for (x, y), sample in zip(points, record.samples):
                self.assertAlmostEqual(x, sample.t_ms / 1000, places=3)
                self.assertAlmostEqual(y, sample.rss / MIB, delta=0.001)
        hybrid = next(run for run in self.report.runs if run.mode == "hybrid")
        stacked = self.script(
            "return Chart.getChart(arguments[0]).data.datasets"
            ".map((d) => [d.label, Math.max(...d.data.map((p) => p.y))])",
            f"live-{hybrid.number}",
        )
        highest = {
            name: max(sample.figure(key) for sample in hybrid.series.samples) / MIB
            for name, key in (("live, tiny", "tiny_bytes"), ("live, mid", "mid_bytes"), ("live, large", "large_bytes"))
        }
        for name, value in highest.items():
            self.assertAlmostEqual(dict(stacked)[name], value, delta=0.001)

    def test_events_are_marked(self):
        self.show()
        kinds = self.script(
            "return Chart.getChart('overview').data.datasets.filter((d) => d.marks)"
            ".map((d) => d.marks.map((m) => m.kind))"
        )
        # Of the run that the others are compared with.
        self.assertEqual(kinds, [[], [], [], ["flush", "hold", "flush"]])
        note = self.find("#marks-note")[0].text
        for words in ("idle, some held", "idle, all given back", "busy again (below)", "of\ntidemalloc hybrid"):
            self.assertIn(words, note)

    def test_lines_are_drawn(self):
        self.show()
        for role in ("run-0", "run-1", "run-2"):
            drawn = self.script(
                "const canvas = document.getElementById('overview'), c = canvas.getContext('2d');"
                "const probe = document.createElement('canvas').getContext('2d');"
                "probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0]);"
                "probe.fillRect(0, 0, 1, 1); const w = probe.getImageData(0, 0, 1, 1).data;"
                "const d = c.getImageData(0, 0, canvas.width, canvas.height).data; let n = 0;"
                "for (let i = 0; i < d.length; i += 4)"
                "  if (d[i + 3] > 200"
                "      && Math.abs(d[i] - w[0]) + Math.abs(d[i + 1] - w[1]) + Math.abs(d[i + 2] - w[2]) < 12) n++;"
                "return n;", role,
            )  # fmt: skip
            self.assertGreater(drawn, 200, role)


class Anywhere(BrowserCase):
    def test_fits_every_width(self):
        for size, (width, _) in SIZES.items():
            self.show(size=size)
            self.open_details()
            self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), width)
            beyond = self.script(
                "return [...document.body.querySelectorAll('*')].filter((e) => !e.closest('.skip, thead') &&"
                " e.getBoundingClientRect().right > arguments[0] + 1).map((e) => e.outerHTML.slice(0, 80))", width,
            )  # fmt: skip
            self.assertEqual(beyond, [])
            self.assertGreaterEqual(self.script("return parseFloat(getComputedStyle(document.body).fontSize)"), 16)

    def test_a_narrow_phone_with_long_names(self):
        path = burst(self.folder / ("n" * 80 + ".jsonl"), "a" * 200, command=("b" * 500, "c " * 300))
        other = burst(self.folder / "other.jsonl", "a" * 200, command=("b" * 500,))
        page = self.folder / "long.html"
        page.write_text(report_page.render(report_figures.build([(p, series.load(p)) for p in (path, other)])))
        self.show(page, size="phone")
        self.open_details()
        self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), SIZES["phone"][0])

    def test_dark_and_light(self):
        papers = {}
        for scheme in ("light", "dark"):
            self.show(scheme=scheme)
            papers[scheme] = paper = self.script("return getComputedStyle(document.body).backgroundColor")
            self.assertGreater(contrast(self.script("return getComputedStyle(document.body).color"), paper), 7)
            for selector in (".note", ".subtitle", "thead th", "footer a", "summary"):
                colour = self.script("return getComputedStyle(document.querySelector(arguments[0])).color", selector)
                self.assertGreater(contrast(colour, paper), 4.5, (scheme, selector))
            for line in self.script(
                "const probe = document.createElement('i'); document.body.append(probe);"
                "return Chart.getChart('overview').data.datasets.filter((d) => d.isRun)"
                ".map((d) => { probe.style.color = d.borderColor; return getComputedStyle(probe).color; })"
            ):
                self.assertGreater(contrast(line, paper), 3, (scheme, line))
        self.assertGreater(brightness(papers["light"]), 0.9)
        self.assertLess(brightness(papers["dark"]), 0.05)

    def test_plots_follow_a_change_of_the_scheme(self):
        self.show(scheme="light")
        colour = "return Chart.getChart('overview').data.datasets.filter((d) => d.isRun)[0].borderColor"
        before = self.script(colour)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        self.command("Emulation.setEmulatedMedia", media="", features=dark)
        for _ in range(500):
            if self.script(colour) != before:
                return
            time.sleep(0.01)
        self.fail("the plots keep the colours of the light page")

    def test_runs_can_be_told_apart_without_colour(self):
        self.show()
        dashes = self.script(
            "return Chart.getChart('overview').data.datasets.filter((d) => d.isRun).map((d) => d.borderDash.join())"
        )
        self.assertEqual(len(set(dashes)), len(self.report.runs))

    def test_on_paper(self):
        self.show(scheme="dark", media="print")
        self.assertGreater(brightness(self.script("return getComputedStyle(document.body).backgroundColor")), 0.9)
        line = "return Chart.getChart('overview').data.datasets.filter((d) => d.isRun).pop().borderColor"
        self.assertEqual(self.script(line), "#0068a8")  # that of the light page
        pdf = base64.b64decode(self.command("Page.printToPDF", printBackground=True)["data"])
        self.assertTrue(pdf.startswith(b"%PDF"))
        if SCREENSHOTS:
            Path(SCREENSHOTS, "print.pdf").write_bytes(pdf)

    def test_without_scripts(self):
        self.command("Emulation.setScriptExecutionDisabled", value=True)
        try:
            self.browser.get(self.page.as_uri())
            text = self.find("main")[0].text
            self.assertIn("The plots need JavaScript", text)
            self.assertIn("125.7 MiB less than glibc", text)
            self.assertIn("166.0", text)
        finally:
            self.command("Emulation.setScriptExecutionDisabled", value=False)


class ForEverybody(BrowserCase):
    def test_keyboard(self):
        self.show()
        reached = []
        for _ in range(40):
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
            active = self.browser.switch_to.active_element
            reached.append((active.tag_name, active.get_attribute("id") or active.text))
            visible = self.script("return getComputedStyle(document.activeElement).outlineStyle !== 'none'")
            if active.tag_name == "body":
                break
            self.assertTrue(visible, reached[-1])
        self.assertEqual(reached[0][0], "a")
        labels = [run.label for run in self.report.runs]
        self.assertEqual([text for tag, text in reached if tag == "button"], labels)
        self.assertIn(("input", "moment"), reached)
        self.assertGreaterEqual(len([tag for tag, _ in reached if tag == "summary"]), 5)

    def test_skip_link(self):
        self.show()
        self.browser.switch_to.active_element.send_keys(Keys.TAB)
        self.browser.switch_to.active_element.send_keys(Keys.ENTER)
        self.assertEqual(self.script("return document.activeElement.id"), "figures")

    def test_a_run_is_hidden_and_shown(self):
        self.show()
        button = self.find(".legend button")[0]
        visible = "const c = Chart.getChart('overview'); return c.isDatasetVisible(c.data.datasets.length / 2)"
        self.assertTrue(self.script(visible))
        button.send_keys(Keys.SPACE)
        self.assertEqual((button.get_attribute("aria-pressed"), self.script(visible)), ("false", False))
        self.assertNotIn("glibc", self.find("#moment-values")[0].text)
        button.send_keys(Keys.ENTER)
        self.assertEqual((button.get_attribute("aria-pressed"), self.script(visible)), ("true", True))

    def test_values_of_a_moment(self):
        self.show()
        slider = self.find("#moment")[0]
        slider.send_keys(Keys.HOME)
        self.assertEqual(self.find("#moment-time")[0].text, "0.00 s")
        self.assertIn("glibc: 8.0 MiB", self.find("#moment-values")[0].text)
        slider.send_keys(Keys.END)
        self.assertIn("glibc: 134.0 MiB; tidemalloc static: 140.0 MiB", self.find("#moment-values")[0].text)
        self.assertRegex(slider.get_attribute("aria-valuetext"), r"^11\.98 seconds$")

    def test_details_draw_their_plots(self):
        self.show()
        static = next(run for run in self.report.runs if run.mode == "static")
        drawn = f"return Chart.getChart('live-{static.number}') !== undefined"
        self.assertFalse(self.script(drawn))
        summary = self.find(f"details[data-run='{static.number}'] > summary")[0]
        summary.send_keys(Keys.ENTER)
        for _ in range(100):
            if self.script(drawn):
                break
        self.assertTrue(self.script(drawn))
        self.assertGreater(self.script(f"return document.getElementById('live-{static.number}').clientHeight"), 150)

    def test_what_a_screen_reader_finds(self):
        for size in SIZES:
            self.show(size=size)
            self.command("Accessibility.enable")
            nodes = [node for node in self.command("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
            roles = [node["role"]["value"] for node in nodes]
            for role, least in (("main", 1), ("banner", 1), ("contentinfo", 1), ("table", 6), ("columnheader", 20),
                                ("rowheader", 10), ("heading", 6), ("slider", 1), ("button", 4)):  # fmt: skip
                self.assertGreaterEqual(roles.count(role), least, (size, role))
            names = {
                kind: [node["name"]["value"] for node in nodes if node["role"]["value"] in kinds]
                for kind, kinds in (("images", ("image", "img")), ("tables", ("table",)), ("regions", ("region",)))
            }
            self.assertTrue(any("glibc: baseline 8.0 MiB, peak 166.0 MiB" in name for name in names["images"]), names)
            for kind, found in names.items():
                self.assertTrue(all(found), (kind, found))


class Hostile(BrowserCase):
    def test_names_are_inert(self):
        for number, name in enumerate(HOSTILE):
            file_name = name.replace("/", "_").replace("\0", "_")
            path = burst(self.folder / f"{file_name}.jsonl", "tidemalloc", name, count=100, command=(name, name))
            with open(path, "a", encoding="ascii") as file:
                file.write(json.dumps({"t_ms": 5, "event": name, "text": name}) + "\n")
            page = self.folder / f"hostile-{number}.html"
            page.write_text(report_page.render(report_figures.build([(path, series.load(path))], title=name)))
            self.browser.get_log("browser")
            self.show(page)
            self.open_details()
            self.assertIsNone(self.script("return window.hacked"))
            self.assertEqual(self.script("return [document.scripts.length, document.images.length]"), [3, 0])
            self.assertEqual(self.browser.get_log("browser"), [])
            self.assertIn(series.printable(name), self.find("h1")[0].text)

    def test_a_script_that_gets_in_does_not_run(self):
        """The page's policy is a second wall: even a name that were not escaped would do nothing."""
        page = self.folder / "breached.html"
        breach = "</h1><script>window.hacked=1</script><p onclick='window.hacked=1'>here</p>"
        page.write_text(self.page.read_text().replace("</h1>", breach, 1))
        self.show(page)
        self.find("header p")[0].click()
        self.assertIsNone(self.script("return window.hacked"))
        self.assertTrue(any("Content Security Policy" in line["message"] for line in self.browser.get_log("browser")))


if __name__ == "__main__":
    unittest.main()
