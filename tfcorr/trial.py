"""One trial of a search, trained in a process of its own."""

import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from tfcorr.apart import Apart, job_of_parent
from tfcorr.files import locked
from tfcorr.settings import InputError

GRACE = (
    3  # epochs that every trial has, and trials that there must be beside it, before it may be stopped as a poor one
)


@dataclass(frozen=True)
class Job:
    """What a trial's process is told: the settings by their origin, where the run lands, and what is to be
    maximised."""

    pipeline: str
    overrides: list[str]
    root: str
    name: str
    objective: str
    stops: bool  # whether it is stopped as soon as it is a poor one
    towers: list[str]  # the files of towers that are not tfcorr's own

    @property
    def folder(self) -> Path:
        """The run's."""
        return Path(self.root) / self.name


def train_apart(job: Job) -> None:
    """Trains a job in a new process; what it prints goes to a log beside the run. Raises: InputError, with its last
    words, if it failed."""
    work = Apart(__name__, asdict(job), job.folder.with_name(f"{job.name}.log"))
    try:
        work.has_ended()
    finally:
        work.end()
    work.outcome()


def is_poor(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial's best so far is below the median of the others' by the same epoch: Vizier's median rule
    (KDD'17), on bests.

    Each is an objective by epoch; never within the first epochs, nor beside too few others.
    """
    if len(curve) < GRACE:
        return False
    bests = [max(other[: len(curve)]) for other in others if other]
    return len(bests) >= GRACE and max(curve) < statistics.median(bests)


def curve_of(folder: Path, objective: str, stage: str) -> list[float]:
    """A run's objective by epoch of a stage; empty before there is any, and where the file is damaged."""
    with suppress(pl.exceptions.PolarsError, OSError):
        table = pl.read_csv(folder / "history.csv")
        if objective in table.columns:
            return table.filter(pl.col("stage") == stage)[objective].drop_nulls().to_list()
    return []


def is_poor_by_now(job: Job, stage: str) -> bool:
    """Whether a job's run is to be stopped in its last stage, by what it and the other trials have come to in
    theirs."""
    others = [path.parent for path in Path(job.root).glob("*/history.csv") if path.parent != job.folder]
    return is_poor(
        curve_of(job.folder, job.objective, stage), [curve_of(other, job.objective, stage) for other in others]
    )


def _train(job: Job) -> None:
    import tensorflow as tf
    from rich.console import Console

    from tfcorr import runs
    from tfcorr.config import load_settings
    from tfcorr.stages import LAST_STAGE
    from tfcorr.towers.own import register_own

    class MedianRule(tf.keras.callbacks.Callback):
        """Stops a poor trial."""

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            """After each epoch."""
            self.model.stop_training |= is_poor_by_now(job, last)

    register_own(job.towers)
    settings = load_settings(job.pipeline, job.overrides, job.name)
    last = LAST_STAGE[settings.training.method]
    if job.stops and is_poor_by_now(job, last):
        return  # it was stopped, and its search before it could say so
    runs.train(
        settings,
        Path(job.root),
        Console(width=140),
        resume=job.folder.exists(),
        callbacks=[MedianRule()] if job.stops else [],
    )


if __name__ == "__main__":
    job = Job(**job_of_parent())
    try:
        with locked(Path(job.root) / f".{job.name}.lock"):
            _train(job)
    except InputError as error:
        sys.exit(f"error: {error}")
