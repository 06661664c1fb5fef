"""Whether one run is better than another: a paired test over users."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from tfcorr.evaluation.baselines import BASELINES
from tfcorr.evaluation.metrics import METRICS, MISSED
from tfcorr.files import read_intact
from tfcorr.settings import InputError


@dataclass(frozen=True)
class Difference:
    """One metric of one stage: both means, their difference with its 95% interval, and the p-value of no difference."""

    stage: str
    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


def compare(first: Sequence[Path], second: Sequence[Path], k: int) -> list[Difference]:
    """Compares two runs, or two groups of runs that differ only in their seed, by a paired t-test over users.

    Each stage that all of them have is compared. A group's value for a user is the mean over its runs. Each path is a
    run's folder that holds `ranks.parquet`.
    Raises: InputError if a run was not evaluated, or retrieved fewer than k, or if the runs do not have the same users
    and targets, or were measured in other ways.
    """
    ours, theirs = [read_ranks(folder) for folder in first], [read_ranks(folder) for folder in second]
    key = ours[0].select("user", "target")
    for folder, table in zip([*first, *second], [*ours, *theirs], strict=True):
        if not table.select("user", "target").equals(key):
            raise InputError(f"{folder}: has other users or targets than {first[0]}; compare runs of the same data")
    retrieved = int(how_measured(first[0])["retrieve"] or k)
    if k > retrieved:
        raise InputError(
            f"{first[0]}: only {retrieved} items were retrieved for each user, so none has a rank up to {k}; lower --k"
        )
    measured = _measured(first[0])
    for folder in [*first, *second]:
        if _measured(folder) != measured:
            raise InputError(
                f"{folder}: was measured with {_measured(folder)}, {first[0]} with {measured}; evaluate both the "
                "same way"
            )
    found = []
    columns = [set(table.columns) for table in [*ours, *theirs]]
    for stage in [
        name
        for name in ours[0].columns
        if name not in (*key.columns, *BASELINES) and all(name in each for each in columns)
    ]:
        for name, metric in METRICS.items():
            values = [
                np.mean([metric(rank_column(table, stage), k) for table in tables], axis=0) for tables in (ours, theirs)
            ]
            found.append(paired_test(stage, f"{name}@{k}", *values))
    return found


def read_ranks(folder: Path) -> pl.DataFrame:
    """A run's ranks.parquet, sorted by user. Raises: InputError if the run was not evaluated, or the file is
    damaged."""
    path = folder / "ranks.parquet"
    anew = f"make it anew with: tfcorr evaluate {folder}"
    if not path.is_file():
        raise InputError(f"{folder}: holds no ranks.parquet; make it with: tfcorr evaluate {folder}")
    table = read_intact(path, pl.read_parquet)
    stages = {name: kind for name, kind in table.schema.items() if name not in ("user", "target")}
    lacking = {"user", "target", "retriever", "cascade"} - set(table.columns)
    wrong = [name for name, kind in stages.items() if not kind.is_integer() or (table[name] < 1).any()]
    if lacking or wrong:
        what = f"it lacks {', '.join(sorted(lacking))}" if lacking else f"it has no ranks in {', '.join(wrong)}"
        raise InputError(f"{path}: is damaged: {what}; {anew}")
    return table.sort("user")


def how_measured(folder: Path) -> dict[str, str | None]:
    """How a run's ranks were measured: `retrieve`, `index` and `exclude_seen`; None where they do not say."""
    metadata = pl.read_parquet_metadata(folder / "ranks.parquet")
    return {name: metadata.get(name) for name in ("retrieve", "index", "exclude_seen")}


def _measured(folder: Path) -> str:
    return ", ".join(f"{name} {value}" for name, value in how_measured(folder).items())


def rank_column(table: pl.DataFrame, stage: str) -> npt.NDArray[np.int32]:
    """A stage's ranks [users], MISSED where they are null."""
    return table[stage].fill_null(MISSED).to_numpy()


def paired_test(stage: str, metric: str, first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Difference:
    """The paired t-test of a metric's values by user, [users] each."""
    means = float(first.mean()), float(second.mean())
    if np.array_equal(first, second):  # the test has nothing to divide by
        return Difference(stage, metric, *means, 0.0, 0.0, 0.0, 1.0)
    if len(first) < 2:  # nothing is known of others
        return Difference(stage, metric, *means, means[0] - means[1], -np.inf, np.inf, 1.0)
    result = stats.ttest_rel(first, second)
    low, high = result.confidence_interval(0.95)
    return Difference(stage, metric, *means, means[0] - means[1], float(low), float(high), float(result.pvalue))
