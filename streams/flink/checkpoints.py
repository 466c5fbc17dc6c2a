"""Flink's checkpoints as they lie on disk, for a job that was killed and is started again by whoever supervises it."""

from pathlib import Path


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint: its metadata appears at once, when all of it is there.

    Each start of the job has a folder of its own, and takes up the numbers where the one before left them.
    """
    found = [(int(file.parent.name.removeprefix("chk-")), file.parent) for file in folder.glob("*/chk-*/_metadata")]
    return max(found, default=(0, None))[1]
