"""The cascade's recall and ranking as ONNX graphs, with the tables that they need inside.

A device needs an ONNX runtime for them and no Python of ours; tests hold them against `bentos.stages`. Which items,
in which form, and what a device does around them is left to `export` and `recommend`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from bentos.cascade import HISTORY
from bentos.inputs import Floats, Indices
from bentos.ondevice.builder import BOOL, DOUBLE, FLOAT, INT, Form, Graph
from bentos.stages.rank import ATTENTION_UNITS, FAR, GAPS, Din
from bentos.stages.recall import SESSION_S, SOURCES


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What the graphs know of n items.

    `categories`: int16 or int32 [n, w], each item's category numbers, `width` (how many there are) in empty places.
    `vectors` [n, d] for ranking; `tastes` [n, e], of length 1 or 0; `values` [n, f], log(1 + x); `known` [n], 1 for
    items of the bundle, else 0; `graph` [n, d] and `degrees` [n] of LightGCN; `links` int64 [n, l] and `weights` [n, l]
    of item-to-item, 0 in empty places; `heat` [n]; `damped` [n], what a new item's score is divided by, infinite where
    it is not new.
    """

    width: int
    categories: npt.NDArray[np.int16] | npt.NDArray[np.int32]
    vectors: Floats
    tastes: Floats
    values: Floats
    known: Floats
    graph: Floats
    degrees: Floats
    links: Indices
    weights: Floats
    heat: Floats
    damped: Floats


def recall(items: Catalogue, size: int, form: Form) -> onnx.ModelProto:
    """What each source says of every item, and its best `size` among the allowed ones.

    `liked` int64 [t], the history's rows, newest first, -1 in empty places; `ages_s` [t]; `interest` [c]; `allowed`
    bool [n] -> `scores` [6, n]; `best` int64 [6, size], rows by falling score, of which the first `found` [6] count.
    """
    n, g = len(items.links), Graph()
    g.table("graph", items.graph, form)
    g.table("weights", items.weights, form)
    links = items.links.astype(np.uint16 if n <= 1 << 16 else np.int32)

    place = g.Max("liked", 0)
    there = g.Cast(g.GreaterOrEqual("liked", 0), to=FLOAT)
    known = g.Mul(g.Gather(items.known, place), there)
    last = g.Mul(known, g.Cast(g.Equal(g.CumSum(known, 0), 1.0), to=FLOAT))
    session = g.Mul(known, g.Exp(g.Div("ages_s", -SESSION_S)))
    weightings = g.Concat(*(g.Unsqueeze(of, [0]) for of in (known, last, session)), axis=0)
    speak = g.Mul(g.Unsqueeze(weightings, [2]), g.rows("weights", place))
    columns = g.Reshape(g.Cast(g.Gather(links, place), to=INT), [1, -1])
    linked = g.ScatterElements(
        g.Expand(0.0, [3, n]), g.Expand(columns, [3, 1]), g.Reshape(speak, [3, -1]), axis=1, reduction="add"
    )

    damping = (1 / np.sqrt(np.maximum(items.degrees, 1.0))).astype(np.float32)
    length = g.Sqrt(g.Max(g.ReduceSum(there, [0], keepdims=0), 1.0))
    user = g.Div(g.MatMul(g.Mul(there, g.Gather(damping, place)), g.rows("graph", place)), length)
    # A column, as a plain vector takes eight times as long.
    close = g.Squeeze(g.MatMul(g.whole("graph"), g.Unsqueeze(user, [1])), [1])

    fresh = g.Div(g.Add(_sum_of("interest", g.Cast(items.categories, to=INT), g, items), 0.1), items.damped)

    scores = g.Concat(linked, *(g.Unsqueeze(of, [0]) for of in (close, items.heat, fresh)), axis=0)
    open_ = g.Where(g.And(g.Greater(scores, 0.0), "allowed"), scores, 0.0)
    best_scores, best = g.node("TopK", [open_, [min(size, n)]], 2)
    found = g.ReduceSum(g.Cast(g.Greater(best_scores, 0.0), to=INT), [1], keepdims=0)
    return g.model(
        "recall",
        {"liked": (INT, ["t"]), "ages_s": (FLOAT, ["t"]), "interest": (FLOAT, [items.width]), "allowed": (BOOL, [n])},
        {
            "scores": (scores, (FLOAT, [len(SOURCES), n])),
            "best": (best, (INT, [len(SOURCES), min(size, n)])),
            "found": (found, (INT, [len(SOURCES)])),
        },
    )


def _sum_of(weights: str, categories: str, g: Graph, items: Catalogue) -> str:
    """For items [m] whose category numbers are int64 [m, w]: the sum of what a vector [c] says of theirs. [m]."""
    return g.ReduceSum(g.Gather(g.Concat(weights, [0.0], axis=0), categories), [1], keepdims=0)


def _mean_of(rows: str, g: Graph, items: Catalogue) -> str:
    """The mean of the categories of items int64 [k], -1 in empty places; 0 without any. float32 [c]."""
    there = g.Cast(g.GreaterOrEqual(rows, 0), to=FLOAT)
    theirs = g.Cast(g.Gather(items.categories, g.Max(rows, 0)), to=INT)
    each = g.Expand(g.Unsqueeze(there, [1]), g.Shape(theirs))
    sums = g.ScatterElements(
        g.Expand(0.0, [items.width + 1]), g.Reshape(theirs, [-1]), g.Reshape(each, [-1]), axis=0, reduction="add"
    )
    return g.Div(g.Slice(sums, [0], [items.width]), g.Max(g.ReduceSum(there, [0], keepdims=0), 1.0))


