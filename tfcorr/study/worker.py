"""One cell of a study, trained and measured in a process of its own: python -m tfcorr.study.worker."""

import json
import os
import platform
import resource
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import tensorflow as tf
from rich.console import Console

from tfcorr import runs
from tfcorr.apart import job_of_parent
from tfcorr.config import RunSettings, load_settings
from tfcorr.evaluation.compare import rank_column, read_ranks
from tfcorr.files import read_intact, remove_whole, write_whole
from tfcorr.history import best_epoch
from tfcorr.settings import InputError
from tfcorr.study import RESULT
from tfcorr.study.first_stage import SHARED_CPU, FirstStage, has_first_stage, is_of
from tfcorr.towers.own import register_own
from tfcorr.training import Diverged

CPU = "cpu.json"
VERSIONS = ("tfcorr", "tensorflow", "python")


class CpuClock(tf.keras.callbacks.Callback):
    """Keeps the CPU time of a run beside it, that of processes which were killed included but for their last epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / CPU
        self.before = (
            read_intact(self.path, lambda path: float(json.loads(path.read_text()))) if self.path.exists() else 0.0
        )

    @property
    def seconds(self) -> float:
        """So far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return self.before + used.ru_utime + used.ru_stime

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """After each epoch."""
        write_whole(self.path, lambda path: path.write_text(json.dumps(self.seconds)))


def machine() -> str:
    """The processor's name, and how many cores it has for us."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    )


def measure(settings: RunSettings, root: Path, ranker_alone: bool) -> None:
    """Trains, goes on with what was begun, and leaves what is to be recorded of it as result.json in the run's
    folder."""
    folder = root / settings.name
    if folder.exists() and not can_go_on(folder, settings):
        remove_whole(folder)
    failed = None
    with FirstStage(folder, settings) if has_first_stage(settings) else nullcontext() as first_stage:
        clock = CpuClock(folder)
        callbacks = [clock, first_stage] if first_stage else [clock]
        try:
            run = runs.train(settings, root, Console(width=140), resume=folder.exists(), callbacks=callbacks)
        except Diverged as error:
            failed = str(error)
    provenance = json.loads((folder / "provenance.json").read_text())
    users, items = (pl.read_parquet(folder / f"{name}.parquet").height for name in ("users", "catalogue"))
    result: dict[str, Any] = {
        "failed": failed,
        "data_sha256": provenance.pop("data_sha256"),
        "sizes": {"users": users, "items": items},
        "epochs": pl.read_csv(folder / "history.csv").height if (folder / "history.csv").exists() else 0,
        "machine": machine(),
        "versions": {name: provenance[name] for name in VERSIONS},
        "ranks": {},
    }
    if failed is None:
        found = runs.evaluate(run, ranker_alone=ranker_alone)
        table = read_ranks(folder)
        result |= {
            "validation": _rounded(best_epoch(folder)),
            "test": {stage: _rounded(each) for stage, each in found.metrics.items()},
            "ranks": {stage: rank_column(table, stage).tolist() for stage in found.metrics},
        }
    shared = folder / SHARED_CPU
    result["cpu_seconds"] = round(clock.seconds, 1)
    result["shared_cpu_seconds"] = round(json.loads(shared.read_text()), 1) if shared.exists() else 0.0
    write_whole(folder / RESULT, lambda path: path.write_text(json.dumps(result)))


def can_go_on(folder: Path, settings: RunSettings) -> bool:
    """Whether what a killed process left is of the very same settings, data and version."""
    try:
        same = load_settings(folder / "settings.yaml") == settings
    except InputError:
        return False
    return same and is_of(folder, settings)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in metrics.items()}


if __name__ == "__main__":
    job = job_of_parent()
    register_own(job["towers"])
    try:
        measure(RunSettings.parse(job["settings"]), Path(job["root"]), job["ranker_alone"])
    except InputError as error:
        sys.exit(f"error: {error}")
