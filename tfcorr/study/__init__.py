"""Studies: tables of systems by data sets, every cell of which is trained once, wherever and however often it is begun."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from tfcorr.apart import run_apart
from tfcorr.data.sources import load
from tfcorr.files import locked, read_intact, remove_whole
from tfcorr.settings import InputError
from tfcorr.study.plan import Task, cost, left, tasks
from tfcorr.study.records import Record, Records, packed
from tfcorr.study.settings import Study, load_study
from tfcorr.study.tables import write_tables
from tfcorr.towers.own import own_files

RECORDS = "cells.json"
RESULT = "result.json"  # what a cell's process leaves in its run's folder


def run_study(
    path: str | Path, overrides: Sequence[str] = (), processes: int = 1, root: Path = Path("saved_models"), console: Console | None = None
) -> Path:
    """Trains what of a study is not done yet, the cheapest first, and writes its tables and figures; returns the tables' path.

    Every cell that is done stands in `cells.json` beside the tables, which is written anew after each: killed, or taken to
    another machine with that file, the study goes on from there. A cell that was begun goes on from its last epoch, in `root`.

    Args: processes, how many cells are trained at once, each by its share of the processor's cores.
    Raises: InputError, also where the data are not those of the cells that are done.
    """
    study = load_study(path, overrides)
    output = study.settings.output
    with locked(output / ".lock", others_wait=False):
        records = Records(output / RECORDS)
        work = _Work(study, records, root / "study", processes, console or Console())
        work.go_on(str(path))
        return write_tables(study, records, output, str(path))


@dataclass(frozen=True)
class _Work:
    """The training of a study's cells."""

    study: Study
    records: Records
    root: Path
    processes: int
    console: Console

    def go_on(self, origin: str) -> None:
        """Trains until nothing is left that can be."""
        here, given_up = self._sizes(), set[str]()
        with ThreadPoolExecutor(self.processes) as pool:
            running: dict[Future[Record], Task] = {}
            while True:
                busy = {task.cell.key for task in running.values()} | given_up
                free = [task for task in tasks(self.study, self.records) if task.cell.dataset in here and task.cell.key not in busy]
                free.sort(key=lambda task: cost(task.cell, self.records, here))
                for task in free[: self.processes - len(running)]:
                    self._say(f"begins: {task.what}")
                    running[pool.submit(self._train, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    try:
                        self._keep(future.result(), task, here)
                        write_tables(self.study, self.records, self.study.settings.output, origin)
                    except InputError as error:
                        given_up.add(task.cell.key)
                        self._say(f"{task.what}: {error}; the same command tries it again")

    def _sizes(self) -> dict[str, int]:
        """The interactions of the data sets that can be read. Raises: InputError if one is another than that of the cells done."""
        found = {}
        for name, settings in {task.cell.dataset: task.cell.settings.data for task in tasks(self.study, self.records)}.items():
            try:
                data = load(settings)
            except InputError as error:
                self._say(f"{name}: its cells are left as they are: {error}")
                continue
            checksum = data.checksum
            other = next((each for each in self.records.all() if each.dataset == name and each.data_sha256 not in ("", checksum)), None)
            if other:
                raise InputError(
                    f"{name}: the data's SHA-256 is {checksum[:12]}…, that of the cells in {self.records.path} {other.data_sha256[:12]}…; "
                    "bring those data back, or give the data set another name"
                )
            found[name] = len(data.histories.items)
        return found

    def _train(self, task: Task) -> Record:
        """Trains a cell in a process of its own. Raises: InputError if it could not; that it diverged is a result."""
        cell = task.cell
        settings = cell.settings.model_copy(update={"name": cell.key})
        job = {
            "settings": settings.model_dump(mode="json"),
            "root": str(self.root),
            "ranker_alone": task.ranker_alone,
            "towers": own_files(),
        }
        threads = str(max(1, (os.cpu_count() or 1) // self.processes))
        environment = {name: os.environ.get(name, threads) for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
        self.root.mkdir(parents=True, exist_ok=True)
        run_apart("tfcorr.study.worker", job, self.root / f"{cell.key}.log", environment if self.processes > 1 else None)
        result = read_intact(self.root / cell.key / RESULT, lambda path: json.loads(path.read_text()))
        ranks = {stage: packed(np.array(values)) for stage, values in result.pop("ranks", {}).items()}
        return Record.parse({"key": cell.key, "dataset": cell.dataset, "settings": cell.explicit, **result, "ranks": ranks})

    def _keep(self, record: Record, task: Task, here: dict[str, int]) -> None:
        self.records.add(record)
        remove_whole(self.root / record.key)
        values = ", ".join(
            f"{stage} {record.validation[f'{stage}_ndcg@20']:.4f}" for stage in ("retriever", "cascade") if record.validation
        )
        said = record.failed or f"ndcg@20 on validation: {values}; {record.epochs} epochs"
        self._say(f"ends: {task.what}: {said}, {record.cpu_seconds / 60:.1f} CPU-minutes")
        remaining = left(self.study, self.records, here)
        guesses = [cost(each.cell, self.records, here) for each in tasks(self.study, self.records) if each.cell.dataset in here]
        hours = f", about {remaining * sum(guesses) / len(guesses) / self.processes / 3600:.1f} hours" if guesses else ""
        self._say(f"{remaining} cells are left{hours}")

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)
