"""The report of one run, or of several side by side: opens them, measures what they recommend, and writes the page."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfcorr.config import check_sizes, flat
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.dataset import Dataset
from tfcorr.data.sources import load
from tfcorr.evaluation.compare import compare, how_measured, rank_column, read_ranks
from tfcorr.evaluation.index import IndexKind
from tfcorr.evaluation.report.history import read_history
from tfcorr.evaluation.report.lists import recommend_users
from tfcorr.evaluation.report.measured import Measured
from tfcorr.evaluation.report.write import check_replaceable, write_report
from tfcorr.evaluation.style import LOOKS
from tfcorr.files import read_intact
from tfcorr.runs import cascade_of, check_data, open_run
from tfcorr.settings import InputError


def report(folders: Sequence[Path], output: Path | None = None, k: int = 20) -> Path:
    """Writes a page and figures of the runs, each evaluated before; returns the page's path.

    The first run is the one that others are compared with. By default they land in `report/` in its folder, in place of
    an earlier report. `k` is the cut-off of the metrics and the length of the lists.

    Raises: InputError if a run was not evaluated or is damaged, if runs were not measured on the same users and targets
    in the same way, or if there is something else where the report is to stand.
    """
    folders = [Path(folder) for folder in folders]
    if not 1 <= len(folders) <= len(LOOKS):
        raise InputError(
            f"{len(folders)} runs: a report is of 1 to {len(LOOKS)}, which is how many can be told apart; leave "
            "some out"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"{', '.join(map(str, folders))}: a run is given twice; give each once")
    target = (output or folders[0] / "report").resolve()
    check_replaceable(target)
    for folder in folders:
        read_ranks(folder)
    first, *others = folders
    differences = [compare([other], [first], k) for other in others]
    names = [folder.resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    datasets: dict[str, Dataset] = {}  # by checksum: runs of the same data read them once
    return write_report(
        [_measure(*each, k, datasets) for each in zip(folders, labels, strict=True)], differences, k, target
    )


def _provenance(path: Path) -> dict[str, str]:
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not isinstance(found.get("data_sha256"), str):
        raise ValueError("it names no data")
    return found


def _measure(folder: Path, label: str, k: int, datasets: dict[str, Dataset]) -> Measured:
    """Reads what a run has measured, and runs its cascade once over all test users. Raises: InputError."""
    run, how = open_run(folder), how_measured(folder)
    provenance = read_intact(folder / "provenance.json", _provenance)
    evaluation, checksum = run.settings.evaluation, provenance["data_sha256"]
    if checksum not in datasets:
        datasets[checksum] = load(run.settings.data, run.features)
        check_data(run, datasets[checksum])
    dataset = datasets[checksum]
    said = how["retrieve"] or ""
    retrieve = int(said) if said.isdecimal() else evaluation.retrieve
    index: IndexKind = "scann" if how["index"] == "scann" else "exact"
    check_sizes(run.settings.sizes(retrieve), [k])
    cascade = cascade_of(run, index, retrieve)
    batches = evaluation_batches(
        dataset.histories, "test", run.settings.history_length, evaluation.batch_size, dataset.features
    )
    lists = recommend_users(cascade, batches, evaluation.exclude_seen, k)
    table, places = read_ranks(folder), dataset.histories.targets("test")
    users = np.array(dataset.histories.users)[dataset.histories.owners(places)]
    order = np.argsort(users, kind="stable")  # as the table's
    targets = dataset.histories.items[places][order]
    ids = [dataset.catalogue.ids[item - 1] for item in targets]
    if (table["user"].to_list(), table["target"].to_list()) != (users[order].tolist(), ids):
        raise InputError(
            f"{folder}: its ranks.parquet is of other data than the run's; make it anew with: tfcorr evaluate {folder}"
        )
    for stage, most in zip(
        cascade.stages, [cascade.sizes[0], *cascade.sizes, cascade.sizes[-1]], strict=True
    ):  # how many each ranks
        if (table[stage] > most).any():
            raise InputError(
                f"{folder}: its ranks.parquet has ranks beyond {most} in {stage}; make it anew with: tfcorr "
                f"evaluate {folder}"
            )
    stages = [name for name in table.columns if name not in ("user", "target")]
    return Measured(
        label=label,
        folder=folder,
        settings=flat(run.settings.model_dump(mode="json"))
        | {f"made with {name}": value for name, value in provenance.items()},
        history=read_history(folder / "history.csv"),
        ranks={stage: rank_column(table, stage) for stage in stages},
        handed_on=cascade.handed_on,
        index=index,
        lengths=(places - dataset.histories.starts(places))[order],
        targets=targets,
        lists={stage: each[order] for stage, each in lists.items()},
        counts=dataset.catalogue.counts,
    )
