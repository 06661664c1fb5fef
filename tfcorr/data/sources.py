"""The named sources: files of the user's own or of a publisher, MovieLens-100K, TensorFlow Datasets, and data prepared
before."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from tfcorr.data.dataset import Dataset, prepare
from tfcorr.data.features import Feature, FeatureSource, Side
from tfcorr.data.interactions import (
    Columns,
    DataSettings,
    Interactions,
    SideSettings,
    mapped_columns,
    read_interactions,
    select,
)
from tfcorr.data.prepared import read_prepared
from tfcorr.data.published import read_published
from tfcorr.data.tables import OnBadRows, Table, collect, read_table
from tfcorr.settings import InputError

# RecBole's wheel on PyPI ships MovieLens-100K (GroupLens, research use) with its real timestamps.
MOVIELENS_WHEEL = "recbole-1.2.1-py3-none-any.whl"
MOVIELENS_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MOVIELENS_MEMBER = "recbole/dataset_example/ml-100k/ml-100k"


def load(settings: DataSettings, like: Sequence[Feature] = ()) -> Dataset:
    """Reads and prepares the interactions that the settings name; numbers are scaled as those of `like`. Raises:
    InputError."""
    if settings.source == "prepared":
        if settings.path is None:
            raise InputError("data.path is required with source: prepared; give the folder that `tfcorr prepare` wrote")
        return read_prepared(settings.path)
    item, user = (_side(getattr(settings, name), name, settings.on_bad_rows) for name in ("items", "users"))
    if settings.source == "movielens-100k":
        interactions, item, user = _movielens(settings)
    else:
        interactions = {"file": read_interactions, "tfds": _tfds}.get(settings.source, read_published)(settings)
    scales = {feature.name: feature for feature in like}
    source = FeatureSource(settings.features, item, user, settings.cold_items, scales)
    return prepare(interactions, settings.min_interactions, source)


def _side(settings: SideSettings | None, name: str, on_bad_rows: OnBadRows) -> Side | None:
    if settings is None:
        return None
    read = read_table(settings.path, on_bad_rows)
    table = collect(read.frame, str(settings.path))
    if settings.key not in table.columns:
        raise InputError(
            f"{settings.path}: no column {settings.key!r}; it has: {', '.join(table.columns)}; set data.{name}.key"
        )
    return Side(table, settings.key, str(settings.path), read.ragged)


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/tfcorr`, or `~/.cache/tfcorr`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfcorr"


def _movielens(settings: DataSettings) -> tuple[Interactions, Side, Side]:
    """The interactions, and tables of the films (year, genre with spaces between) and of the users (age, gender,
    occupation)."""
    wheel = cache_folder() / MOVIELENS_WHEEL
    if not wheel.is_file():
        _download(wheel)
    _verify(wheel, "delete the file and run again to fetch it anew")
    with zipfile.ZipFile(wheel) as archive:
        ratings = pl.read_csv(archive.read(f"{MOVIELENS_MEMBER}.inter"), separator="\t", infer_schema=False)
        films = pl.read_csv(
            archive.read(f"{MOVIELENS_MEMBER}.item"), separator="\t", infer_schema=False, quote_char=None
        )
        users = pl.read_csv(archive.read(f"{MOVIELENS_MEMBER}.user"), separator="\t", infer_schema=False)
    columns = Columns(user="user_id:token", item="item_id:token", time="timestamp:float", rating="rating:float")
    interactions = select(Table(ratings.lazy(), 2), settings.model_copy(update={"columns": columns}), MOVIELENS_MEMBER)
    titles = {film: f"{title} ({year})" for film, title, year, _ in films.iter_rows()}
    films.columns, users.columns = (
        ["item_id", "title", "year", "genre"],
        ["user_id", "age", "gender", "occupation", "zip_code"],
    )
    sides = Side(films, "item_id", f"{MOVIELENS_MEMBER}.item"), Side(users, "user_id", f"{MOVIELENS_MEMBER}.user")
    return replace(interactions, titles=titles), *sides


def _download(wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "recbole==1.2.1"]
        result = subprocess.run(pip, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"MovieLens-100K: pip could not download recbole==1.2.1, whose wheel holds it: {reason}; "
                f"check the connection, or put {MOVIELENS_WHEEL} into {wheel.parent} by hand"
            )
        _verify(
            Path(folder) / MOVIELENS_WHEEL, "the download was damaged, or is not the file that it should be; run again"
        )
        (Path(folder) / MOVIELENS_WHEEL).replace(wheel)


def _verify(wheel: Path, advice: str) -> None:
    received = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if received != MOVIELENS_SHA256:
        raise InputError(f"{wheel}: SHA-256 is {received}, expected {MOVIELENS_SHA256}; {advice}")


def _tfds(settings: DataSettings) -> Interactions:
    import tensorflow_datasets as tfds  # takes seconds, and only this source needs it
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    if settings.builder is None:
        raise InputError(
            "data.builder is required with source: tfds; give a TensorFlow Datasets name such as movielens/100k-ratings"
        )
    where = f"tfds {settings.builder}"
    try:
        builder = tfds.builder(settings.builder, data_dir=settings.data_dir)
        wanted = mapped_columns(settings, list(builder.info.features), where, holder="the builder").values()
        builder.download_and_prepare()
        batches = tfds.as_numpy(builder.as_dataset(split=settings.split, batch_size=65_536))
        frames = [
            pl.DataFrame({name: _column(values) for name, values in batch.items() if name in wanted})
            for batch in batches
        ]
    except (
        tfds.core.DatasetNotFoundError,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
        ValueError,
        OSError,
    ) as error:
        raise InputError(
            f"{where}: TensorFlow Datasets cannot build it: {str(error).strip().splitlines()[0]}"
        ) from None
    if not frames:
        raise InputError(f"{where}: split {settings.split!r} is empty")
    return select(Table(pl.concat(frames).lazy(), 1), settings, where)


def _column(values: np.ndarray) -> pl.Series:
    """TensorFlow's strings arrive as bytes objects."""
    series = pl.Series(values)
    return series.cast(pl.String) if values.dtype == object else series
