"""What of a study is still to be done, and how long that may take."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median

from tfcorr.study.records import Record, Records
from tfcorr.study.settings import Cell, Study


@dataclass(frozen=True)
class Task:
    """A cell to train; `ranker_alone` says whether its ranker is also measured over all items, `what` names it for
    people."""

    cell: Cell
    ranker_alone: bool
    what: str


def tasks(study: Study, records: Records) -> list[Task]:
    """What can be trained now, in the order of the file: each system's search, and once that is done its other seeds.

    A ranker is measured over all items, which may take longer than its training, by every choice that a search still
    trains; once it is done, the best is trained again if it was not.
    """
    found: dict[str, Task] = {}
    first, *others = study.settings.seeds
    for dataset, system in study.rows():
        best = chosen(study, records, dataset, system)
        wanted = [(point, first) for point in study.settings.search] + [
            (best, seed) for seed in others if best is not None
        ]
        for point, seed in wanted:
            cell = study.cell(dataset, system, point, seed)
            alone = study.settings.systems[system].stage == "ranker_alone" and (
                best == point or (best is None and not records.has(cell.key))
            )
            alone = alone or (cell.key in found and found[cell.key].ranker_alone)
            if not _is_done(records.of(cell), alone):
                found[cell.key] = Task(cell, alone, f"{dataset}, {system}, {point}, seed {seed}")
    return list(found.values())


def chosen(study: Study, records: Records, dataset: str, system: str) -> str | None:
    """The search's choice that is best on validation; None before all have been tried, or if all failed."""
    points, first = study.settings.search, study.settings.seeds[0]
    tried = {point: records.of(study.cell(dataset, system, point, first)) for point in points}
    values = {
        point: record.validation[study.objective(system)]
        for point, record in tried.items()
        if record and not record.failed
    }
    if not values or not all(tried.values()):
        return None
    return max(values, key=lambda point: values[point])


def seeds_done(study: Study, records: Records, dataset: str, system: str) -> dict[int, Record]:
    """A system's records by seed, of those that are done and did not fail, by the search's choice."""
    point = chosen(study, records, dataset, system)
    if point is None:
        return {}
    found = {seed: records.of(study.cell(dataset, system, point, seed)) for seed in study.settings.seeds}
    return {seed: each for seed, each in found.items() if each and study.settings.systems[system].stage in each.test}


def left(study: Study, records: Records, datasets: Collection[str] | None = None) -> int:
    """How many cells of these data sets, or of all, are still to be done, those included that wait for a search."""
    waiting: set[frozenset[str]] = (
        set()
    )  # as keys of the cells that a search chooses from, for systems that share theirs
    of_these = study.datasets if datasets is None else datasets
    for dataset, system in study.rows():
        keys = frozenset(
            study.cell(dataset, system, point, study.settings.seeds[0]).key for point in study.settings.search
        )
        if dataset in of_these and not all(map(records.has, keys)):
            waiting |= {keys | {str(seed)} for seed in study.settings.seeds[1:]}
    return len([task for task in tasks(study, records) if task.cell.dataset in of_these]) + len(waiting)


def cost(cell: Cell, records: Records, sizes: Mapping[str, int]) -> float:
    """CPU seconds that a cell may take, by what others took an interaction: those of its kind if there are any.

    Its kind is its towers and its training. sizes are the data sets' interactions.
    """
    known = [each for each in records.all() if not each.failed]
    alike = [each for each in known if _kind(each.settings) == _kind(cell.explicit)]
    nearest = [each for each in alike if each.dataset == cell.dataset] or alike or known
    return sizes[cell.dataset] * median(
        [(each.cpu_seconds - each.shared_cpu_seconds) / each.sizes["interactions"] for each in nearest] or [1e-3]
    )


def _kind(settings: dict[str, object]) -> tuple[object, ...]:
    return tuple(settings.get(name) for name in ("retriever.name", "ranker.name", "ranker.dim", "training.method"))


def _is_done(record: Record | None, ranker_alone: bool) -> bool:
    return record is not None and (bool(record.failed) or not ranker_alone or "ranker_alone" in record.ranks)
