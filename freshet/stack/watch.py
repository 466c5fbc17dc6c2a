"""Leaves no process behind: every process of a stack carries its mark in the environment, and can be found by it.

Process groups are not enough: BentoML's workers begin sessions of their own, and a killed parent orphans them. `sweep`
ends all that carry a mark. Run as a program this module is the watchman of one stack: it waits for the end of its
standard input, which comes when the owner of the stack is gone for whatever reason (also SIGKILL), and sweeps.
"""

import os
import subprocess
import sys
from collections.abc import Callable

import psutil

MARK, PART = "FRESHET_STACK", "FRESHET_PART"
"""The variables that mark a process: which stack it belongs to, and which part of it."""
GRACE_S = 4.0
"""Time between the polite signal and the final one."""


def marked(mark: str, part: str | None = None) -> list[psutil.Process]:
    """The running processes of the stack `mark`, or of one part of it, without the calling one."""
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ() if process.pid != os.getpid() else {}
            ours = env.get(MARK) == mark and part in (None, env.get(PART))
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def sweep(mark: str, grace_s: float = GRACE_S, part: str | None = None) -> int:
    """End every process of the stack `mark`, or of one part: SIGTERM, after `grace_s` SIGKILL. Returns how many."""
    found = marked(mark, part)
    for process in found:
        _signal(process, psutil.Process.terminate)
    psutil.wait_procs(found, timeout=grace_s)
    while left := marked(mark, part):
        for process in left:
            _signal(process, psutil.Process.kill)
        psutil.wait_procs(left, timeout=1)
    return len(found)


def _signal(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    try:
        send(process)
    except psutil.NoSuchProcess:
        pass


def memory_mb(mark: str) -> dict[str, float]:
    """MiB of each part of the stack `mark`. A page that several processes share is divided among them (PSS)."""
    totals: dict[str, float] = {}
    for process in marked(mark):
        try:
            name, used = process.environ().get(PART, ""), process.memory_full_info()
        except psutil.Error:
            continue
        totals[name] = round(totals.get(name, 0.0) + getattr(used, "pss", used.uss) / 2**20, 1)
    return totals


def start(mark: str) -> "subprocess.Popen[bytes]":
    """Start the watchman of the stack `mark`. It sweeps when the calling process is gone, however it went."""
    return subprocess.Popen([sys.executable, "-m", __name__, mark], stdin=subprocess.PIPE, start_new_session=True)


def dismiss(watchman: "subprocess.Popen[bytes]") -> None:
    """Let the watchman sweep once more, and go."""
    watchman.communicate()


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
