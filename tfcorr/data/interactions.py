"""From a file to Interactions: three columns, checked row by row, with an account of what was dropped."""

import csv
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field, field_validator

from tfcorr.settings import InputError, Settings

OPERATORS: dict[str, Callable[[pl.Expr, float | str], pl.Expr]] = {
    ">=": lambda column, value: column >= value,
    "<=": lambda column, value: column <= value,
    "==": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    ">": lambda column, value: column > value,
    "<": lambda column, value: column < value,
}
_FILTER = re.compile(r"^\s*(rating|event)\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$")


FilePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Columns(Settings):
    """The names that the file gives to the columns."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    rating: str | None = None
    event: str | None = None
    title: str | None = None


class DataSettings(Settings):
    """Where the interactions come from and which of them count."""

    source: Literal["file", "movielens-100k", "tfds"] = "file"
    path: FilePath | None = Field(None, description="CSV, TSV (either may be .gz) or Parquet; for source: file")
    builder: str | None = Field(None, description="name of a TensorFlow Datasets builder; for source: tfds")
    split: str = Field("train", description="split of the builder; for source: tfds")
    data_dir: FilePath | None = Field(None, description="where TensorFlow Datasets keeps its files; for source: tfds")
    columns: Columns = Columns()
    filter: str | None = Field(None, description="such as 'rating >= 4' or 'event == click'")
    on_bad_rows: Literal["fail", "skip"] = "fail"
    titles: "TitleSettings | None" = Field(None, description="a file of item titles, where columns.title does not name them")
    min_interactions: int = Field(5, ge=1, description="users and items with fewer are dropped, until none is left")

    @field_validator("filter")
    @classmethod
    def _filter_reads(cls, value: str | None) -> str | None:
        if value is not None and not _FILTER.match(value):
            raise ValueError("a filter reads 'rating >= 4' or 'event == click'")
        return value


class TitleSettings(Settings):
    """A file with one row an item: its id and its title."""

    path: FilePath
    item: str = "item_id"
    title: str = "title"


@dataclass(frozen=True)
class Interactions:
    """Interactions in file order.

    `frame` has the columns user (String), item (String) and time (Int64 or Float64). `account` tells what happened to the
    rows so far, as (what, interactions) pairs. `titles` maps item ids to titles, where the source has them.
    """

    frame: pl.DataFrame
    account: list[tuple[str, int]]
    titles: dict[str, str] = field(default_factory=dict)


def read_interactions(settings: DataSettings) -> Interactions:
    """Reads a CSV, TSV or Parquet file. Raises: InputError, which names file, row and value."""
    if settings.path is None:
        raise InputError("data.path is required with source: file; give the CSV, TSV or Parquet file of interactions")
    table = read_table(settings.path, settings.on_bad_rows)
    interactions = select(table, settings, str(settings.path))
    if settings.titles is None:
        return interactions
    return replace(interactions, titles=_read_titles(settings.titles))


@dataclass(frozen=True)
class Table:
    """A table as read: `row` numbers the rows as an editor shows them, `ragged` counts the rows left out."""

    frame: pl.DataFrame
    first_row: int
    ragged: int = 0


def read_table(path: Path, on_bad_rows: Literal["fail", "skip"] = "fail") -> Table:
    """Reads a whole table, text columns as strings. Raises: InputError for what cannot be read or has no rows."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; data.path is taken relative to where the command runs")
    try:
        is_parquet = _suffix(path) == ".parquet"
        table = Table(pl.read_parquet(path), first_row=1) if is_parquet else _read_text(path, on_bad_rows)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: cannot be read as {_suffix(path)[1:].upper()}: {reason}") from None
    if table.frame.is_empty():
        raise InputError(f"{path}: the file has no rows; expected a header and one row an interaction")
    return table


def _suffix(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    known = [".csv", ".tsv", ".inter", ".item", ".parquet"]
    if suffix not in known:
        raise InputError(f"{path}: unknown kind of file {suffix!r}; expected .csv, .tsv (either may be .gz) or .parquet")
    return suffix


def _read_text(path: Path, on_bad_rows: str) -> Table:
    separator = "," if _suffix(path) == ".csv" else "\t"
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not content.strip():
        raise InputError(f"{path}: the file is empty; expected a header and one row an interaction")
    try:
        frame = pl.read_csv(content, separator=separator, infer_schema=False)
        suspect = frame.is_empty() or frame.get_column(frame.columns[-1]).null_count() > 0
    except pl.exceptions.ComputeError:
        suspect = True
    # Polars fills short rows with nulls and stops at long ones; the careful reader tells which rows they are.
    return _read_ragged(path, content.decode("utf-8-sig"), separator, on_bad_rows) if suspect else Table(frame, 2)


def _read_ragged(path: Path, text: str, separator: str, on_bad_rows: str) -> Table:
    lines = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    header = next(lines)
    rows, ragged = [], 0
    for number, row in enumerate(lines, start=2):
        if len(row) == len(header):
            rows.append([value or None for value in row])
        elif on_bad_rows == "skip":
            ragged += 1
        else:
            raise InputError(
                f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}: {separator.join(row)!r}; "
                "mend the row, or set data.on_bad_rows: skip"
            )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    frame = pl.DataFrame(dict(zip(header, columns, strict=True)), schema=dict.fromkeys(header, pl.String))
    return Table(frame, 2, ragged)


