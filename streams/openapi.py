"""What ingest's OpenAPI page shows of bodies and answers: schemas and examples.

Written out, because ingest decodes with msgspec and not through FastAPI's models. A test sends each example to the app.
"""

from typing import Any

import msgspec

from streams.catalogue import Item
from streams.events import TYPES, Event

EVENT_EXAMPLE: dict[str, Any] = {
    "event_id": "0d5f7c3e-1",
    "user_id": "ada",
    "item_id": "moby-dick",
    "type": "click",
    "event_time": "2026-01-15T12:00:00Z",
    "session_id": "s-81",
    "request_id": "the request_id of the recommendation that led here",
}
BATCH_EXAMPLE: list[dict[str, Any]] = [
    {"user_id": "ada", "item_id": "moby-dick", "type": "view"},
    {"user_id": "ada", "item_id": "moby-dick", "type": "purchase", "value": 18.5, "properties": {"currency": "EUR"}},
    {"user_id": "bob", "item_id": "emma", "type": "rate", "value": 5},
]
ITEM_EXAMPLE: dict[str, Any] = {
    "item_id": "moby-dick",
    "title": "Moby-Dick",
    "categories": ["Adventure", "Classics"],
    "description": "A captain, a whale.",
    "created_at": "1851-10-18T00:00:00Z",
}
_INSTANT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "description": "Unix seconds"}]}


def _schema(struct: type[msgspec.Struct], times: tuple[str, ...], hidden: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON schema of what a client sends: the struct's, times as clients write them, without what the door adds."""
    schema: dict[str, Any] = msgspec.json.schema(struct)["$defs"][struct.__name__]
    schema["properties"] = {
        k: _INSTANT if k in times else v for k, v in schema["properties"].items() if k not in hidden
    }
    schema["required"] = [name for name in schema["required"] if name not in (*hidden, *times, "event_id")]
    schema.pop("description", None)
    return schema


_EVENT = _schema(Event, ("event_time",), ("arrival",))
_EVENT["properties"]["type"] = {
    "type": "string",
    "description": f"{', '.join(sorted(TYPES))}, or one of your own",
    "pattern": "^[a-z][a-z0-9_]{0,31}$",
}
_ITEM = _schema(Item, ("created_at",))


def _body(schema: dict[str, Any], one: dict[str, Any], many: list[dict[str, Any]]) -> dict[str, Any]:
    lines = "\n".join(msgspec.json.encode(element).decode() for element in many)
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [schema, {"type": "array", "items": schema}]},
                    "examples": {"one": {"value": one}, "batch": {"value": many}},
                },
                "application/x-ndjson": {"schema": {"type": "string"}, "examples": {"lines": {"value": lines}}},
            },
        },
        "parameters": [
            {
                "name": "X-Api-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "Needed where the deployment has a key",
            }
        ],
    }


def _responses(taken: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    refused = {"accepted": 0, "refused": [{"index": 0, "reason": "Object missing required field `user_id`"}]}
    return {
        202: {"description": "In Kafka, acknowledged", "content": {"application/json": {"example": taken}}},
        400: {"description": "The body cannot be read"},
        401: {"description": "The key is missing or wrong"},
        413: {"description": "The body, or the number of elements, is too large"},
        415: {"description": "Neither JSON nor NDJSON"},
        422: {"description": "Everything was refused", "content": {"application/json": {"example": refused}}},
        503: {"description": "Kafka does not acknowledge; try again after `Retry-After` seconds"},
    }


EVENTS_BODY, ITEMS_BODY = (
    _body(_EVENT, EVENT_EXAMPLE, BATCH_EXAMPLE),
    _body(_ITEM, ITEM_EXAMPLE, [ITEM_EXAMPLE, ITEM_EXAMPLE | {"item_id": "emma", "title": "Emma"}]),
)
EVENTS_RESPONSES = _responses(
    {
        "accepted": 2,
        "refused": [{"index": 1, "reason": "value must lie between -1000000 and 1000000"}],
        "generated": [{"index": 0, "event_id": "019a…"}],
    }
)
ITEMS_RESPONSES = _responses({"accepted": 2, "refused": []})
