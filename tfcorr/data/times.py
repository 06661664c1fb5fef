"""What a value means as a time: a number, or a date by ISO 8601, whichever most of a column's values are."""

import os
from collections.abc import Mapping
from typing import Literal, NamedTuple

import polars as pl
import polars.selectors as cs

from tfcorr.data.values import BLANKS

os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")  # else it panics on a zone that it does not know

Form = Literal["number", "date"]
FORMS = ("%F %T%.f%#z", "%F %R%#z", "%F %T%.f", "%F %R")
EARLIEST, LATEST = 1678, 2261  # years; dates beyond them are placeholders such as 9999-12-31


class Times(NamedTuple):
    """`real` (Int64 or Float64) is null where a cell is not a time. `whole` is also null where the time is not a whole
    number; it is exact beyond 2^53. `wrong` maps each kind of problem to whether a cell has it. `unit` is how many make
    a second, and None of numbers, which do not say it."""

    real: pl.Expr
    whole: pl.Expr
    wrong: dict[str, pl.Expr]
    unit: int | None


def is_time(kind: pl.DataType) -> bool:
    """Whether a column of this type can hold times."""
    return kind.is_numeric() or kind in (pl.String, pl.Date, pl.Datetime, pl.Null)


def in_utc(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Converts columns with a time zone to UTC, because Python may not know the zone's name."""
    zoned = [name for name, kind in frame.collect_schema().items() if isinstance(kind, pl.Datetime) and kind.time_zone]
    return frame.with_columns(cs.by_name(zoned).dt.convert_time_zone("UTC")) if zoned else frame


def with_times_as_text(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The same with dates as texts; those that are too far away to be any as the numbers by which they are kept."""
    dated = [name for name, kind in frame.collect_schema().items() if kind in (pl.Date, pl.Datetime)]
    return frame.with_columns(
        pl.when(column.dt.year().is_not_null())
        .then(column)
        .cast(pl.String)
        .fill_null(column.to_physical().cast(pl.String))
        for column in map(cs.by_name, dated)
    )


def counts_of_forms(time: pl.Expr) -> dict[Form, pl.Expr]:
    """How many of a column's texts are times of each form; `form_of` tells which is the column's."""
    return {"number": _number(time).is_not_null().sum(), "date": _moment(time).is_not_null().sum()}


def form_of(counts: Mapping[str, int]) -> Form | None:
    """The form that most texts have, and None where none has any."""
    if not any(counts.values()):
        return None
    return "date" if counts["date"] > counts["number"] else "number"


def times_of(time: pl.Expr, kind: pl.DataType, form: Form | None) -> Times:
    """A column's cells as times. `form` is that of texts; their blanks do not matter.

    Dates are by ISO 8601 and in UTC where there is no offset; they become microseconds since 1970, or nanoseconds if
    the column's type has them.
    """
    if kind == pl.String and form == "date":
        moment = _moment(time)
        problem = "a time that is no date like 2024-05-31 12:30, as most are"
        return _dates(moment, 1_000_000, moment.is_null(), problem)
    if kind in (pl.Date, pl.Datetime):
        precise = isinstance(kind, pl.Datetime) and kind.time_unit == "ns"
        moment = time if precise else time.cast(pl.Datetime("us"), strict=False)
        return _dates(moment, 1_000_000_000 if precise else 1_000_000, time.is_null(), "an empty time")
    problem = "a time that is no number" + (", as most are" if form else " or date like 2024-05-31 12:30")
    if kind == pl.String:
        time = time.str.strip_chars(BLANKS)
    real = _number(time)
    whole = real if kind.is_float() or kind.is_decimal() else time.cast(pl.Int64, strict=False)
    return Times(real, whole, {problem: real.is_null()}, None)


def _dates(moment: pl.Expr, unit: int, is_none: pl.Expr, problem: str) -> Times:
    """`moment` is null where there is none, or where it is too far away to be one, as a database's infinity is."""
    is_near = moment.dt.year().is_between(EARLIEST, LATEST).fill_null(value=False)
    whole = moment.to_physical()
    beyond = f"a time before {EARLIEST} or after {LATEST}"
    return Times(whole, whole, {problem: is_none, beyond: ~is_none & ~is_near}, unit)


def _number(time: pl.Expr) -> pl.Expr:
    real = time.cast(pl.Float64, strict=False)
    return pl.when(real.is_finite()).then(real)


def _moment(text: pl.Expr) -> pl.Expr:
    """Texts as Datetime("us") in UTC, null where one is no date."""
    text = (
        text.str.strip_chars(BLANKS)
        .str.replace(r"(\d)[Tt](\d)", "${1} ${2}")
        .str.replace(r"(?i)(\d)\s*(?:z|utc|gmt)$", "${1}+00:00")
        .str.replace(r"(:\d\d),(\d+)", "${1}.${2}")
    )
    moments = [text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us") for form in FORMS]
    day = text.str.to_date("%F", strict=False).cast(pl.Datetime("us")).dt.epoch("us")
    return pl.coalesce(*moments, day).cast(pl.Datetime("us"))
