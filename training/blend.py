"""A recall model for large catalogues: three linear views of a history, standardised and added.

*Neighbours*: co-occurrence weighed by powers of the degrees, which are not the same for what was liked and for what is
asked about (the cosine is one such choice). *Factors*: implicit ALS (Hu, Koren, Volinsky, ICDM 2008), a history's
factors solved exactly. *Low-pass*: the projection on the strongest singular vectors (GF-CF, Shen et
al., CIKM 2021). Each is a function of a history, so a new event or a new user needs no training.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from bentos.inputs import Floats


@dataclass(frozen=True)
class Parameters:
    """Chosen on a split of the training part of Gowalla: `python -m benchmarks.recall.gowalla --tune`."""

    user_power: float = 0.75
    liked_power: float = 0.75
    asked_power: float = 0.25
    factors: int = 512
    regularisation: float = 0.05
    confidence: float = 20.0
    iterations: int = 12
    vectors: int = 1_024
    factors_weight: float = 0.8
    low_pass_weight: float = 0.2
    threads: int = 2
    seed: int = 7


def fit(liked: csr_matrix, parameters: Parameters | None = None) -> "Blend":
    """Fit on a 0/1 matrix of users and items, float [users, items]."""
    return Blend(liked.tocsr().astype(np.float32), parameters or Parameters())


def standardised(scores: Floats) -> Floats:
    """Each row with mean 0 and deviation 1."""
    deviation = scores.std(1, keepdims=True)
    made: Floats = (scores - scores.mean(1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)
    return made


class Blend:
    """The fitted model. `histories` below are 0/1 matrices, float32 [n, items]; scores are float32 [n, items]."""

    def __init__(self, liked: csr_matrix, parameters: Parameters) -> None:
        self.parameters = p = parameters
        of_user = np.maximum(np.asarray(liked.sum(1)).ravel(), 1.0)
        self.degrees = np.maximum(np.asarray(liked.sum(0)).ravel(), 1.0)
        self._weighed = (diags(of_user**-p.user_power) @ liked).tocsr().astype(np.float32)
        self._transposed = liked.T.tocsr()
        self._vectors = self._fit_vectors(liked, of_user)
        self._items, self._gains = self._fit_factors(liked)

    def _fit_vectors(self, liked: csr_matrix, of_user: npt.NDArray[np.float64]) -> Floats:
        normal = diags(of_user**-0.5) @ liked @ diags(self.degrees**-0.5)
        rng = np.random.default_rng(self.parameters.seed)
        start = rng.standard_normal(min(liked.shape)).astype(np.float32)
        _, _, vectors = svds(normal.astype(np.float32), k=self.parameters.vectors, v0=start)
        found: Floats = vectors.astype(np.float32)
        return found

    def _fit_factors(self, liked: csr_matrix) -> tuple[Floats, Floats]:
        """The items' factors, and those times the inverse of what all histories share."""
        p = self.parameters
        with threadpool_limits(1, "blas"):  # implicit's own threads and BLAS' would fight for the cores
            model = AlternatingLeastSquares(
                factors=p.factors,
                regularization=p.regularisation,
                alpha=p.confidence,
                iterations=p.iterations,
                random_state=p.seed,
                num_threads=p.threads,
            )
            model.fit(liked, show_progress=False)
        items = model.item_factors.astype(np.float64)
        shared = items.T @ items + p.regularisation * np.eye(p.factors)
        return model.item_factors, np.linalg.solve(shared, items.T).T.astype(np.float32)

    @property
    def megabytes(self) -> float:
        """The size of what scoring reads."""
        sparse = [a for m in (self._weighed, self._transposed) for a in (m.data, m.indices, m.indptr)]
        arrays = (*sparse, self._vectors, self._items, self._gains, self.degrees)
        return float(sum(a.nbytes for a in arrays)) / 1e6

    def scores(self, histories: csr_matrix) -> Floats:
        """The three views, each standardised, added with their weights."""
        p = self.parameters
        total = standardised(self.neighbours(histories))
        total += p.factors_weight * standardised(self.factors(histories))
        total += p.low_pass_weight * standardised(self.low_pass(histories))
        return total

    def neighbours(self, histories: csr_matrix) -> Floats:
        """Sums over the users who liked the same."""
        p = self.parameters
        weighed = (histories @ diags(self.degrees**-p.liked_power)).toarray().astype(np.float32)
        scores: Floats = (self._transposed @ (self._weighed @ weighed.T)).T
        scores *= (self.degrees**-p.asked_power).astype(np.float32)
        return scores

    def low_pass(self, histories: csr_matrix) -> Floats:
        """The part of a history that the strongest singular vectors explain."""
        weighed = (histories @ diags(self.degrees**-0.5)).astype(np.float32)
        scores: Floats = (weighed @ self._vectors.T) @ self._vectors
        scores *= np.sqrt(self.degrees).astype(np.float32)
        return scores

    def factors(self, histories: csr_matrix) -> Floats:
        """Inner products with the factors that solve each history's least squares (by Woodbury's identity)."""
        users = np.zeros((histories.shape[0], self.parameters.factors), dtype=np.float32)
        more = self.parameters.confidence - 1.0
        for n in range(histories.shape[0]):
            rows = histories.indices[histories.indptr[n] : histories.indptr[n + 1]]
            if len(rows):
                items, gains = self._items[rows], self._gains[rows]
                sum_ = gains.sum(0)
                inner = items @ gains.T + np.eye(len(rows), dtype=np.float32) / more
                users[n] = sum_ - gains.T @ np.linalg.solve(inner, items @ sum_)
        scores: Floats = users @ self._items.T
        scores *= self.parameters.confidence
        return scores
