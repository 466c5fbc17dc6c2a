"""Feast sources: the offline store's files behind a push source, as Feast's users expect of a stream.

The online sink writes to Redis itself: Feast's `push()` reads the registry at every call, and its offline half
rewrites whole files.
"""

from feast import FileSource, PushSource

from feature_repo import offline
from feature_repo.features import item, user
from freshet.settings import get_settings
from streams.profiles import Profile


def _push_source(profile: Profile) -> PushSource:
    batch = FileSource(
        name=f"{profile.name}_states",
        path=offline.pattern(get_settings(), profile),
        timestamp_field=offline.EVENT_TIMESTAMP,
        created_timestamp_column=offline.CREATED_TIMESTAMP,
        description=f"States of profile {profile.name}, fingerprint {profile.fingerprint}; made by `freshet backfill`.",
    )
    return PushSource(name=f"{profile.name}_push", batch_source=batch)


user_push, item_push = _push_source(user), _push_source(item)
