"""What the cells of a column mean, alike for every table that is read."""

from typing import NamedTuple

import polars as pl

from tfcorr.settings import InputError


class Numbers(NamedTuple):
    """`value` Float64, null where a cell has no number, and `wrong`, whether it has something that is no finite one."""

    value: pl.Expr
    wrong: pl.Expr


def numbers_of(column: str, kind: pl.DataType) -> Numbers:
    """A column's cells as numbers. An empty cell and NaN are none; of text, blanks around it do not matter."""
    cell = pl.col(column)
    if kind in (pl.String, pl.Categorical, pl.Enum):
        text = cell.cast(pl.String).str.strip_chars()
        cell = pl.when(text != "").then(text)
    value = cell.cast(pl.Float64, strict=False)
    value = pl.when(value.is_not_nan()).then(value)
    is_none = cell.is_null() | cell.cast(pl.Float64, strict=False).is_nan().fill_null(value=False)
    finite = pl.when(value.is_finite()).then(value)
    return Numbers(finite, ~is_none & finite.is_null())


def check_plain(column: str, kind: pl.DataType, where: str) -> None:
    """Refuses a column of lists, records or bytes. Raises: InputError."""
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise InputError(f"{where}: column {column!r} holds {kind}; expected one text or number a cell")
