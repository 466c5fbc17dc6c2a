"""`python -m monitoring.exporter`: checks for drift again and again, and shows the last verdict to Prometheus.

For deployments; at hand, `freshet drift` does one check. Each check runs in a process of its own, so that the memory of
Evidently and pandas (600 MB) is given back.
"""

import argparse
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from freshet.settings import get_settings

PORT, EVERY_S, WINDOW_H = 9468, 3_600.0, 24.0
log = logging.getLogger("monitoring.exporter")


class _Handler(BaseHTTPRequestHandler):
    """Answers /metrics with the last verdict; empty before the first one."""

    file: Path

    def do_GET(self) -> None:
        """Called by the server for each GET."""
        known = self.path.split("?")[0] == "/metrics"
        body = self.file.read_bytes() if known and self.file.exists() else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each scrape."""


def check(window_h: float) -> int:
    """One check; returns its exit code."""
    command = [sys.executable, "-m", "freshet", "drift", "--window", str(window_h), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not done.stdout:
        log.warning("the check did not work: %s", done.stderr.strip()[-2_000:])
    return done.returncode


def serve(bind: str, port: int, file: Path) -> ThreadingHTTPServer:
    """Answer there, in a thread."""
    handler = type("Handler", (_Handler,), {"file": file})
    server = ThreadingHTTPServer((bind, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Serve and check until killed."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.exporter", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="SECONDS")
    parser.add_argument("--window", type=float, default=WINDOW_H, metavar="HOURS")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    settings = get_settings()
    serve(settings.metrics_bind, given.port, settings.reports_dir / "drift.prom")
    while True:
        check(given.window)
        time.sleep(given.every)


if __name__ == "__main__":
    main()
