"""What a run's history.csv says of the weights that the run keeps."""

from pathlib import Path

import polars as pl

from tfcorr.config import load_settings
from tfcorr.files import read_intact
from tfcorr.settings import InputError
from tfcorr.stages import LAST_STAGE, MONITORED_K


def value_of(folder: Path, objective: str) -> float:
    """A run's objective in the epoch whose weights it keeps. Raises: InputError if it was not measured."""
    row = best_epoch(folder)
    if objective not in row:
        raise InputError(f"{objective} was not measured; there are: {', '.join(row)}")
    return row[objective]


def best_epoch(folder: Path) -> dict[str, float]:
    """What was measured on validation in the epoch whose weights a run keeps, as {"cascade_ndcg@20": …}. Raises:
    InputError."""
    settings = load_settings(folder / "settings.yaml")
    history = read_intact(folder / "history.csv", pl.read_csv).filter(
        pl.col("stage") == LAST_STAGE[settings.training.method]
    )
    if history.is_empty():
        raise InputError(f"{folder}: its last stage has finished no epoch")
    row = history.row(int(history[f"cascade_ndcg@{MONITORED_K}"].arg_max() or 0), named=True)
    return {name: float(value) for name, value in row.items() if "@" in name and value is not None}
