"""Answers questions: reads what is known, runs the cascade, falls back where a part is missing, logs what was served.

HTTP is left to `bentos.service` and `bentos.pages`. A fallback is always a useful answer, and named in it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge, Histogram
from redis.exceptions import RedisError

from bentos.cascade import Ask, Pick, popular
from bentos.champion import Champion
from bentos.inputs import ItemMatrix
from bentos.live import LiveItems
from bentos.messages import Because, Recommendations, Recommended, Similar, Trending
from bentos.responses import ResponseLog
from feature_repo.features import user as user_profile
from feature_repo.online import OnlineUsers
from freshet.settings import Settings
from streams.door import new_id
from streams.events import Micros, now
from streams.profiles import BadState, header

NEW_USER = "new_user"
"""The user was never seen: trends and new items."""
FEATURES_UNAVAILABLE = "features_unavailable"
"""The online store does not answer: as for a new user."""
MODEL_MISSING = "model_missing"
"""No bundle is champion yet: what is liked lately."""
NO_ITEMS = "no_items"
"""Neither the catalogue nor any event names an item: an empty list."""
UNKNOWN_ITEM = "unknown_item"
"""The item is not known: what is liked lately."""
RECENT = 2_000
"""Answers whose times the console's quantiles are over."""
BUCKETS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.04, 0.08, 0.16, 0.5, 2.0)

SECONDS = Histogram("freshet_serve_stage_seconds", "Time of each stage of an answer.", ["stage"], buckets=BUCKETS)
FALLBACKS = Counter("freshet_serve_fallbacks", "Answers that had to do without something.", ["name"])
ANSWERS = Counter("freshet_serve_answers", "Answers by arm.", ["arm"])
ITEM_TILE = Gauge(
    "freshet_serve_item_tile_seconds", "End of the tile that item values are read at.", multiprocess_mode="max"
)
BUNDLE = Gauge(
    "freshet_serve_bundle_version", "Version of the bundle that serves; 0 for none.", multiprocess_mode="max"
)

log = logging.getLogger(__name__)


