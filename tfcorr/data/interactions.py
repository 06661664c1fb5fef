"""From a file to Interactions: three columns, checked row by row, with an account of what was dropped."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import polars as pl
import polars.selectors as cs
from pydantic import AfterValidator, Field, field_validator, model_validator

from tfcorr.data.features import FeatureSettings
from tfcorr.data.tables import OnBadRows, Table, collect, read_table
from tfcorr.data.times import Form, counts_of_forms, form_of, is_time, times_of, with_times_as_text
from tfcorr.data.values import NUMBER, check_plain, is_plain, numbers_of, texts, texts_of
from tfcorr.settings import InputError, Settings

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {">=": ge, "<=": le, "==": eq, "!=": ne, ">": gt, "<": lt}
_FILTER = re.compile(
    r"^\s*(?:(rating)\s*(>=|<=|==|!=|>|<)\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(event)\s*(==|!=)\s*(.+?))\s*$"
)


FilePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)).absolute())]


RESERVED = (
    "history",
    "user",
    "window",
    "place",
    "k",
    "exclude",
    "item",
    "candidates",
)  # what else a context or request has


class Columns(Settings):
    """The names that the file gives to the columns."""

    user: str = Field("user_id", description="who")
    item: str = Field("item_id", description="what")
    time: str = Field("timestamp", description="when: a number, or a date and time by ISO 8601")
    rating: str | None = Field(None, description="for data.filter")
    event: str | None = Field(None, description="for data.filter")
    title: str | None = Field(None, description="the item's title, shown beside its id")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len({self.user, self.item, self.time}) < 3:
            raise ValueError(
                f"user, item and time must be three columns; received {self.user}, {self.item}, {self.time}"
            )
        return self


class TitleSettings(Settings):
    """A file with one row an item: its id and its title."""

    path: FilePath = Field(description="CSV, TSV (either may be .gz) or Parquet")
    item: str = Field("item_id", description="the column of the ids")
    title: str = Field("title", description="the column of the titles")


Published = Literal["gowalla", "taobao", "amazon-ratings", "amazon-reviews", "movielens"]
Source = Literal["file", "movielens-100k", "tfds", "prepared", Published]


class SideSettings(Settings):
    """A file with one row an item, or a user: CSV, TSV (either may be .gz) or Parquet."""

    path: FilePath = Field(description="the file")
    key: str = Field(description="the column of the ids")


class DataSettings(Settings):
    """Where the interactions come from and which of them count."""

    source: Source = Field("file", description="a file of one's own, or a public data set")
    path: FilePath | None = Field(
        None,
        description="CSV, TSV (either may be .gz) or Parquet, for source: file; what `tfcorr prepare` wrote, for "
        "prepared; else the "
        "original file of the source",
    )
    builder: str | None = Field(None, description="name of a TensorFlow Datasets builder; for source: tfds")
    split: str = Field("train", description="split of the builder; for source: tfds")
    data_dir: FilePath | None = Field(None, description="where TensorFlow Datasets keeps its files; for source: tfds")
    columns: Columns = Columns()
    filter: str | None = Field(None, description="such as 'rating >= 4' or 'event == click'")
    on_bad_rows: OnBadRows = Field("fail", description="what to do about rows that cannot be read")
    titles: TitleSettings | None = Field(
        None, description="a file of item titles, where columns.title does not name them"
    )
    features: dict[str, FeatureSettings] = Field({}, description="features beside the ids, by name")
    items: SideSettings | None = Field(None, description="a file with a row an item, for features of items")
    users: SideSettings | None = Field(None, description="a file with a row a user, for features of users")
    cold_items: bool = Field(
        False, description="whether items that data.items alone has can be recommended, by their features"
    )
    min_interactions: int = Field(5, ge=1, description="users and items with fewer are dropped, until none is left")

    @field_validator("filter")
    @classmethod
    def _filter_reads(cls, value: str | None) -> str | None:
        if value is not None and not _FILTER.match(value):
            raise ValueError("a filter reads 'rating >= 4' or 'event == click'")
        return value

    @model_validator(mode="after")
    def _features_fit(self) -> Self:
        if self.cold_items and not any(each.of == "item" for each in self.features.values()):
            raise ValueError("cold_items needs a feature of each item in data.features, by which to recommend them")
        for name, each in self.features.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
                raise ValueError(
                    f"features.{name}: a feature's name has small letters, digits and _, and is none of "
                    f"{', '.join(RESERVED)}"
                )
            if (
                each.of == "interaction"
                and each.kind in ("categorical", "numeric")
                and self.source not in ("file", "tfds")
            ):
                raise ValueError(
                    f"features.{name}: source {self.source} has no columns of its interactions but the ids and times"
                )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        chosen = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        ignored = sorted(chosen & UNUSED[self.source])
        if ignored:
            raise ValueError(f"source {self.source} does not use {', '.join(ignored)}; leave it out")
        return self


UNUSED: dict[Source, set[str]] = {
    "file": {"builder", "split", "data_dir"},
    "movielens-100k": {"path", "columns", "titles", "builder", "split", "data_dir", "items", "users"},
    "tfds": {"path", "titles"},
    **{source: {"columns", "titles", "builder", "split", "data_dir"} for source in get_args(Published)},
    "prepared": {
        *("columns", "filter", "on_bad_rows", "titles", "min_interactions", "builder", "split", "data_dir"),
        *("features", "items", "users", "cold_items"),
    },
}


FEATURE = "feature "


@dataclass(frozen=True)
class Interactions:
    """Interactions in file order, read when they are collected, and only as far as memory must hold them.

    `frame` has the columns user (String), item (String) and time (Int64 or Float64), and FEATURE + name for each
    feature that is a column of its own. `account` tells what happened to the rows so far, as (what, interactions)
    pairs; `where` names the source. `titles` maps item ids to titles, and is None where none are named; of their rows
    `ragged_titles` were left out. `unit` is how many of the times make a second, where that is known.
    """

    frame: pl.LazyFrame
    account: list[tuple[str, int]]
    where: str
    titles: dict[str, str] | None = None
    ragged_titles: int = 0
    unit: int | None = None

    def collect(self, *columns: pl.Expr) -> pl.DataFrame:
        """The columns of all rows, or everything. Raises: InputError if the file cannot be read after all."""
        return collect(self.frame.select(columns or pl.all()), self.where)


def read_interactions(settings: DataSettings) -> Interactions:
    """Reads a CSV, TSV or Parquet file. Raises: InputError, which names file, row and value."""
    if settings.path is None:
        raise InputError("data.path is required with source: file; give the CSV, TSV or Parquet file of interactions")
    table = read_table(settings.path, settings.on_bad_rows)
    interactions = select(table, settings, str(settings.path))
    if settings.titles is None:
        return interactions
    titles, ragged = read_titles(settings.titles, settings.on_bad_rows)
    return replace(interactions, titles=titles, ragged_titles=ragged)


def select(table: Table, settings: DataSettings, where: str) -> Interactions:
    """Takes the mapped columns of a table, checks every row, applies the filter. Raises: InputError."""
    checked = check_rows(table, settings, where)
    check_any_left(checked.account, where)
    names = checked.rows.collect_schema().names()
    titles = _titles(checked.rows, "item", "title", where) if "title" in names else None
    rows = checked.rows.select("user", "item", "time", *(name for name in names if name.startswith(FEATURE)))
    return Interactions(rows, told(checked.account), where, titles, unit=checked.unit)


class Checked(NamedTuple):
    """The sound and wanted rows of a table or of a part of one, and what became of all of them.

    The columns are row (its number), user, item (String), time and what else is mapped; `unit` is how many of the times
    make a second, where that is known; the account has the same entries whatever the rows are.
    """

    rows: pl.LazyFrame
    account: list[tuple[str, int]]
    unit: int | None


def check_rows(table: Table, settings: DataSettings, where: str, form: Form | None = None) -> Checked:
    """Finds the sound and wanted rows. `form` is that of times that are texts, for a part; a whole table tells it.

    Raises: InputError.
    """
    roles = mapped_columns(settings, table.frame.collect_schema().names(), where)
    frame = table.frame.select(cs.by_name(name).alias(role) for role, name in roles.items())
    if frame.collect_schema()["time"] in (pl.Categorical, pl.Enum):
        frame = frame.with_columns(pl.col("time").cast(pl.String))
    schema = frame.collect_schema()
    _check_types(schema, where)
    frame = frame.with_row_index("row", table.first_row)
    time = times_of(pl.col("time"), schema["time"], form or time_form(frame, where))
    ids = {role: texts_of(pl.col(role), schema[role]) for role in ("user", "item")}
    problems = {
        "a user id that is no whole number": ids["user"].wrong,
        "an item id that is no whole number": ids["item"].wrong,
        "an empty user id": ids["user"].value.is_null(),
        "an empty item id": ids["item"].value.is_null(),
        **time.wrong,
    }
    for name, each in settings.features.items():
        kind = schema.get(FEATURE + name)
        if kind is not None and each.kind == "numeric":
            problems[f"a {name} that is no finite number"] = numbers_of(FEATURE + name, kind).wrong
        elif kind is not None:
            problems[f"a {name} that is neither text nor whole number"] = texts_of(pl.col(FEATURE + name), kind).wrong
    wanted = _filter(settings, schema, where)
    if wanted is not None:
        problems[f"a {wanted.role} that is no number"] = wanted.unreadable
    good, found = pl.lit(value=True), dict[str, pl.Expr]()
    for problem, bad in problems.items():  # a row with two problems counts for the first
        found |= {problem: (good & bad).sum(), f"first of {problem}": pl.col("row").filter(good & bad).first()}
        good &= ~bad
    kept = good if wanted is None else good & wanted.keep.fill_null(value=False)
    found |= {
        "read": pl.len(),
        "sound": good.sum(),
        "kept": kept.sum(),
        "whole": (time.real.is_null() == time.whole.is_null()).all(),
    }
    fact = collect(frame.select(**found), where).row(0, named=True)
    account = [("read", fact["read"] + table.ragged), ("skipped: a ragged row", -table.ragged)]
    for problem in problems:
        if fact[problem] and settings.on_bad_rows == "fail":
            first = fact[f"first of {problem}"]
            row = frame.drop("row").slice(first - table.first_row, 1)
            values = collect(with_times_as_text(row), where).row(0, named=True)
            received = ", ".join(f"{role} {value!r}" for role, value in values.items())
            raise InputError(
                f"{where}, row {first}: {problem}; received {received}; mend the row, or set data.on_bad_rows: skip"
            )
        account.append((f"skipped: {problem}", -fact[problem]))
    if wanted is not None:
        account.append((f"filtered: not {settings.filter}", fact["kept"] - fact["sound"]))
    when = (time.whole if fact["whole"] else time.real).alias("time")
    rows = frame.filter(kept).with_columns(when, **{role: each.value for role, each in ids.items()})
    return Checked(rows, account, time.unit)


def time_form(frame: pl.LazyFrame, where: str) -> Form | None:
    """The form of most times of a frame with that column, where they are texts. Raises: InputError."""
    if frame.collect_schema()["time"] != pl.String:
        return None
    return form_of(collect(frame.select(**counts_of_forms(pl.col("time"))), where).row(0, named=True))


def told(account: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The account without the problems that no row had."""
    return [(what, rows) for what, rows in account if rows or not what.startswith("skipped")]


