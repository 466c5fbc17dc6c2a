"""How values are written on the command line: speeds, instants, column mappings."""

import time
from datetime import UTC, datetime

import typer


def speed(text: str) -> float:
    """`max` (infinite), or a positive factor such as 100 or 2.5."""
    if text == "max":
        return float("inf")
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(
            f"{text!r} is no speed: write max, or how many seconds of history pass in one, e.g. 100"
        )
    return value


def instant(text: str) -> int:
    """Microseconds of `now`, of a date (midnight UTC), or of an RFC 3339 instant."""
    if text == "now":
        return time.time_ns() // 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no instant: write 1998-01-31, 1998-01-31T12:00:00Z or now") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000


def share(text: str) -> float:
    """A share: `0.05` or `5%`."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is no share: write 0.05 or 5%")
    return value


def mapping(pairs: list[str]) -> dict[str, str]:
    """`field=column` pairs. Raises `typer.BadParameter`."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is no mapping: write field=column, e.g. user_id=customer")
    return dict(pair.split("=", 1) for pair in pairs)


def day(micros: int | None) -> str:
    """An instant, for people."""
    return "-" if micros is None else datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