class Answering:
    """All that one serving process holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.items = LiveItems(settings)
        self.champion = Champion(settings)
        self.users = OnlineUsers(settings)
        self.log = ResponseLog(settings)
        self.took_ms: deque[float] = deque(maxlen=RECENT)
        self.answered = 0

    async def start(self) -> None:
        """Connect and begin to follow; waits until all items are known, for at most ten seconds."""
        await self.items.start()
        await self.champion.start()
        await self.log.start()
        try:
            async with asyncio.timeout(10):
                await self.items.ready.wait()
        except TimeoutError:
            log.warning("not all items are read after 10 s; answers fall back until they are")

    async def stop(self) -> None:
        """Write what is queued and end."""
        await self.log.stop()
        await self.champion.stop()
        await self.items.stop()
        await self.users.close()

    async def state(self, user_id: str) -> tuple[bytes | None, list[str]]:
        """A user's row and what is missing."""
        try:
            row = await self.users.get(user_id)
        except (RedisError, OSError, ValueError) as error:
            log.warning("the online store at %s does not answer: %r", self.settings.redis_url.split("@")[-1], error)
            return None, [FEATURES_UNAVAILABLE]
        return row, [NEW_USER] if row is None else []

    def values(self, row: bytes | None, at: Micros) -> tuple[dict[str, Any], int]:
        """The user's values at an instant and their version, -1 for none."""
        head = None if row is None else header(row)
        if head is None:
            return user_profile.values(None, at), -1
        return user_profile.values(row, at), head.version

    async def recommend(
        self,
        user_id: str,
        k: int,
        context: Mapping[str, Any],
        exclude: Sequence[str],
        categories: Sequence[str],
        explain: bool,
    ) -> Recommendations:
        """See `POST /recommend`."""
        start = perf_counter()
        row, fallback = await self.state(user_id)
        at, items, bundle = now(), self.items.matrix, self.champion.bundle
        try:
            values, version = self.values(row, at)
        except BadState as error:
            log.error("the state of user %s is not used: %s", user_id, error)
            (values, version), fallback = self.values(None, at), [FEATURES_UNAVAILABLE]
        ask = Ask(user_id, values, items, k, frozenset(exclude), frozenset(categories))
        arm = str(context.get("arm", "champion"))
        stages: dict[str, float] = {}
        if len(items) == 0:
            picks, fallback = [], [*fallback, NO_ITEMS]
        elif bundle is None or arm == "popular":
            picks = popular(ask)
            if bundle is None:
                fallback = [*fallback, MODEL_MISSING]
        else:
            answer = bundle.cascade.recommend(ask)
            picks, stages = answer.picks, answer.stages_ms
        total = perf_counter() - start
        stages = {**stages, "total": round(total * 1_000, 3)}
        result = Recommendations(
            request_id=new_id(at),
            user_id=user_id,
            items=[self._shown(pick, items, explain) for pick in picks],
            fallback=fallback,
            bundle=None if bundle is None else bundle.version,
            arm=arm,
            user_version=version,
            at=at,
            stages_ms=stages,
        )
        self._measure(stages, fallback, arm)
        self._log(result, picks, values, items, k, context)
        return result

    def _shown(self, pick: Pick, items: ItemMatrix, explain: bool) -> Recommended:
        known = self.items.catalogue.get(pick.item_id)
        return Recommended(
            item_id=pick.item_id,
            title=pick.item_id if known is None else known.title,
            categories=[c for c, there in zip(items.category_names, items.categories[pick.row], strict=True) if there],
            score=round(pick.score, 6),
            sources=list(pick.sources),
            because=self._because(pick) if explain else None,
        )

    def _because(self, pick: Pick) -> Because:
        kind, item_id = pick.because.kind, pick.because.item_id
        if item_id is not None:
            known = self.items.catalogue.get(item_id)
            title = item_id if known is None else known.title
            return Because(kind=kind, item_id=item_id, title=title, text=f"because you liked {title}")
        if kind.startswith("interest:"):
            return Because(kind="interest", text=f"because you like {kind.partition(':')[2]}")
        return Because(kind=kind, text="new in the catalogue" if kind == "new" else "many like it lately")

    def _measure(self, stages: Mapping[str, float], fallback: Sequence[str], arm: str) -> None:
        for stage, ms in stages.items():
            SECONDS.labels(stage).observe(ms / 1_000)
        for name in fallback:
            FALLBACKS.labels(name).inc()
        ANSWERS.labels("popular" if arm == "popular" else "champion").inc()
        ITEM_TILE.set(self.items.matrix.tile / 1e6)
        BUNDLE.set(int(self.champion.bundle.version) if self.champion.bundle else 0)
        self.took_ms.append(stages["total"])
        self.answered += 1

    def _log(
        self,
        result: Recommendations,
        picks: Sequence[Pick],
        values: Mapping[str, Any],
        items: ItemMatrix,
        k: int,
        context: Mapping[str, Any],
    ) -> None:
        about = {
            "request_id": result.request_id,
            "user_id": result.user_id,
            "at": result.at,
            "k": k,
            "context": context,
        }
        response = {
            **about,
            "tile": items.tile,
            "user_version": result.user_version,
            "bundle": result.bundle,
            "arm": result.arm,
            "fallback": result.fallback,
            "stages_ms": result.stages_ms,
            "items": [
                {"item_id": p.item_id, "position": n, "score": p.score, "sources": p.sources}
                for n, p in enumerate(picks)
            ],
            "user_values": values,
            "item_values": {p.item_id: items.values_of(p.row) for p in picks},
        }
        self.log.put(result.user_id, about, response)

    def similar(self, item_id: str, k: int) -> Similar:
        """See `POST /similar`: by the item-to-item source, then by shared categories."""
        items, bundle = self.items.matrix, self.champion.bundle
        row = items.index.get(item_id)
        if row is None:
            return Similar(item_id=item_id, items=self.trending(k, ()).items, fallback=[UNKNOWN_ITEM])
        mine = items.categories[row]
        size = np.sqrt(np.maximum(items.categories.sum(1), 1.0) * max(float(mine.sum()), 1.0))
        score = items.categories @ mine / size * 1e-3
        if bundle is not None:
            known = items.rows_of(bundle.cascade.recall.index)
            if known[row] >= 0:
                once = np.ones((1, 1), dtype=np.float32)
                links = bundle.cascade.recall.item_to_item.scores(known[row : row + 1], once)[0]
                score[known >= 0] += links[known[known >= 0]]
        score[row] = -np.inf
        order = np.argsort(-score, kind="stable")[:k]
        shown = [self._plain(items, int(n), float(score[n]), "item_to_item") for n in order if np.isfinite(score[n])]
        return Similar(item_id=item_id, items=shown, fallback=[] if bundle else [MODEL_MISSING])

    def trending(self, k: int, categories: Sequence[str]) -> Trending:
        """See `POST /trending`."""
        items = self.items.matrix
        ask = Ask("", user_profile.values(None, now()), items, k, categories=frozenset(categories))
        shown = [self._shown(pick, items, explain=False) for pick in popular(ask)]
        return Trending(items=shown, fallback=[] if len(items) else [NO_ITEMS])

    def _plain(self, items: ItemMatrix, row: int, score: float, source: str) -> Recommended:
        from bentos.stages.explain import Because as Reason

        return self._shown(Pick(items.ids[row], row, score, (source,), Reason(source, None, 0.0)), items, explain=False)
