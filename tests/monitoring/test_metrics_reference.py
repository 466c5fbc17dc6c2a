"""docs/reference/metrics.md names each metric that the code exports, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = re.compile(r'(?:Counter|Gauge|Histogram|MetricFamily)\(\s*"(freshet_\w+)"')


def test_the_page_and_the_code_name_the_same_metrics() -> None:
    code = [path.read_text() for room in ("streams", "bentos", "monitoring") for path in (ROOT / room).rglob("*.py")]
    from monitoring.drift import METRICS

    exported = {name for text in code for name in MADE.findall(text)} | METRICS.keys()
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(freshet_\w+)`", page, re.MULTILINE)) == exported
    assert len(exported) > 20
