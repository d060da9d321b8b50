"""`tide exporter`: metrics of all processes on tidemalloc for Prometheus, by HTTP or through node exporter's textfiles.

The processes are looked for anew at every scrape: those of the calling user, or all of them for root. HTTP is served on
the loopback address only, because names of programs and their memory are nobody else's business and there is no
password; --allow-remote lifts that for a network that may know.
"""

import argparse
import contextlib
import ipaddress
import os
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from . import messages, openmetrics, status
from .process import Process, ProcessError, processes_on_tidemalloc
from .sample import positive
from .window import Window

WHO = "tide exporter"
DEFAULT_PORT = 9464
ANSWER_S = 0.5
ASKED_AT_ONCE = 8
CLIENT_S = 10  # a client that says nothing is not waited for


def address(text):
    """HOST:PORT as (host, port); an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form ADDRESS:PORT")
    return host, int(port)


def prom_file(text):
    if not text.endswith(".prom"):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .prom: node exporter would not read it")
    return text


def register(subparsers):
    parser = subparsers.add_parser(
        "exporter",
        help="serve metrics of all processes on tidemalloc to Prometheus",
        usage="tide exporter [-h] [--listen ADDRESS:PORT [--allow-remote] | --textfile FILE.prom [--interval S]] "
        "[--pid PID...]",
        description="Serve metrics of the processes on tidemalloc, yours or for root all, as OpenMetrics at "
        f"http://127.0.0.1:{DEFAULT_PORT}/metrics, or write them for node exporter's textfile collector.",
        epilog="examples:\n  tide exporter --listen 127.0.0.1:9464\n"
        "  tide exporter --textfile /var/lib/prometheus/node-exporter/tidemalloc.prom --interval 15\n\n"
        "Exit status: 0, also after SIGTERM and Ctrl-C; 1 if the port is taken or the file cannot be written; "
        "2 bad usage; 3, 4, 5 as with 'tide stat' for a process named by --pid.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        type=address,
        help=f"serve there (default: 127.0.0.1:{DEFAULT_PORT}); port 0: any free one, which is printed",
    )
    where.add_argument("--textfile", metavar="FILE.prom", type=prom_file, help="write there instead, whole or not")
    parser.add_argument("--allow-remote", action="store_true", help="let --listen name an address others can reach")
    parser.add_argument("--interval", metavar="S", type=positive, help="with --textfile: again every S seconds")
    parser.add_argument("--pid", metavar="PID", type=int, nargs="+", action="extend", help="only these processes")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    if args.interval is not None and args.textfile is None:
        args.parser.error("--interval needs --textfile")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status.OK))
    try:
        openmetrics.library()
        fleet = Fleet(args.pid)
        if args.textfile is not None:
            write_textfiles(fleet, args.textfile, args.interval)
        else:
            host, port = args.listen or ("127.0.0.1", DEFAULT_PORT)
            serve(fleet, host, port, args.allow_remote)
    except ProcessError as problem:
        messages.error(WHO, str(problem))
        return problem.status
    except KeyboardInterrupt:
        pass
    return status.OK


class Fleet:
    """The processes to tell about: those named, for as long as they live, or whoever runs on tidemalloc."""

    def __init__(self, pids=None):
        self._lock = threading.Lock()
        self._named = None if pids is None else [named(pid) for pid in dict.fromkeys(pids)]

    def families(self):
        """Metric families of this moment. One caller at a time: a process would only make them wait for each other."""
        core = openmetrics.library().core
        with self._lock:
            start = time.monotonic()
            processes = processes_on_tidemalloc() if self._named is None else self._named
            try:
                with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
                    observations = list(zip(processes, pool.map(ask, processes)))
                found = openmetrics.families(observations)
            finally:
                if self._named is None:
                    for process in processes:
                        process.close()
            took_s = time.monotonic() - start
        about = "Processes on tidemalloc that were looked at."
        found.append(core.GaugeMetricFamily("tidemalloc_exporter_processes", about, len(processes)))
        about = "How long it took to look at them."
        found.append(core.GaugeMetricFamily("tidemalloc_exporter_collect_seconds", about, took_s, unit="seconds"))
        return found


def named(pid):
    process = Process(pid)
    if not process.uses_tidemalloc():
        process.close()
        raise ProcessError(
            status.NOT_TIDEMALLOC,
            f"process {pid} ({process.name}) does not run on tidemalloc: start it with 'tide run'",
        )
    return process


def ask(process):
    """A Snapshot, or None where there is no answer."""
    try:
        with Window.open(process) as window:
            return window.stats(timeout_s=ANSWER_S)
    except ProcessError:
        return None


# --- HTTP ---


class Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, *_):
        """A scrape is no news."""


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self):
        """Without the look-up of the host's name, which can wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self.setup_environ()

    def handle_error(self, *_):
        """A client that left early is no news either."""


def resolve(host, port):
    """(address family, socket address) of `host`, and whether only this machine can reach it."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as problem:
        raise ProcessError(status.FAILED, f"cannot listen on {host}: {problem.strerror}") from None
    return family, place, ipaddress.ip_address(place[0].partition("%")[0]).is_loopback


def server_for(fleet, host, port, allow_remote):
    family, place, local = resolve(host, port)
    if not local and not allow_remote:
        raise ProcessError(
            status.USAGE,
            f"{host} can be reached by other machines, and there is no password: add --allow-remote if they may know",
        )
    metrics = openmetrics.library().make_wsgi_app(openmetrics.registry_of(fleet.families))

    def app(environ, start_response):
        if environ["PATH_INFO"] in ("/", "/metrics"):
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"metrics are at /metrics\n"]

    kind = type("Server", (Server,), {"address_family": family})
    try:
        server = kind(place, Handler)
    except OSError as problem:
        raise ProcessError(
            status.FAILED, f"cannot listen on {host}:{port}: {problem.strerror}; choose another with --listen"
        ) from None
    server.set_app(app)
    return server


def serve(fleet, host, port, allow_remote):
    with server_for(fleet, host, port, allow_remote) as server:
        shown = f"[{server.server_name}]" if ":" in server.server_name else server.server_name
        with contextlib.suppress(BrokenPipeError):
            print(f"{WHO}: metrics at http://{shown}:{server.server_port}/metrics", flush=True)
        server.serve_forever()


# --- textfile ---


def write_textfiles(fleet, path, interval_s):
    """Once, or every `interval_s` seconds until a signal."""
    while True:
        start = time.monotonic()
        try:
            replace_file(path, openmetrics.render_textfile(fleet.families))
        except OSError as problem:
            raise ProcessError(status.FAILED, f"cannot write {path}: {problem.strerror}") from None
        if interval_s is None:
            return
        time.sleep(max(0.0, interval_s - (time.monotonic() - start)))


def replace_file(path, data):
    """Readers find the old file or the new one, whole. The name on the way does not end in .prom."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)  # node exporter is another user; there is nothing secret to it
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # a signal can come between the rename and here
            os.unlink(temporary)
        raise