def check_any_left(account: list[tuple[str, int]], where: str) -> None:
    """Raises: InputError if no row of those read is left."""
    if not sum(rows for _, rows in account):
        raise InputError(
            f"{where}: no interaction is left of {dict(account)['read']} rows read; see data.filter and "
            "data.on_bad_rows"
        )


def mapped_columns(settings: DataSettings, present: list[str], where: str, holder: str = "the file") -> dict[str, str]:
    """The mapped columns by role. Raises: InputError if one of them is not among those present."""
    roles = {role: name for role, name in settings.columns.model_dump().items() if name is not None}
    own = {
        name: each
        for name, each in settings.features.items()
        if each.of == "interaction" and each.kind in ("categorical", "numeric")
    }
    roles |= {FEATURE + name: each.column or name for name, each in own.items()}
    for role, name in roles.items():
        if name not in present:
            has = ", ".join(present)
            raise InputError(
                f"{where}: no column {name!r} for the {role}; {holder} has: {has}; set data.columns.{role} to the "
                "right one"
            )
    return roles


@dataclass(frozen=True)
class _Wanted:
    role: str
    keep: pl.Expr
    unreadable: pl.Expr


def _same(text: str, kind: pl.DataType, rule: str, where: str) -> pl.Expr:
    """Whether the event of a row is the one that a filter names, by the type of its column, null where there is none.

    A text is the same where it reads the same, and also where both are the same number, or the same of true and false.
    Raises: InputError if the column holds no such.
    """
    event, truth = pl.col("event"), {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    number = float(text) if NUMBER.fullmatch(text) else None
    if kind == pl.Boolean:
        if truth is None:
            raise InputError(
                f"{where}: the event column holds true and false; data.filter is {rule!r}, expected one of these"
            )
        return event == truth
    if kind.is_numeric():
        if number is None:
            raise InputError(f"{where}: the event column holds numbers; data.filter is {rule!r}, expected one")
        return _compared("event", kind, eq, text)
    meant = texts_of(event.cast(pl.String), pl.String()).value
    same = meant == text
    if number is not None:
        same |= (meant.cast(pl.Float64, strict=False) == number).fill_null(value=False)
    if truth is not None:
        same |= meant.str.to_lowercase() == str(truth).lower()
    return same


def _compared(column: str, kind: pl.DataType, operator: Callable[[Any, Any], Any], text: str) -> pl.Expr:
    """A column of numbers compared with one, exactly and in the column's precision; null where a cell has none."""
    if kind.is_integer() and re.fullmatch(r"[+-]?\d{1,18}", text):
        return operator(pl.col(column), int(text))
    number = float(text)
    return operator(numbers_of(column, kind).value, float(np.float32(number)) if kind == pl.Float32 else number)


def _filter(settings: DataSettings, schema: pl.Schema, where: str) -> _Wanted | None:
    match = _FILTER.match(settings.filter or "")
    if match is None:
        return None
    rating, rating_operator, number, event, event_operator, text = match.groups()
    role = rating or event
    if role not in schema:
        raise InputError(f"{where}: data.filter {settings.filter!r} needs data.columns.{role}, which is not set")
    if event:
        same = _same(text.strip("'\""), schema["event"], settings.filter or "", where)
        return _Wanted(role, same if event_operator == "==" else ~same, pl.lit(value=False))
    keep = _compared("rating", schema["rating"], OPERATORS[rating_operator], number)
    return _Wanted(role, keep, numbers_of("rating", schema["rating"]).value.is_null())


def _check_types(schema: pl.Schema, where: str) -> None:
    """Refuses columns of Parquet's richer types, such as lists. Raises: InputError."""
    for role, kind in schema.items():
        if not (is_time(kind) if role == "time" else is_plain(kind)):
            raise InputError(
                f"{where}: the {role} column holds {kind}; expected text or numbers" + ", or dates" * (role == "time")
            )


def read_titles(settings: TitleSettings, on_bad_rows: OnBadRows) -> tuple[dict[str, str], int]:
    """Reads a file of titles, as item id to title, and how many rows were left out. Raises: InputError."""
    table, where = read_table(settings.path, on_bad_rows), str(settings.path)
    present = table.frame.collect_schema().names()
    for role, name in {"item": settings.item, "title": settings.title}.items():
        if name not in present:
            raise InputError(f"{where}: no column {name!r}; the file has: {', '.join(present)}; set data.titles.{role}")
    found = _titles(table.frame, settings.item, settings.title, where)
    if not found:
        raise InputError(f"{where}: no row has both {settings.item} and {settings.title}; mend it, or leave titles out")
    return found, table.ragged


def _titles(frame: pl.LazyFrame, item: str, title: str, where: str) -> dict[str, str]:
    """Each item's last title."""
    table = collect(frame.select(cs.by_name(item).alias("item"), cs.by_name(title).alias("title")), where)
    check_plain(title, table.schema["title"], where)
    told = table["title"].cast(pl.String).replace(["", r"\N"], None)
    pairs = pl.DataFrame({"item": texts(table["item"], where), "title": told}).drop_nulls()
    return dict(pairs.unique(subset="item", keep="last", maintain_order=True).iter_rows())
