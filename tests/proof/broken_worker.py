"""A worker with one promise broken on purpose: a proof that passes it proves nothing.

`python -m tests.proof.broken_worker random-ids|unawaited worker ...`
"""

import asyncio
import random
import sys
from typing import Any

from streams.engine import transaction


class RandomIds(transaction.AIOKafkaProducer):  # type: ignore[misc]
    """A transactional id that no other owner of the partition will ever fence."""

    def __init__(self, *, transactional_id: str, **options: Any) -> None:
        super().__init__(transactional_id=f"{transactional_id}-{random.getrandbits(48)}", **options)


class Unawaited(transaction.AIOKafkaProducer):  # type: ignore[misc]
    """Says of each batch that it was delivered, whatever the broker said."""

    async def send_batch(self, *arguments: Any, **options: Any) -> "asyncio.Future[None]":
        (await super().send_batch(*arguments, **options)).add_done_callback(lambda future: future.exception())
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def main() -> None:
    transaction.AIOKafkaProducer = {"random-ids": RandomIds, "unawaited": Unawaited}[sys.argv.pop(1)]
    from streams.app import app

    app.main()


if __name__ == "__main__":
    main()
