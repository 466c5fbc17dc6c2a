"""What is known about users and items: every feature of Freshet, declared here, once.

The stream, the backfill, the training set, the read at serving time and the drift report all follow from this file.
To add a feature, add a line; `freshet backfill` then fills in its past. `docs/reference/features.md` is made from it.
"""

from streams.aggregates import Count, Decayed, Distinct, Mean, Recent, Since, Sum, on
from streams.profiles import Profile
from streams.tiled import TiledProfile

liked = on("click", "cart", "purchase", "like") | on("rate", at_least=4)
"""What counts as a sign of liking, for features and for labels alike."""
converted = on("purchase") | on("rate", at_least=5)
"""What liking is hoped to lead to: the label of ranking's second head."""

user = Profile(
    "user",
    key="user_id",
    features=[
        Count("events", windows=["1h", "24h", "ever"]),
        Count("views", of=on("view"), windows=["1h", "24h", "7d"]),
        Count("clicks", of=on("click"), windows=["24h", "7d"]),
        Count("impressions", of=on("impression"), windows=["24h"]),
        Count("likes", of=liked, windows=["1h", "24h", "30d", "ever"]),
        Count("purchases", of=on("purchase"), windows=["24h", "30d"]),
        Sum("spend", of=on("purchase"), windows=["30d"]),
        Mean("rating", of=on("rate"), windows=["30d", "ever"]),
        Distinct("categories", by="categories", of=liked, windows=["7d"], k=32),
        Recent("history", by="item_id", of=liked, n=50),
        Recent("viewed", by="item_id", of=on("view"), n=50),
        Recent("shown", by="item_id", of=on("impression"), n=40),
        Recent("bought", by="item_id", of=on("purchase"), n=200),
        Decayed("interest", by="categories", of=liked, half_life="3d"),
        Since("last_seen"),
    ],
)

item = TiledProfile(
    "item",
    key="item_id",
    features=[
        Count("views", of=on("view"), windows=["1h", "24h", "7d"]),
        Count("impressions", of=on("impression"), windows=["24h", "7d"]),
        Count("clicks", of=on("click"), windows=["1h", "24h", "7d"]),
        Count("likes", of=liked, windows=["1h", "24h", "7d", "30d", "ever"]),
        Count("purchases", of=on("purchase"), windows=["24h", "30d"]),
        Count("ratings", of=on("rate"), windows=["30d", "ever"]),
        Mean("rating", of=on("rate"), windows=["30d", "ever"]),
        Distinct("users", by="user_id", of=liked, windows=["7d"], k=32),
        Since("age", first=True),
        Since("last_liked", of=liked),
    ],
)
