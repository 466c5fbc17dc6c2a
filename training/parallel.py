"""The same training loops on several processes, of one machine or of a Ray cluster.

Each process runs the whole loop with the same seeds, but takes only its part of every batch; what the parts say of the
parameters is added up before each step, so the steps are those of one process up to rounding. Ray Train (optional:
`pip install 'freshet[cluster]'`) starts the processes, where `RAY_ADDRESS` says or here; torch adds up.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Batch = TypeVar("Batch", Tensor, Sequence[Any])
Fitted = TypeVar("Fitted")


class NoCluster(RuntimeError):
    """Several processes were asked for, and Ray is not installed or did not get through."""


def part(batch: Batch) -> Batch:
    """What of a batch is this process' to look at; all of it where there is one process."""
    if not distributed.is_initialized():
        return batch
    return batch[distributed.get_rank() :: distributed.get_world_size()]


def add_up(parameters: Iterable[Tensor]) -> None:
    """Make the gradients those of the whole batch, where each process has those of a sum over its part."""
    if distributed.is_initialized():
        for parameter in parameters:
            if parameter.grad is None:  # its part was empty
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


@dataclass(frozen=True)
class Crew:
    """So many processes. `folder` is for Ray's own records of a run."""

    workers: int = 1
    folder: Path = Path()

    def fit(self, loop: Callable[[], Fitted]) -> Fitted:
        """Run a training loop in all of them at once; what the first gives. Raises `NoCluster`.

        The loop and what it gives travel between the processes as Ray sends them, by pickle, inside the cluster.
        """
        return loop() if self.workers == 1 else _across(self.workers, self.folder, loop)


ALONE = Crew()


def _across(workers: int, folder: Path, loop: Callable[[], Fitted]) -> Fitted:
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise NoCluster("training on several workers needs Ray: pip install 'freshet[cluster]'") from error

    @ray.remote(num_cpus=0)
    class Box:
        """Holds what the first process gives."""

        def put(self, held: Fitted) -> None:
            self.held = held

        def get(self) -> Fitted:
            return self.held

    def work(given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        fitted = ray.get(given["loop"])()
        if distributed.get_rank() == 0:
            ray.get(given["box"].put.remote(fitted))

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        ray.init(include_dashboard=False, log_to_driver=False)
        box, threads = Box.remote(), max(1, torch.get_num_threads() // workers)  # type: ignore[attr-defined]
        trainer = TorchTrainer(
            work,
            train_loop_config={"loop": ray.put(loop), "box": box, "threads": threads},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(storage_path=str(folder)),
        )
        trainer.fit()
        fitted: Fitted = ray.get(box.get.remote())
        return fitted
    except Exception as error:
        raise NoCluster(f"training on {workers} workers failed: {error}") from error
    finally:
        ray.shutdown()
