"""A fleet of real workers: processes that are killed, stopped in their tracks, and started again when they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from freshet.settings import Settings

FAUST = [sys.executable, "-m", "faust", "-A", "streams.app"]
ARGUMENTS = ["worker", "-l", "info", "--without-web"]


class Fleet:
    """Workers `w0`, `w1`, ... under one supervisor thread. `exits` counts how they ended, -9 being our own SIGKILL."""

    def __init__(
        self, settings: Settings, ports: list[int], folder: Path, command: list[str] = FAUST, apart_s: float = 0
    ) -> None:
        self._settings, self._ports, self._folder, self._command = settings, ports, folder, command
        self._apart_s = apart_s
        self.exits: Counter[int] = Counter()
        self.starts = 0
        self._stopping = False
        self._lock = threading.Lock()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._began: dict[int, int] = {}
        self._supervisor = threading.Thread(target=self._supervise)

    def __enter__(self) -> Self:
        for i in range(len(self._ports)):
            time.sleep(self._apart_s if i else 0)
            self._workers.append(self._start(i))
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._supervisor.join()
        for worker in self._workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        for worker in self._workers:
            try:
                self.exits[worker.wait(10)] += 1
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                self.exits[-9] += 1

    def _start(self, i: int) -> "subprocess.Popen[bytes]":
        self._began[i] = self.log(i).stat().st_size if self.log(i).exists() else 0
        own = {"FRESHET_INSTANCE": f"w{i}", "FRESHET_WORKER_METRICS_PORT": str(self._ports[i])}
        self.starts += 1
        with self.log(i).open("ab") as log:
            return subprocess.Popen(
                [*self._command, *ARGUMENTS],
                env={**os.environ, **self._settings.as_env(), **own, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _supervise(self) -> None:
        while not self._stopping:
            with self._lock:
                for i, worker in enumerate(self._workers):
                    if worker.poll() is not None:
                        self.exits[worker.returncode] += 1
                        self._workers[i] = self._start(i)
            time.sleep(0.05)

    def log(self, i: int) -> Path:
        return self._folder / f"w{i}.log"

    def said(self, i: int, text: str) -> int:
        """How often the process that runs now as `w<i>` has logged a text."""
        with self._lock, self.log(i).open("rb") as log:
            log.seek(self._began[i])
            return log.read().count(text.encode())

    def wait_until_said(self, i: int, text: str, times: int = 1, limit_s: float = 40) -> None:
        give_up = time.monotonic() + limit_s
        while self.said(i, text) < times:
            if time.monotonic() > give_up:
                raise TimeoutError(
                    f"w{i} did not say {text!r} {times} times in {limit_s} s:\n{self.log(i).read_text()[-3000:]}"
                )
            time.sleep(0.1)

    def send(self, i: int, number: signal.Signals) -> None:
        with self._lock:
            self._workers[i].send_signal(number)
