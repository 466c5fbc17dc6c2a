"""The console's pages and the small API behind them, mounted beside the endpoints. One fetch a page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _bentoml_impl.server
import httpx
import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bentos import security
from bentos.line import Line
from bentos.users import Unavailable

if TYPE_CHECKING:  # the process that only watches the workers imports this module too, and needs no models
    from bentos.answering import Answering

STATIC = Path(__file__).parent / "console"
FORWARD_S = 5.0
MOST_USERS = 12
ID_CHARS = 256
encode = msgspec.json.Encoder().encode


class Given(msgspec.Struct):
    """What a person types in."""

    key: str


def _json(body: Any, status: int = 200) -> Response:
    return Response(encode(body), status, media_type="application/json", headers={"Cache-Control": "no-store"})


def _answering(request: Request) -> "Answering":
    answering: Answering = request.app.state.answering
    return answering


async def index(_: Request) -> Response:
    """The console."""
    return FileResponse(STATIC / "index.html")


async def docs(_: Request) -> Response:
    """BentoML's OpenAPI page."""
    return FileResponse(Path(_bentoml_impl.server.__file__).parent / "main-openapi.html")


async def session(request: Request) -> Response:
    """A person gives the key, and gets a cookie that stands for it."""
    try:
        given = msgspec.json.decode(await request.body(), type=Given)
    except msgspec.DecodeError as error:
        return _json({"error": f'send {{"key": "..."}}: {error}'}, 400)
    cookie = security.session(given.key, request.url.scheme == "https")
    if cookie is None:
        return _json({"error": "this is not the key of this deployment"}, 401)
    return Response(status_code=204, headers={"Set-Cookie": cookie})


async def users(request: Request) -> Response:
    """Ids of users that contain `like`: those of the newest answers first, then any that the online store has."""
    answering, like = _answering(request), request.query_params.get("like", "")[:256]
    found = [user_id for user_id in reversed(answering.asked) if like in user_id][:MOST_USERS]
    try:
        stored = await answering.users.search(like, MOST_USERS)
    except Unavailable as error:
        return _json({"users": found, "error": str(error)})
    return _json({"users": list(dict.fromkeys([*found, *stored]))[:MOST_USERS]})


async def user(request: Request) -> Response:
    """A user's values now, with titles of what they liked and bought: one fetch for the page."""
    answering, user_id = _answering(request), request.query_params.get("id", "")
    if not 0 < len(user_id) <= ID_CHARS:
        return _json({"error": f"id must have 1 to {ID_CHARS} characters"}, 400)
    values, version, at, missing = await answering.known(user_id)
    named = {*values["history"], *values["bought"]}
    titles = {i: item.title for i in named if (item := answering.items.catalogue.get(i)) is not None}
    return _json(
        {"user_id": user_id, "version": version, "at": at, "missing": missing, "values": values, "titles": titles}
    )


async def item(request: Request) -> Response:
    """What the catalogue says of an item, and its values at the last closed tile."""
    answering, item_id = _answering(request), request.query_params.get("id", "")
    matrix = answering.items.matrix
    row, known = matrix.index.get(item_id), answering.items.catalogue.get(item_id)
    if row is None and known is None:
        return _json({"error": f"no item {item_id[:ID_CHARS]!r} is known"}, 404)
    values = {} if row is None else matrix.values_of(row)
    return _json({"item_id": item_id, "item": known, "values": values, "tile": matrix.tile})


async def cover(request: Request) -> Response:
    """A picture of an item, drawn from its title and categories. Any id has one, so that no place is empty."""
    from streams.simulate.covers import cover_svg  # what simulates comes with it: not for the process that only watches

    item_id = request.query_params.get("id", "")[:ID_CHARS]
    known = _answering(request).items.catalogue.get(item_id)
    drawn = cover_svg(item_id, ()) if known is None else cover_svg(known.title, known.categories)
    return Response(drawn, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})


async def forward(request: Request) -> Response:
    """An event of the console goes in through the same door as every other."""
    settings = _answering(request).settings
    headers = {"Content-Type": request.headers.get("content-type", "")}
    if settings.api_key is not None:
        headers["X-Api-Key"] = settings.api_key.get_secret_value()
    try:
        async with httpx.AsyncClient(timeout=FORWARD_S) as client:
            answer = await client.post(f"{settings.ingest_url}/events", content=await request.body(), headers=headers)
    except httpx.HTTPError as error:
        return _json({"error": f"ingest at {settings.ingest_url} does not answer: {error!r}"}, 503)
    return Response(answer.content, answer.status_code, media_type="application/json")


async def line(request: Request) -> Response:
    """The line itself: rates, lag, freshness, latency, the bundle that serves."""
    app = request.app
    if not hasattr(app.state, "line"):
        app.state.line = Line(_answering(request))
    return _json(await app.state.line.look())


async def metrics(_: Request) -> Response:
    """For Prometheus. BentoML's own page comes with counts by path, which any client could make grow for ever."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


pages = Starlette(
    routes=[
        Route("/", index),
        Route("/docs", docs),
        Route("/metrics", metrics),
        Route("/api/session", session, methods=["POST"]),
        Route("/api/line", line),
        Route("/api/users", users),
        Route("/api/user", user),
        Route("/api/item", item),
        Route("/api/cover", cover),
        Route("/api/events", forward, methods=["POST"]),
        Mount("/console", StaticFiles(directory=STATIC)),
    ]
)
