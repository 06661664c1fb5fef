"""A study's tables in Markdown and its figure, of the cells that are done."""

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path
from typing import NamedTuple

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
    records: dict[int, Record]

    def values(self, metric: str, stage: str | None = None) -> list[float]:
        """A metric on test by seed."""
        return [each.test[stage or self.stage][metric] for each in self.records.values()]

    def by_user(self, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
        """Every user's NDCG@20 by seed: [seeds, users]."""
        return np.array([METRICS["ndcg"](unpacked(self.records[seed].ranks[self.stage]), TOP) for seed in seeds])


class Comparison(NamedTuple):
    """A row against another: a paired test over users, of their means over seeds; and the two means over users by
    seed."""

    over_users: Difference
    by_seed: list[tuple[float, float]]
    p_over_seeds: float | None  # None of one seed


def rows_of(study: Study, records: Records, dataset: str) -> list[Row]:
    """A data set's rows, in the order of the file."""
    systems = [system for each, system in study.rows() if each == dataset]
    return [
        Row(system, study.settings.systems[system].stage, seeds_done(study, records, dataset, system))
        for system in systems
    ]


def comparison(study: Study, rows: Sequence[Row], row: Row) -> Comparison | None:
    """A row against the one that it is compared with, by the seeds that both have; None where there are none."""
    other = next((each for each in rows if each.system == study.against(row.system)), row)
    seeds = [seed for seed in row.records if seed in other.records]
    if other is row or not seeds:
        return None
    values, others = row.by_user(seeds), other.by_user(seeds)
    by_seed = values.mean(axis=1), others.mean(axis=1)
    over_users = paired_test(row.stage, METRIC, values.mean(axis=0), others.mean(axis=0))
    p_over_seeds = paired_test(row.stage, METRIC, *by_seed).p_value if len(seeds) > 1 else None
    return Comparison(over_users, list(zip(*np.array(by_seed).tolist(), strict=True)), p_over_seeds)


def write_tables(study: Study, records: Records, output: Path, command: Sequence[str]) -> Path:
    """Writes the tables and, once there is something to draw, the figure beside them; returns the tables' path.

    command is what the study was begun by: its file, and overrides.
    """
    settings = study.settings
    rows = {dataset: rows_of(study, records, dataset) for dataset in study.datasets}
    drawn = any(row.records for each in rows.values() for row in each)
    parts = [f"# {settings.title}", settings.about.strip()]
    if drawn:
        image = output / f"{settings.name}.png"
        write_whole(image, lambda path: draw(study, rows, path))
        parts.append(f"![{_escaped(settings.title)}: NDCG@{TOP} on test]({image.name})")
    for dataset, each in rows.items():
        caption = _caption(study, records, dataset, each, command)
        parts += [f"## {_escaped(dataset)}", "\n".join(_table(study, dataset, each)), "\n".join(map(_wrapped, caption))]
    path = output / f"{settings.name}.md"
    write_whole(
        path, lambda partial: partial.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    )
    return path


def _table(study: Study, dataset: str, rows: Sequence[Row]) -> Iterator[str]:
    paper = study.settings.paper.get(dataset, {})
    ceiling = f"recall@{study.example(dataset).settings.evaluation.retrieve}"
    columns = study.settings.columns
    head = ["", *map(_titled, columns), f"its retriever's {_titled(METRIC)}", _titled(ceiling)]
    head += [
        "against",
        f"{_titled(METRIC)} changes by",
        "p over users",
        "by seed",
        "p over seeds",
        *(["the paper"] if paper else []),
    ]
    yield _line(head)
    yield _line(["---"] * len(head))
    for row in rows:
        has_retriever = row.stage not in ("popularity", "transitions")
        of_retriever = _mean(row.values(METRIC, "retriever")) if has_retriever and row.stage != "retriever" else ""
        cells = [row.system, *(_mean(row.values(column)) for column in columns), of_retriever]
        cells.append(_mean(row.values(ceiling, "retriever")) if has_retriever else "")
        found = comparison(study, rows, row)
        cells += [""] * 5 if found is None else [study.against(row.system) or "", *_change(found)]
        yield _line([*cells, *([str(paper.get(row.system, ""))] if paper else [])])


def _caption(
    study: Study, records: Records, dataset: str, rows: Sequence[Row], command: Sequence[str]
) -> Iterator[str]:
    settings, run = study.settings, study.example(dataset).settings
    tried = _tried(study, records, dataset)
    done = list(tried.values())
    if not done:
        yield f"No cell is done yet. Command: {_command(study, dataset, command)}"
        return
    sizes, evaluation, training = done[0].sizes, run.evaluation, run.training
    yield (
        f"- Data: {sizes['users']:,} users, {sizes['items']:,} items, {sizes['interactions']:,} interactions (each "
        "at least "
        f"{run.data.min_interactions} times); SHA-256 {done[0].data_sha256[:12]}…"
    )
    seen = "left out" if evaluation.exclude_seen else "candidates too"
    measured = evaluation.validation_users
    some = f" of {measured:,} users" if measured and measured < sizes["users"] else ""
    by = f", by {training.min_delta:.2%} at least" if training.min_delta else ""
    yield (
        f"- Protocol: leave one out, all items ranked, items of the history {seen}; the retriever hands on "
        f"{evaluation.retrieve}, and "
        f"Recall@{evaluation.retrieve} is its own. A stage of training stops after {training.patience} epochs "
        f"without a better NDCG@{TOP} on validation{some}{by}, or after {training.epochs}."
    )
    seeds = ", ".join(map(str, settings.seeds)) + _short(rows, len(settings.seeds))
    yield (
        f"- Mean ± standard deviation of seeds {seeds}. The change, its 95% interval and p over users: a paired "
        "t-test of the users' means "
        "over the seeds that both rows have. By seed: in percent of the other's with the same seed; p over seeds: a "
        "paired t-test of the "
        "seeds' means."
    )
    if len(settings.search) > 1:
        yield (
            f"- Chosen of {len(settings.search)} settings by NDCG@{TOP} on validation with seed "
            f"{settings.seeds[0]}, the retriever's where "
            f"only it is reported, else the cascade's: {_choices(study, records, dataset)}."
        )
    failed = [f"{what}: {each.failed}" for what, each in tried.items() if each.failed]
    if failed:
        yield f"- Failed: {_escaped('; '.join(failed))}."
    hours = sum(each.cpu_seconds - each.shared_cpu_seconds for each in done) / 3600
    machines = ", ".join(dict.fromkeys(each.machine for each in done))
    versions = ", ".join(
        dict.fromkeys(f"tfcorr {each.versions['tfcorr']}, TensorFlow {each.versions['tensorflow']}" for each in done)
    )
    yield f"- {hours:.1f} CPU hours for {len(done)} trainings, on {machines}; {versions}."
    yield f"- Command: {_command(study, dataset, command)}"


def _command(study: Study, dataset: str, command: Sequence[str]) -> str:
    """What makes the tables: the overrides are those given, but for where files lie."""
    path, *overrides = command
    kept = [each for each in overrides if not re.match(r"output=|[^=]*data\.path=", each)]
    if study.example(dataset).settings.data.path is not None:
        kept.append(f"datasets.{dataset}.data.path=FILE")
    return f"`tfcorr study {' '.join([shlex.quote(path), *(f'--set {shlex.quote(each)}' for each in kept)])}`"


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
    return (
        "; ".join(
            f"{_escaped(point)} for {_escaped(', '.join(systems))}" for point, systems in sorted(by_point.items())
        )
        or "none yet"
    )


def _short(rows: Sequence[Row], seeds: int) -> str:
    """Which rows have fewer seeds, in words."""
    fewer = {row.system: len(row.records) for row in rows if 0 < len(row.records) < seeds}
    by_count = {
        count: "; ".join(_escaped(name) for name in fewer if fewer[name] == count)
        for count in sorted(set(fewer.values()))
    }
    return "".join(f"; only {count} seed{'s' * (count > 1)} of: {names}" for count, names in by_count.items())


def _wrapped(line: str) -> str:
    """A line of at most 120 characters, or several; a command is left whole."""
    return line if "Command: " in line else textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False)


def _titled(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{name.upper() if name != 'recall' else name.capitalize()}@{k}"


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _change(found: Comparison) -> list[str]:
    """All of it, in percent of the other's mean, by seed of the other's with that seed."""
    test = found.over_users
    if not test.second:
        return [""] * 4
    change, low, high = (100 * value / test.second for value in (test.difference, test.low, test.high))
    by_seed = ", ".join(f"{100 * (ours / theirs - 1):+.1f}%" if theirs else "of none" for ours, theirs in found.by_seed)
    return [f"{change:+.1f}% ({low:+.1f} to {high:+.1f})", _p(test.p_value), by_seed, _p(found.p_over_seeds)]


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Text whose characters Markdown reads as they are; not everywhere does it know a backslash before < and >."""
    return re.sub(r"([\\|\[\]*_`])", r"\\\1", escape(text, quote=False))
