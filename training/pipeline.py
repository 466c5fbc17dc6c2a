"""Trains everything and registers one bundle: read, split by time, fit, evaluate, sign, register.

Nothing looks beyond the cut before the evaluation; the bundle that is registered is fitted on all data, with the stages
and parameters that were evaluated. How the stages are fitted is left to `training.fitting`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from bentos import bundle
from bentos.cascade import Cascade
from bentos.registry import CHAMPION, champion, folder
from bentos.stages.recall import SOURCES
from bentos.stages.rerank import LambdaRank
from feature_repo.store import open_store
from freshet.settings import Settings
from streams.catalogue import Progress
from training import edge_cases, fitting, gate, parameters, registry, report
from training.baselines import baselines, megabytes
from training.calibration import Reliability
from training.clock import Clock
from training.datasets import Asking, Log, Question, asked_before, audit, read
from training.evaluation import RANKED, WHOLE, K, Panel, Result, Scoreboard, ranked, source, staged, whole
from training.gate import Rival
from training.intervals import Interval
from training.parallel import Crew
from training.reference import Reference
from training.report import TrainReport

SPLIT = 0.8
SEED = 7
REFERENCE_QUESTIONS, RIVAL_QUESTIONS = 1_000, 2_000
PROTOCOLS = ("static", "prequential")
UNTIL = "until"
"""In a bundle's manifest: the time of the last interaction that it was trained on, epoch microseconds."""


def train(
    settings: Settings,
    *,
    split: float = SPLIT,
    protocols: Sequence[str] = PROTOCOLS,
    most_questions: int = 5_000,
    register: bool = True,
    threads: int = 2,
    workers: int = 1,
    progress: Progress | None = None,
) -> TrainReport:
    """Train, evaluate and (unless told not to, or the gate refuses it) register a bundle and make it champion.

    `most_questions` bounds the questions of each protocol; beyond it an even sample is asked. LightGCN and DIN are
    fitted by so many `workers` of a Ray cluster. Raises `NoData` when there is too little to learn from,
    `datasets.Skew` when training and Feast disagree on a value, `BadParameters`, and `parallel.NoCluster`.
    """
    key = settings.signing_key()
    torch.set_num_threads(threads)
    clock, crew = Clock(progress), Crew(workers, settings.home / "ray")
    with clock.step("read"):
        log, catalogue = read(settings)
        store = open_store(settings)
    liked, audited = int(log.liked.sum()), 0
    asker = fitting.asker(settings, log, catalogue, clock)

    def check(pairs: Sequence[tuple[Question, str]]) -> None:
        nonlocal audited
        audited += audit(store, pairs)

    cut = int(split * len(log))
    given = parameters.load(settings, int(log.at[cut - 1]))
    drafted = fitting.draft(log, cut, catalogue, asker, check, clock, given, crew)
    after = fitting.stages(drafted, clock, given, crew)
    cascade = fitting.assemble(log, cut, after, catalogue, clock, given, crew)
    rival, missing = _champion(settings, key)
    results, reference, over, reliability = _evaluate(log, cut, cascade, rival, asker, clock, protocols, most_questions)
    validation = {f"recall@{cascade.size}": after.found, **after.fitted.validation, **after.conversion}
    final = fitting.assemble(log, len(log), after, catalogue, clock, given, crew)
    with clock.step("gate"):
        broken = edge_cases.failures(final, log.item_ids, catalogue)
        verdict = gate.judge(broken, over[0], Rival(over[1], over[2], missing))
    version = None
    if register:
        with clock.step("register"), tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary)
            pq.write_table(reference.table(), made / bundle.REFERENCE)
            metrics = {
                f"{r.protocol} {name}": value for r in results if r.model == WHOLE for name, value in r.metrics.items()
            }
            about = {"items": len(log.item_ids), "liked": liked, "cut": int(log.at[cut - 1]), UNTIL: int(log.at[-1])}
            bundle.save(made, final, key, **about, metrics=metrics)
            version = registry.track(
                settings,
                made,
                {
                    **about,
                    "split": split,
                    "users": len(log.user_ids),
                    "parameters": msgspec.json.encode(given).decode(),
                },
                {**metrics, **{f"validation {name}": value for name, value in validation.items()}, **reliability},
                report.markdown(results, after.dials, after.prices),
                verdict.reasons,
            )
    reranker = type(after.fitted.reranker).__name__
    cut_at = int(log.at[cut - 1])
    return TrainReport(
        results,
        validation,
        reliability,
        after.dials,
        after.prices,
        reranker,
        version,
        clock.seconds,
        audited,
        liked,
        cut_at,
        verdict,
    )


