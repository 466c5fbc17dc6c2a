"""What a serving process has done with goes back to the system."""

import subprocess
import sys

import pytest

HOLES = """
import numpy as np
from bentos import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

heap.keep_apart(60_000)
stay = []
for size in (16, 4, 5, 6, 7, 8):
    large = np.ones(size << 20, dtype=np.uint8)
    stay.append(np.ones(60_000, dtype=np.uint8))  # and keeps the heap below it, were the large one there
    del large
    if size == 16:
        before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_arrays_leave_no_holes_in_the_heap() -> None:
    """In a process of its own, as it is a setting of the whole process. Left alone they leave 8 MB."""
    ran = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=120, check=True)
    assert int(ran.stdout) < 2 << 20
