"""Redis against the topics: every key there, none that should not be, and each state byte for byte."""

from collections.abc import Mapping
from itertools import islice

from redis import Redis

from feature_repo.layout import PROJECT, entity_key, state_field, unpack_bytes
from freshet.settings import Settings
from monitoring.quiet import Progress
from monitoring.report import Check
from streams.profiles import Profile

AT_ONCE = 2_000


def redis_equal(settings: Settings, profile: Profile, rows: Mapping[str, bytes], progress: Progress) -> Check:
    """`rows`: the newest committed row of each key."""
    check = Check(f"Redis: the state of every {profile.name}, byte for byte")
    field = state_field(profile.name)
    with Redis.from_url(settings.redis_url, socket_timeout=30) as client:
        left = iter(rows.items())
        while some := list(islice(left, AT_ONCE)):
            with client.pipeline(transaction=False) as pipe:
                for key, _ in some:
                    pipe.hget(entity_key(profile.key, key), field)
                for (key, row), message in zip(some, pipe.execute(), strict=True):
                    check.compared += 1
                    if message is None:
                        check.differ(f"{profile.name} {key!r}: not in Redis")
                    elif unpack_bytes(message) != row:
                        check.differ(f"{profile.name} {key!r}: another state in Redis than in the topic")
            progress(f"comparing {profile.name}s in Redis", check.compared, len(rows))
        expected = {entity_key(profile.key, key) for key in rows}
        begin = entity_key(profile.key, "")[: 16 + len(profile.key)]
        for found in client.scan_iter(begin + b"*" + PROJECT.encode(), count=AT_ONCE):
            if found not in expected and client.hexists(found, field):
                check.differ(f"Redis holds a {profile.name} that the topic does not: {found!r}")
    return check
