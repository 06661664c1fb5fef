"""history.csv as curves over epochs."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tfcorr.files import read_intact

TRAINED = re.compile(r"(log_loss|loss|kl|effective_sample_size|target_share|hardness)(?:_(.+))?")
MEASURED = re.compile(r"(.+)_((?:ndcg|recall)@\d+)")


class Curve(NamedTuple):
    """Values [n] at epochs [n], which are counted through from stage to stage of a training."""

    epochs: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class History(NamedTuple):
    """The curves by quantity and by the tower or stage that it is of; `begins` are the epochs that begin a training's
    next stage."""

    curves: dict[str, dict[str, Curve]]
    begins: list[int]


def read_history(path: Path) -> History:
    """Reads a run's history.csv; what is empty or no finite number is left out. Raises: InputError if it is not there
    or damaged.

    Quantities are 'loss', 'log_loss', 'kl', 'effective_sample_size', 'target_share' and 'hardness', each of a tower:
    where a column names none, it is the one that the stage trained (of both, the ranker), or for what is drawn the
    retriever; and metrics such as 'ndcg@20', each of a stage of the cascade.
    """
    table = read_intact(
        path, lambda each: pl.read_csv(each, infer_schema=False).select("stage", pl.all().exclude("stage"))
    )
    trained = table["stage"].fill_null("").to_numpy()
    epochs = np.arange(1, len(trained) + 1)
    curves: dict[str, dict[str, Curve]] = {}
    for name in table.columns[1:]:
        values = table[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        for quantity, of, rows in _of_column(name, trained):
            there = rows & np.isfinite(values)
            if there.any():
                curves.setdefault(quantity, {})[of] = _joined(
                    curves.get(quantity, {}).get(of), Curve(epochs[there], values[there])
                )
    return History(curves, [int(each) for each in epochs[1:][trained[1:] != trained[:-1]]])


def _of_column(name: str, trained: npt.NDArray[np.str_]) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
    """What a column holds, as (quantity, of what, in which rows)."""
    everywhere = np.ones(len(trained), bool)
    if found := MEASURED.fullmatch(name):
        return [(found[2], found[1], everywhere)]
    if not (found := TRAINED.fullmatch(name)):
        return []
    if found[2] is None and found[1] in ("loss", "log_loss", "hardness"):
        return [
            (found[1], "ranker" if stage == "joint" else str(stage), trained == stage) for stage in np.unique(trained)
        ]
    return [(found[1], found[2] or "retriever", everywhere)]


def _joined(earlier: Curve | None, curve: Curve) -> Curve:
    """Both in the order of epochs: a tower may have been trained alone first, and together with others then."""
    if earlier is None:
        return curve
    epochs = np.concatenate([earlier.epochs, curve.epochs])
    order = np.argsort(epochs, kind="stable")
    return Curve(epochs[order], np.concatenate([earlier.values, curve.values])[order])
