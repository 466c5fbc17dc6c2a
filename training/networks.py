"""The networks that learn, in torch. What is served of them are their weights, computed in NumPy.

Losses and loops are left to `training.rankers`.
"""

import torch
from torch import Tensor, nn

from bentos.inputs import Floats
from bentos.stages.rank import ATTENTION_UNITS, FAR, GAPS, Din
from bentos.stages.rerank import RankNet


def _weights(module: nn.Module) -> dict[str, Floats]:
    return {name: values.detach().numpy().copy() for name, values in module.state_dict().items()}


class DinModule(nn.Module):
    """`bentos.stages.rank.Din` while it learns, for b questions at once.

    `inputs` columns (see `bentos.inputs.input_names`), item vectors of `dim`. Two heads share all but one row. `linear`
    is what the scaled inputs add to the first: nothing while the network learns.
    """

    mean: Tensor
    scale: Tensor
    linear: Tensor

    def __init__(self, inputs: int, dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("linear", torch.zeros(inputs))
        self.project = nn.Linear(dim, ATTENTION_UNITS)
        self.gap = nn.Embedding(GAPS, ATTENTION_UNITS)
        self.of_history = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS, bias=False)
        self.of_candidate = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS)
        self.of_both = nn.Linear(ATTENTION_UNITS, ATTENTION_UNITS, bias=False)
        self.attend = nn.Linear(ATTENTION_UNITS, 1)
        self.head = nn.Sequential(
            nn.Linear(inputs + 3 * ATTENTION_UNITS, hidden),
            nn.PReLU(),
            nn.Linear(hidden, 32),
            nn.PReLU(),
            nn.Linear(32, 2),
        )

    def attention(self, history: Tensor, gaps: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projected history [b, t, u], projected candidates [b, m, u], attention logits [b, m, t]."""
        h = self.project(history) + self.gap(gaps)
        c = self.project(candidates)
        b, t, u = h.shape
        folded = torch.addcmul(self.of_candidate.weight, self.of_both.weight, h[:, :, None, :])  # into the weights
        of_history = (self.of_history(h) + self.of_candidate.bias).reshape(b, 1, t * u)
        first = torch.baddbmm(of_history, c, folded.reshape(b, t * u, u).transpose(1, 2)).relu_()
        logits = first.reshape(b, -1, t, u) @ self.attend.weight[0] + self.attend.bias
        return h, c, logits

    def forward(
        self, rows: Tensor, history: Tensor, gaps: Tensor, mask: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of liking and of conversion: logits [b, m, 2]; attention weights [b, m, t].

        `rows` [b, m, inputs] raw; `history` [b, t, dim], `gaps` int64 [b, t], `mask` bool [b, t], True where there is
        an item; `candidates` [b, m, dim].
        """
        h, c, logits = self.attention(history, gaps, candidates)
        weights = torch.softmax(logits.masked_fill(~mask[:, None, :], -1e9), -1) * mask[:, None, :]
        pooled = weights @ h
        scaled = ((rows - self.mean) / self.scale).clamp(-FAR, FAR)
        liking, conversion = self.head(torch.cat([scaled, c, pooled, pooled * c], -1)).unbind(-1)
        return torch.stack([liking + scaled @ self.linear, conversion], -1), weights

    def din(self) -> Din:
        """What is served."""
        return Din(_weights(self))


class RankNetModule(nn.Module):
    """`bentos.stages.rerank.RankNet` while it learns."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Scores [...] of rows [..., inputs]."""
        score: Tensor = self.layers((rows - self.mean) / self.scale).squeeze(-1)
        return score

    def ranknet(self) -> RankNet:
        """What is served."""
        return RankNet(_weights(self))
