"""What quantising or compiling ranking gains and costs: `python -m benchmarks.serving.variants`.

Beside a broker with a champion that `freshet train` made. The champion's recall is fitted again on what lies before the
bundle's cut (its ranking never saw more), then every question after the cut is asked as in `freshet train`. All
variants of DIN get the same candidates, so only ranking differs; NDCG@10 is compared question by question. Latency is
that of ranking 300 candidates, one thread, one question at a time, the variants by turns. The export is measured as a
device has it: made at the cut, its item values never refreshed.
"""

import argparse
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bentos.bundle import REFERENCE, Bundle
from bentos.cascade import Cascade, Features
from bentos.inputs import Floats, ItemMatrix, input_names
from bentos.ondevice.builder import BOOL, FLOAT, INT, Graph
from bentos.ondevice.export import MOST_MB, export
from bentos.ondevice.graphs import network
from bentos.ondevice.recommend import Device
from bentos.registry import folder as folder_of
from bentos.stages.rank import Din, Ranked, gap_bucket, rank
from bentos.stages.recall import SOURCES
from freshet.batch import champion
from freshet.cli.progress import bars
from freshet.settings import get_settings
from training import fitting, parameters
from training.clock import Clock
from training.datasets import Question, asked_before, read
from training.evaluation import MAIN, Answers, K, Panel, Scoreboard, ask
from training.networks import DinModule

Ranker = Callable[[Features], Floats]
"""The logits [m] of one question's candidates."""
TIMED, ROUNDS, WARM = 200, 5, 30
SERVED = "NumPy float32 (served)"
LINEAR = ("project", "of_history", "head")
"""DIN's layers whose weights are constant; the attention's first layer makes its weights from the history."""
DEVICE_MB = (MOST_MB, 3.0, 1.5)
"""MovieLens as it is, with everything in int8, and with half of the links cut."""


def tensors(f: Features) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One question as `DinModule.forward` takes it; no history is one place that is masked."""
    t, rows, vectors = len(f.history), torch.from_numpy(f.inputs)[None], torch.from_numpy(f.vectors)[None]
    history = torch.from_numpy(f.history)[None] if t else torch.zeros(1, 1, vectors.shape[2])
    gaps = torch.from_numpy(gap_bucket(f.ages_s if t else np.zeros(1, np.float32)))
    return rows, history, gaps[None], torch.full((1, max(t, 1)), t > 0), vectors


def as_said(logits: Floats) -> Ranked:
    """Ranking that says nothing but these logits."""
    return Ranked(logits, np.zeros_like(logits), logits[:, None])


def by_torch(network: Callable[..., tuple[Tensor, Tensor]]) -> Ranker:
    """A network that is called as DIN is."""

    def logits(f: Features) -> Floats:
        with torch.inference_mode():
            found: Floats = network(*tensors(f))[0][0, :, 0].float().numpy()
        return found

    return logits


def bfloat16(din: DinModule) -> Ranker:
    """All weights in bfloat16; the inputs are normalised in float32, as counts and ages do not fit into 8 bits."""
    half, mean, scale = deepcopy(din).to(torch.bfloat16), din.mean, din.scale
    half.mean.zero_(), half.scale.fill_(1.0)

    def forward(rows: Tensor, history: Tensor, gaps: Tensor, mask: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        scaled = ((rows - mean) / scale).bfloat16()
        return half(scaled, history.bfloat16(), gaps, mask, vectors.bfloat16())

    return by_torch(forward)


def int8(din: DinModule) -> torch.nn.Module:
    """Linear layers with int8 weights, activations quantised as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao takes over from torch.ao; the kernels are the same
        from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

        return quantize_dynamic(din, dict.fromkeys(LINEAR, default_dynamic_qconfig), torch.qint8)


def graph(din: Din) -> onnx.ModelProto:
    """DIN alone, as it is in the export."""
    g, d = Graph(), din.weights["project.weight"].shape[1]
    inputs = {
        "rows": (FLOAT, ["m", len(input_names(SOURCES))]),
        "history": (FLOAT, ["t", d]),
        "gaps": (INT, ["t"]),
        "mask": (BOOL, ["t"]),
        "candidates": (FLOAT, ["m", d]),
    }
    logits, _ = network(g, din, *inputs)
    return g.model("din", inputs, {"logits": (logits, (FLOAT, ["m"]))})


def by_onnx(model: bytes) -> Ranker:
    """A graph with DIN's inputs in ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def logits(f: Features) -> Floats:
        given = (x[0].numpy() for x in tensors(f))
        found: Floats = session.run(None, dict(zip(names, given, strict=True)))[0]
        return found

    return logits


def size(network: torch.nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of the parameters as they are stored."""
    buffer = io.BytesIO()
    torch.save({k: v.to(dtype) if dtype else v for k, v in network.state_dict().items()}, buffer)
    return buffer.tell()


