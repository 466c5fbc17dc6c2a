"""Answers questions: reads what is known, runs the cascade, falls back where a part is missing, logs what was served.

HTTP is left to `bentos.service` and `bentos.pages`, words to `bentos.shown`. A fallback is always a useful answer, and
named in it; whatever goes wrong with a model, the question is answered.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from bentos import deadline
from bentos.bundle import Bundle
from bentos.cache import Basis, Cache, Kept, key_of
from bentos.cascade import Answer, Ask, Pick, allowed, pinned, popular
from bentos.champion import Champion
from bentos.house import House
from bentos.inputs import ItemMatrix
from bentos.live import LiveItems
from bentos.messages import Recommendations, Similar, Trending
from bentos.meters import Meters
from bentos.pace import pace
from bentos.responses import ResponseLog
from bentos.shown import shown
from bentos.stages.explain import Because
from bentos.stages.explore import Draw
from bentos.stages.exposure import share, tail
from bentos.users import Unavailable, Users
from feature_repo.features import user as user_profile
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
MODEL_FAILED = "model_failed"
"""The bundle raised on this question, which is an error of ours that the log tells of: what is liked lately."""
RANK_SKIPPED, RERANK_SKIPPED = "rank_skipped", "rerank_skipped"
"""The deadline had passed: as recall named them, or as ranking ordered them."""
NO_ITEM_FEATURES = "no_item_features"
"""No item has an event yet: the newest of the catalogue."""
NO_ITEMS = "no_items"
"""Neither the catalogue nor any event names an item: an empty list."""
UNKNOWN_ITEM = "unknown_item"
"""The item is not known: what is liked lately."""
WHOLE = frozenset({NEW_USER})
"""An answer that had to do without no more than this is kept (see `bentos.cache`)."""
START_S = 10
"""A million items take longer to read; then answers fall back until all are known."""
ROUNDS = 3
"""Rounds of the event loop between two answers. What came in during one takes two to reach the guard, where it is
counted or refused (uvicorn and BentoML's timeout each make a task of it), and an answer would be computed in each."""
KNOWN_USERS = 64
"""Users asked about lately, whom the console suggests."""

log = logging.getLogger(__name__)


class Answering:
    """All that one serving process holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.champion = Champion(settings, lambda bundle: _warm(bundle, self.items.matrix))
        self.items = LiveItems(settings, lambda items: _warm(self.champion.bundle, items))
        self.users = Users(settings)
        self.cache = Cache(settings)
        self.house = House(settings)
        self.log = ResponseLog(settings)
        self.meters = Meters()
        self._dice = np.random.default_rng()
        self._computing = asyncio.Lock()
        self.asked: dict[str, None] = {}
        """Known users of the newest questions, the newest last."""

    async def start(self) -> None:
        """Connect and begin to follow; waits a while until all items are known and the champion is loaded."""
        self.house.start()
        await self.items.start()
        await self.log.start()
        try:
            async with asyncio.timeout(START_S):
                await self.items.ready.wait()
        except TimeoutError:
            log.warning("not all items are read after %d s; answers fall back until they are", START_S)
        await self.champion.start()

    async def stop(self) -> None:
        """Write what is queued and end."""
        await self.house.stop()
        await self.log.stop()
        await self.champion.stop()
        await self.items.stop()
        await self.users.close()
        await self.cache.close()

    async def known(self, user_id: str) -> tuple[dict[str, Any], int, Micros, list[str]]:
        """A user's values, their version (-1: none), the instant they are read at, and what is missing.

        Values at an instant are taken from what had arrived before it: the row is read first.
        """
        try:
            row, missing = await self.users.get(user_id), list[str]()
        except Unavailable:
            row, missing = None, [FEATURES_UNAVAILABLE]
        at = now()
        head = None if row is None else header(row)
        try:
            if head is not None:
                return user_profile.values(row, at), head.version, at, missing
        except BadState as error:
            log.error("the state of user %r is not used: %s", user_id, error)
            missing = [FEATURES_UNAVAILABLE]
        return user_profile.values(None, at), -1, at, missing or [NEW_USER]

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
        start, arm = perf_counter(), str(context.get("arm", "champion"))
        if not self.cache.on:
            values, version, at, missing = await self.known(user_id)
            ask = self._ask(user_id, values, k, exclude, categories)
            result, logged = await self._in_turn(start, ask, version, at, missing, arm, explain)
        else:
            key = key_of(user_id, k, arm, sorted({*exclude}), sorted({*categories}), explain)
            async with self.cache.turn(key):
                values, version, at, missing = await self.known(user_id)
                ask = self._ask(user_id, values, k, exclude, categories)
                bundle = self.champion.bundle
                basis = Basis(version, ask.items.tile, None if bundle is None else bundle.version, ask.rules.mark)
                kept = await self.cache.get(key, basis)
                if kept is not None:
                    again = {
                        "request_id": new_id(at),
                        "cached": True,
                        "stages_ms": {"total": _ms(start)},
                    }
                    result, logged = Recommendations(**kept.shown | again), kept.logged | again
                else:
                    result, logged = await self._in_turn(start, ask, version, at, missing, arm, explain)
                    if WHOLE.issuperset(result.fallback):
                        await self.cache.put(key, Kept(basis, result.model_dump(), logged))
        self.meters.answer(result.stages_ms, result.fallback, arm == "popular", logged.get("tail_exposure"))
        about = {name: logged[name] for name in ("request_id", "user_id", "at", "k")} | {"context": context}
        self.log.put(user_id, about, about | logged)
        if version >= 0:
            self._remember(user_id)
        return result

    async def recommend_each(
        self, user_ids: Sequence[str], k: int, context: Mapping[str, Any], categories: Sequence[str]
    ) -> list[Recommendations]:
        """See `POST /recommend/batch`: one after another, each with the whole deadline."""
        answers = []
        for user_id in user_ids:
            deadline.again()
            answers.append(await self.recommend(user_id, k, context, [], categories, explain=False))
        return answers

    def _ask(
        self, user_id: str, values: Mapping[str, Any], k: int, exclude: Sequence[str], categories: Sequence[str]
    ) -> Ask:
        return Ask(
            user_id,
            values,
            self.items.matrix,
            k,
            frozenset(exclude),
            frozenset(categories),
            rules=self.house.rules,
            explore=self.settings.explore_share,
            dice=self._dice,
        )

    async def _in_turn(self, *question: Any) -> tuple[Recommendations, dict[str, Any]]:
        """The same as `_answer`, when its turn comes."""
        async with self._computing:
            begun = perf_counter()
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            try:
                return self._answer(*question)
            finally:
                pace.took(begun, perf_counter())

    def _answer(
        self, start: float, ask: Ask, version: int, at: Micros, missing: list[str], arm: str, explain: bool
    ) -> tuple[Recommendations, dict[str, Any]]:
        """What the client gets, and what is logged of it beside the request."""
        items, bundle = ask.items, self.champion.bundle
        answer, lacking = self._pick(ask, bundle, arm)
        picks = pinned(answer.picks, ask)
        result = Recommendations(
            request_id=new_id(at),
            user_id=ask.user_id,
            items=shown(picks, items, self.items.catalogue.all(), explain),
            fallback=missing + lacking,
            bundle=None if bundle is None else bundle.version,
            arm=arm,
            user_version=version,
            at=at,
            stages_ms={**answer.stages_ms, "total": _ms(start)},
        )
        logged = {
            **result.model_dump(exclude={"items"}),
            "k": ask.k,
            "tile": items.tile,
            "rules": ask.rules.mark,
            "items": [
                {
                    "item_id": p.item_id,
                    "position": n,
                    "score": p.score,
                    "probability": p.probability,
                    "conversion": p.conversion,
                    "propensity": p.propensity,
                    "sources": p.sources,
                }
                for n, p in enumerate(picks)
            ],
            "explored": _explored(answer.explored, picks, items),
            "tail_exposure": share(tail(items)[[p.row for p in picks]]) if picks else None,
            "user_values": ask.user_values,
            "item_values": dict(
                zip((p.item_id for p in picks), items.values_of_each([p.row for p in picks]), strict=True)
            ),
        }
        return result, logged

    def _pick(self, ask: Ask, bundle: Bundle | None, arm: str) -> tuple[Answer, list[str]]:
        """The answer, and what it had to do without."""
        if len(ask.items) == 0:
            return Answer([], 0), [NO_ITEMS]
        if bundle is not None and arm != "popular":
            try:
                answer = bundle.cascade.recommend(ask, deadline.passed)
            except Exception:  # a model is data that somebody trained: none of its errors may reach a client as a 500
                log.exception("bundle %s failed on user %r", bundle.version, ask.user_id)
                return Answer(popular(ask), 0), [MODEL_FAILED]
            lacking = [] if answer.skipped is None else [RANK_SKIPPED if answer.skipped == "rank" else RERANK_SKIPPED]
            return answer, lacking
        lacking = [MODEL_MISSING] if bundle is None else []
        if not self.items.seen:
            return Answer(self._newest(ask), 0), [*lacking, NO_ITEM_FEATURES]
        return Answer(popular(ask), 0), lacking

    def _newest(self, ask: Ask) -> list[Pick]:
        """What was added last, where nobody has done anything yet."""
        catalogue, reason = self.items.catalogue, Because("new", None, 0.0)
        rows = [(row, ask.items.ids[row]) for row in np.flatnonzero(allowed(ask)).tolist()]
        made = {i: item.created_at or 0 for _, i in rows if (item := catalogue.get(i)) is not None}
        rows.sort(key=lambda pair: -made.get(pair[1], 0))
        return [Pick(i, row, made.get(i, 0) / 1e6, ("new",), reason) for row, i in rows[: ask.k]]

    def _remember(self, user_id: str) -> None:
        self.asked.pop(user_id, None)
        self.asked[user_id] = None
        if len(self.asked) > KNOWN_USERS:
            del self.asked[next(iter(self.asked))]

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
            known = bundle.cascade.recall.known(items)
            if known[row] >= 0:
                once = np.ones((1, 1), dtype=np.float32)
                links = bundle.cascade.recall.item_to_item.scores(known[row : row + 1], once)[0]
                score[known >= 0] += links[known[known >= 0]]
        score[row] = -np.inf
        score[self.house.rules.hidden(items)] = -np.inf
        found = self._best(items, score, k, "item_to_item")
        return Similar(
            item_id=item_id,
            items=shown(found, items, self.items.catalogue.all(), explain=False),
            fallback=[] if bundle else [MODEL_MISSING],
        )

    def trending(self, k: int, categories: Sequence[str]) -> Trending:
        """See `POST /trending`: the open tile counts here, as nothing is learned from this order."""
        items = self.items.matrix
        ask = self._ask("", user_profile.values(None, now()), k, (), categories)
        score = np.where(allowed(ask), self.items.heat(), -np.inf)
        found = self._best(items, score, k, "trending")
        missing = [] if self.items.seen else [NO_ITEM_FEATURES] if len(items) else [NO_ITEMS]
        return Trending(items=shown(found, items, self.items.catalogue.all(), explain=False), fallback=missing)

    def _best(self, items: ItemMatrix, score: Any, k: int, source: str) -> list[Pick]:
        """The `k` best rows that may come at all; ties by the matrix' order."""
        order = np.argsort(-score, kind="stable")[:k]
        reason = Because(source, None, 0.0)
        return [
            Pick(items.ids[row], row, float(score[row]), (source,), reason)
            for row in order.tolist()
            if np.isfinite(score[row])
        ]


def _explored(draws: Sequence[Draw], picks: Sequence[Pick], items: ItemMatrix) -> list[dict[str, Any]]:
    """The draws as they are logged: all that judging another choice in their place needs (`training.off_policy`).

    Where a pin has moved an item, at the position where it was shown; not at all where a pin has put it out.
    """
    shown_at = {pick.row: n for n, pick in enumerate(picks) if pick.propensity is not None}
    return [
        {
            "position": shown_at[int(draw.rows[draw.chosen])],
            "chosen": draw.chosen,
            "item_ids": [items.ids[row] for row in draw.rows.tolist()],
            "propensity": draw.propensity.tolist(),
            "weight": draw.weight.tolist(),
            "clicks": draw.clicks.tolist(),
            "impressions": draw.impressions.tolist(),
            "rate": draw.rate,
        }
        for draw in draws
        if int(draw.rows[draw.chosen]) in shown_at
    ]


def _ms(start: float) -> float:
    return round((perf_counter() - start) * 1_000, 3)


def _warm(bundle: Bundle | None, items: ItemMatrix) -> None:
    """Derive on this thread what the first question would otherwise wait for. A bundle that cannot answer says so."""
    if not len(items):
        return
    tail(items)
    if bundle is not None:
        bundle.cascade.recommend(Ask("", user_profile.values(None, items.tile), items, 1))
