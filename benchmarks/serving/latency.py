"""What an answer costs: `python -m benchmarks.serving.latency`, beside a running line with a bundle.

Asks `/recommend` from this process over 1, 4 and 16 connections, each asking again as soon as it is answered. Prints
what the client waited, and what the service says that each stage took. The measuring itself is
`monitoring.probes.latency`, which the demo uses too.
"""

import argparse
import asyncio
import sys

import httpx
from rich.console import Console
from rich.table import Table

from feature_repo.features import user as user_profile
from freshet.settings import Settings, get_settings
from monitoring.probes import latency

CONNECTIONS = (1, 4, 16)
BAR_CONNECTIONS, BAR_P50_MS, BAR_P99_MS = 4, 15.0, 40.0
STAGES = ("recall", "rank", "rerank", "total")
SAMPLE = 200
"""Answers whose stages are read."""


async def stages(settings: Settings, users: list[str], k: int) -> tuple[dict[str, float], str | None, list[str]]:
    """The median of each stage in milliseconds, the bundle that answered, and the fallbacks that were named."""
    took: dict[str, list[float]] = {}
    bundle, fallbacks = None, set[str]()
    key = {} if settings.api_key is None else {"X-Api-Key": settings.api_key.get_secret_value()}
    async with httpx.AsyncClient(base_url=settings.serve_url, headers=key, timeout=30) as client:
        for n in range(SAMPLE):
            answer = await client.post("/recommend", json={"user_id": users[n % len(users)], "k": k})
            said = answer.raise_for_status().json()
            bundle = said["bundle"]
            fallbacks.update(said["fallback"])
            for stage, ms in said["stages_ms"].items():
                took.setdefault(stage, []).append(ms)
    return {stage: sorted(ms)[len(ms) // 2] for stage, ms in took.items()}, bundle, sorted(fallbacks)


async def known_users(settings: Settings, prefix: str, most: int) -> list[str]:
    """Ids of users that the online store has. Raises `SystemExit` when there is none to ask about."""
    from bentos.users import Users

    users = Users(settings)
    try:
        found = await users.search(prefix, most)
    finally:
        await users.close()
    if not found:
        raise SystemExit(f"no {user_profile.key} contains {prefix!r}: run `freshet simulate` first")
    return found


async def measure(settings: Settings, requests: int, k: int, prefix: str) -> bool:
    """Print both tables. Whether the bar was held."""
    console = Console()
    users = await known_users(settings, prefix, 500)
    medians, bundle, fallbacks = await stages(settings, users, k)
    title = f"/recommend, k={k}, bundle {bundle or 'none'}, {len(users)} users"
    table = Table("connections", "p50 ms", "p99 ms", "worst ms", "answers/s", title=title, title_justify="left")
    held = bundle is not None
    for connections in CONNECTIONS:
        seen = await latency(settings, users, connections=connections, requests=requests, k=k)
        a = seen.answer
        table.add_row(str(connections), *(f"{x:.1f}" for x in (a.p50, a.p99, a.worst)), f"{seen.per_s:.0f}")
        if connections == BAR_CONNECTIONS:
            held = held and a.p50 < BAR_P50_MS and a.p99 < BAR_P99_MS
    console.print(table)
    console.print("stages, p50 ms: " + ", ".join(f"{s} {medians[s]:.2f}" for s in STAGES if s in medians))
    if fallbacks:
        console.print(f"fallbacks among the answers: {', '.join(fallbacks)}")
    bar = f"p50 < {BAR_P50_MS:.0f} ms and p99 < {BAR_P99_MS:.0f} ms at {BAR_CONNECTIONS} connections"
    console.print(f"{bar}: {'held' if held else 'NOT held' if bundle else 'not measured: no bundle serves'}")
    return held


def main() -> int:
    """The exit code: 0 when the bar was held."""
    parser = argparse.ArgumentParser(description="What /recommend costs, from a process of its own.")
    parser.add_argument("--requests", type=int, default=2_000, help="answers for each row (default: %(default)s)")
    parser.add_argument("--k", type=int, default=20, help="items of an answer (default: %(default)s)")
    parser.add_argument("--users", default="", help="ask only about users whose id contains this")
    given = parser.parse_args()
    return 0 if asyncio.run(measure(get_settings(), given.requests, given.k, given.users)) else 1


if __name__ == "__main__":
    sys.exit(main())
