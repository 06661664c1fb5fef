"""Prepares more interactions than one machine holds, on Apache Beam, as the folder that `tfcorr prepare` writes.

    python -m tfcorr.data.beam PIPELINE.yaml OUTPUT [--set NAME=VALUE …] [Beam's options, such as --runner=FlinkRunner]

`data.path` names Parquet files, one or a pattern such as /data/day-*.parquet, which every worker sees at that path; CSV
is not supported. The files count as one, in the order of their paths. The result is `tfcorr prepare`'s, ties of time
included, but for three things: where rows are bad and `on_bad_rows` is fail, another of them may be named; where times
are text, fractions among them, whole numbers beyond 2^53 are still told apart; and whether such are numbers or dates
the first row group decides.

A worker holds a row group of the input, the interactions of one user or of one item, or, one worker, all item ids and
titles; `data.titles` is read where the program starts. OUTPUT may be a path or a URL that Beam can write to;
intermediate files lie beside it, and are removed.
"""

import argparse
import json
import os
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from operator import itemgetter
from typing import Any, TypeAlias

import polars as pl

from tfcorr.console import assigned
from tfcorr.data.dataset import Account, about, check_trainable, dropped_and_left
from tfcorr.data.interactions import (
    DataSettings,
    check_any_left,
    check_rows,
    mapped_columns,
    read_titles,
    time_form,
    told,
)
from tfcorr.data.prepared import account_json, check_can_hold
from tfcorr.data.tables import Table
from tfcorr.data.times import Form, in_utc
from tfcorr.settings import InputError

try:
    import apache_beam as beam
    import pyarrow as pa
    import pyarrow.parquet as pq
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    advice = "tfcorr.data.beam needs Apache Beam: pip install 'tfcorr[beam]'"
    if __name__ == "__main__":
        sys.exit(f"error: {advice}")
    raise ImportError(advice) from error

Row = tuple[Any, ...]  # user, item, then what it is sorted by: time, the same where it is whole, file, row
Values: TypeAlias = beam.PCollection[Any]

ROWS = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("time", pa.float64()),
        ("whole", pa.int64()),
        ("file", pa.int64()),
        ("row", pa.int64()),
    ]
)
TITLES = pa.schema([("item", pa.string()), ("title", pa.string())])
ITEMS = pa.schema([("number", pa.int32()), ("id", pa.string()), ("title", pa.string())])
HISTORIES = pa.schema([("user", pa.string()), ("items", pa.list_(pa.int32()))])


def prepare_by_beam(settings: DataSettings, output: str, options: PipelineOptions) -> Account:
    """Prepares the interactions into the folder `output`, whole or not at all; returns the account. Raises:
    InputError."""
    check_can_hold(settings)
    files = _input_files(settings)
    output = output.rstrip("/") if "://" in output else os.path.abspath(os.path.expanduser(output))
    if FileSystems.exists(output) or _found(output, "**"):
        raise InputError(f"{output}: is there already; give a folder that is not, or remove it")
    parent, name = FileSystems.split(output)
    work = FileSystems.join(parent, f".{name}.partial-{uuid.uuid4().hex}")
    FileSystems.mkdirs(work)
    try:
        account = _prepare(settings, files, work, options)
        FileSystems.mkdirs(output)
        parts = _found(work, "prepared/*.parquet")
        FileSystems.rename(parts, [FileSystems.join(output, FileSystems.split(part)[1]) for part in parts])
        with FileSystems.create(FileSystems.join(output, "prepared.json")) as file:
            file.write(account_json(account).encode())
    finally:
        FileSystems.delete(_found(work, "**"))
        if FileSystems.exists(work):  # an object store has no folders
            FileSystems.delete([work])
    return account


def _input_files(settings: DataSettings) -> list[str]:
    if settings.source != "file" or settings.path is None or settings.path.suffix.lower() != ".parquet":
        raise InputError(
            f"Beam reads Parquet alone, but data.source is {settings.source} and data.path {settings.path}; "
            "give data.path: a .parquet file or a pattern of some, or use `tfcorr prepare`"
        )
    files = sorted(_found(str(settings.path)))
    if not files:
        raise InputError(
            f"{settings.path}: there is no such file; give the path of a Parquet file, or a pattern of some"
        )
    return files


