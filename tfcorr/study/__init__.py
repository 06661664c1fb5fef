"""Studies: tables of systems by data sets, every cell of which is trained once, wherever and however often it is
begun."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.console import Console

from tfcorr.apart import Apart
from tfcorr.console import plain_console
from tfcorr.data.sources import load
from tfcorr.files import locked, read_intact, remove_whole
from tfcorr.settings import InputError
from tfcorr.study.first_stage import PREFIX, has_first_stage, shared_folder
from tfcorr.study.plan import Task, cost, left, tasks
from tfcorr.study.records import Record, Records, packed
from tfcorr.study.settings import Study, load_study
from tfcorr.study.tables import write_tables
from tfcorr.towers.own import own_files

RECORDS = "cells.json"
RESULT = "result.json"  # what a cell's process leaves in its run's folder


def run_study(
    path: str | Path,
    overrides: Sequence[str] = (),
    processes: int = 1,
    root: Path = Path("saved_models"),
    console: Console | None = None,
) -> Path:
    """Trains what of a study is not done yet, the cheapest first, and writes its tables and figure; returns the tables'
    path.

    Every cell that is done stands in `cells.json` beside the tables, which is written anew after each: killed, or taken
    to another machine with that file, the study goes on from there. A cell that was begun goes on from its last epoch,
    in `root`.

    Args: processes, how many cells are trained at once, each by its share of the processor's cores.
    Raises: InputError, also where a cell could not be trained, once all others are.
    """
    study, folder = load_study(path, overrides), Path(root) / "study"
    output, console = study.settings.output, console or plain_console()
    with locked(folder / ".lock", others_wait=False), locked(output / ".lock", others_wait=False):
        records = Records(output / RECORDS)
        work = _Work(study, records, folder, processes, console, [str(path), *overrides])
        problems = work.go_on()
        table = work.write()
    if problems:
        raise InputError(f"{table}: {left(study, records)} cells are not done: {'; '.join(problems)}")
    return table


@dataclass(frozen=True)
class _Work:
    """The training of a study's cells; `command` is the study's file and the overrides."""

    study: Study
    records: Records
    root: Path
    processes: int
    console: Console
    command: list[str]

    def go_on(self) -> list[str]:
        """Trains until nothing is left that can be; returns what went wrong."""
        self._tidy()
        sizes, problems = self._sizes()
        running: list[tuple[Task, Apart]] = []
        given_up: set[str] = set()
        self._say(
            f"{left(self.study, self.records)} cells are left, {len(self.records.all())} stand in "
            f"{self.records.path}; logs in {self.root}"
        )
        try:
            while True:
                busy = {task.cell.key for task, _ in running} | given_up
                free = [
                    task
                    for task in tasks(self.study, self.records)
                    if task.cell.dataset in sizes and task.cell.key not in busy
                ]
                free.sort(key=lambda task: cost(task.cell, self.records, sizes))
                while free and len(running) < self.processes:
                    at_work = {self._first_stage(each) for each, _ in running} - {None}
                    task = next(
                        (each for each in free if self._first_stage(each) not in at_work), free[0]
                    )  # one that need not wait
                    free.remove(task)
                    running.append((task, self._begin(task)))
                if not running:
                    self._tidy()
                    return problems
                task, apart = next(each for each in cycle(running) if each[1].has_ended(1 / len(running)))
                running.remove((task, apart))
                apart.end()
                try:
                    self._keep(task, apart, sizes)
                except InputError as error:
                    given_up.add(task.cell.key)
                    problems.append(f"{task.what}: {error} (its log is {self._log(task)})")
                    self._say(problems[-1])
        finally:
            for _, apart in running:
                apart.end()

    def write(self) -> Path:
        """Writes the tables of what is done."""
        return write_tables(self.study, self.records, self.study.settings.output, self.command)

    def _tidy(self) -> None:
        """Removes the runs of cells that are done, the locks of trainings, and what a kill left half removed."""
        again = {
            task.cell.key for task in tasks(self.study, self.records)
        }  # done, but not measured as is asked for now
        done = {record.key for record in self.records.all()} - again
        for path in self.root.iterdir():
            unused = path.name.startswith("." if again else (".", PREFIX))
            if path.is_dir() and (path.name in done or unused):
                shutil.rmtree(path)
            elif path.name.endswith(".training.lock"):
                path.unlink()

    def _sizes(self) -> tuple[dict[str, int], list[str]]:
        """The interactions of the data sets that can be read, and why others cannot. Raises: InputError for other data
        than were."""
        sizes, problems = {}, []
        for name in dict.fromkeys(task.cell.dataset for task in tasks(self.study, self.records)):
            try:
                data = load(self.study.example(name).settings.data)
            except InputError as error:
                problems.append(f"{name}: {error}")
                continue
            self.records.check(self.study.example(name), data.checksum)
            sizes[name] = len(data.histories.items)
        return sizes, problems

    def _first_stage(self, task: Task) -> Path | None:
        """Where the cell's first stage will be kept, if it has one that is not trained yet."""
        folder = shared_folder(self.root, task.cell.settings)
        return folder if has_first_stage(task.cell.settings) and not folder.exists() else None

    def _log(self, task: Task) -> Path:
        return self.root / f"{task.cell.key}.log"

    def _begin(self, task: Task) -> Apart:
        """Begins to train a cell in a process of its own."""
        settings = task.cell.settings.model_copy(update={"name": task.cell.key}).model_dump(mode="json")
        job = {"settings": settings, "root": str(self.root), "ranker_alone": task.ranker_alone, "towers": own_files()}
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.processes))
        environment = {
            name: os.environ.get(name, threads) for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        }
        self._say(f"begins: {task.what}")
        return Apart("tfcorr.study.worker", job, self._log(task), environment if self.processes > 1 else None)

    def _keep(self, task: Task, apart: Apart, sizes: dict[str, int]) -> None:
        """Keeps what came of a cell. Raises: InputError if it could not be trained; that it diverged is a result."""
        apart.outcome()
        cell, folder = task.cell, self.root / task.cell.key
        result = read_intact(folder / RESULT, lambda path: json.loads(path.read_text()))
        ranks = {stage: packed(np.array(values)) for stage, values in result.pop("ranks").items()}
        result["sizes"]["interactions"] = sizes[cell.dataset]
        record = Record.parse(
            {"key": cell.key, "dataset": cell.dataset, "settings": cell.explicit, **result, "ranks": ranks}
        )
        self.records.check(cell, record.data_sha256)
        self.records.add(record)
        remove_whole(folder)
        self._log(task).unlink()
        self.write()
        stages = ("retriever", "cascade") if record.validation else ()
        values = ", ".join(f"{stage} {record.validation[f'{stage}_ndcg@20']:.4f}" for stage in stages)
        said = record.failed or f"ndcg@20 on validation: {values}; {record.epochs} epochs"
        self._say(f"ends: {task.what}: {said}, {record.cpu_seconds / 60:.1f} CPU-minutes")
        remaining = left(self.study, self.records, sizes)
        guesses = [
            cost(each.cell, self.records, sizes)
            for each in tasks(self.study, self.records)
            if each.cell.dataset in sizes
        ]
        hours = remaining * sum(guesses) / len(guesses) / self.processes / 3600 if guesses else 0
        self._say(
            f"{remaining} cells are left" + (f", about {hours:.1f} hours at a core for each process" if hours else "")
        )

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)
