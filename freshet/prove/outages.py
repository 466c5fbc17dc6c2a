"""The faults of servers and of what is sent: broker, Redis, disk, records. Those of workers and sinks: `faults`."""

import json
import random
import time
from dataclasses import dataclass

from redis import Redis

from freshet.prove.faults import REACHED_S, Fault
from freshet.prove.progress import ARCHIVE, STORE
from freshet.prove.rig import Rig
from freshet.prove.workload import START_US
from streams.topics import EVENTS, MESSAGE_BYTES, USER_FEATURES


@dataclass
class KillBroker(Fault):
    """SIGKILL of a broker; it returns after a moment, and what others wrote meanwhile is copied to it."""

    number: int = 0
    kills: int = 1

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        name, away_s = rig.brokers()[self.number], rnd.uniform(0.5, 5.0)
        with rig.supervisor.held_down(name):
            time.sleep(away_s)
        rig.wait_for_server(name)
        rig.wait_for_replicas()
        return f"{name}, away for {away_s:.1f} s"


class RefuseRows(Fault):
    """The broker takes no batch of rows that is larger than a few rows, for a while."""

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        rig.limit_records(USER_FEATURES, 2_000)
        time.sleep(2.0)
        rig.limit_records(USER_FEATURES, MESSAGE_BYTES)
        return "for 2 s"


@dataclass
class KillRedis(Fault):
    """SIGKILL of Redis; a part of the end of its append-only file is lost."""

    kills: int = 1
    place: str = STORE

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        log, lost = rig.settings.home / "redis" / "appendonly.aof", rnd.uniform(0.0, 0.3)
        with rig.supervisor.held_down("redis"):
            size = log.stat().st_size
            with log.open("r+b") as file:
                file.truncate(int(size * (1 - lost)))
            time.sleep(rnd.uniform(0.2, 3.0))
        rig.wait_for_server("redis")
        return f"{int(size * lost):,} of {size:,} bytes lost"


class FlushRedis(Fault):
    """Everything in Redis is deleted."""

    place = STORE

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        with Redis.from_url(rig.settings.redis_url) as client:
            keys = client.dbsize()
            client.flushall()
        return f"{keys:,} keys"


class DiskFull(Fault):
    """The archive's disk is full for three files in a row; the sink ends with 70 each time."""

    place = ARCHIVE
    WRITES = 3

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        process = rig.process("archive")
        wanted, order = process.exits[70] + self.WRITES, "enospc in_archive_file 1"
        process.first_orders.extend([order] * (self.WRITES - 1))
        process.order(order)
        rig.until(lambda: process.exits[70] >= wanted, f"{self.WRITES} writes to a full disk", self.WRITES * REACHED_S)
        rig.strike()
        return f"{self.WRITES} writes failed"


class LargeRecords(Fault):
    """Where the topic takes any size: an event of 10 MB, 10 MB that are none, a key and a text without end."""

    SIZE = 10_000_000

    def inject(self, rig: Rig, rnd: random.Random) -> str:
        rig.limit_records(EVENTS, self.SIZE + 1_000_000)
        user_id = f"u{rnd.randrange(1_000)}"
        event = {
            "event_id": f"large-{rnd.getrandbits(64)}",
            "user_id": user_id,
            "item_id": "i1",
            "type": "view",
            "event_time": START_US,
            "arrival": START_US,
            "properties": {"note": "x" * self.SIZE},
        }
        rig.workload.send_one(user_id.encode(), json.dumps(event).encode())
        rig.workload.send_one(user_id.encode(), b"[" * self.SIZE)
        rig.workload.send_one(b"k" * 600_000, b"no event")
        event |= {"event_id": "p", "request_id": "r" * 905_000, "properties": {}}
        rig.workload.send_one(user_id.encode(), json.dumps(event).encode())
        return f"of {user_id}"