def rank(items: Catalogue, din: Din, users: int, form: Form) -> onnx.ModelProto:
    """Ranking of m candidates: `bentos.inputs.candidate_rows` and then DIN.

    `user` float64 [users], the user's columns; `interest` [c]; `liked` int64 [t] and `ages_s` [t] as for recall;
    `viewed` int64 [v] like `liked`; `candidates` int64 [m]; `recalled` [m, 6] -> `logits` [m] and `attention` [m, t], t
    being at most `HISTORY`.
    """
    g = Graph()
    g.table("vectors", items.vectors, form)
    g.table("tastes", items.tastes, form)
    g.table("values", items.values, "float32" if form == "float32" else "float16")
    liked, ages_s = (g.Slice(of, [0], [HISTORY]) for of in ("liked", "ages_s"))
    place, mask = g.Max(liked, 0), g.GreaterOrEqual(liked, 0)
    everything = g.Concat("liked", "viewed", axis=0)

    m = g.Shape("candidates")
    user = g.Cast(g.Log(g.Add(g.Max("user", np.float64(0)), np.float64(1))), to=FLOAT)
    of_user = g.Expand(g.Unsqueeze(user, [0]), g.Concat(m, [1], axis=0))
    theirs = g.Cast(g.Gather(items.categories, "candidates"), to=INT)
    many = np.maximum((items.categories < items.width).sum(1), 1)
    root = g.Gather(np.sqrt(many).astype(np.float32), "candidates")
    recent, all_ = (_mean_of(of, g, items) for of in (g.Slice("liked", [0], [5]), "liked"))
    there = g.Unsqueeze(g.Cast(g.GreaterOrEqual(everything, 0), to=FLOAT), [0])
    mine = g.MatMul(there, g.rows("tastes", g.Max(everything, 0)))
    length = g.Max(g.Sqrt(g.ReduceSum(g.Mul(mine, mine), [0, 1], keepdims=0)), 1e-12)
    near = g.Div(g.MatMul(g.rows("tastes", "candidates"), g.Transpose(mine, perm=[1, 0])), length)
    same = g.Equal(g.Unsqueeze("candidates", [1]), g.Unsqueeze("liked", [0]))
    pairs = (
        g.Div(_sum_of("interest", theirs, g, items), root),
        g.Div(_sum_of(recent, theirs, g, items), root),
        g.Div(_sum_of(all_, theirs, g, items), root),
        g.ReduceMax(g.Cast(same, to=FLOAT), [1], keepdims=0),
        g.Squeeze(near, [1]),
    )
    columns = (g.Unsqueeze(of, [1]) for of in pairs)
    rows = g.Concat(of_user, g.rows("values", "candidates"), *columns, "recalled", axis=1)

    bounds = np.array([60.0 * 4**k for k in range(GAPS - 1)], dtype=np.float32)
    gaps = g.ReduceSum(g.Cast(g.GreaterOrEqual(g.Unsqueeze(ages_s, [1]), bounds), to=INT), [1], keepdims=0)
    history, candidates = g.rows("vectors", place), g.rows("vectors", "candidates")
    logits, attention = network(g, din, rows, history, gaps, mask, candidates)
    return g.model(
        "rank",
        {
            "user": (DOUBLE, [users]),
            "interest": (FLOAT, [items.width]),
            "liked": (INT, ["t"]),
            "ages_s": (FLOAT, ["t"]),
            "viewed": (INT, ["v"]),
            "candidates": (INT, ["m"]),
            "recalled": (FLOAT, ["m", len(SOURCES)]),
        },
        {"logits": (logits, (FLOAT, ["m"])), "attention": (attention, (FLOAT, ["m", "attended"]))},
    )


def network(g: Graph, din: Din, rows: str, history: str, gaps: str, mask: str, candidates: str) -> tuple[str, str]:
    """`bentos.stages.rank.Din` for one question, without the batch's dimension: logits [m] and attention [m, t]."""
    w = din.weights

    def linear(x: str, layer: str) -> str:
        return g.Gemm(x, w[f"{layer}.weight"], w[f"{layer}.bias"], transB=1)

    h = g.Add(linear(history, "project"), g.Gather(w["gap.weight"], gaps))
    c = linear(candidates, "project")
    folded = g.Add(w["of_candidate.weight"], g.Mul(w["of_both.weight"], g.Unsqueeze(h, [1])))
    of_history = g.Gemm(h, w["of_history.weight"], w["of_candidate.bias"], transB=1)
    # Candidates come last here: one row times many columns is a tenth of the work of many rows times one column.
    flat, bias = g.Reshape(folded, [-1, ATTENTION_UNITS]), g.Reshape(of_history, [-1, 1])
    first = g.Relu(g.Gemm(flat, c, bias, transB=1))
    units = g.Reshape(first, g.Concat([-1, ATTENTION_UNITS], g.Slice(g.Shape(c), [0], [1]), axis=0))
    each = g.Squeeze(g.MatMul(w["attend.weight"], units), [1])
    attended = g.Add(g.Transpose(each, perm=[1, 0]), w["attend.bias"])
    weights = g.Softmax(g.Where(mask, attended, -1e9), axis=-1)
    attention = g.Mul(weights, g.Cast(mask, to=FLOAT))
    pooled = g.MatMul(attention, h)
    scaled = g.Clip(g.Div(g.Sub(rows, w["mean"]), w["scale"]), -FAR, FAR)
    x = g.Concat(scaled, c, pooled, g.Mul(pooled, c), axis=-1)
    for layer in (0, 2):
        x = g.LeakyRelu(linear(x, f"head.{layer}"), alpha=w[f"head.{layer + 1}.weight"].item())
    last = g.Gemm(x, w["head.4.weight"][:1], w["head.4.bias"][:1], transB=1)  # of liking; conversion is the server's
    return g.Squeeze(g.Add(last, g.MatMul(scaled, w["linear"][:, None])), [1]), attention
