"""What a value means as an id, a category or a number: alike in every table, request and argument."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from polars.datatypes import DataTypeClass

from tfcorr.settings import InputError

EXACT = 2.0**53  # below it a float of double precision tells every whole number from the next
BLANKS = " \t\r\n\v\f\u00a0"  # do not matter around a value; what others take for one differs by library
NOTHING = ("", r"\N")  # a text that is no value; the second is how databases write it


class Texts(NamedTuple):
    """`value` String, null where a cell is empty, and `wrong`, whether it has something that is no id."""

    value: pl.Expr
    wrong: pl.Expr


def texts_of(cell: pl.Expr, kind: pl.DataType | DataTypeClass) -> Texts:
    """Cells as ids or categories, as `text_of` has them one by one.

    Blanks around a text do not matter; a float or decimal is the whole number that it is, and else wrong; NaN is empty.
    """
    if kind.is_float() or kind.is_decimal():
        number = cell.cast(pl.Float64)
        is_whole = (number.is_finite() & (number == number.floor()) & (number.abs() < EXACT)).fill_null(value=False)
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
    if value is None or isinstance(value, str | np.str_):
        text = (value or "").strip(BLANKS)
        return None if text in NOTHING else text
    if isinstance(value, bytes):
        return text_of(value.decode(errors="replace"))
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        number = float(value)
        if math.isnan(number):
            return None
        if math.isfinite(number) and number == math.floor(number) and abs(number) < EXACT:
            return str(int(number))
    raise InputError(f"{value!r} is no id: expected a text or a whole number")


class Numbers(NamedTuple):
    """`value` Float64, null where a cell has no number, and `wrong`, whether it has something that is no finite one."""

    value: pl.Expr
    wrong: pl.Expr


def numbers_of(column: str, kind: pl.DataType) -> Numbers:
    """A column's cells as numbers. An empty cell and NaN are none; of text, blanks around it do not matter."""
    cell = pl.col(column)
    if kind in (pl.String, pl.Categorical, pl.Enum):
        text = cell.cast(pl.String).str.strip_chars(BLANKS)
        cell = pl.when(text != "").then(text)
    number = cell.cast(pl.Float64, strict=False)
    finite = pl.when(number.is_finite()).then(number)
    is_none = cell.is_null() | number.is_nan().fill_null(value=False)
    return Numbers(finite, ~is_none & finite.is_null())


def values_of(column: pl.Series, meant: Texts | Numbers, told: Callable[[int, Any], str]) -> pl.Series:
    """A column's values by expressions over "cell". Raises: InputError in the words of `told` for the first cell that
    is wrong, by its place and content."""
    read = column.to_frame("cell").select(value=meant.value, wrong=meant.wrong)
    if read["wrong"].any():
        first = int(read["wrong"].arg_max() or 0)
        raise InputError(told(first, column[first]))
    return read["value"]


def check_plain(column: str, kind: pl.DataType, where: str) -> None:
    """Refuses a column of lists, records or bytes. Raises: InputError."""
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise InputError(f"{where}: column {column!r} holds {kind}; expected one text or number a cell")