def variants(din: Din) -> dict[str, tuple[Ranker, int]]:
    """Every variant with its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "din.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(graph(din).SerializeToString())
        quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)
        exact, small = plain.read_bytes(), quantised.read_bytes()
    module = DinModule(*(din.weights[name].shape[-1] for name in ("mean", "project.weight"))).eval()
    module.load_state_dict({name: torch.from_numpy(values) for name, values in din.weights.items()})
    return {
        SERVED: (lambda f: rank(din, f.inputs, f.vectors, f.history, f.ages_s).logits, size(module)),
        "torch float32": (by_torch(module), size(module)),
        "torch bfloat16": (bfloat16(module), size(module, torch.bfloat16)),
        "torch dynamic int8": (by_torch(quantised_din := int8(module)), size(quantised_din)),
        "torch.compile float32": (by_torch(torch.compile(module, dynamic=True)), size(module)),
        "ONNX Runtime float32": (by_onnx(exact), len(exact)),
        "ONNX Runtime dynamic int8": (by_onnx(small), len(small)),
    }


def panel(cascade: Cascade, rankers: dict[str, Ranker]) -> Panel:
    """All variants on the candidates of one recall."""

    def answers(question: Question) -> Answers:
        asked = ask(question)
        f = cascade.features(asked)
        orders = {name: cascade.order(asked, f, as_said(logits(f)))[0] for name, logits in rankers.items()}
        return {
            name: ([question.items.ids[row] for row in f.rows[order].tolist()], 0.0) for name, order in orders.items()
        }

    return answers


def barred(question: Question) -> frozenset[str]:
    """The items that no answer may have, for a device, which knows them by their ids."""
    return question.seen.union(question.items.ids[row] for row in question.unborn.tolist())


def on_device(name: str, device: Device) -> Panel:
    """An export that knows the user's values of the moment, and the items' of its own."""
    return lambda q: {name: ([pick.item_id for pick in device.answer(q.user_values, K, barred(q))], 0.0)}


def clocked(calls: dict[str, list[Callable[[], object]]]) -> dict[str, Floats]:
    """Milliseconds of every call of each variant, which take turns; the first calls of each are not counted."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(ROUNDS):
        for name, some in calls.items():
            for call in some[:WARM] if n == 0 else []:
                call()
            for call in some:
                start = perf_counter()
                call()
                took[name].append((perf_counter() - start) * 1_000)
    return {name: np.array(ms, dtype=np.float32) for name, ms in took.items()}


def measure(every: int, threads: int) -> None:
    """Ask, time, and print."""
    settings, console = get_settings(), Console(width=140)
    bundle = champion(settings)
    with bars() as progress, tempfile.TemporaryDirectory() as folder:
        clock = Clock(progress)
        log, catalogue = read(settings)
        cut = int(np.searchsorted(log.at, bundle.manifest["cut"], "right"))
        torch.set_num_threads(threads)
        recall = fitting.recall(log, cut, catalogue, clock, parameters.load(settings, int(log.at[cut - 1])))
        torch.set_num_threads(1)
        cascade = replace(bundle.cascade, recall=recall, taste=fitting.tastes(log, cut, clock))
        made = variants(cascade.din)
        rankers, sizes = ({name: part[j] for name, part in made.items()} for j in (0, 1))
        asking = asked_before(log, (cut + np.flatnonzero(log.liked[cut:]))[::every].tolist())
        board, kept = Scoreboard("prequential", [panel(cascade, rankers)]), list[Question]()
        devices: dict[str, Device] = {}
        for n, question in enumerate(fitting.asker(settings, log, catalogue, clock)(asking, "ask")):
            if n == 0:
                at_cut = question.items
                for mb in DEVICE_MB:
                    to = Path(folder) / str(mb)
                    e = export(to, Bundle(cascade, bundle.manifest, bundle.version), at_cut, mb)
                    name = f"export, {e.form} vectors, {e.links} of {e.links_of} links"
                    devices[name], sizes[name] = Device(to), sum(e.bytes.values())
                board.panels = [*board.panels, *(on_device(name, device) for name, device in devices.items())]
            board.put(question)
            if n % max(1, len(asking) // TIMED) == 0:
                kept.append(question)
    full = [f for q in kept if len((f := cascade.features(ask(q))).rows) == cascade.size]
    ranking = clocked({name: [partial(ranker, f) for f in full] for name, ranker in rankers.items()})
    answers = {name: [partial(d.answer, q.user_values, K, barred(q)) for q in kept] for name, d in devices.items()}
    answering = clocked({SERVED: [partial(cascade.recommend, ask(q)) for q in kept], **answers})
    console.print(f"bundle {bundle.version}, {len(board.users):,} questions, {len(kept)} of them timed {ROUNDS} times")
    console.print(f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, one thread")
    console.print(table("ranking 300", ranking, sizes, board))
    parts = (file for file in folder_of(settings, bundle.version).iterdir() if file.name != REFERENCE)
    sizes[SERVED] = sum(file.stat().st_size for file in parts)
    console.print(table("whole answer", answering, sizes, board))
    for name, device in devices.items():
        console.print(f"{name}: {shared(device, cascade, kept, at_cut):.2%} of the first 10 are the cascade's")


def table(title: str, took: dict[str, Floats], sizes: dict[str, int], board: Scoreboard) -> Table:
    """A row for each variant that was timed."""
    made = Table(title, "p50 ms", "p99 ms", "questions/s", "bytes", MAIN, "over the served one, 95%", box=None)
    found = {r.model: r.metrics[MAIN] for r in board.results({}, {})}
    for name, ms in took.items():
        times = (f"{np.percentile(ms, p):.2f}" for p in (50, 99))
        over = "" if name == SERVED else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*board.difference(name, SERVED))
        made.add_row(name, *times, f"{1_000 / ms.mean():,.0f}", f"{sizes[name]:,}", f"{found[name]:.4f}", over)
    return made


def shared(device: Device, cascade: Cascade, some: Sequence[Question], items: ItemMatrix) -> float:
    """The part of the first ten that a device and the cascade have in common, given the same items' values."""
    found = []
    for q in some:
        theirs = {pick.item_id for pick in cascade.recommend(ask(replace(q, items=items), 10)).picks}
        found.append(len(theirs & {pick.item_id for pick in device.answer(q.user_values, 10, barred(q))}) / len(theirs))
    return float(np.mean(found))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="ask each n-th question only (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads to fit recall with (default: %(default)s)")
    given = parser.parse_args()
    measure(given.every, given.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
