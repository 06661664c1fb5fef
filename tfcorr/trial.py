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
    with log.open("a") as output:
        begins = output.tell()
        process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=output, stderr=output, bufsize=0)
        assert process.stdin
        with process, process.stdin:  # which stays open for as long as this process lives
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            code = process.wait()
    if code == 0:
        return
    said = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines()
    if code < 0:
        said.append(f"ended by {signal.Signals(-code).name}" + (", as where memory runs out" if -code == signal.SIGKILL else ""))
    raise InputError((said or [f"ended with exit code {code}"])[-1].removeprefix("error: "))


def is_poor(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial's best so far is below the median of the others' by the same epoch: Vizier's median rule (KDD'17), on bests.

    Each is an objective by epoch; never within the first epochs, nor beside too few others.
    """
    epoch = len(curve)
    bests = [max(other[:epoch]) for other in others if other]
    return epoch >= GRACE and len(bests) >= GRACE and max(curve) < statistics.median(bests)


def curve_of(folder: Path, objective: str) -> list[float]:
    """A run's objective by epoch, of the stage that was the last to measure it; empty before there is any."""
    path = folder / "history.csv"
    table = pl.read_csv(path) if path.is_file() else pl.DataFrame()
    if objective not in table.columns:
        return []
    measured = table.filter(pl.col(objective).is_not_null())
    return measured.filter(pl.col("stage") == pl.col("stage").last())[objective].to_list()


def _train(job: Job) -> None:
    import tensorflow as tf
    from rich.console import Console

    from tfcorr import runs
    from tfcorr.config import load_settings

    class MedianRule(tf.keras.callbacks.Callback):
        """Stops a poor trial."""

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            """After each epoch."""
            others = [path.parent for path in Path(job.root).glob("*/history.csv") if path.parent != job.folder]
            if is_poor(curve_of(job.folder, job.objective), [curve_of(other, job.objective) for other in others]):
                self.model.stop_training = True

    for path in job.towers:
        sys.path.insert(0, str(Path(path).parent))
        runpy.run_path(path)
    settings = load_settings(job.pipeline, job.overrides, job.name)
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
