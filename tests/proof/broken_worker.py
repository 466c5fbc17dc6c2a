"""A worker with one promise broken on purpose: a proof that passes it proves nothing.

`python -m tests.proof.broken_worker unawaited worker ...`
"""

import asyncio
import sys
from typing import Any

from streams.engine import transaction


class Unawaited(transaction.AIOKafkaProducer):  # type: ignore[misc]
    """Says of each batch that it was delivered, whatever the broker said."""

    async def send_batch(self, *arguments: Any, **options: Any) -> "asyncio.Future[None]":
        (await super().send_batch(*arguments, **options)).add_done_callback(lambda future: future.exception())
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def main() -> None:
    transaction.AIOKafkaProducer = {"unawaited": Unawaited}[sys.argv.pop(1)]
    from streams.app import app

    app.main()


if __name__ == "__main__":
    main()
