"""What a training gave, and its table: every model and stage under each protocol, for a terminal and the registry."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from streams.events import Micros
from training.conversion import Price
from training.evaluation import MEASURES, Result
from training.exposure import Dial
from training.gate import Gate
from training.intervals import Interval

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = ("HR@10", "HR@20", "NDCG@10", "NDCG@20", "Recall@20")
"""The measures of the terminal's table; the page in MLflow and `--json` have all."""
BEYOND = {"coverage": ".3f", "Gini": ".3f", "novelty": ".2f", "likes": ".1f", "diversity": ".3f", "tail": ".3f"}
COSTS = {"training_s": ".1f", "inference_ms": ".2f", "size_mb": ".2f"}
DIALS = ("rule", "NDCG@10", "change", "tail", "too few", "coverage", "Gini", "novelty", "freshness")
PRICES = ("conversion_weight", "NDCG@10 of likes", "change", "of conversions", "change")
HEADINGS = ("model", *SHOWN, "cascade ahead by", "coverage", "training s", "inference ms", "size MB")


@dataclass(frozen=True)
class TrainReport:
    """What a training gave. `version` is the registered bundle's, None where there is none. `seconds` by step.

    `reliability`: how far the probabilities can be believed, on the prequential questions; empty without them. `dials`:
    what exposure for the long tail, novelty and freshness cost, `prices` what hoping for conversions does, both on the
    validation lists.
    """

    results: list[Result]
    validation: dict[str, float]
    reliability: dict[str, float]
    dials: list[Dial]
    prices: list[Price]
    reranker: str
    version: str | None
    seconds: dict[str, float]
    audited: int
    liked: int
    cut: Micros
    gate: Gate


def ahead(result: Result) -> str:
    """By how much NDCG@10 of the cascade is above the model's, with its 95% interval."""
    return "" if result.behind is None else _difference(result.behind)


def _difference(interval: Interval) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*interval)


def cells(result: Result) -> tuple[str, ...]:
    """One row of the table, as `HEADINGS` name them."""
    return (
        result.model,
        *(f"{result.metrics[name]:.4f}" for name in SHOWN),
        ahead(result),
        format(result.beyond["coverage"], BEYOND["coverage"]),
        *(format(getattr(result, name), form) for name, form in COSTS.items()),
    )


def setting(dial: Dial) -> tuple[str, ...]:
    """One row of the table of dials, as `DIALS` name them."""
    return (
        dial.rule or "none",
        f"{dial.ndcg:.4f}",
        _difference(dial.change) if dial.rule else "",
        *(f"{value:.3f}" for value in (dial.tail, dial.short, dial.coverage, dial.gini)),
        f"{dial.novelty:.2f}",
        f"{dial.fresh:.3f}",
    )


def hope(price: Price) -> tuple[str, ...]:
    """One row of the table of prices, as `PRICES` name them."""
    pairs = ((price.ndcg, price.change), (price.converted, price.gain))
    each = (text for value, change in pairs for text in (f"{value:.4f}", _difference(change) if price.weight else ""))
    return (f"{price.weight:g}", *each)


def tables(results: Sequence[Result], dials: Sequence[Dial], prices: Sequence[Price]) -> "list[Table]":
    """One table a protocol, the best figure of each measure bold; and what some house rules cost."""
    from rich.table import Table

    made = []
    for protocol in dict.fromkeys(r.protocol for r in results):
        rows = [r for r in results if r.protocol == protocol]
        best = {name: max(r.metrics[name] for r in rows) for name in SHOWN}
        table = Table(title=f"{protocol}, {rows[0].questions:,} questions", title_justify="left", box=None)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
        for r in rows:
            shown = list(cells(r))
            for n, name in enumerate(SHOWN, 1):
                if r.metrics[name] == best[name] > 0:
                    shown[n] = f"[bold]{shown[n]}[/]"
            table.add_row(*shown)
        made.append(table)
    table = Table(*DIALS, title="the long tail, novelty and freshness, on validation", title_justify="left", box=None)
    for dial in dials:
        table.add_row(*setting(dial))
    hopes = Table(*PRICES, title="hoping for conversions, on validation", title_justify="left", box=None)
    for price in prices:
        hopes.add_row(*hope(price))
    return [*made, table, hopes]


