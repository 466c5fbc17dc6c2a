"""Programs under a supervisor: each is started again when it ends, unless it is held down or was told to stop."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from freshet.prove.history import History
from freshet.stack import watch

LOOK_S = 0.05
STOP_S = 15.0
"""The stack's own supervisor waits 10 s for a part to end politely; this machine is busier."""


class Process:
    """One program. `exits` counts how it ended, -9 being a SIGKILL."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._env = command, env
        self.exits: Counter[int] = Counter()
        self.starts = 0
        self.first_orders: list[str] = []
        self.wanted, self.held = True, False
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, with the next of `first_orders` for its launcher (see `freshet.prove.launch`)."""
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._env},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        if self.first_orders:
            self.order(self.first_orders.pop(0))

    def look(self) -> int | None:
        """Note an end that was not noted yet. Returns its exit code."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        self._process = None
        if process.stdin is not None:
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass
        self.exits[process.returncode] += 1
        return process.returncode

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to all of its processes; False when the program is not running."""
        if self._process is None or self._process.poll() is not None:
            return False
        os.killpg(self._process.pid, number)
        return True

    def order(self, text: str) -> None:
        """One line to the launcher's standard input."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(text + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass

    def said(self, text: str) -> int:
        """How often it has logged a text, in all its runs."""
        return self.log.read_bytes().count(text.encode()) if self.log.exists() else 0

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped by a signal, and not woken."""
        try:
            return self.pid is not None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def stop(self) -> None:
        """End it politely, then not. Waits."""
        self.wanted = False
        process = self._process
        if process is None:
            return
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            process.wait()
        self.look()


class Supervisor:
    """Starts programs again within `LOOK_S` of their end, and sweeps all of them when this process is gone."""

    def __init__(self, mark: str, history: History) -> None:
        self.mark, self._history = mark, history
        self.processes: dict[str, Process] = {}
        self.ended: dict[str, Process] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watchman = watch.start(mark)
        self._thread = threading.Thread(target=self._supervise, name="supervisor")
        self._thread.start()

    def add(
        self, name: str, command: list[str], env: Mapping[str, str], log: Path, *, once: str | None = None
    ) -> Process:
        """Start a program and keep it running; or run it once, with that order for its launcher."""
        process = Process(name, command, {**env, watch.MARK: self.mark, watch.PART: name}, log)
        if once is not None:
            process.wanted, process.first_orders = False, [once]
        with self._lock:
            self.processes[name] = process
            process.start()
        self._history.note("start", process=name)
        return process

    def remove(self, name: str) -> Process:
        """Let a program end politely, for good."""
        with self._lock:
            process = self.processes.pop(name)
        self.ended[name] = process
        process.stop()
        self._history.note("stopped", process=name, exits=dict(process.exits))
        return process

    @contextmanager
    def held_down(self, name: str) -> Iterator[None]:
        """SIGKILL a program; it is started again when the block ends, not before."""
        process = self.processes[name]
        with self._lock:
            process.held = True
            process.signal(signal.SIGKILL)
        try:
            while process.runs:
                time.sleep(0.01)
            yield
        finally:
            process.held = False

    def _supervise(self) -> None:
        while not self._stopping.wait(LOOK_S):
            with self._lock:
                for process in self.processes.values():
                    code = process.look()
                    if code is not None:
                        self._history.note("ended", process=process.name, code=code)
                    if process.pid is None and process.wanted and not process.held:
                        process.start()

    def close(self) -> None:
        """End everything, in the reverse order of its start."""
        self._stopping.set()
        self._thread.join()
        for process in reversed(self.processes.values()):
            process.stop()
        watch.sweep(self.mark, 0.5)
        watch.dismiss(self._watchman)
