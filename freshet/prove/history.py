"""The history of a run: every operation with its time, in a file that is only ever appended to."""

import json
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """`at_s`: seconds since the run began."""

    at_s: float
    what: str
    detail: dict[str, Any]


class History:
    """Safe to note in from several threads. `path` holds one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.operations: list[Operation] = []

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def note(self, what: str, **detail: Any) -> Operation:
        """Append one operation, as of now."""
        with self._lock:
            operation = Operation(round(self.now_s(), 3), what, detail)
            self.operations.append(operation)
            self._file.write(json.dumps({"at_s": operation.at_s, "what": what} | detail) + "\n")
            self._file.flush()
        return operation

    def close(self) -> None:
        self._file.close()
