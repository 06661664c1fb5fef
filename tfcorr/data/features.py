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
import polars.selectors as cs
from pydantic import Field, model_validator

from tfcorr.data.times import EARLIEST, LATEST
from tfcorr.data.values import BLANKS, check_plain, numbers_of, texts, texts_of, values_of
from tfcorr.files import read_intact
from tfcorr.settings import InputError, Settings

Whose = Literal["item", "user", "interaction"]
HOUR, DAY = 3600, 86_400
UNITS = {1e11: 1, 1e14: 1_000, 1e17: 1_000_000, np.inf: 1_000_000_000}  # times below the first are seconds, and so on
# By which a day such as 20240531 is multiplied where an hour follows, minutes, seconds, milliseconds.
DIGITS = (1, 10**2, 10**4, 10**6, 10**9)
OUTLIER = np.float32(10.0)  # deviations from the mean, beyond which a number counts as so many
CLOSE = 2.0**-20  # of their size: numbers that differ by less are hardly told apart in single precision


class FeatureSettings(Settings):
    """One feature: whose it is, and how it is read."""

    of: Whose = Field(description="whose it is: a column of data.items, data.users, or of the interactions")
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
    `vocabulary`; several stand in one text with `separator` between them. A numeric one has `values` float32 [rows],
    which `standardised` makes by `mean` and `scale`, and 0 where it is not known. The rows are those of items and users
    by number, row 0 being no one's, or the places of the histories. Of them `lacking` have no value.
    """

    name: str
    of: Whose
    values: npt.NDArray[Any]
    vocabulary: list[str] | None = None
    mean: float = 0.0
    scale: float = 1.0
    separator: str | None = None
    lacking: int = 0

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
        if numbers.null_count() == len(numbers):
            raise _no_value(name, settings, where)
        mean, scale = (like.mean, like.scale) if like else _scale(name, numbers.drop_nulls(), where)
        values = standardised(numbers.to_numpy(), mean, scale)
        return Feature(name, settings.of, values, None, mean, scale, None, numbers.null_count())

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
        raise _no_value(name, settings, where)
    numbered = flat["value"].cast(pl.Enum(vocabulary)).to_physical().cast(pl.Int32).to_numpy() + 1
    rows = flat["row"].to_numpy()
    first = np.searchsorted(rows, rows)  # the rows come in order
    values = np.zeros((len(lists), max(int(np.bincount(rows).max(initial=0)), 1)), np.int32)
    values[rows, np.arange(len(rows)) - first] = numbered
    lacking = int((values[:, 0] == 0).sum())
    return Feature(name, settings.of, values, vocabulary, separator=settings.separator, lacking=lacking)


def _no_value(name: str, settings: FeatureSettings, where: str) -> InputError:
    return InputError(
        f"{where}: {name} has no value for any {settings.of} of the data; leave it out of data.features, or mend its "
        "ids"
    )


def _scale(name: str, numbers: pl.Series, where: str) -> tuple[float, float]:
    """The mean and deviation of numbers, 1 where all are the same. Raises: InputError if single precision cannot tell
    them apart."""
    least, most = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    if least == most:
        return least, 1.0
    mean, scale = float(numbers.mean()), float(numbers.std(ddof=0))  # type: ignore[arg-type]
    if scale < CLOSE * max(abs(least), abs(most)):
        raise InputError(
            f"{where}: {name} has numbers from {least!r} to {most!r}, which differ by too little for their size; take "
            "from each what they have in common"
        )
    return mean, scale


def standardised(numbers: npt.NDArray[np.float64], mean: float, scale: float) -> npt.NDArray[np.float32]:
    """Numbers [rows], NaN where one is not known, as deviations from the mean, in single precision, as serving computes
    them: one that is not known is 0, an outlier counts as OUTLIER.

    >>> standardised(np.array([2.0, 5.0, np.nan, 1e30]), 3.0, 2.0).tolist()
    [-0.5, 1.0, 0.0, 10.0]
    """
    with np.errstate(over="ignore"):
        deviations = (numbers.astype(np.float32) - np.float32(mean)) / np.float32(scale)
    return np.nan_to_num(np.clip(deviations, -OUTLIER, OUTLIER), nan=0.0)


def _owner(owners: Sequence[str | None], row: int) -> str:
    return str(owners[row]) if owners else f"the interaction {row + 1} by user and time"


def moments(kind: Literal["hour", "weekday"], times: npt.NDArray[Any], unit: int | None = None) -> pl.Series:
    """The hour (0 to 23) or weekday (0 is Monday) of times since 1970, of which `unit` make a second; where that is not
    known, the size of most tells it. Raises: InputError if they are dates as numbers, or not all of one unit."""
    if unit is None:
        if _are_digits_of_dates(times):
            raise InputError(
                f"times such as {times[0]:.0f} seem to be dates, of which a number has no {kind}; write them as "
                "2024-05-31 12:30:00"
            )
        unit = next(unit for limit, unit in UNITS.items() if np.median(np.abs(times)) < limit)
        years = 1970 + times / unit / DAY / 365.2425
        beyond = (years < EARLIEST) | (years > LATEST)
        if beyond.any():
            raise InputError(
                f"most times seem to be in 1/{unit:,} seconds since 1970, and {times[beyond][0]!r} is no such, which "
                f"has no {kind}; write all in one unit"
            )
    seconds = np.floor_divide(times, unit)
    values = seconds // HOUR % 24 if kind == "hour" else (seconds // DAY + 3) % 7  # 1970 began on a Thursday
    return pl.Series(values.astype(np.int64))


def _are_digits_of_dates(times: npt.NDArray[Any]) -> bool:
    """Whether all are such as 20240531, or 20240531123000, or days as a spreadsheet counts them, such as 45443.52."""
    for below in DIGITS:
        days = np.floor_divide(times, below)
        years, months, in_month = days // 10_000, days // 100 % 100, days % 100
        alike = (years >= 1900) & (years < 2100) & (months >= 1) & (months <= 12) & (in_month >= 1) & (in_month <= 31)
        if len(times) and alike.all():
            return True
    return bool(len(times) and (times % 1 > 0).any() and ((times > 20_000) & (times < 80_000)).all())


@dataclass(frozen=True)
class Side:
    """A table with a row for each item or user, their ids in the column `key`; `where` names its origin."""

    table: pl.DataFrame
    key: str
    where: str
    ragged: int = 0  # rows that were left out

    def ids(self) -> list[str]:
        """The ids of all rows, sorted. Raises: InputError if there is none."""
        found = self.keys().drop_nulls().sort().to_list()
        if not found:
            raise InputError(f"{self.where}: column {self.key!r} is empty in every row; expected ids")
        return found

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
            side.keys().alias("key"), *(cs.by_name(column).alias(f"of {name}") for name, column in columns.items())
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
            "separator": feature.separator,
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
