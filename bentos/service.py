"""The serving process: `bentoml serve bentos.service:Recommender`.

Endpoints and their bounds; what they answer is computed by `bentos.answering`, the console's pages by `bentos.pages`.
"""

import gc
import os

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

from typing import Annotated

import bentoml
from bentoml.exceptions import ServiceUnavailable
from pydantic import Field
from redis.exceptions import RedisError

from bentos.messages import Categories, Cleared, Context, Id, K, Recommendations, Similar, Trending
from bentos.pages import pages
from bentos.security import Guard
from freshet.settings import get_settings

BATCH = 100
"""Users of a batch: others wait while one of them is answered."""


@bentoml.asgi_app(pages, path="/")
@bentoml.service(
    name="recommender",
    workers=get_settings().serve_workers,
    traffic={"timeout": 5, "max_concurrency": 256},
    metrics={"enabled": False},  # bentos.pages shows ours; theirs has a label for every path that anyone asks for
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    endpoints={"livez": "/livez", "readyz": "/readyz"},
)
class Recommender:
    """Recommendations that know the newest event."""

    def __init__(self) -> None:
        from threadpoolctl import threadpool_limits

        from bentos import heap
        from bentos.answering import Answering

        threadpool_limits(1)  # one question is too small to share out
        heap.keep_apart(0)
        self.answering = Answering(get_settings())
        pages.state.answering = self.answering

    @bentoml.on_startup  # type: ignore[untyped-decorator, unused-ignore]
    async def up(self) -> None:
        """Connect, read all items, load the champion; then keep the collector away from what stays."""
        await self.answering.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator, unused-ignore]
    async def down(self) -> None:
        """Write what is queued and end."""
        await self.answering.stop()

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def recommend(
        self,
        user_id: Id,
        k: K = 20,
        context: Context | None = None,
        exclude: Annotated[list[Id], Field(max_length=1_000)] | None = None,
        categories: Categories | None = None,
        explain: bool = False,
    ) -> Recommendations:
        """The best `k` items for a user now. `fallback` names what the answer had to do without."""
        about = (context or Context()).model_dump()
        return await self.answering.recommend(user_id, k, about, exclude or [], categories or [], explain)

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def similar(self, item_id: Id, k: K = 20) -> Similar:
        """Items that the same people like."""
        return self.answering.similar(item_id, k)

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def trending(self, k: K = 20, categories: Categories | None = None) -> Trending:
        """What is liked lately."""
        return self.answering.trending(k, categories or [])

    @bentoml.api(route="/cache/clear")  # type: ignore[untyped-decorator, unused-ignore]
    async def clear_cache(self) -> Cleared:
        """Forget all kept answers, of every process: after a change of rules or of titles, say."""
        try:
            return Cleared(cleared=await self.answering.cache.clear())
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"the store of kept answers does not answer: {error}") from error

    @bentoml.api(route="/recommend/batch")  # type: ignore[untyped-decorator, unused-ignore]
    async def recommend_batch(
        self,
        user_ids: Annotated[list[Id], Field(min_length=1, max_length=BATCH)],
        k: K = 20,
        context: Context | None = None,
        categories: Categories | None = None,
    ) -> list[Recommendations]:
        """The best `k` items for each of up to 100 users, in their order. For more: `freshet recommend-all`."""
        about = (context or Context()).model_dump()
        return await self.answering.recommend_each(user_ids, k, about, categories or [])


Recommender.add_asgi_middleware(Guard)  # type: ignore[attr-defined]