def _found(*pattern: str) -> list[str]:
    [result] = FileSystems.match([FileSystems.join(*pattern)])
    return [file.path for file in result.metadata_list]


def _prepare(settings: DataSettings, files: list[str], work: str, options: PipelineOptions) -> Account:
    """Leaves items and histories in prepared/ under `work`; each run tells by a file, as it may have run anywhere."""
    where, least = str(settings.path), settings.min_interactions
    folders = (FileSystems.join(work, f"round-{number}") for number in count())
    folder = next(folders)
    if settings.titles is not None:
        with FileSystems.create(FileSystems.join(work, "titles.parquet")) as file:
            titles, _ = read_titles(settings.titles, settings.on_bad_rows)
            pl.DataFrame(list(titles.items()), schema=TITLES.names, orient="row").write_parquet(file)
    with beam.Pipeline(options=options) as pipeline:
        _read(pipeline, settings, files, work, folder)
    first = facts = _facts(folder)
    if facts["problems"] != [[]]:
        raise InputError(facts["problems"][0][0][1])
    account = [(what, rows) for _, what, rows in sorted(facts["account"])]
    interactions = sum(rows for _, rows in account)
    check_any_left(account, where)
    while facts["left by users"] != facts["left by items"]:
        before, folder = folder, next(folders)
        with beam.Pipeline(options=options) as pipeline:
            _note(folder, _drop_rare(pipeline | _Read(FileSystems.join(before, "rows*.parquet"), ROWS), least, folder))
        FileSystems.delete(_found(before, "*"))
        facts = _facts(folder)
    with beam.Pipeline(options=options) as pipeline:
        _number(pipeline, folder, work)
    last = _facts(FileSystems.join(work, "prepared"))
    counts_before = (interactions, first["users"][0], first["items"][0])
    rows = dropped_and_left(
        counts_before, (facts["left by items"][0], last["users"][0], last["items"][0]), least, where
    )
    check_trainable(last["trainable"][0], where)
    if last["titles"][0] and last["untitled"][0]:
        rows.append(about("of these without a title", "item", last["untitled"][0]))
        if last["untitled"][0] == last["items"][0]:
            raise InputError(
                f"{where}: no item has a title: write their ids as the interactions do, or leave titles out"
            )
    return [(what, n, None, None) for what, n in told(account)] + rows


def _read(pipeline: beam.Pipeline, settings: DataSettings, files: list[str], work: str, folder: str) -> None:
    """Reads, checks and filters all rows, keeps titles, and makes the first round."""
    finding = beam.ParDo(_Guarded(_row_groups)).with_outputs("problem", main="main")
    groups = pipeline | beam.Create(list(enumerate(files))) | "find row groups" >> finding
    reading = beam.ParDo(_Guarded(_read_group, settings, _form(settings, files))).with_outputs(
        "problem", "account", "title", main="main"
    )
    read = groups.main | beam.Reshuffle() | "read row groups" >> reading
    if settings.titles is None:
        titles = read.title | beam.CombinePerKey(max) | beam.MapTuple(lambda item, last: (item, last[-1]))
        _ = titles | "write titles" >> _Write(FileSystems.join(work, "titles"), TITLES)
    facts = {
        "problems": (groups.problem, read.problem) | beam.Flatten() | beam.combiners.Top.Smallest(1),
        "account": read.account
        | "add up" >> beam.CombinePerKey(sum)
        | "entries" >> beam.MapTuple(lambda entry, rows: (*entry, rows)),
    }
    for place, name in enumerate(("users", "items")):
        distinct = read.main | f"{name} alone" >> beam.Map(itemgetter(place)) | f"distinct {name}" >> beam.Distinct()
        facts[name] = distinct | f"count {name}" >> beam.combiners.Count.Globally()
    _note(folder, facts | _drop_rare(read.main, settings.min_interactions, folder))


