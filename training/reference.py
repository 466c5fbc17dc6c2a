"""What a bundle would have served when it was made: the distribution that `freshet drift` compares with."""

import pyarrow as pa

from bentos.cascade import Cascade
from bentos.inputs import ITEM_COLUMNS, USER_COLUMNS
from training.datasets import Question
from training.evaluation import ask


class Reference:
    """Values and scores of answers, a row for each item of each."""

    def __init__(self) -> None:
        names = (*(f"user__{c}" for c in USER_COLUMNS), *(f"item__{c}" for c in ITEM_COLUMNS), "score")
        self._columns: dict[str, list[float]] = {name: [] for name in names}

    def add(self, cascade: Cascade, question: Question) -> None:
        """Answer a question and keep what the answer was made of."""
        for pick in cascade.recommend(ask(question)).picks:
            row = {f"user__{c}": question.user_values[c] for c in USER_COLUMNS}
            row |= {f"item__{c}": value for c, value in question.items.values_of(pick.row).items()}
            for name, value in (row | {"score": pick.score}).items():
                self._columns[name].append(float(value))

    def table(self) -> pa.Table:
        """Float64 columns, named as the features are."""
        return pa.table(self._columns)
