"""A study's tables in Markdown and its figure, of the cells that are done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfcorr.evaluation.compare import Difference, paired_test
from tfcorr.evaluation.metrics import METRICS
from tfcorr.files import write_whole
from tfcorr.study.figure import draw
from tfcorr.study.plan import chosen, seeds_done
from tfcorr.study.records import TOP, Record, Records, unpacked
from tfcorr.study.settings import Study

METRIC = f"ndcg@{TOP}"


@dataclass(frozen=True)
class Row:
    """What came of a system on a data set: the records of its seeds, by the choice that was best on validation."""

    system: str
    stage: str
    records: list[Record]

    def values(self, metric: str, stage: str | None = None) -> list[float]:
        """A metric on test by seed."""
        return [each.test[stage or self.stage][metric] for each in self.records]

    @cached_property
    def by_user(self) -> npt.NDArray[np.float64]:
        """Every user's NDCG@20, the mean over seeds: [users]."""
        return np.mean([METRICS["ndcg"](unpacked(each.ranks[self.stage]), TOP) for each in self.records], axis=0)


def rows_of(study: Study, records: Records, dataset: str) -> list[Row]:
    """A data set's rows, in the order of the file."""
    systems = [system for each, system in study.rows() if each == dataset]
    return [Row(system, study.settings.systems[system].stage, seeds_done(study, records, dataset, system)) for system in systems]


def against(study: Study, system: str) -> str | None:
    """The name of the system that this one is compared with."""
    return study.settings.systems[system].against or study.settings.against


def difference(study: Study, rows: Sequence[Row], row: Row) -> Difference | None:
    """A row against the one that it is compared with; None where there is none, or one of them is not done."""
    other = next((each for each in rows if each.system == against(study, row.system)), None)
    if other is None or other is row or not (row.records and other.records):
        return None
    return paired_test(row.stage, METRIC, row.by_user, other.by_user)


def write_tables(study: Study, records: Records, output: Path, origin: str) -> Path:
    """Writes the tables and, once there is something to draw, the figure beside them; returns the tables' path."""
    settings = study.settings
    rows = {dataset: rows_of(study, records, dataset) for dataset in study.datasets}
    drawn = any(row.records for each in rows.values() for row in each)
    parts = [f"# {settings.title}", settings.about.strip()]
    if drawn:
        image = output / f"{settings.name}.png"
        write_whole(image, lambda path: draw(study, rows, path))
        parts.append(f"![{settings.title}: NDCG@{TOP} on test]({image.name})")
    for dataset, each in rows.items():
        parts += [f"## {dataset}", "\n".join(_table(study, dataset, each)), "\n".join(_caption(study, records, dataset, each, origin))]
    path = output / f"{settings.name}.md"
    write_whole(path, lambda partial: partial.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8"))
    return path


def _table(study: Study, dataset: str, rows: Sequence[Row]) -> Iterator[str]:
    paper = study.settings.paper.get(dataset, {})
    ceiling = next((name for row in rows for each in row.records for name in each.test["retriever"] if _is_ceiling(name)), "recall@500")
    head = ["", f"NDCG@{TOP}", f"Recall@{TOP}", f"MRR@{TOP}", f"NDCG@{TOP} of its retriever", f"{ceiling.capitalize()} of its retriever"]
    head += ["NDCG@20 against", "change", "p", *(["the paper"] if paper else [])]
    yield _line(head)
    yield _line(["---"] * len(head))
    for row in rows:
        of_retriever = "" if row.stage == "retriever" else _mean(row.values(METRIC, "retriever"))
        cells = [row.system, *(_mean(row.values(f"{metric}@{TOP}")) for metric in ("ndcg", "recall", "mrr")), of_retriever]
        cells.append(_mean(row.values(ceiling, "retriever")))
        found = difference(study, rows, row)
        cells += ["", "", ""] if found is None else [against(study, row.system) or "", _change(found), _p(found.p_value)]
        yield _line([*cells, *([paper.get(row.system, "")] if paper else [])])


def _caption(study: Study, records: Records, dataset: str, rows: Sequence[Row], origin: str) -> Iterator[str]:
    settings = study.settings
    tried = _tried(study, records, dataset)
    done = list(tried.values())
    if not done:
        yield "No cell is done yet."
        return
    sizes, system = done[0].sizes, next(system for each, system in study.rows() if each == dataset)
    run = study.cell(dataset, system, next(iter(settings.search)), settings.seeds[0]).settings
    seen = "left out" if run.evaluation.exclude_seen else "candidates too"
    seeds = ", ".join(map(str, settings.seeds))
    yield (
        f"- Data: {sizes['users']:,} users, {sizes['items']:,} items, {sizes['interactions']:,} interactions (each at least "
        f"{run.data.min_interactions} times); SHA-256 {done[0].data_sha256[:12]}…"
    )
    yield (
        f"- Protocol: leave one out, all items ranked, items of the history are {seen}; the cascade retrieves {run.evaluation.retrieve}. "
        f"Training stops after {run.training.patience} epochs without a better NDCG@20 on validation, or after {run.training.epochs}."
    )
    yield (
        f"- Mean ± standard deviation of seeds {seeds}" + _short(rows, len(settings.seeds)) + "; change and p (a paired t-test) are of the "
        "users' means over seeds, in brackets the 95% interval."
    )
    if len(settings.search) > 1:
        choices = _choices(study, records, dataset)
        yield f"- Chosen of {len(settings.search)} settings on validation, with seed {settings.seeds[0]}: {choices}."
    failed = [f"{what}: {each.failed}" for what, each in tried.items() if each.failed]
    if failed:
        yield f"- Failed: {'; '.join(failed)}."
    machines = ", ".join(dict.fromkeys(each.machine for each in done if each.machine))
    yield f"- {sum(each.cpu_seconds for each in done) / 3600:.1f} CPU hours for {len(done)} trainings, on {machines}."
    path = f" --set datasets.{dataset}.data.path=FILE" if run.data.path is not None else ""
    yield f"- Command: `tfcorr study {origin}{path}`"


def _tried(study: Study, records: Records, dataset: str) -> dict[str, Record]:
    """The study's own records by what they are, those that systems share once."""
    found: dict[str, tuple[str, Record]] = {}
    for each, system in study.rows():
        for point, seed in product(study.settings.search, study.settings.seeds):
            record = records.of(study.cell(each, system, point, seed)) if each == dataset else None
            if record:
                found.setdefault(record.key, (f"{system}, {point}, seed {seed}", record))
    return dict(found.values())


def _choices(study: Study, records: Records, dataset: str) -> str:
    by_point: dict[str, list[str]] = {}
    for each, system in study.rows():
        point = chosen(study, records, dataset, system) if each == dataset else None
        if point is not None:
            by_point.setdefault(point, []).append(system)
    return "; ".join(f"{point} for {', '.join(systems)}" for point, systems in sorted(by_point.items())) or "none yet"


def _short(rows: Sequence[Row], seeds: int) -> str:
    """Which rows have fewer seeds, in words."""
    fewer = [f"{row.system} has {len(row.records)}" for row in rows if 0 < len(row.records) < seeds]
    return f" ({', '.join(fewer)})" if fewer else ""


def _is_ceiling(metric: str) -> bool:
    name, _, k = metric.partition("@")
    return name == "recall" and int(k) > TOP


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _change(found: Difference) -> str:
    change, low, high = (100 * value / found.second for value in (found.difference, found.low, found.high))
    return f"{change:+.1f}% ({low:+.1f} to {high:+.1f})"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
