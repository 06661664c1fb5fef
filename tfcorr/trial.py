"""One trial of a search, trained in a process of its own, so that one that dies takes nothing else with it."""

import json
import os
import runpy
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from tfcorr.files import locked
from tfcorr.settings import InputError

GRACE = 3  # epochs that every trial has, and trials that there must be beside it, before it may be stopped as a poor one


@dataclass(frozen=True)
class Job:
    """What a trial's process is told: the settings by their origin, where the run lands, and what is to be maximised."""

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
    """Trains a job in a new process, which ends when this one does; what it prints goes to a log beside the run.

    Raises: InputError, with its last words, if it failed.
    """
    log = job.folder.with_name(f"{job.name}.log")
    begins = log.stat().st_size if log.exists() else 0
    code = _run(job, log)
    if code == -signal.SIGSEGV:  # which TensorFlow may come to by chance; the run goes on from its last epoch
        code = _run(job, log)
    if code == 0:
        return
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    said = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines()
    if code < 0:
        said.append(f"ended by {signal.Signals(-code).name}" + (", as where memory runs out" if -code == signal.SIGKILL else ""))
    raise InputError((said or [f"ended with exit code {code}"])[-1].removeprefix("error: "))


def _run(job: Job, log: Path) -> int:
    with log.open("a") as output:
        process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=output, stderr=output, bufsize=0)
        assert process.stdin
        with process, process.stdin:  # which stays open for as long as this process lives
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            return process.wait()


def is_poor(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial's best so far is below the median of the others' by the same epoch: Vizier's median rule (KDD'17), on bests.

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
    """Whether a job's run is to be stopped in its last stage, by what it and the other trials have come to in theirs."""
    others = [path.parent for path in Path(job.root).glob("*/history.csv") if path.parent != job.folder]
    return is_poor(curve_of(job.folder, job.objective, stage), [curve_of(other, job.objective, stage) for other in others])


def _train(job: Job) -> None:
    import tensorflow as tf
    from rich.console import Console

    from tfcorr import runs
    from tfcorr.config import load_settings
    from tfcorr.stages import LAST_STAGE

    class MedianRule(tf.keras.callbacks.Callback):
        """Stops a poor trial."""

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            """After each epoch."""
            self.model.stop_training |= is_poor_by_now(job, last)

    for path in job.towers:
        sys.path.insert(0, str(Path(path).parent))
        runpy.run_path(path)
    settings = load_settings(job.pipeline, job.overrides, job.name)
    last = LAST_STAGE[settings.training.method]
    if job.stops and is_poor_by_now(job, last):
        return  # it was stopped, and its search before it could say so
    runs.train(settings, Path(job.root), Console(width=140), resume=job.folder.exists(), callbacks=[MedianRule()] if job.stops else [])


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed, however that came about
    os._exit(1)


if __name__ == "__main__":
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with locked(Path(job.root) / f".{job.name}.lock"):
            _train(job)
    except InputError as error:
        sys.exit(f"error: {error}")
