"""What a value means as an id, a category or a number: alike in every table, request and argument."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from polars.datatypes import DataTypeClass

from tfcorr.settings import InputError

BLANKS = " \t\r\n\v\f\u00a0"  # do not matter around a value; what others take for one differs by library
# Texts that are no value, as databases and pandas write it. "NA" is not among them: it may be Namibia.
NOTHING = ("", r"\N", "NULL", "null", "NaN", "nan", "NaT", "None", "<NA>")
LARGEST = float(np.finfo(np.float32).max)  # of a number, as towers compute in single precision
MOST_DIGITS = 100  # of an id that is a number
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _exact(kind: Any) -> float:
    """Below it a float of a type tells every whole number from the next.

    >>> _exact(np.float32) == 2**24, _exact(float) == 2**53
    (True, True)
    """
    return float(2.0 ** (np.finfo(kind).nmant + 1))


class Texts(NamedTuple):
    """`value` String, null where a cell is empty, and `wrong`, whether it has something that is no id."""

    value: pl.Expr
    wrong: pl.Expr


def texts_of(cell: pl.Expr, kind: pl.DataType | DataTypeClass) -> Texts:
    """Cells as ids or categories, as `text_of` has them one by one.

    Blanks around a text do not matter; a float or decimal is the whole number that it is, and else wrong; NaN is empty.
    """
    if kind.is_decimal():
        text = cell.cast(pl.String).str.replace(r"\.0*$", "")
        is_whole = ~text.str.contains(".", literal=True)
        return Texts(pl.when(is_whole).then(text), (~is_whole).fill_null(value=False))
    if kind.is_float():
        number, exact = cell.cast(pl.Float64), _exact(str(kind).lower())
        is_whole = (number.is_finite() & (number == number.floor()) & (number.abs() < exact)).fill_null(value=False)
        is_none = number.is_null() | number.is_nan().fill_null(value=False)
        return Texts(pl.when(is_whole).then(number).cast(pl.Int64).cast(pl.String), ~is_none & ~is_whole)
    text = cell.cast(pl.String).str.strip_chars(BLANKS)
    return Texts(pl.when(~text.is_in(NOTHING)).then(text), pl.lit(value=False))


def texts(column: pl.Series, where: str) -> pl.Series:
    """A column's cells as ids, null where one is empty. Raises: InputError if one is none."""
    check_plain(column.name, column.dtype, where)

    def told(row: int, cell: Any) -> str:
        return f"{where}, row {row + 1}: {column.name} is {cell!r}, expected an id: a text or a whole number"

    return values_of(column, texts_of(pl.col("cell"), column.dtype), told)


def text_of(value: Any) -> str | None:
    """A value as an id or a category, None where it is empty. Raises: InputError if it is none.

    >>> text_of(12.0), text_of(True), text_of(" p17 "), text_of(float("nan"))
    ('12', 'true', 'p17', None)
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is None or isinstance(value, str | np.str_):
        text = (value or "").strip(BLANKS)
        if text.encode(errors="replace").decode() == text:  # else half of a character
            return None if text in NOTHING else text
    elif isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    elif _is_nan(value):
        return None
    elif (whole := _whole(value)) is not None:
        return str(whole)
    raise InputError(f"{brief(value)} is no id: expected a text or a whole number")


def _is_nan(value: Any) -> bool:
    return (
        value.is_nan() if isinstance(value, Decimal) else isinstance(value, float | np.floating) and math.isnan(value)
    )


def _whole(value: Any) -> int | None:
    """The whole number that a value is, if it is one exactly."""
    if isinstance(value, int | np.integer):
        return int(value) if abs(int(value)) < 10**MOST_DIGITS else None
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value.adjusted() < MOST_DIGITS and value == int(value) else None
    if isinstance(value, float | np.floating):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < _exact(type(value)) else None
    return None


def brief(value: Any) -> str:
    """A value in a message: on one line, and not too long.

    >>> brief(10**5000), brief(np.arange(100).reshape(50, 2))[:18]
    ('a number of many digits', 'array([[ 0, 1], [ ')
    """
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return "a number of many digits"
    return " ".join(repr(value).split())[:80]


class Numbers(NamedTuple):
    """`value` Float64, null where a cell has no number, and `wrong`, whether it has something that is no number, or is
    beyond single precision."""

    value: pl.Expr
    wrong: pl.Expr


def numbers_of(column: str, kind: pl.DataType) -> Numbers:
    """A column's cells as numbers. An empty cell and NaN are none; of text, blanks around it do not matter."""
    cell = pl.col(column)
    if kind in (pl.String, pl.Categorical, pl.Enum):
        text = cell.cast(pl.String).str.strip_chars(BLANKS)
        cell = pl.when(~text.is_in(NOTHING)).then(text)
    number = cell.cast(pl.Float64, strict=False)
    finite = pl.when(number.abs() <= LARGEST).then(number)
    is_none = cell.is_null() | number.is_nan().fill_null(value=False)
    return Numbers(finite, ~is_none & finite.is_null())


def number_of(value: Any) -> float | None:
    """A value as a number, None where it is empty or NaN. Raises: InputError if it is none, or beyond single precision.

    >>> number_of(" 1.5 "), number_of(True), number_of("NULL")
    (1.5, 1.0, None)
    """
    if isinstance(value, str | np.str_):
        value = value.strip(BLANKS)
    if value is None or (isinstance(value, str) and value in NOTHING):
        return None
    try:
        number = float(value) if not isinstance(value, str) or NUMBER.fullmatch(value) else math.inf
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isnan(number):
        return None
    if abs(number) > LARGEST:
        raise InputError(f"expected a finite number, received {brief(value)}")
    return number


def values_of(column: pl.Series, meant: Texts | Numbers, told: Callable[[int, Any], str]) -> pl.Series:
    """A column's values by expressions over "cell". Raises: InputError in the words of `told` for the first cell that
    is wrong, by its place and content."""
    read = column.to_frame("cell").select(value=meant.value, wrong=meant.wrong)
    if read["wrong"].any():
        first = int(read["wrong"].arg_max() or 0)
        raise InputError(told(first, column[first]))
    return read["value"]


def is_plain(kind: pl.DataType) -> bool:
    """Whether a column of this type holds one text or number a cell: no lists, records, bytes or times."""
    return kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)


def check_plain(column: str, kind: pl.DataType, where: str) -> None:
    """Raises: InputError if a column is not plain."""
    if not is_plain(kind):
        raise InputError(f"{where}: column {column!r} holds {kind}; expected one text or number a cell")
