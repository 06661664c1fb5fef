"""The original files of public data sets, as their publishers ship them. docs/data.md says where to get each, and its
terms.

Each reader gives a table with the columns user, item and time, and rating or event where there is one.
"""

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from tfcorr.data.interactions import Columns, DataSettings, Interactions, select
from tfcorr.data.tables import Table, collect
from tfcorr.settings import InputError

Titles = dict[str, str]


def read_published(settings: DataSettings) -> Interactions:
    """Reads the files of the settings' source. Raises: InputError if they are not there or not in its format."""
    expected, read = FORMATS[settings.source]
    where = f"source {settings.source}, {settings.path}"
    if settings.path is None or not settings.path.exists():
        raise InputError(f"{where}: there is no such file; give data.path: {expected}")
    try:
        frame, first_row, titles = read(settings.path, expected)
        names = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{where}: cannot be read: {str(error).strip().splitlines()[0]}; expected {expected}"
        ) from None
    if not collect(frame.select(pl.len()), where).item():
        raise InputError(f"{where}: holds no rows; expected {expected}")
    columns = Columns(
        user="user", item="item", time="time", **{role: role for role in ("rating", "event") if role in names}
    )
    interactions = select(Table(frame, first_row), settings.model_copy(update={"columns": columns}), where)
    return replace(interactions, titles=titles or None)


def _headless(source: Path | io.BytesIO, separator: str, names: list[str]) -> pl.LazyFrame:
    first = _first_line(source).split(separator)
    if len(first) != len(names):
        raise InputError(
            f"{source}: its first row has {len(first)} fields: {separator.join(first)!r}; expected {', '.join(names)}"
        )
    return pl.scan_csv(
        source, separator=separator, has_header=False, new_columns=names, infer_schema=False, quote_char=None
    )


def _first_line(source: Path | io.BytesIO) -> str:
    if isinstance(source, io.BytesIO):
        line = source.getvalue().split(b"\n", 1)[0]
    else:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as file:
            line = file.readline()
    return line.decode("utf-8").rstrip("\r\n")


def _gowalla(path: Path, _: str) -> tuple[pl.LazyFrame, int, Titles]:
    return _headless(path, "\t", ["user", "time", "latitude", "longitude", "item"]), 1, {}


def _taobao(path: Path, _: str) -> tuple[pl.LazyFrame, int, Titles]:
    return _headless(path, ",", ["user", "item", "category", "event", "time"]), 1, {}


def _amazon_ratings(path: Path, _: str) -> tuple[pl.LazyFrame, int, Titles]:
    return _headless(path, ",", ["user", "item", "rating", "time"]), 1, {}


def _amazon_reviews(path: Path, _: str) -> tuple[pl.LazyFrame, int, Titles]:
    schema = {"reviewerID": pl.String, "asin": pl.String, "overall": pl.Float64, "unixReviewTime": pl.Int64}
    frame = pl.scan_ndjson(path, schema=schema)
    return frame.rename({"reviewerID": "user", "asin": "item", "overall": "rating", "unixReviewTime": "time"}), 1, {}


def _movielens(path: Path, expected: str) -> tuple[pl.LazyFrame, int, Titles]:
    """MovieLens comes in three formats, each told by the name of its file of ratings."""
    files = _Files(path)
    ratings = ["user", "item", "rating", "time"]
    if files.has("u.data"):
        films = _films(files.text("u.item").splitlines(), "|")
        return _headless(files.open("u.data"), "\t", ratings), 1, films
    if files.has("ratings.dat"):
        films = _films(files.text("movies.dat").splitlines(), "::")
        return _headless(io.BytesIO(files.bytes("ratings.dat").replace(b"::", b"\t")), "\t", ratings), 1, films
    if files.has("ratings.csv"):
        table = pl.read_csv(files.open("movies.csv"), infer_schema=False)
        frame = pl.scan_csv(files.open("ratings.csv"), infer_schema=False)
        renamed = frame.rename(dict(zip(["userId", "movieId", "rating", "timestamp"], ratings, strict=True)))
        return renamed, 2, dict(table.select("movieId", "title").iter_rows())
    raise InputError(f"{path}: holds no u.data, ratings.dat or ratings.csv; expected {expected}")


def _films(lines: list[str], separator: str) -> Titles:
    return dict(line.split(separator, 2)[:2] for line in lines if separator in line)


class _Files:
    """The files of a folder, or of a zip archive, by their names, in whichever folder within they lie."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive = zipfile.ZipFile(path) if path.is_file() else None
        names = (
            self._archive.namelist()
            if self._archive
            else [str(each.relative_to(path)) for each in sorted(path.rglob("*"))]
        )
        self._places = {Path(name).name: name for name in reversed(names)}

    def has(self, name: str) -> bool:
        return name in self._places

    def bytes(self, name: str) -> bytes:
        if not self.has(name):
            raise InputError(f"{self._path}: holds no {name}; give the archive, or the folder, as it was published")
        return (
            self._archive.read(self._places[name]) if self._archive else (self._path / self._places[name]).read_bytes()
        )

    def open(self, name: str) -> Path | io.BytesIO:
        return io.BytesIO(self.bytes(name)) if self._archive else self._path / self._places[name]

    def text(self, name: str) -> str:
        """The older files are in Latin-1."""
        content = self.bytes(name)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")


Reader = Callable[
    [Path, str], tuple[pl.LazyFrame, int, Titles]
]  # path, what is expected -> rows, number of the first, titles
FORMATS: dict[str, tuple[str, Reader]] = {
    "gowalla": ("loc-gowalla_totalCheckins.txt or its .gz", _gowalla),
    "taobao": ("UserBehavior.csv", _taobao),
    "amazon-ratings": ("a file of ratings such as ratings_Electronics.csv (user, item, rating, time)", _amazon_ratings),
    "amazon-reviews": ("a file of reviews such as reviews_Electronics_5.json or its .gz", _amazon_reviews),
    "movielens": ("a MovieLens archive such as ml-1m.zip, or its folder", _movielens),
}