def select(table: Table, settings: DataSettings, where: str) -> Interactions:
    """Takes the mapped columns of a table, checks every row, applies the filter. Raises: InputError."""
    frame = table.frame
    roles = mapped_columns(settings, frame.columns, where)
    frame = frame.select(pl.col(name).alias(role) for role, name in roles.items())
    row = pl.int_range(table.first_row, table.first_row + pl.len()).alias("row")
    checked = frame.with_columns(row, time=_number(frame, "time"))
    problems = {"an empty user id": _empty("user"), "an empty item id": _empty("item")}
    problems["a time that is no number"] = pl.col("time").is_null()
    wanted = _filter(settings, frame, where)
    if wanted is not None:
        problems[f"a {wanted.role} that is no number"] = wanted.unreadable
    account = [("read", frame.height + table.ragged)]
    if table.ragged:
        account.append(("skipped: a ragged row", -table.ragged))
    for problem, bad in problems.items():
        found = checked.filter(bad)
        if found.is_empty():
            continue
        if settings.on_bad_rows == "fail":
            number = int(found["row"][0])
            values = frame.row(number - table.first_row, named=True)
            received = ", ".join(f"{role} {value!r}" for role, value in values.items())
            raise InputError(f"{where}, row {number}: {problem}; received {received}; mend the row, or set data.on_bad_rows: skip")
        checked = checked.filter(~bad)
        account.append((f"skipped: {problem}", -found.height))
    if wanted is not None:
        before = checked.height
        checked = checked.filter(wanted.keep)
        account.append((f"filtered: not {settings.filter}", checked.height - before))
    if checked.is_empty():
        raise InputError(
            f"{where}: no interaction is left of {frame.height + table.ragged} rows read; see data.filter and data.on_bad_rows"
        )
    titles = dict(checked.select(pl.col("item", "title").cast(pl.String)).iter_rows()) if "title" in roles else {}
    return Interactions(checked.select(pl.col("user", "item").cast(pl.String), "time"), account, titles)


def mapped_columns(settings: DataSettings, present: list[str], where: str, holder: str = "the file") -> dict[str, str]:
    """The mapped columns by role. Raises: InputError if one of them is not among those present."""
    roles = {role: name for role, name in settings.columns.model_dump().items() if name is not None}
    for role, name in roles.items():
        if name not in present:
            has = ", ".join(present)
            raise InputError(f"{where}: no column {name!r} for the {role}; {holder} has: {has}; set data.columns.{role} to the right one")
    return roles


@dataclass(frozen=True)
class _Wanted:
    role: str
    keep: pl.Expr
    unreadable: pl.Expr


def _filter(settings: DataSettings, frame: pl.DataFrame, where: str) -> _Wanted | None:
    if settings.filter is None:
        return None
    match = _FILTER.match(settings.filter)
    assert match is not None  # the settings were validated
    role, operator, value = match.groups()
    if role not in frame.columns:
        raise InputError(f"{where}: data.filter {settings.filter!r} needs data.columns.{role}, which is not set")
    try:
        number = float(value)
    except ValueError:
        return _Wanted(role, OPERATORS[operator](pl.col(role).cast(pl.String), value.strip("'\"")), pl.lit(value=False))
    rating = pl.col(role).cast(pl.Float64, strict=False)
    return _Wanted(role, OPERATORS[operator](rating, number), rating.is_null())


def _empty(role: str) -> pl.Expr:
    return pl.col(role).is_null() | (pl.col(role).cast(pl.String).str.strip_chars() == "")


def _number(frame: pl.DataFrame, role: str) -> pl.Series:
    """The column as Int64 where every value is whole, else as Float64; null where it is no finite number."""
    column = frame.get_column(role)
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).to_physical()
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    whole = column.cast(pl.Int64, strict=False) if not column.dtype.is_float() else column
    if whole.dtype == pl.Int64 and whole.null_count() == column.null_count():
        return whole
    real = column.cast(pl.Float64, strict=False)
    return pl.DataFrame({role: real}).select(pl.when(pl.col(role).is_finite()).then(pl.col(role))).to_series()


def _read_titles(settings: TitleSettings) -> dict[str, str]:
    frame = read_table(settings.path).frame
    for role, name in {"item": settings.item, "title": settings.title}.items():
        if name not in frame.columns:
            raise InputError(f"{settings.path}: no column {name!r}; the file has: {', '.join(frame.columns)}; set data.titles.{role}")
    return dict(frame.select(pl.col(settings.item, settings.title).cast(pl.String)).drop_nulls().iter_rows())
