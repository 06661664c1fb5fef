"""Recommendations from an exported cascade, as its users would have them; nothing of the training is loaded."""

import importlib
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import tensorflow as tf

from tfcorr.console import command
from tfcorr.data.values import brief, number_of, text_of, texts_of
from tfcorr.evaluation.index import IndexKind
from tfcorr.files import read_intact, write_whole
from tfcorr.serving.saved_model import CATALOGUE
from tfcorr.serving.versions import newest_served
from tfcorr.settings import InputError

ANSWER = {
    "row": pl.Int32,
    "rank": pl.Int32,
    "item": pl.String,
    "score": pl.Float32,
    "ranker_score": pl.Float32,
    "retriever_score": pl.Float32,
}
SHOWN = 5  # texts in a note
SEVERAL = (list, tuple, np.ndarray, pl.Series)  # what may hold several ids or categories
OUTDATED = "the cascade was exported by an earlier tfcorr; make a new version with: tfcorr export RUN"
MODEL: dict[IndexKind, str] = {"exact": "cascade", "scann": "cascade_scann"}


class Unknown(NamedTuple):
    """Of texts in a request those that training did not have, each once, and how many different ones were given."""

    texts: list[str]
    of: int

    def __str__(self) -> str:
        shown = ", ".join(self.texts[:SHOWN]) + ", …" * (len(self.texts) > SHOWN)
        return f"{len(self.texts):,} of {self.of:,} unknown, and so without effect: {shown}"


class AnyRecommender(ABC):
    """Asks a cascade by its signature, wherever it is."""

    rows = 256  # histories in one request
    specs: Mapping[str, tf.TensorSpec]  # of a request

    @abstractmethod
    def ask(self, request: dict[str, tf.Tensor], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """What the cascade answers: item (bytes), score, ranker_score and retriever_score, each [B, k]; by the
        signature `known`, of each text of a request whether it is."""

    @property
    def reads(self) -> frozenset[str]:
        """What it is asked with beside a history: "user" and features, as far as its towers read them."""
        return frozenset(self.specs) - {"history", "k", "exclude"}

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        context: Mapping[str, Sequence[Any]] | None = None,
    ) -> pl.DataFrame:
        """The best k items for each history (item ids, oldest first), without those in `exclude`, of each history too.

        Ids may be texts or whole numbers, in lists or arrays: what was a number in training is one here.

        `context` gives for each history what else is known, by name: "user" ids, features that are categories (one text
        each, or several in a list), features that are numbers. What is not given is not known.
        Returns: row (place of the history), rank (1 the best, by score), item, score (of the cascade's final order),
        ranker_score, retriever_score. Raises: InputError if the cascade was exported before scores were answered, or an
        argument is none: with the argument, and what it should be.
        """
        requests = self._requests(histories, k, exclude, context)
        parts = [self._answered(self.ask(request), row) for row, request in requests]
        return pl.concat(parts) if parts else pl.DataFrame(schema=ANSWER)

    def unknown(
        self,
        histories: Sequence[Sequence[str]],
        exclude: Sequence[Sequence[str]] | None = None,
        context: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, "Unknown"]:
        """What training had no such item, user or category for, and so has no effect: by the name of the argument.

        Takes what `recommend` does. Raises: InputError as it does.
        """
        given, unknown = defaultdict[str, set[bytes]](set), defaultdict[str, dict[bytes, None]](dict)
        for _, request in self._requests(histories, 0, exclude, context):
            texts = {name: values for name, values in request.items() if values.dtype == tf.string}
            answer = self.ask(texts, "known")
            for name, tensor in texts.items():
                some, known = tensor.numpy(), answer[name]
                given[name].update(some[some != b""])
                unknown[name].update(dict.fromkeys(some[(some != b"") & ~known]))
        return {
            name: Unknown([text.decode() for text in each], len(given[name])) for name, each in unknown.items() if each
        }

    def _requests(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str]] | None,
        context: Mapping[str, Sequence[Any]] | None,
    ) -> Iterator[tuple[int, dict[str, tf.Tensor]]]:
        """Requests of some histories each, and the place of the first of them. Raises: InputError."""
        histories = _rows("histories", histories, "a list of lists of item ids")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k < 2**31:
            raise InputError(f"k: expected a whole number from 0, received {brief(k)}")
        if not isinstance(context if context is not None else {}, Mapping):
            raise InputError(f"context: expected lists by name, received {brief(context)}")
        given = dict(context or {})
        strange = sorted(str(name) for name in given.keys() - self.reads)
        if strange:
            reads = ", ".join(sorted(self.reads)) or "nothing but a history"
            raise InputError(f"context: no tower reads {', '.join(map(repr, strange))}; they read: {reads}")
        expected = f"one for each of the {len(histories)} histories"
        for name, values in {"exclude": [[]] * len(histories) if exclude is None else exclude, **given}.items():
            given[name] = _rows(name, values, expected)
            if len(given[name]) != len(histories):
                raise InputError(f"{name}: expected {expected}, received {len(given[name])}")
        for first in range(0, len(histories), self.rows):
            part = slice(first, first + self.rows)
            history = _padded(_ids("histories", histories[part]))
            request = {"history": history, "exclude": _padded(_ids("exclude", given["exclude"][part]))}
            rows = len(history)
            for name in sorted(self.reads):
                values = given[name][part] if name in given else [None] * rows
                request[name] = _column(name, self.specs[name], values)
            yield first, request | {"k": tf.fill([rows], tf.constant(k, tf.int32))}

    def _answered(self, answer: dict[str, np.ndarray], first: int) -> pl.DataFrame:
        """An answer as a table, whose rows are of the histories from that place on."""
        if "score" not in answer:
            raise InputError(OUTDATED)
        rows, width = answer["item"].shape
        flat = {
            "row": np.repeat(np.arange(first, first + rows), width),
            "rank": np.tile(np.arange(1, width + 1), rows),
            **answer,
        }
        columns = {name: flat[name].reshape(-1) for name in ANSWER}
        columns["item"] = np.array([item.decode() for item in columns["item"]], object)
        if not np.isfinite(columns["score"]).all():
            raise InputError(
                "the cascade answers with scores that are no numbers: its weights, or the features of an item, are too "
                "large; mend the features and reindex, or train it anew"
            )
        return pl.DataFrame(columns, schema=ANSWER).filter(pl.col("item") != "")