def _champion(settings: Settings, key: bytes) -> tuple[bundle.Bundle | None, str]:
    """The bundle that serves now, or why there is none to compare with."""
    version = champion(settings)
    if version is None:
        return None, "there is none yet"
    try:
        return bundle.load(folder(settings, version), key, version), ""
    except bundle.BadBundle as error:
        return None, f"bundle {version} cannot be read: {error}"


def _evaluate(
    log: Log,
    cut: int,
    cascade: Cascade,
    rival: bundle.Bundle | None,
    asker: fitting.Asker,
    clock: Clock,
    protocols: Sequence[str],
    most: int,
) -> tuple[list[Result], Reference, tuple[Interval, Interval | None, int], dict[str, float]]:
    """The table, the reference for drift, what the gate asks for, and how far the probabilities can be believed.

    The champion is asked only what came after the last interaction that it was trained on.
    """
    ours = sum(seconds for name, seconds in clock.seconds.items() if name.startswith("fit "))
    sizes = _sizes(cascade)
    fits, models, spent = baselines(log.matrix(cut)), list[Panel](), {RANKED: ours, WHOLE: ours}
    for name, fit in fits.items():
        with clock.step(f"fit {name}"):
            scorer, sizes[name] = fit()
            models.append(ranked(name, scorer))
        spent[name] = clock.seconds[f"fit {name}"]
    models += [source(cascade, j) for j in (0, 3)]
    reliability = Reliability(K)
    spent |= {
        f"recall: {SOURCES[j]}": clock.seconds[f"fit {step}"] / 2 for j, step in ((0, "item-to-item"), (3, "LightGCN"))
    }
    results: list[Result] = []
    reference = Reference()
    if "static" in protocols:
        board = Scoreboard("static", [*models, staged(cascade)])
        users = _static(log, cut)
        for question in asker([users[n] for n in _some(len(users), most)], "evaluate static"):
            board.put(question)
        results += board.results(spent, sizes)
    after = cut + np.flatnonzero(log.liked[cut:])
    some = after[_some(len(after), most if "prequential" in protocols else REFERENCE_QUESTIONS)]
    every = -(-len(some) // REFERENCE_QUESTIONS)
    asked = [*models, staged(cascade, reliability)]
    board = Scoreboard("prequential", asked if "prequential" in protocols else [])
    floor = Scoreboard("gate", [staged(cascade), models[list(fits).index(gate.FLOOR)]])
    fair = Scoreboard("gate", [staged(cascade), *([] if rival is None else [whole(rival.cascade, CHAMPION)])])
    learned = 0 if rival is None else int(rival.manifest.get(UNTIL, log.at[-1]))
    for n, question in enumerate(asker(asked_before(log, some.tolist()), "evaluate prequential")):
        board.put(question)
        if n % every == 0:
            reference.add(cascade, question)
            floor.put(question)
        if rival is not None and question.at > learned and len(fair.users) < RIVAL_QUESTIONS:
            fair.put(question)
    if board.runs:
        results += board.results(spent, sizes)
    over_champion = fair.difference(WHOLE, CHAMPION) if fair.runs else None
    over = floor.difference(WHOLE, gate.FLOOR), over_champion, len(fair.users)
    return results, reference, over, reliability.measures() if board.runs else {}


def _some(n: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many of n, drawn evenly; in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, most, replace=False))


def _static(log: Log, cut: int) -> list[Asking]:
    """One question at the cut for each user with an interaction before it, for all that is liked after it."""
    known = set(log.users[:cut].tolist())
    later: dict[int, list[str]] = {}
    for n in range(cut, len(log)):
        if log.liked[n] and int(log.users[n]) in known:
            later.setdefault(int(log.users[n]), []).append(log.item_ids[int(log.items[n])])
    return [Asking(user, int(log.at[cut]) - 1, tuple(items)) for user, items in sorted(later.items())]


def _sizes(cascade: Cascade) -> dict[str, float]:
    """Megabytes of the parameters."""
    links, graph = cascade.recall.item_to_item.weights, cascade.recall.lightgcn
    i2i, gcn = megabytes(links.data, links.indices, links.indptr), megabytes(graph.items, graph.degrees)
    din = megabytes(*cascade.din.weights.values(), cascade.vectors, cascade.taste.items)
    top = sum(
        len(part.booster.model_to_string()) / 1e6 if isinstance(part, LambdaRank) else megabytes(*part.weights.values())
        for part in bundle.parts(cascade.reranker)
    )
    return {
        f"recall: {SOURCES[0]}": i2i,
        f"recall: {SOURCES[3]}": gcn,
        RANKED: i2i + gcn + din,
        WHOLE: i2i + gcn + din + top,
    }
