"""The console's pages and the small API behind them, mounted beside the endpoints. One fetch a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _bentoml_impl.server
import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bentos.line import Line
from streams.events import now
from streams.profiles import BadState

if TYPE_CHECKING:  # the process that only watches the workers imports this module too, and needs no models
    from bentos.answering import Answering

STATIC = Path(__file__).parent / "console"
FORWARD_S = 5.0
MOST_USERS = 12
encode = msgspec.json.Encoder().encode


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


async def user(request: Request) -> Response:
    """A user's values now, with titles of what they liked: one fetch for the page."""
    answering = _answering(request)
    user_id = request.path_params["user_id"]
    row, missing = await answering.state(user_id)
    at = now()
    try:
        values, version = answering.values(row, at)
    except BadState as error:
        return _json({"error": str(error)}, 500)
    return _json(
        {
            "user_id": user_id,
            "version": version,
            "at": at,
            "missing": missing,
            "values": values,
            "titles": _titles(answering, values),
        }
    )


def _titles(answering: "Answering", values: Mapping[str, Any]) -> dict[str, str]:
    named = {*values["history"], *values["bought"]}
    return {i: item.title for i in named if (item := answering.items.catalogue.get(i)) is not None}


async def item(request: Request) -> Response:
    """What the catalogue says of an item, and its values at the last closed tile."""
    answering = _answering(request)
    item_id = request.path_params["item_id"]
    matrix = answering.items.matrix
    row, known = matrix.index.get(item_id), answering.items.catalogue.get(item_id)
    if row is None and known is None:
        return _json({"error": f"no item {item_id!r} is known"}, 404)
    values = {} if row is None else matrix.values_of(row)
    return _json({"item_id": item_id, "item": known, "values": values, "tile": matrix.tile})


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


pages = Starlette(
    routes=[
        Route("/", index),
        Route("/docs", docs),
        Route("/api/line", line),
        Route("/api/users/{user_id}", user),
        Route("/api/items/{item_id}", item),
        Route("/api/events", forward, methods=["POST"]),
        Mount("/console", StaticFiles(directory=STATIC)),
    ]
)
