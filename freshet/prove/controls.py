"""The negative controls: a line with one promise broken on purpose. A proof that passes one of them proves nothing.

`freshet.prove.launch --control NAME` breaks it in a process, before the program starts.
"""

import asyncio
import uuid
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from feature_repo import compare_and_set
from feature_repo.layout import StoredRow, rank_field
from streams.engine import transaction
from streams.fold import users
from streams.fold.ring import Ring


class _Unawaited(AIOKafkaProducer):  # type: ignore[misc]
    """Says of each batch that it was delivered, whatever the broker said."""

    async def send_batch(self, *arguments: Any, **options: Any) -> "asyncio.Future[None]":
        (await super().send_batch(*arguments, **options)).add_done_callback(lambda future: future.exception())
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class _RandomId(AIOKafkaProducer):  # type: ignore[misc]
    """Opens its transactions under an id that nobody else has, so it fences nobody."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"transactional_id": uuid.uuid4().hex})


class _Forgetful(Ring):
    """Writes ids down, and remembers none."""

    __slots__ = ()

    def extend(self, hashed: Iterable[int]) -> None:
        super().extend(hashed)
        self.seen.difference_update(array("Q", hashed))

    def loaded(self, applied: int) -> None:
        super().loaded(applied)
        self.seen.clear()


def _set_without_comparing(client: Any, view: str, rows: Sequence[StoredRow], **_: Any) -> int:
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.hset(row.key, mapping={rank_field(view): row.rank, **dict(zip(row.names, row.values, strict=True))})
        pipe.execute()
    return len(rows)


def _put(owner: Any, name: str, broken: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, broken)


BROKEN: dict[str, Callable[[], None]] = {
    "unawaited-sends": _put(transaction, "AIOKafkaProducer", _Unawaited),
    "random-ids": _put(transaction, "AIOKafkaProducer", _RandomId),
    "no-compare-and-set": _put(compare_and_set, "write", _set_without_comparing),
    "no-dedup": _put(users, "Ring", _Forgetful),
}
"""Name -> what breaks it."""
