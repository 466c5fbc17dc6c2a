"""What serving is asked and what it answers, as pydantic models: the OpenAPI page and the bounds come from here."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[str, Field(min_length=1, max_length=256)]
K = Annotated[int, Field(ge=1, le=100)]
Categories = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)]


class Context(BaseModel):
    """Where the question comes from. `arm` "popular" answers with the popularity baseline, for comparisons."""

    model_config = ConfigDict(extra="allow")
    arm: Annotated[str, Field(max_length=32)] = "champion"


class Because(BaseModel):
    """Why an item is there; `item_id` and `title` name the liked item where that is the reason."""

    kind: str
    item_id: str | None = None
    title: str | None = None
    text: str


class Recommended(BaseModel):
    """One item of an answer. `score` orders one answer; `probability` can be compared between answers.

    It is that of being what the user likes next, and `conversion` that it is then bought or rated highest; None where
    ranking was left out, and for pins and fallbacks.
    `propensity`: that an item which is there to be explored came to be there; None for all others.
    """

    item_id: str
    title: str
    categories: list[str]
    score: float
    probability: float | None = None
    conversion: float | None = None
    propensity: float | None = None
    sources: list[str]
    because: Because | None = None


class Recommendations(BaseModel):
    """An answer, best first. `fallback` names what it had to do without; `at` is in epoch microseconds.

    `cached`: the same question was answered like this just before, and nothing new was known.
    """

    request_id: str
    user_id: str
    items: list[Recommended]
    fallback: list[str]
    bundle: str | None
    arm: str
    user_version: int
    at: int
    stages_ms: dict[str, float]
    cached: bool = False


class Cleared(BaseModel):
    """How many kept answers were forgotten."""

    cleared: int


class Similar(BaseModel):
    """Items that go with an item."""

    item_id: str
    items: list[Recommended]
    fallback: list[str]


class Trending(BaseModel):
    """What is liked lately."""

    items: list[Recommended]
    fallback: list[str]
