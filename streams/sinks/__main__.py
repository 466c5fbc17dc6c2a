"""`python -m streams.sinks online|archive`: one sink as a process of its own.

Exit codes: 0 told to stop or done, 2 wrong settings, 70 anything unexpected (a supervisor starts it again).
"""

import argparse
import asyncio
import gc
import logging
import signal
import sys

from pydantic import ValidationError

from freshet.settings import Settings, SettingsError, get_settings
from streams.engine.leave import EXIT_CODE, leave
from streams.sinks import metrics
from streams.sinks.archive import ArchiveError, ArchiveSink, archive_until_now
from streams.sinks.online import OnlineSink

log = logging.getLogger("streams.sinks")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m streams.sinks", description="Carry what the stream has made to where it is read."
    )
    which = parser.add_subparsers(dest="sink", required=True)
    which.add_parser("online", help="states into Redis")
    archive = which.add_parser("archive", help="raw topics into Parquet files")
    archive.add_argument(
        "--until-now", action="store_true", help="archive all that is in Kafka at this moment, then exit"
    )
    asked = parser.parse_args()
    try:
        settings = get_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if asked.sink == "archive" and asked.until_now:
            ends = asyncio.run(archive_until_now(settings))
            print("\n".join(f"{topic} up to {sum(offsets.values()):,} records" for topic, offsets in ends.items()))
            return 0
        metrics.serve(settings.metrics_bind, settings.sink_metrics_port)
    except (SettingsError, ValidationError) as error:
        print(error, file=sys.stderr)
        return 2
    except ArchiveError as error:
        print(error, file=sys.stderr)
        return EXIT_CODE
    gc.set_threshold(100_000, 50, 100)  # rows make many short-lived objects and no cycles
    gc.freeze()
    asyncio.run(_run(asked.sink, settings))
    return 0


async def _run(which: str, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sink = OnlineSink(settings) if which == "online" else ArchiveSink(settings)
    log.info("the %s sink runs, reading %s", which, settings.kafka)
    try:
        await sink.run(stop)
    except Exception as error:
        leave(
            f"the {which} sink cannot go on: {error}",
            "see the cause above; what was not yet written is read again at the next start",
            error,
        )


if __name__ == "__main__":
    sys.exit(main())
