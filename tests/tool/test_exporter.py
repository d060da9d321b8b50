"""`tide exporter`: metrics of running programs by HTTP and as a file, as Prometheus reads them."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from real_program import MIB, RealProgram
from tide_case import CLEAN, TideCase

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"


def missing_library():
    """Why this cannot run with the Python that the tool uses, or None."""
    result = subprocess.run(["/usr/bin/python3", "-c", "import prometheus_client"], capture_output=True, timeout=30)
    return None if result.returncode == 0 else "needs prometheus_client: apt install python3-prometheus-client"


WHY_NOT = missing_library()


class ExporterCase(TideCase):
    def serve(self, *arguments):
        """The port of a running exporter."""
        exporter = self.start("exporter", "--listen", "127.0.0.1:0", *arguments)
        line = exporter.stdout.readline()
        self.assertRegex(line, r"^tide exporter: metrics at http://127\.0\.0\.1:\d+/metrics\n$")
        self.exporter = exporter
        return int(re.search(r":(\d+)/", line)[1])

    def get(self, port, path="/metrics", **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    def value(self, text, name, pid):
        found = re.findall(rf'^{name}\{{[^}}]*pid="{pid}"[^}}]*\}} (\S+)$', text, re.MULTILINE)
        self.assertEqual(len(found), 1, (name, text))
        return float(found[0])


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Http(ExporterCase):
    def test_figures_of_running_programs(self):
        port = self.serve()
        small, big = RealProgram(self), RealProgram(self)
        small.do("hold(10)")
        big.do("hold(40)")
        _, text = self.get(port)
        first = self.value(text, "tidemalloc_allocated_bytes", big.pid)
        self.assertAlmostEqual(first / MIB, 44, delta=8)
        self.assertLess(self.value(text, "tidemalloc_allocated_bytes", small.pid), 25 * MIB)
        self.assertGreater(self.value(text, "tidemalloc_resident_bytes", big.pid), 40 * MIB)
        self.assertEqual(self.value(text, "tidemalloc_keeper_answered", big.pid), 1)
        self.assertGreaterEqual(float(re.search(r"^tidemalloc_exporter_processes (\S+)$", text, re.M)[1]), 2)

        big.do("held.clear()")
        small.process.kill()
        small.process.wait()
        _, text = self.get(port)
        self.assertLess(self.value(text, "tidemalloc_allocated_bytes", big.pid), first / 2)
        self.assertNotIn(f'pid="{small.pid}"', text)

    def test_form_follows_what_the_client_reads(self):
        port = self.serve()
        kind, text = self.get(port)
        self.assertTrue(kind.startswith("text/plain"))
        self.assertIn("# TYPE tidemalloc_returned_bytes_total counter\n", text)
        self.assertNotIn("# EOF", text)
        kind, text = self.get(port, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        self.assertTrue(kind.startswith("application/openmetrics-text"))
        for line in ("# TYPE tidemalloc_returned_bytes counter", "# UNIT tidemalloc_returned_bytes bytes"):
            self.assertIn(line, text.splitlines())
        self.assertTrue(text.endswith("# EOF\n"))

    def test_only_metrics_are_served(self):
        port = self.serve()
        for path in ("/etc/passwd", "/../metrics", "/metrics/x"):
            with self.subTest(path=path), self.assertRaises(urllib.error.HTTPError) as caught:
                self.get(port, path)
            self.assertEqual(caught.exception.code, 404)
            caught.exception.close()

    def test_named_processes_only(self):
        one, other = RealProgram(self), RealProgram(self)
        one.do("hold(10)")
        other.do("hold(10)")
        port = self.serve("--pid", one.pid)
        _, text = self.get(port)
        self.value(text, "tidemalloc_allocated_bytes", one.pid)
        self.assertNotIn(f'pid="{other.pid}"', text)
        one.process.kill()
        one.process.wait()
        self.assertNotIn("pid=", self.get(port)[1])

    def test_programs_without_an_answer(self):
        """Neither a program without a keeper nor one that is stopped holds up the others."""
        program, silent, stopped = RealProgram(self), RealProgram(self, "-o", "keeper=off"), RealProgram(self)
        for each in (program, silent, stopped):
            each.do("hold(10)")
        os.kill(stopped.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        port = self.serve()
        _, text = self.get(port)
        for each, answered in ((program, 1), (silent, 0), (stopped, 0)):
            self.assertEqual(self.value(text, "tidemalloc_keeper_answered", each.pid), answered)
        self.assertGreater(self.value(text, "tidemalloc_resident_bytes", stopped.pid), 10 * MIB)

    def test_clients_at_once_and_clients_that_leave(self):
        RealProgram(self).do("hold(10)")
        port = self.serve()
        idle = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(idle.close)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as rude:
                rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(5)]
        for connection in connections:
            connection.request("GET", "/metrics")
        for connection in connections:
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertIn(b"tidemalloc_resident_bytes{", answer.read())
            connection.close()
        self.exporter.terminate()
        self.assertEqual(self.exporter.wait(timeout=20), 0)
        self.assertEqual(self.exporter.stderr.read(), "")

    def test_ends_by_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.serve()
            self.exporter.send_signal(number)
            self.assertEqual(self.exporter.wait(timeout=20), 0)
            self.assertEqual(self.exporter.stderr.read(), "")

    def test_port_that_is_taken(self):
        port = self.serve()
        result = self.tide("exporter", "--listen", f"127.0.0.1:{port}")
        self.assert_one_line_error(result, 1, "Address already in use")

    def test_only_this_machine_unless_told(self):
        for place in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0"):
            with self.subTest(place=place):
                self.assert_one_line_error(self.tide("exporter", "--listen", place), 2, "--allow-remote")
        exporter = self.start("exporter", "--listen", "0.0.0.0:0", "--allow-remote")
        port = int(re.search(r":(\d+)/metrics", exporter.stdout.readline())[1])
        self.assertIn("tidemalloc_exporter_processes", self.get(port)[1])

    def test_ipv6(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            exporter = self.start("exporter", "--listen", "[::1]:0")
            line = exporter.stdout.readline()
            port = int(re.search(r"http://\[::1\]:(\d+)/metrics", line)[1])
            with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=30) as answer:
                self.assertEqual(answer.status, 200)
            return
        self.skipTest("no IPv6 here")


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Textfile(ExporterCase):
    def test_once(self):
        program = RealProgram(self)
        program.do("hold(10)")
        path = self.folder / "tide.prom"
        result = self.tide("exporter", "--textfile", path)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        text = path.read_text()
        self.assertGreater(self.value(text, "tidemalloc_allocated_bytes", program.pid), 8 * MIB)
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)
        self.assertEqual(os.listdir(self.folder), ["tide.prom"])
        if shutil.which("promtool"):
            command = ["promtool", "check", "metrics"]
            check = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
            self.assertEqual((check.returncode, check.stdout, check.stderr), (0, "", ""))

    def test_again_and_again_and_always_whole(self):
        path = self.folder / "tide.prom"
        exporter = self.start("exporter", "--textfile", path, "--interval", "0.02")
        seen = set()
        deadline = time.monotonic() + 20
        while len(seen) < 5 and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                seen.add(os.fstat(file.fileno()).st_ino)
                self.assertRegex(file.read(), r"\ntidemalloc_exporter_collect_seconds \S+\n$")
        self.assertGreater(len(seen), 1)
        exporter.terminate()
        _, errors = exporter.communicate(timeout=20)
        self.assertEqual(exporter.returncode, 0, errors)
        self.assertEqual(os.listdir(self.folder), ["tide.prom"])

    def test_places_that_cannot_be_written(self):
        self.assert_one_line_error(self.tide("exporter", "--textfile", self.folder / "no/x.prom"), 1, "x.prom")
        (self.folder / "dir.prom").mkdir()
        self.assert_one_line_error(self.tide("exporter", "--textfile", self.folder / "dir.prom"), 1, "dir.prom")
        self.assertEqual(os.listdir(self.folder), ["dir.prom"])

    @unittest.skipUnless(os.getuid() == 0, "only root can mount a small file system")
    def test_full_disk_leaves_the_old_file(self):
        place = self.folder / "small"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", place]
        if subprocess.run(command, capture_output=True, timeout=30).returncode != 0:
            self.skipTest("may not mount here")
        self.addCleanup(subprocess.run, ["umount", place], timeout=30)
        path = place / "x.prom"
        path.write_text("old\n")
        self.assert_one_line_error(self.tide("exporter", "--textfile", path), 1, "No space left")
        self.assertEqual(path.read_text(), "old\n")
        self.assertEqual(os.listdir(place), ["x.prom"])


class Mistakes(TideCase):
    def test_command_line(self):
        for arguments, words in (
            (("--textfile", "x.txt"), ".prom"),
            (("--interval", "3"), "--interval needs --textfile"),
            (("--listen", "9464"), "ADDRESS:PORT"),
            (("--listen", "localhost:99999"), "ADDRESS:PORT"),
            (("--listen", "localhost:1", "--textfile", "x.prom"), "not allowed"),
            (("--pid",), "--pid"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_one_line_error(self.tide("exporter", *arguments), 2, words)

    @unittest.skipIf(WHY_NOT, WHY_NOT)
    def test_named_processes(self):
        self.assert_one_line_error(self.tide("exporter", "--pid", 2**22 + 1), 3, "no process")
        child = subprocess.Popen(["sleep", "60"], env=CLEAN)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.assert_one_line_error(self.tide("exporter", "--pid", child.pid), 5, "does not run on tidemalloc")

    @unittest.skipIf(WHY_NOT, WHY_NOT)
    def test_host_that_does_not_exist(self):
        result = self.tide("exporter", "--listen", "no-such-host.invalid:1")
        self.assert_one_line_error(result, 1, "cannot listen on no-such-host.invalid")

    def test_missing_library(self):
        (self.folder / "prometheus_client.py").write_text("raise ImportError\n")
        for arguments in (("exporter",), ("exporter", "--textfile", self.folder / "x.prom")):
            result = self.tide(*arguments, env={"PYTHONPATH": str(self.folder)})
            self.assert_one_line_error(result, 1, "apt install python3-prometheus-client")
        self.assertFalse((self.folder / "x.prom").exists())


@unittest.skipIf(WHY_NOT, WHY_NOT)
@unittest.skipUnless(shutil.which("prometheus"), "needs prometheus: apt install prometheus")
class Prometheus(ExporterCase):
    """The packaged server, with contrib's configuration, rules and dashboard."""

    def setUp(self):
        super().setUp()
        self.program = RealProgram(self)
        self.program.do("hold(30)")
        self.target = self.serve("--pid", self.program.pid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        shutil.copy(CONTRIB / "prometheus/tidemalloc.rules.yml", self.folder)
        text = (CONTRIB / "prometheus/prometheus.yml").read_text()
        self.assertEqual((text.count("127.0.0.1:9464"), text.count("15s")), (1, 2))
        text = text.replace("127.0.0.1:9464", f"127.0.0.1:{self.target}").replace("15s", "500ms")
        (self.folder / "prometheus.yml").write_text(text)
        log = (self.folder / "log").open("wb")
        self.addCleanup(log.close)
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            env=CLEAN,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

        def end():
            server.kill()
            server.wait()

        self.addCleanup(end)

    def api(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=30) as answer:
            found = json.load(answer)
        self.assertEqual(found["status"], "success")
        return found["data"]

    def wait_for(self, what):
        """What `what` returns as soon as it is something; the server needs some seconds to start."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                found = what()
                if found:
                    return found
            time.sleep(0.1)
        self.fail((self.folder / "log").read_text())

    def test_server_scrapes_and_understands(self):
        query = f'tidemalloc_allocated_bytes{{job="tidemalloc", pid="{self.program.pid}"}}'
        result = self.wait_for(lambda: self.api("query", query=query)["result"])
        value = float(result[0]["value"][1])
        stat = json.loads(self.tide("stat", "--json", self.program.pid).stdout)
        self.assertAlmostEqual(value / MIB, stat["stats"]["allocated_bytes"] / MIB, delta=2)
        self.assertEqual(result[0]["metric"]["name"], stat["name"])

        # Types and units came along, so it was OpenMetrics.
        target = self.api("targets")["activeTargets"][0]
        self.assertEqual((target["health"], target["lastError"]), ("up", ""))
        about = self.api("metadata", metric="tidemalloc_returned_bytes")
        self.assertEqual(about["tidemalloc_returned_bytes"][0]["type"], "counter")
        self.assertEqual(about["tidemalloc_returned_bytes"][0]["unit"], "bytes")

        # A counter that grows has a rate.
        def rate():
            self.program.do("hold(20)")
            self.program.do("held.clear()")
            query = f'rate(tidemalloc_returned_bytes_total{{pid="{self.program.pid}"}}[5s])'
            found = self.api("query", query=query)["result"]
            return found and float(found[0]["value"][1]) > 0

        self.wait_for(rate)

        # The rules are loaded and their expressions evaluate.
        def rules():
            found = [rule for group in self.api("rules")["groups"] for rule in group["rules"]]
            return found if found and all(rule["health"] != "unknown" for rule in found) else None

        for rule in self.wait_for(rules):
            self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""), rule["name"])

        # Each expression of the dashboard is understood, and gives something where it can.
        dashboard = json.loads((CONTRIB / "grafana/tidemalloc.json").read_text())
        for panel in dashboard["panels"]:
            for part in panel["targets"]:
                expression = part["expr"].replace("$__rate_interval", "5s").replace("$__range", "1m")
                expression = re.sub(r"\$(job|instance|name|pid)\b", ".*", expression)
                with self.subTest(panel=panel["title"], expression=expression):
                    self.assertNotIn("$", expression)
                    result = self.api("query", query=expression)["result"]
                    if "tidemalloc_allocations_total" not in expression:  # counted by another library
                        self.assertTrue(result)


if __name__ == "__main__":
    unittest.main()