def markdown(results: Sequence[Result], dials: Sequence[Dial], prices: Sequence[Price]) -> str:
    """Everything, for a page, and for the run in MLflow: accuracy, what is beyond it, slices, dials and prices."""
    lines: list[str] = []
    for protocol in dict.fromkeys(r.protocol for r in results):
        rows = [r for r in results if r.protocol == protocol]
        kinds = list(dict.fromkeys(name for r in rows for name in r.slices))
        lines += [f"**{protocol}**, {rows[0].questions:,} questions", ""]
        lines += _table(
            ("model", *MEASURES, "95% of NDCG@10", "cascade ahead by"),
            [
                (
                    r.model,
                    *(f"{r.metrics[name]:.4f}" for name in MEASURES),
                    f"{r.interval.low:.4f} to {r.interval.high:.4f}",
                    ahead(r),
                )
                for r in rows
            ],
        )
        lines += _table(
            ("model", *BEYOND, "training s", "inference ms", "size MB"),
            [
                (
                    r.model,
                    *(format(r.beyond[name], form) for name, form in BEYOND.items()),
                    *(format(getattr(r, name), form) for name, form in COSTS.items()),
                )
                for r in rows
            ],
        )
        counts = {name: r.slices[name][0] for r in rows for name in r.slices}
        lines += _table(
            ("NDCG@10 by slice", *(f"{name} ({counts[name]:,})" for name in kinds)),
            [(r.model, *(f"{r.slices[name][1]:.4f}" for name in kinds)) for r in rows],
        )
    lines += [
        "**the long tail, novelty and freshness**, on validation",
        "",
        *_table(DIALS, [setting(dial) for dial in dials]),
    ]
    lines += ["**hoping for conversions**, on validation", "", *_table(PRICES, [hope(price) for price in prices])]
    return "\n".join(lines)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|--:" * (len(headings) - 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def summary(report: TrainReport) -> str:
    """What the table does not say, in a few lines."""
    seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in report.seconds.items() if spent >= 1)
    checks = ", ".join(f"{name} {value:.4f}" for name, value in report.validation.items())
    believed = ", ".join(f"{name} {value:.5f}" for name, value in report.reliability.items())
    return (
        f"{verdict(report)}\n"
        f"validation: {checks}; {report.reranker} re-ranks\n"
        f"probabilities: {believed or 'not measured without the prequential questions'}\n"
        f"{report.audited:,} values equal those of Feast's own join\n"
        f"{sum(report.seconds.values()):.0f} s: {seconds}"
    )


def verdict(report: TrainReport) -> str:
    """What became of the bundle, and why."""
    gate = report.gate
    if gate.reasons:
        return "refused, nothing was registered: " + "; ".join(gate.reasons)
    over = f"over popularity {gate.over_popularity.mean:+.4f} NDCG@10"
    end = f"bundle {report.version} is champion" if report.version else "not registered"
    return f"passed the gate ({over}; {gate.champion}); {end}"


def plain(report: TrainReport) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "version": report.version,
        "reranker": report.reranker,
        "validation": report.validation,
        "reliability": report.reliability,
        "results": [r.flat() for r in report.results],
        "dials": [asdict(dial) for dial in report.dials],
        "prices": [asdict(price) for price in report.prices],
        "audited": report.audited,
        "seconds": report.seconds,
        "liked": report.liked,
        "refused": report.gate.reasons,
        "over_popularity": report.gate.over_popularity,
        "over_champion": report.gate.over_champion,
    }
