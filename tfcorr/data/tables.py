"""From a file, or a folder of parts, to a table whose columns have names."""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from tfcorr.data.times import in_utc
from tfcorr.settings import InputError

OnBadRows = Literal["fail", "skip"]
SEPARATORS = ",;\t|"  # that a header may have been written with
GZIP = b"\x1f\x8b"  # what such a file begins with
LOGGED = ("_delta_log", ".hoodie")  # tells which files of a table count


@dataclass(frozen=True)
class Table:
    """A table as read: its first row has the number `first_row`, and `ragged` rows were left out."""

    frame: pl.LazyFrame
    first_row: int
    ragged: int = 0


def collect(frame: pl.LazyFrame, where: str) -> pl.DataFrame:
    """Computes a frame batch by batch, by Polars' streaming engine. Raises: InputError if its file cannot be read."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputError(f"{where}: cannot be read: {str(error).strip().splitlines()[0]}") from None


def read_table(path: Path, on_bad_rows: OnBadRows = "fail") -> Table:
    """Reads a text file, its columns as strings, or opens a Parquet file or a folder of such, which count as one in
    the order of their paths.

    Raises: InputError if it cannot be read or has no rows.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file; give the path of a CSV, TSV or Parquet file")
    name = ".parquet" if path.is_dir() else path.name.lower().removesuffix(".gz")
    kind = next((each for each in (".csv", ".tsv", ".parquet") if name.endswith(each)), None)
    if kind is None:
        raise InputError(
            f"{path}: unknown kind of file {Path(name).suffix!r}; expected .csv, .tsv (either may be .gz) or .parquet"
        )
    try:
        if kind == ".parquet":
            scanned = _scan_folder(path) if path.is_dir() else pl.scan_parquet(path, glob=False)
            table = Table(in_utc(scanned), first_row=1)
        else:
            table = _read_text(path, "," if kind == ".csv" else "\t", on_bad_rows)
    except (
        *(pl.exceptions.PolarsError, pl.exceptions.PanicException, UnicodeDecodeError),
        *(OSError, EOFError, zlib.error, csv.Error),
    ) as error:
        reason = str(error).strip().splitlines()[0]
        advice = "; write it as UTF-8" if "utf-8" in reason else ""
        raise InputError(f"{path}: cannot be read as {kind[1:].upper()}: {reason}{advice}") from None
    if table.ragged and not collect(table.frame.select(pl.len()), str(path)).item():
        return read_table(path)  # which says what is wrong with the first
    if not collect(table.frame.select(pl.len()), str(path)).item():
        raise InputError(f"{path}: the file has no rows; expected a header and one row an interaction")
    return table


def _scan_folder(folder: Path) -> pl.LazyFrame:
    """The Parquet files of a folder and of those in it, as one table; folders named KEY=VALUE give a column of texts.

    What its writer hides does not count: _SUCCESS, .crc files. Raises: InputError.
    """
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    parts = [part for part in files if not any(name.startswith((".", "_")) for name in part.parts)]
    logged = next((each for each in LOGGED if (folder / each).exists()), None)
    if logged:
        raise InputError(
            f"{folder}: holds {logged}, by which some of its files no longer count; write what does as Parquet, "
            "elsewhere"
        )
    if not parts:
        raise InputError(f"{folder}: is a folder without .parquet files; give the path of a file, or of such a folder")
    first = None
    for part in parts:
        if part.suffix.lower() != ".parquet":
            raise InputError(f"{folder}: holds {part}, which is no .parquet; take it out, or name it so if it is one")
        try:
            schema = pl.read_parquet_schema(folder / part)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{folder / part}: cannot be read as PARQUET: {reason}") from None
        first = first or schema
        differing = sorted({str(name) for name, _ in dict(schema).items() ^ dict(first).items()})
        if schema != first:
            how = f"has other columns, or of other types, than {parts[0]}: {', '.join(differing)}"
            how = how if differing else f"has its columns in another order than {parts[0]}"
            raise InputError(f"{folder / part}: {how}; write all parts alike")
        if _keys(part) != _keys(parts[0]):
            raise InputError(
                f"{folder}: {part} does not lie in folders of the same names KEY=VALUE as {parts[0]}; move one"
            )
    keys = dict.fromkeys(_keys(parts[0]), pl.String())
    both = sorted(keys.keys() & dict(first or {}).keys())
    if both:
        raise InputError(
            f"{folder}: {', '.join(both)} is a column of its files and in the names of folders; rename one"
        )
    every = [folder / part for part in parts]
    return pl.scan_parquet(every, glob=False, hive_partitioning=bool(keys), hive_schema=keys or None)


def _keys(part: Path) -> list[str]:
    return [name.partition("=")[0] for name in part.parts[:-1] if "=" in name]


