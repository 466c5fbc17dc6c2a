"""The table of a training: every model and every stage under each protocol, for a terminal and for the registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training.evaluation import MEASURES, Result

if TYPE_CHECKING:
    from rich.table import Table

    from training.pipeline import TrainReport

OTHERS = {"coverage": ".3f", "training_s": ".1f", "inference_ms": ".2f", "size_mb": ".2f"}
HEADINGS = ("model", *MEASURES, "coverage", "training s", "inference ms", "size MB")


def cells(result: Result) -> tuple[str, ...]:
    """One row of the table, as `HEADINGS` name them."""
    return (
        result.model,
        *(f"{result.metrics[name]:.4f}" for name in MEASURES),
        *(format(getattr(result, name), form) for name, form in OTHERS.items()),
    )


def tables(results: Sequence[Result]) -> "list[Table]":
    """One table a protocol; the best figure of each measure is bold."""
    from rich.table import Table

    made = []
    for protocol in dict.fromkeys(r.protocol for r in results):
        rows = [r for r in results if r.protocol == protocol]
        best = {name: max(r.metrics[name] for r in rows) for name in MEASURES}
        table = Table(title=f"{protocol}, {rows[0].questions:,} questions", title_justify="left", box=None)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
        for r in rows:
            shown = list(cells(r))
            for n, name in enumerate(MEASURES, 1):
                if r.metrics[name] == best[name] > 0:
                    shown[n] = f"[bold]{shown[n]}[/]"
            table.add_row(*shown)
        made.append(table)
    return made


def markdown(results: Sequence[Result]) -> str:
    """The same tables for a page, and for the run in MLflow."""
    lines: list[str] = []
    for protocol in dict.fromkeys(r.protocol for r in results):
        rows = [r for r in results if r.protocol == protocol]
        lines += [f"**{protocol}**, {rows[0].questions:,} questions", "", "| " + " | ".join(HEADINGS) + " |"]
        lines += ["|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
        lines += ["| " + " | ".join(cells(r)) + " |" for r in rows]
        lines += [""]
    return "\n".join(lines)


def summary(report: "TrainReport") -> str:
    """What the table does not say, in three lines."""
    seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in report.seconds.items() if spent >= 1)
    checks = ", ".join(f"{name} {value:.4f}" for name, value in report.validation.items())
    return (
        f"validation: {checks}; {report.reranker} re-ranks\n"
        f"{report.audited:,} values equal those of Feast's own join\n"
        f"{sum(report.seconds.values()):.0f} s: {seconds}"
    )


def plain(report: "TrainReport") -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "version": report.version,
        "reranker": report.reranker,
        "validation": report.validation,
        "results": [r.flat() for r in report.results],
        "audited": report.audited,
        "seconds": report.seconds,
        "liked": report.liked,
    }