class _Guarded(beam.DoFn):
    """Applies a function to a place in the input; an InputError of its becomes (place, message) in the output
    "problem"."""

    def __init__(self, function: Callable[..., Iterator[Any]], *arguments: Any):
        self._function, self._arguments = function, arguments

    def process(self, place: tuple[Any, ...]) -> Iterator[Any]:
        try:
            yield from self._function(place, *self._arguments)
        except InputError as error:
            yield beam.pvalue.TaggedOutput("problem", (place, str(error)))


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    with FileSystems.open(path) as file:
        try:
            yield pq.ParquetFile(file)
        except pa.ArrowException as error:
            raise InputError(f"{path}: cannot be read as PARQUET: {str(error).splitlines()[0]}") from None


def _row_groups(place: tuple[int, str]) -> Iterator[tuple[int, str, int, int]]:
    """(file, path, row group, number of its first row) of each row group in the file."""
    first = 1
    with _opened(place[1]) as file:
        for group in range(file.metadata.num_row_groups):
            yield *place, group, first
            first += file.metadata.row_group(group).num_rows


def _form(settings: DataSettings, files: list[str]) -> Form | None:
    """The form of times that are texts: that of most in the first row group."""
    for path in files:
        with _opened(path) as file:
            time = mapped_columns(settings, file.schema_arrow.names, path)["time"]
            if file.metadata.num_row_groups:
                frame = pl.LazyFrame(file.read_row_group(0, columns=[time]))
                return time_form(in_utc(frame.select(time=time)), path)
    return None


def _read_group(place: tuple[int, str, int, int], settings: DataSettings, form: Form | None) -> Iterator[Any]:
    """The rows of a row group; its account to "account", and to "title" (item, (file, row, title)) of each item's
    last."""
    number, path, group, first = place
    with _opened(path) as file:
        columns = sorted(set(mapped_columns(settings, file.schema_arrow.names, path).values()))
        frame = in_utc(pl.LazyFrame(file.read_row_group(group, columns=columns)))
    sound = check_rows(Table(frame, first), settings, path, form)
    checked = sound.rows.collect()
    for entry, (what, rows) in enumerate(sound.account):
        yield beam.pvalue.TaggedOutput("account", ((entry, what), rows))
    if "title" in checked.columns:
        titled = (
            checked.drop_nulls("title")
            .unique("item", keep="last")
            .select("item", "row", pl.col("title").cast(pl.String))
        )
        for item, row, title in titled.iter_rows():
            yield beam.pvalue.TaggedOutput("title", (item, (number, row, title)))
    whole = pl.col("time") if checked["time"].dtype.is_integer() else pl.lit(0)
    yield from checked.select(
        "user", "item", pl.col("time").cast(pl.Float64), whole.alias("whole"), pl.lit(number), "row"
    ).iter_rows()


def _drop_rare(rows: Values, least: int, folder: str) -> dict[str, Values]:
    """One round: drops the rows of rare users, then those of items rare among the rest; where the second drops none,
    none is rare."""
    facts = {}
    for place, name in enumerate(("users", "items")):
        grouped = rows | f"by {name}" >> beam.GroupBy(itemgetter(place))
        rows = grouped | f"drop rare {name}" >> beam.FlatMap(_unless_rare, least)
        facts[f"left by {name}"] = rows | f"count left by {name}" >> beam.combiners.Count.Globally()
    _ = rows | "write rows" >> _Write(FileSystems.join(folder, "rows"), ROWS)
    return facts


def _unless_rare(grouped: tuple[str, Iterable[Row]], least: int) -> Iterable[Row]:
    stream = iter(grouped[1])  # that of an item may be long: it is not held
    first = list(islice(stream, least))
    return chain(first, stream) if len(first) == least else ()