class Recommender(AnyRecommender):
    """The version of a run's exported cascade that is served, in this process."""

    def __init__(self, run: Path | str, index: IndexKind = "exact") -> None:
        """Raises: InputError if nothing was exported."""
        run = Path(run)
        if index not in MODEL:
            raise InputError(f"index: expected {' or '.join(MODEL)}, received {brief(index)}")
        model = served_model(run, MODEL[index])
        if index == "scann":
            importlib.import_module("scann")  # registers the operations that this SavedModel holds
        try:
            self._model = tf.saved_model.load(str(model))
        except (OSError, ValueError, tf.errors.OpError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"{model}: cannot be loaded: {first}; make a new version with: {command('tfcorr', 'export', run)}"
            ) from None
        self.specs = self._model.signatures["serving_default"].structured_input_signature[1]

    def ask(self, request: dict[str, tf.Tensor], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """As the base class says. Raises: InputError if the export has no such signature."""
        if signature not in self._model.signatures:
            raise InputError(OUTDATED)
        return {name: values.numpy() for name, values in self._model.signatures[signature](**request).items()}


def served_model(run: Path, name: str) -> Path:
    """The SavedModel of a run that answers a request which names no version. Raises: InputError if there is none."""
    version = newest_served(run / "serving")
    if not version:
        raise InputError(
            f"{run / 'serving'}: holds no exported version; make one with: {command('tfcorr', 'export', run)}"
        )
    return run / "serving" / name / str(version)


def recommend_file(recommender: AnyRecommender, source: Path, output: Path, k: int) -> tuple[int, dict[str, Unknown]]:
    """Recommends for every row of a Parquet file with the columns `user` and `history` (a list of item ids, oldest
    first) and, if wished, `exclude` (a list of item ids) and features by their names; writes user, rank, item,
    score, ranker_score and retriever_score to `output`.

    Returns: the number of recommendations, and what of the file is not known, its columns too. Raises: InputError.
    """
    users = read_users(source)
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of the Parquet file to write")
    if output.resolve() == source.resolve():
        raise InputError(f"{output}: is the file of the requests, which would be gone; give another name")
    exclude = users["exclude"].to_list() if "exclude" in users.columns else None
    context = {name: users[name].to_list() for name in recommender.reads & set(users.columns)}
    histories = users["history"].to_list()
    found = recommender.recommend(histories, k, exclude, context)
    found = found.with_columns(users["user"].gather(found["row"])).select(
        "user", "rank", "item", "score", "ranker_score", "retriever_score"
    )
    write_whole(output, found.write_parquet)
    unknown = recommender.unknown(histories, exclude, context)
    unread = [name for name in users.columns if name not in {"user", "history", "exclude", *context}]
    return found.height, unknown | ({"columns": Unknown(unread, users.width)} if unread else {})


def titles(run: Path) -> dict[str, str]:
    """The titles of the items that a run's cascade answers with, by id. Raises: InputError if nothing was exported."""
    items = read_intact(served_model(run, "cascade") / CATALOGUE, pl.read_parquet)
    return dict(zip(items["id"], items["title"], strict=True))


def read_users(source: Path) -> pl.DataFrame:
    """Reads and checks the file that `recommend_file` describes. Raises: InputError."""
    expected = "expected Parquet with the columns user and history (a list of item ids)"
    if not source.is_file():
        raise InputError(f"{source}: there is no such file; {expected}")
    try:
        table = pl.read_parquet(source, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{source}: cannot be read: {str(error).splitlines()[0]}; {expected}") from None
    for name in ("user", "history"):
        if name not in table.columns:
            raise InputError(f"{source}: no column {name!r}; the file has: {', '.join(table.columns)}; {expected}")
    lists = [name for name in ("history", "exclude") if name in table.columns]
    for name in lists:
        if isinstance(table.schema[name], pl.Array):
            table = table.with_columns(pl.col(name).arr.to_list())
        kind = table.schema[name]
        inner = kind.inner if isinstance(kind, pl.List) else pl.Object()
        if not (inner in (pl.String, pl.Categorical, pl.Enum, pl.Null, pl.Boolean) or inner.is_numeric()):
            raise InputError(f"{source}: column {name!r} is {kind}; {expected}")
        value, wrong = texts_of(pl.element(), inner)
        first = table.filter(pl.col(name).list.eval(wrong).list.any())[name].head(1).to_list()
        if first:
            raise InputError(f"{source}: column {name!r} has {first[0]}, expected ids: texts or whole numbers")
        table = table.with_columns(pl.col(name).list.eval(value).fill_null([]).list.drop_nulls())
    return table


def _rows(name: str, values: Any, expected: str) -> Sequence[Any]:
    """A list of rows. Raises: InputError if it is none, such as a table, a set, or a text."""
    if not isinstance(values, SEVERAL) or (isinstance(values, np.ndarray) and not values.ndim):
        raise InputError(f"{name}: expected {expected}, received {brief(values)}")
    return values if isinstance(values, list | tuple) else list(values)


def _ids(name: str, rows: Sequence[Any]) -> list[list[str]]:
    """Lists of ids as texts, those that are empty left out. Raises: InputError if there are none in a row."""
    found = []
    for row in rows:
        ids = _rows(name, row, "a list of ids for each history")
        try:
            found.append([text for text in map(text_of, ids) if text is not None])
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return found


def _padded(rows: Sequence[Sequence[str]]) -> tf.Tensor:
    """Lists of ids -> [B, longest] strings, "" as padding."""
    return tf.ragged.constant(rows, dtype=tf.string, ragged_rank=1).to_tensor("")


def _column(name: str, spec: tf.TensorSpec, values: Sequence[Any]) -> tf.Tensor:
    """Values for each row, None where one is not known, as the tensor of a request. Raises: InputError if one is no
    number."""
    if spec.dtype != tf.string:
        try:
            numbers = [number_of(value) for value in values]
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        return tf.constant([math.nan if number is None else number for number in numbers], tf.float32)
    texts = _ids(name, [value if isinstance(value, SEVERAL) else [value] for value in values])
    if spec.shape.rank == 2:
        return _padded(texts)
    many = next((each for each in texts if len(each) > 1), None)
    if many:
        raise InputError(f"{name}: expected one for each history, received {brief(many)}")
    return tf.constant([each[0] if each else "" for each in texts], tf.string)
