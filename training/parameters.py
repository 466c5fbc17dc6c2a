"""What a training can be told: the parameters of its models, as shipped or as `freshet tune` found them.

They live in `FRESHET_HOME/parameters.json`, beside how they were found; without that file the defaults hold.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from freshet.settings import Settings
from streams.events import Micros
from training.lightgcn import Parameters as Graph

FILE = "parameters.json"


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`links`: the regularisation of EASE. `din_epochs`, `din_rate`: passes over its lists, and its learning rate."""

    links: Annotated[float, msgspec.Meta(gt=0)] = 200.0
    graph: Graph = Graph()
    din_epochs: Annotated[int, msgspec.Meta(ge=1, le=50)] = 3
    din_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 2e-3


class Tuned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters with how they were found: `scores` are (as shipped, as found) on validation, by what was tuned.

    `until`: the time of the last interaction that was looked at, epoch microseconds.
    """

    parameters: Parameters
    trials: int
    seed: int
    seconds: float
    liked: int
    until: Micros
    scores: dict[str, tuple[float, float]]


class BadParameters(ValueError):
    """The file of parameters cannot be used. Its text says why, and what to do."""


def path(settings: Settings) -> Path:
    """Where the parameters of a deployment lie."""
    return settings.home / FILE


def load(settings: Settings, cut: Micros) -> Parameters:
    """Those of this deployment, for a training that is evaluated on what came after the cut. Raises `BadParameters`.

    Parameters that were found by looking beyond the cut are refused: they would flatter the evaluation.
    """
    file = path(settings)
    if not file.exists():
        return Parameters()
    try:
        tuned = msgspec.json.decode(file.read_bytes(), type=Tuned)
    except msgspec.DecodeError as error:
        raise BadParameters(f"{file}: {error}; remove it, or run `freshet tune` again") from None
    if tuned.until > cut:
        raise BadParameters(
            f"{file} was found by looking at interactions after this training's cut, which it is to be judged by: "
            "run `freshet tune` again with the same --split, or remove it"
        )
    return tuned.parameters


def save(settings: Settings, tuned: Tuned) -> None:
    """Make them those of this deployment, in one step."""
    file = path(settings)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(tuned)) + b"\n")
    unfinished.replace(file)