def _number(pipeline: beam.Pipeline, folder: str, work: str) -> None:
    """Numbers the items and writes them and the histories."""
    output = FileSystems.join(work, "prepared")
    rows = pipeline | "read rows" >> _Read(FileSystems.join(folder, "rows*.parquet"), ROWS)
    distinct = rows | beam.Map(itemgetter(1)) | beam.Distinct() | beam.Map(lambda item: (item, True))
    titles = pipeline | "read titles" >> _Read(FileSystems.join(work, "titles*.parquet"), TITLES)
    titled = {"left": distinct, "titles": titles} | "join titles" >> beam.CoGroupByKey() | beam.FlatMapTuple(_titled)
    numbered = titled | beam.combiners.ToList() | beam.FlatMap(_numbered)
    _ = numbered | "write items" >> _Write(FileSystems.join(output, "items"), ITEMS)
    by_item = {
        "number": numbered | "number by item" >> beam.MapTuple(lambda number, item, title: (item, number)),
        "rows": rows | "rows by item" >> beam.Map(lambda row: (row[1], row)),
    }
    placed = by_item | "join numbers" >> beam.CoGroupByKey() | beam.FlatMapTuple(_placed)
    histories = (
        placed | beam.GroupByKey() | beam.MapTuple(lambda user, places: (user, [place[-1] for place in sorted(places)]))
    )
    _ = histories | "write histories" >> _Write(FileSystems.join(output, "histories"), HISTORIES)
    trainable = histories | beam.Filter(
        lambda history: len(history[1]) >= 4
    )  # the first has no history, the last two are held out
    untitled = titled | "without a title" >> beam.Filter(lambda item: not item[1])
    counted = {"items": numbered, "users": histories, "trainable": trainable, "titles": titles, "untitled": untitled}
    _note(output, {name: each | f"count {name}" >> beam.combiners.Count.Globally() for name, each in counted.items()})


def _titled(item: str, joined: dict[str, list[Any]]) -> Iterator[tuple[str, str]]:
    if joined["left"]:
        yield item, next(iter(joined["titles"]), "")


def _numbered(titled: list[tuple[str, str]]) -> list[tuple[int, str, str]]:
    return [
        (number, *each) for number, each in enumerate(sorted(titled), start=1)
    ]  # code points sort as UTF-8's bytes do


def _placed(_: str, joined: dict[str, list[Any]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for user, _, *place in joined["rows"]:
        yield user, (*place, *joined["number"])


@beam.ptransform_fn
def _Write(rows: Values, prefix: str, schema: pa.Schema) -> Any:
    named = rows | beam.Map(lambda row, names: dict(zip(names, row, strict=True)), schema.names)
    return named | beam.io.WriteToParquet(prefix, schema, file_name_suffix=".parquet")


@beam.ptransform_fn
def _Read(pipeline: beam.Pipeline, pattern: str, schema: pa.Schema) -> Values:
    return pipeline | beam.io.ReadFromParquet(pattern, columns=schema.names) | beam.Map(itemgetter(*schema.names))


def _note(folder: str, facts: dict[str, Values]) -> None:
    """Writes each value as a line [name, value] of JSON into files that `_facts` reads."""
    named = [
        values | f"name {name}" >> beam.Map(lambda value, name: json.dumps([name, value]), name)
        for name, values in facts.items()
    ]
    _ = named | "all facts" >> beam.Flatten() | beam.io.WriteToText(FileSystems.join(folder, "facts"))


def _facts(folder: str) -> dict[str, list[Any]]:
    facts = defaultdict(list)
    for path in _found(folder, "facts*"):
        with FileSystems.open(path) as file:
            for line in file.read().splitlines():
                name, value = json.loads(line)
                facts[name].append(value)
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: exits with 0 when done, 1 when input or settings are wrong, 2 on wrong usage."""
    from tfcorr.config import load_settings  # takes TensorFlow with it, which no worker needs

    parser = argparse.ArgumentParser(
        "python -m tfcorr.data.beam", description="`tfcorr prepare` on Apache Beam.", allow_abbrev=False
    )
    parser.add_argument("pipeline", help="the YAML file of settings")
    parser.add_argument("output", help="the folder to write, which must not be there")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="overrides a setting; may be repeated"
    )
    given, of_beam = parser.parse_known_args(arguments)
    try:
        account = prepare_by_beam(load_settings(given.pipeline, given.set).data, given.output, PipelineOptions(of_beam))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    for what, *numbers in account:
        counted = zip(numbers, ("interactions", "users", "items"), strict=True)
        print(f"{what}:", ", ".join(f"{number:,} {name}" for number, name in counted if number is not None))
    how = assigned("data", {"source": "prepared", "path": given.output})
    print(f"prepared in {given.output}; train on it with: {how}")


if __name__ == "__main__":
    from tfcorr.data.beam import main as run  # under its own name, by which workers find what they are sent

    run()
