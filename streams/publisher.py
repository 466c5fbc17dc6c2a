"""The one place from which records reach Kafka outside a transaction: ingest, replay and simulate send through it.

One idempotent producer, acks=all. `send` returns when every record is acknowledged, or raises. What the records hold
is left to `streams.events` and `streams.catalogue`; the engine has transactional producers of its own.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from freshet.settings import Settings
from streams.topics import partition_of

Record = tuple[bytes, bytes]
"""Key and value."""

ACK_S = 8.0
"""A restarted broker acknowledges again after three to five seconds; a client should not wait much longer."""
CONNECT_S = 5.0
PING_S = 1.5
"""Whoever asks for health waits two seconds for an answer."""
STOP_S = 3.0
"""An idempotent producer never gives up on a record, so stopping one while the broker is away has to be cut short."""
BATCH_BYTES = 512 * 1024
"""Half of Kafka's default for the largest batch: room for a single large record on top."""
FEW = 32
"""Fewer records than this, of one partition, join the producer's open batch: small requests share a round trip."""


class PublishError(RuntimeError):
    """Kafka did not acknowledge. Some records may be in the topic all the same: send them again with the same ids."""


class Publisher:
    """Writes to any topic of `settings`. Connects at the first use and after a failure. Safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def send(self, topic: str, records: Sequence[Record]) -> None:
        """Write records to `settings.topic(topic)`; returns when the broker has acknowledged all of them.

        Records of one key keep their order, within a call and from one awaited call to the next. Raises `PublishError`.
        """
        producer = await self._connected()
        name = self._settings.topic(topic)
        try:
            async with asyncio.timeout(ACK_S):
                partitions = len(await producer.partitions_for(name))
                groups: dict[int, list[Record]] = {}
                for record in records:
                    groups.setdefault(partition_of(record[0], partitions), []).append(record)
                await asyncio.gather(*(_send(producer, name, partition, group) for partition, group in groups.items()))
        except TimeoutError:
            there = producer.client.cluster.partitions_for_topic(name)
            hint = "" if there else f"; is there a topic {name!r}? `freshet up` makes it"
            raise PublishError(
                f"Kafka at {self._settings.kafka} has not acknowledged within {ACK_S:.0f} s{hint}"
            ) from None
        except KafkaError as error:
            await self._drop(producer)
            raise PublishError(f"Kafka at {self._settings.kafka} refused records of {name!r}: {error!r}") from error

    async def ping(self) -> None:
        """Ask the cluster for its metadata now. Raises `PublishError`."""
        producer = await self._connected()
        try:
            async with asyncio.timeout(PING_S):
                await producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError) as error:
            raise PublishError(f"Kafka at {self._settings.kafka} does not answer: {error!r}") from error

    async def stop(self) -> None:
        """Flush and close. What an unreachable broker has not acknowledged by then was reported as failed already."""
        if self._producer is not None:
            await self._drop(self._producer)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka,
                    enable_idempotence=True,
                    acks="all",
                    max_batch_size=BATCH_BYTES,
                    max_request_size=2 * BATCH_BYTES,
                )
                try:
                    async with asyncio.timeout(CONNECT_S):
                        await producer.start()
                except (KafkaError, TimeoutError, OSError) as error:
                    await _close(producer)
                    raise PublishError(
                        f"cannot reach Kafka at {self._settings.kafka}: {error!r}; is it up (`freshet status`)?"
                    ) from error
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        """After an error the sequence numbers may no longer agree with the broker's: the next send begins afresh."""
        if self._producer is producer:
            self._producer = None
        await _close(producer)


async def _close(producer: AIOKafkaProducer) -> None:
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(STOP_S):
            await producer.stop()
            return
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(STOP_S):
            await producer.client.close()


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Record]) -> None:
    if len(records) < FEW:
        acks = [await producer.send(topic, value, key, partition=partition) for key, value in records]
    else:
        acks = []
        batch = producer.create_batch()
        for key, value in records:
            if batch.append(key=key, value=value, timestamp=None) is None:
                acks.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        batch.close()
        acks.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*acks)
