"""The log of what was served: whatever one answer holds, the others are written."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from bentos import responses
from bentos.responses import ResponseLog
from freshet.settings import Settings
from streams.topics import REQUESTS, RESPONSES


class Sent:
    """Stands for the publisher."""

    def __init__(self, _: Settings) -> None:
        self.records: list[tuple[str, Any]] = []

    async def send(self, topic: str, records: Any) -> None:
        self.records += [(topic, record) for record in records]

    async def stop(self) -> None: ...


async def test_an_answer_that_cannot_be_written_is_counted_and_the_log_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped() -> float:
        return REGISTRY.get_sample_value("freshet_serve_log_dropped_total") or 0.0

    monkeypatch.setattr(responses, "Publisher", Sent)
    monkeypatch.setattr(responses, "WAIT_S", 0.0)
    before, log = dropped(), ResponseLog(Settings())
    await log.start()
    for context in ({"x": "\ud800"}, {}):
        log.put("ada", {"context": context}, {"context": context})
    await log.stop()
    assert dropped() == before + 1
    record = (b"ada", b'{"context":{}}')
    assert log._publisher.records == [(REQUESTS, record), (RESPONSES, record)]  # type: ignore[attr-defined]
