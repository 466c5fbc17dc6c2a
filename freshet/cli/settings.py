"""settings, env: what can be set, and what is set."""

import shlex
from typing import Annotated

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from freshet.cli.exits import Exit, Refusal
from freshet.settings import ENV_PREFIX, Settings, variable, without_password

NOT_SETTINGS = frozenset({"FRESHET_STACK", "FRESHET_PART", "FRESHET_REQUIRE_BROWSER"})
"""Variables with our prefix that mark processes or steer the tests."""


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As the reference page docs/reference/settings.md.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The current values as JSON, without secrets.")] = False,
) -> None:
    """Every setting: its variable, its default, its value now, what it means.

    Exit code 1 when a FRESHET_ variable is set that is no setting: it would be ignored.
    """
    if markdown:
        typer.echo(page(), nl=False)
        return
    current = Settings()
    if as_json:
        import json

        typer.echo(json.dumps({name: _shown(getattr(current, name)) for name in Settings.model_fields}, indent=1))
    else:
        _print(current)
    unknown = strangers()
    if unknown:
        raise Refusal(Exit.NO, f"not a setting, and ignored: {', '.join(unknown)}")


def env() -> None:
    """Print export lines for a shell. Shows secrets.

    eval "$(freshet env)" points other programs, e.g. feast, at the same stack.
    """
    for name, value in Settings().as_env().items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def strangers() -> list[str]:
    """Variables in the environment that look like settings and are none, e.g. for a slip of the pen."""
    from os import environ

    known = {variable(name) for name in Settings.model_fields} | NOT_SETTINGS
    return sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)


def page() -> str:
    """The reference page of all settings, Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `freshet settings --markdown`; a test compares the two.",
        "",
        "Each setting is an environment variable. A value comes from the first of: the environment; the file",
        "`stack.env` that `freshet up` writes into the home folder; the default. `freshet settings` shows them all.",
        "",
        "| Variable | Default | Meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = _default(field)
        lines.append(f"| `{variable(name)}` | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    """The default as one writes it; empty when it is none or follows from another setting, as the description says."""
    value = field.default
    if value is None or value is PydanticUndefined or field.default_factory is not None:
        return ""
    return _shown(value) or ""


def _shown(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else None
    return None if value is None else without_password(str(value))


def _print(current: Settings) -> None:
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True)
    for name, field in Settings.model_fields.items():
        value, default = _shown(getattr(current, name)) or "(unset)", _default(field)
        given = name in current.model_fields_set
        out.print(f"{variable(name)}=[bold {'green' if given else 'default'}]{value}[/]", end="")
        out.print(f"  [dim](default {default})[/]" if given and default else "")
        out.print(f"    [dim]{field.description}[/]")


COMMANDS = (settings, env)
