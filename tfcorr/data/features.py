"""Features beside the ids: of items, of users, and of the moment of an interaction, numbered or scaled for the
towers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from tfcorr.data.values import BLANKS, check_plain, numbers_of, texts, texts_of, values_of
from tfcorr.files import read_intact
from tfcorr.settings import InputError, Settings

HOUR, DAY = 3600, 86_400
UNITS = {1e11: 1, 1e14: 1_000, 1e17: 1_000_000, np.inf: 1_000_000_000}  # times below the first are seconds, and so on


class FeatureSettings(Settings):
    """One feature: whose it is, and how it is read."""

    of: Literal["item", "user", "interaction"] = Field(
        description="whose it is: a column of data.items, data.users, or of the interactions"
    )
    kind: Literal["categorical", "numeric", "hour", "weekday"] = Field(
        "categorical", description="hour and weekday (0 is Monday) are categories made of an interaction's time, in UTC"
    )
    column: str | None = Field(None, description="its column, by default of the feature's own name")
    separator: str | None = Field(
        None, min_length=1, description="what lies between the values where a cell holds several categories"
    )

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind in ("hour", "weekday") and (self.of != "interaction" or self.column or self.separator):
            raise ValueError(
                f"kind {self.kind} is made of an interaction's time: set of: interaction, and neither column nor "
                "separator"
            )
        if self.kind == "numeric" and self.separator:
            raise ValueError("kind numeric has one value a cell: leave separator out")
        return self


@dataclass(frozen=True)
class Feature:
    """A feature of a prepared data set.

    A categorical one has `values` int32 [rows, W], of which 0 is none, and its categories' names by number, from 1, in
    `vocabulary`; a numeric one `values` float32 [rows], scaled by `mean` and `scale`, and 0 where it is not known. The
    rows are those of items and users by number, row 0 being no one's, or the places of the histories.
    """

    name: str
    of: Literal["item", "user", "interaction"]
    values: npt.NDArray[Any]
    vocabulary: list[str] | None = None
    mean: float = 0.0
    scale: float = 1.0

    @property
    def is_categorical(self) -> bool:
        """Whether it has categories, not numbers."""
        return self.vocabulary is not None

    def placeholder(self, rows: int) -> "Feature":
        """The same without its values: zeros for so many rows."""
        return replace(self, values=np.zeros((rows, *self.values.shape[1:]), self.values.dtype))


def encode(
    name: str,
    settings: FeatureSettings,
    column: pl.Series,
    where: str,
    like: Feature | None = None,
    owners: Sequence[str | None] = (),
) -> Feature:
    """A feature from a column with a row for each of its owners, in their order; `owners` names these in messages.

    Numbers are scaled by their own mean and deviation, or as those of the feature that it is to be like. Raises:
    InputError if numbers cannot be read.
    """
    check_plain(name, column.dtype, where)
    if settings.kind == "numeric":

        def no_number(place: int, cell: Any) -> str:
            expected = f"expected a finite number; mend it, or set data.features.{name}.kind: categorical"
            return f"{where}: {name} of {_owner(owners, place)} is {cell!r}, {expected}"

        numbers = values_of(column, numbers_of("cell", column.dtype), no_number)
        known = numbers.drop_nulls()
        mean, scale = 0.0, 1.0
        if len(known):
            with np.errstate(over="ignore"):
                mean, scale = float(known.mean()), float(known.std(ddof=0)) or 1.0  # type: ignore[arg-type]
        if not np.isfinite([mean, scale]).all():
            largest = known[int(known.abs().arg_max() or 0)]
            raise InputError(
                f"{where}: {name} has numbers as large as {largest:g}, whose mean or deviation is not finite; mend them"
            )
        if like is not None:
            mean, scale = like.mean, like.scale
        values = ((numbers - mean) / scale).fill_null(0).to_numpy().astype(np.float32)
        return Feature(name, settings.of, values, None, mean, scale)

    def no_category(place: int, cell: Any) -> str:
        expected = f"expected a category: a text or a whole number; mend it, or set data.features.{name}.kind: numeric"
        return f"{where}: {name} of {_owner(owners, place)} is {cell!r}, {expected}"

    cells = values_of(column, texts_of(pl.col("cell"), column.dtype), no_category).fill_null("")
    lists = (
        cells.str.split(settings.separator)
        if settings.separator
        else cells.to_frame("cell").select(pl.concat_list("cell")).to_series()
    )
    flat = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value")
    flat = (
        flat.with_columns(pl.col("value").str.strip_chars(BLANKS))
        .filter(pl.col("value") != "")
        .unique(maintain_order=True)
    )
    vocabulary = flat["value"].unique().sort().to_list()
    if not vocabulary:
        raise InputError(
            f"{where}: {name} has no value for any {settings.of} of the data; leave it out of data.features, or "
            "mend its ids"
        )
    numbered = flat["value"].cast(pl.Enum(vocabulary)).to_physical().cast(pl.Int32).to_numpy() + 1
    rows = flat["row"].to_numpy()
    first = np.searchsorted(rows, rows)  # the rows come in order
    values = np.zeros((len(lists), max(int(np.bincount(rows).max(initial=0)), 1)), np.int32)
    values[rows, np.arange(len(rows)) - first] = numbered
    return Feature(name, settings.of, values, vocabulary)


def _owner(owners: Sequence[str | None], row: int) -> str:
    return str(owners[row]) if owners else f"the interaction {row + 1} by user and time"


def moments(kind: Literal["hour", "weekday"], times: npt.NDArray[Any]) -> pl.Series:
    """The hour (0 to 23) or weekday (0 is Monday) of times since 1970 in seconds, or in a finer unit if they are too
    large. Raises: InputError if they are dates whose digits are run together."""
    if _are_digits_of_dates(times):
        raise InputError(
            f"times such as {times[0]:.0f} seem to be dates, of which a number has no {kind}; write them as "
            "2024-05-31 12:30:00"
        )
    unit = next(unit for limit, unit in UNITS.items() if np.abs(times).max(initial=0) < limit)
    seconds = np.floor_divide(times, unit)
    values = seconds // HOUR % 24 if kind == "hour" else (seconds // DAY + 3) % 7  # 1970 began on a Thursday
    return pl.Series(values.astype(np.int64))


def _are_digits_of_dates(times: npt.NDArray[Any]) -> bool:
    """Whether all are such as 20240531, or 20240531123000."""
    for below in (1, 10**6):
        days = np.floor_divide(times, below)
        years, months, in_month = days // 10_000, days // 100 % 100, days % 100
        alike = (years >= 1900) & (years < 2100) & (months >= 1) & (months <= 12) & (in_month >= 1) & (in_month <= 31)
        if len(times) and alike.all():
            return True
    return False


@dataclass(frozen=True)
class Side:
    """A table with a row for each item or user, their ids in the column `key`; `where` names its origin."""

    table: pl.DataFrame
    key: str
    where: str

    def ids(self) -> list[str]:
        """The ids of all rows, sorted, each once."""
        return self.keys().drop_nulls().unique().sort().to_list()

    def keys(self) -> pl.Series:
        """The id of each row, null where it is empty. Raises: InputError if one is none."""
        return texts(self.table[self.key], self.where)


@dataclass(frozen=True)
class FeatureSource:
    """The features wanted, by name, and the tables beside the interactions that they are read from.

    With `cold`, items that only their table has count as items too. Numbers are scaled as those of the features in
    `like`.
    """

    settings: dict[str, FeatureSettings]
    item: Side | None = None
    user: Side | None = None
    cold: bool = False
    like: dict[str, Feature] = field(default_factory=dict)

    def encode_side(self, of: Literal["item", "user"], ids: list[str]) -> list[Feature]:
        """The features of items or users, aligned to their ids; row 0 is no one's. Raises: InputError if a column is
        missing."""
        wanted = {name: each for name, each in self.settings.items() if each.of == of}
        side = self.item if of == "item" else self.user
        if not wanted:
            return []
        if side is None:
            raise InputError(
                f"data.features: {', '.join(wanted)} is of each {of}, but nothing says where from; set data.{of}s "
                "to a file"
            )
        columns = {name: each.column or name for name, each in wanted.items()}
        for column in columns.values():
            if column not in side.table.columns:
                present = ", ".join(side.table.columns)
                raise InputError(
                    f"{side.where}: no column {column!r}; it has: {present}; set data.features and their column"
                )
        keyed = side.table.select(
            side.keys().alias("key"), *(pl.col(column).alias(f"of {name}") for name, column in columns.items())
        )
        keyed = keyed.drop_nulls("key").unique("key", keep="last")
        aligned = pl.DataFrame({"key": [None, *ids]}, schema={"key": pl.String}).join(
            keyed, on="key", how="left", maintain_order="left"
        )
        return [
            encode(
                name,
                each,
                aligned[f"of {name}"],
                side.where,
                self.like.get(name),
                [f"{of} {id!r}" for id in [None, *ids]],
            )
            for name, each in wanted.items()
        ]


def write_features(features: Sequence[Feature], path: Path) -> None:
    """Writes all but the values, which towers keep, or are asked with."""
    about = [
        {
            "name": feature.name,
            "of": feature.of,
            "width": feature.values.shape[1] if feature.is_categorical else None,
            "vocabulary": feature.vocabulary,
            "mean": feature.mean,
            "scale": feature.scale,
        }
        for feature in features
    ]
    path.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def read_features(path: Path, rows: int) -> list[Feature]:
    """Reads what write_features wrote; the values are zeros for so many rows. Raises: InputError if it is damaged."""
    features = []
    for about in read_intact(path, lambda each: json.loads(each.read_text(encoding="utf-8"))):
        width = about.pop("width")
        values = np.zeros(rows, np.float32) if width is None else np.zeros((rows, width), np.int32)
        features.append(Feature(values=values, **about))
    return features
