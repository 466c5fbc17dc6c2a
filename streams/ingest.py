"""Ingest: the HTTP door for events and items. 202 means that the broker has acknowledged.

Run `uvicorn --factory streams.ingest:create_app`. What is taken and what is refused is decided in `streams.door`, the
writing is done by `streams.publisher`; here is only HTTP: limits, the key, status codes, metrics, the OpenAPI page.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from freshet.settings import Settings, get_settings
from streams import catalogue, door, events
from streams.catalogue import Catalogue
from streams.door import BadBody, Refused
from streams.openapi import EVENTS_BODY, EVENTS_RESPONSES, ITEMS_BODY, ITEMS_RESPONSES
from streams.publisher import Publisher, PublishError
from streams.topics import EVENTS, ITEMS

BODY_BYTES = 16 * 1024 * 1024
"""Ten thousand events of 1.6 kB. A body is held in memory while it is read, so it must have a bound."""
CATALOGUE_S = 5.0
"""After a start: a million items take longer, and then the client is told to come back."""
RETRY_AFTER_S = 5
"""A broker that restarts is back after about this long."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_json = msgspec.json.Encoder().encode


class Metrics:
    """What `/metrics` shows. A registry of its own: an app made twice in one process does not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "freshet_ingest_accepted",
            "Events and items that the broker has acknowledged",
            ["kind"],
            registry=self.registry,
        )
        self.refused = Counter(
            "freshet_ingest_refused",
            "Events and items refused, by class of reason",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.responses = Counter(
            "freshet_ingest_responses",
            "Responses to POST requests by status",
            ["kind", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "freshet_ingest_seconds",
            "From the request to the broker's acknowledgement",
            ["kind"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.items = Gauge(
            "freshet_ingest_catalogue_items", "Items in the catalogue of this process", registry=self.registry
        )


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Starts and answers without Kafka too; then `POST` gives 503 until it is back."""
    settings = settings or get_settings()
    publisher, items, metrics = Publisher(settings), Catalogue(settings), Metrics()
    key = settings.api_key.get_secret_value().encode() if settings.api_key else None
    tolerance = settings.future_tolerance_s * 1_000_000

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with items:
            yield
        await publisher.stop()

    app = FastAPI(
        title="Freshet ingest",
        version="1",
        summary="Send what people do; within a second the next recommendation reflects it.",
        lifespan=lifespan,
    )

    async def take(request: Request, kind: str, handle: Callable[[bytes, str], Awaitable[Response]]) -> Response:
        """What both doors share: the key, the bound on the body, status codes, metrics."""
        began = time.perf_counter()
        try:
            if key is not None and not hmac.compare_digest(request.headers.get("x-api-key", "").encode(), key):
                raise BadBody(401, "send the key of this deployment in the header X-Api-Key")
            response = await handle(await _body(request), request.headers.get("content-type", ""))
        except BadBody as error:
            response = _answer(error.status, {"detail": str(error)})
        except PublishError as error:
            response = _answer(
                503,
                {
                    "detail": f"{error}. Nothing is promised about this request: send it again, "
                    "with an event_id of your own in each event so that none counts twice"
                },
            )
            response.headers["retry-after"] = str(RETRY_AFTER_S)
        metrics.responses.labels(kind, str(response.status_code)).inc()
        metrics.latency.labels(kind).observe(time.perf_counter() - began)
        return response

    def close(kind: str, taken: int, refused: list[Refused], **more: Any) -> Response:
        metrics.accepted.labels(kind).inc(taken)
        for one in refused:
            metrics.refused.labels(kind, door.reason_class(one.reason)).inc()
        return _answer(
            202 if taken else 422, {"accepted": taken, "refused": refused} | {k: v for k, v in more.items() if v}
        )

    async def events_in(body: bytes, content_type: str) -> Response:
        parts = door.elements(body, content_type, settings.max_batch_events)
        if not items.ready.is_set():
            await _until_ready(items)
        verdict = door.admit_events(
            parts, time.time_ns() // 1000, items.categories, settings.max_event_bytes, tolerance
        )
        await publisher.send(EVENTS, [(event.user_id.encode(), events.encode(event)) for event in verdict.admitted])
        return close("event", len(verdict.admitted), verdict.refused, generated=verdict.generated)

    async def items_in(body: bytes, content_type: str) -> Response:
        verdict = door.admit_items(
            door.elements(body, content_type, settings.max_batch_events), settings.max_event_bytes
        )
        await publisher.send(ITEMS, [catalogue.record(item) for item in verdict.admitted])
        for item in verdict.admitted:
            items.put(item)
        return close("item", len(verdict.admitted), verdict.refused)

    @app.post(
        "/events",
        status_code=202,
        summary="Send events",
        openapi_extra=EVENTS_BODY,
        responses=EVENTS_RESPONSES,
        response_class=Response,
    )
    async def post_events(request: Request) -> Response:
        """One event, an array, or one a line (`application/x-ndjson`).

        A bad event is refused with its index and reason; the others go in.
        """
        return await take(request, "event", events_in)

    @app.post(
        "/items",
        status_code=202,
        summary="Add or change items",
        openapi_extra=ITEMS_BODY,
        responses=ITEMS_RESPONSES,
        response_class=Response,
    )
    async def post_items(request: Request) -> Response:
        """One item, an array, or one a line (`application/x-ndjson`). An item that exists is replaced as a whole."""
        return await take(request, "item", items_in)

    @app.get("/items/{item_id:path}", summary="Look an item up", response_class=Response)
    async def get_item(item_id: str) -> Response:
        """The item as it is known now. `created_at` is in microseconds since 1970."""
        item = items.get(item_id)
        return _answer(200, item) if item else _answer(404, {"detail": f"no item {item_id[:80]!r} in the catalogue"})

    @app.get("/healthz", summary="Whether events can be taken now", response_class=Response)
    async def healthz() -> Response:
        """Asks the broker. 200 when it answers, 503 when it does not."""
        try:
            await publisher.ping()
        except PublishError as error:
            return _answer(503, {"status": "down", "kafka": str(error)})
        return _answer(
            200,
            {
                "status": "up",
                "kafka": "up",
                "catalogue": "up" if items.ready.is_set() else "reading",
                "items": len(items),
            },
        )

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def show_metrics() -> Response:
        metrics.items.set(len(items))
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _body(request: Request) -> bytes:
    """The body, read only as far as the bound. Raises `BadBody`."""
    too_large = BadBody(413, f"the body is larger than {BODY_BYTES // 1024**2} MiB: send several requests")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > BODY_BYTES:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _until_ready(items: Catalogue) -> None:
    """An event that came in before the catalogue is known would go without its categories for ever."""
    try:
        async with asyncio.timeout(CATALOGUE_S):
            await items.ready.wait()
    except TimeoutError:
        raise PublishError("the catalogue has not been read yet") from None


def _answer(status: int, content: object) -> Response:
    return Response(_json(content), status, media_type="application/json")
