"""recommend: ask the running service, and show its answer to a person."""

import json
from typing import Annotated, Any

import typer

from freshet.cli.exits import Exit, Refusal

TIMEOUT_S = 10.0
"""The service answers within tens of milliseconds; its own limit is 5 s."""


def recommend(
    user: Annotated[str, typer.Argument(help="Id of the user. One that was never seen gets a useful answer too.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many items.")] = 20,
    exclude: Annotated[list[str], typer.Option(help="Never this item. May be given more than once.")] = [],  # noqa: B006
    category: Annotated[list[str], typer.Option(help="Only this category. May be given more than once.")] = [],  # noqa: B006
    explain: Annotated[bool, typer.Option(help="Say why each item is there.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The service's answer as it is.")] = False,
) -> None:
    """Ask the running service for recommendations."""
    from freshet.cli.reach import require
    from freshet.settings import get_settings

    settings = get_settings()
    require(settings, "serve")
    key = settings.api_key.get_secret_value() if settings.api_key else None
    answer = _post(
        f"{settings.serve_url}/recommend",
        {"user_id": user, "k": k, "exclude": exclude, "categories": category, "explain": explain},
        key,
    )
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
    else:
        _show(answer)


def _post(url: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    import httpx

    try:
        response = httpx.post(url, json=body, headers={"X-Api-Key": key} if key else {}, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise Refusal(Exit.DOWN, f"{url} does not answer: {error}") from None
    if response.status_code != 200:
        code = Exit.USAGE if response.status_code in (400, 401, 403, 422) else Exit.NO
        raise Refusal(code, f"{url} answers {response.status_code}: {response.text[:500]}")
    answer: dict[str, Any] = response.json()
    return answer


def _show(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "item", "title", "score", "from", "because"):
        table.add_column(heading, justify="right" if heading in ("", "score") else "left")
    for place, item in enumerate(answer["items"], 1):
        because = (item.get("because") or {}).get("text", "")
        words = (item["item_id"], item.get("title") or "", f"{item['score']:.3f}", ", ".join(item["sources"]), because)
        table.add_row(str(place), *map(escape, words))
    out.print(table)
    out.print(f"[dim]bundle {answer.get('bundle') or 'none'}, user version {answer.get('user_version')}[/]")
    if answer.get("fallback"):
        out.print(f"[yellow]fallback: {', '.join(answer['fallback'])}[/]")