def _read_text(path: Path, separator: str, on_bad_rows: OnBadRows) -> Table:
    content = path.read_bytes()
    if content.startswith(GZIP):  # whatever it is called
        content = gzip.decompress(content)
    while content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
    content = content.strip(b"\r\n")
    if not content.strip():
        raise InputError(f"{path}: the file is empty; expected a header and one row an interaction")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")  # which ended lines on old Macs
    first = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    if b"\0" in first:
        raise InputError(f"{path}: the header holds zero bytes, as in UTF-16; write the file as UTF-8")
    if re.fullmatch(rb"sep=.", first, re.DOTALL):
        raise InputError(f"{path}: the first line is {first.decode()!r}, a spreadsheet's; take it out")
    header = _header(path, first.decode(), separator)
    if _is_regular(content, separator, len(header)):
        frame = pl.read_csv(content, separator=separator, infer_schema=False, new_columns=header)
        return Table(frame.lazy(), 2)
    return _read_irregular(path, content.decode(), separator, header, on_bad_rows)


def _header(path: Path, line: str, separator: str) -> list[str]:
    """The columns' names; one that has none is called after its number."""
    if line.count('"') % 2:
        raise InputError(f"{path}: in the header a quote opens that is not closed on its line: {line[:80]!r}; mend it")
    header = next(csv.reader([line], delimiter=separator))
    names = [name if name.strip() else f"column {number}" for number, name in enumerate(header, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the header names {', '.join(twice)} twice; every column needs a name of its own")
    other = [each for each in SEPARATORS if each in line]
    if len(names) == 1 and other:
        raise InputError(
            f"{path}: the header is {line[:80]!r}, one column; the name says that fields are separated by "
            f"{separator!r}, but they seem to be by {other[0]!r}; write them by commas in a .csv, by tabs in a .tsv"
        )
    return names


def _is_regular(content: bytes, separator: str, fields: int) -> bool:
    """Whether every line has as many fields as the header; also false where quotes make that hard to tell."""
    if b'"' in content:
        return False
    symbols = np.frombuffer(content, np.uint8)
    ends = np.append(np.flatnonzero(symbols == ord("\n")), len(symbols))
    separators = np.diff(np.searchsorted(np.flatnonzero(symbols == ord(separator)), ends), prepend=0)
    return bool((separators == fields - 1).all())


def _read_irregular(path: Path, text: str, separator: str, header: list[str], on_bad_rows: OnBadRows) -> Table:
    """Reads row by row, as Polars fills short rows and does not say where a long one stands.

    A row that cannot be read is refused or, with `skip`, left out, and reading goes on at the next line: a stray quote
    must not swallow what follows it.
    """
    lines = list(io.StringIO(text, newline=""))
    start, rows, ragged, number = 1, [], 0, 2
    while start < len(lines):
        row, end, problem = _row(lines, start, separator, len(header))
        if problem and on_bad_rows == "fail":
            raise InputError(f"{path}, row {number}: {problem}; mend the row, or set data.on_bad_rows: skip")
        if problem:
            ragged, end = ragged + 1, start + 1
        elif row:
            rows.append([value or None for value in row])
        number += bool(row or problem)
        start = end
    return Table(pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row").lazy(), 2, ragged)


def _row(lines: list[str], start: int, separator: str, fields: int) -> tuple[list[str], int, str]:
    """The row that begins at a line, the line after it, and what is wrong with it.

    A quoted field may hold line breaks; but where most of its lines have as many separators as a row has, they are
    rows, and the quote is a stray one.
    """
    if '"' not in lines[start]:
        text = lines[start].rstrip("\r\n")
        row = text.split(separator) if text else []
        return row, start + 1, _ragged(row, fields, separator)
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in itertools.islice(lines, start, None):
            taken.append(line)
            yield line

    try:
        row = next(csv.reader(take(), delimiter=separator, strict=True))
    except csv.Error as error:
        received = f": {taken[0].strip()[:80]!r}"
        if "unexpected end of data" in str(error):
            return [], start + 1, f"a quote opens that is never closed{received}"
        if "field larger" in str(error):
            most = csv.field_size_limit()
            return [], start + 1, f"a field is longer than {most:,} characters, as after a stray quote{received}"
        return [], start + 1, f"a quote opens that is not closed by the rules ({error}){received}"
    filled = [line for line in taken if line.strip()]
    if len(taken) > 1 and 2 * sum(line.count(separator) == fields - 1 for line in filled) > len(filled):
        received = "".join(taken)[:80]
        return (
            [],
            start + 1,
            f"a quoted field holds {len(taken) - 1} line breaks between what look like rows: {received!r}",
        )
    return row, start + len(taken), _ragged(row, fields, separator)


def _ragged(row: list[str], fields: int, separator: str) -> str:
    if not row or len(row) == fields:
        return ""
    return f"{len(row)} fields, but the header has {fields}: {separator.join(row)[:80]!r}"
