"""Recommendations from an exported cascade, as its users would have them; nothing of the training is loaded."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import tensorflow as tf

from tfcorr.evaluation.index import IndexKind
from tfcorr.files import read_intact, write_whole
from tfcorr.serving.export import latest_version
from tfcorr.settings import InputError

ROWS = 256  # histories answered at once
ANSWER = {"row": pl.Int32, "rank": pl.Int32, "item": pl.String, "ranker_score": pl.Float32, "retriever_score": pl.Float32}


class Recommender:
    """The newest exported version of a run's cascade."""

    def __init__(self, run: Path, index: IndexKind = "exact") -> None:
        """Raises: InputError if nothing was exported."""
        folder = run / "serving" / {"exact": "cascade", "scann": "cascade_scann"}[index]
        version = latest_version(folder)
        if not version:
            raise InputError(f"{folder}: holds no exported version; make one with: tfcorr export {run}")
        if index == "scann":
            importlib.import_module("scann")  # registers the operations that this SavedModel holds
        self._model = tf.saved_model.load(str(folder / str(version)))
        self._serve = self._model.signatures["serving_default"]

    @property
    def reads_user(self) -> bool:
        """Whether what it recommends depends on who the user is."""
        return "user" in self._serve.structured_input_signature[1]

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        users: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """The best k items for each history (item ids, oldest first), without those in `exclude`.

        `users` are the ids of whose histories these are; "" is one that is not known, and they count only where `reads_user`.
        Returns: row (place of the history), rank (1 the best), item, ranker_score, retriever_score.
        """
        if not histories:
            return pl.DataFrame(schema=ANSWER)
        exclude, users = exclude or [[]] * len(histories), users or [""] * len(histories)
        every = [slice(first, first + ROWS) for first in range(0, len(histories), ROWS)]
        return pl.concat([self._some(part.start, histories[part], k, exclude[part], users[part]) for part in every])

    def _some(
        self, first: int, histories: Sequence[Sequence[str]], k: int, exclude: Sequence[Sequence[str]], users: Sequence[str]
    ) -> pl.DataFrame:
        rows = len(histories)
        request = {"history": _padded(histories), "k": tf.fill([rows], tf.constant(k, tf.int32)), "exclude": _padded(exclude)}
        if self.reads_user:
            request["user"] = tf.constant(users, tf.string)
        answer = self._serve(**request)
        width = answer["item"].shape[1]
        places = tf.meshgrid(tf.range(first, first + rows), tf.range(1, width + 1), indexing="ij")
        flat = {"row": places[0], "rank": places[1], **answer}
        columns = {name: tf.reshape(flat[name], [-1]).numpy() for name in ANSWER}
        columns["item"] = [item.decode() for item in columns["item"]]
        return pl.DataFrame(columns, schema=ANSWER).filter(pl.col("item") != "")


def recommend_file(recommender: Recommender, source: Path, output: Path, k: int) -> int:
    """Recommends for every row of a Parquet file with the columns `user` and `history` (a list of item ids, oldest first)
    and, if wished, `exclude` (a list of item ids); writes user, rank, item, ranker_score and retriever_score to `output`.

    Returns: the number of recommendations. Raises: InputError.
    """
    users = read_users(source)
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of the Parquet file to write")
    exclude = users["exclude"].to_list() if "exclude" in users.columns else None
    named = users["user"].cast(pl.String).fill_null("").to_list()
    found = recommender.recommend(users["history"].to_list(), k, exclude, named)
    found = found.with_columns(users["user"].gather(found["row"])).select("user", "rank", "item", "ranker_score", "retriever_score")
    write_whole(output, found.write_parquet)
    return found.height


def titles(run: Path) -> dict[str, str]:
    """The titles of a run's items by id. Raises: InputError if the run's catalogue is not there."""
    catalogue = read_intact(run / "catalogue.parquet", pl.read_parquet)
    return dict(zip(catalogue["id"], catalogue["title"], strict=True))


def read_users(source: Path) -> pl.DataFrame:
    """Reads and checks the file that `recommend_file` describes. Raises: InputError."""
    expected = "expected Parquet with the columns user and history (a list of item ids)"
    if not source.is_file():
        raise InputError(f"{source}: there is no such file; {expected}")
    try:
        table = pl.read_parquet(source)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{source}: cannot be read: {str(error).splitlines()[0]}; {expected}") from None
    for name in ("user", "history"):
        if name not in table.columns:
            raise InputError(f"{source}: no column {name!r}; the file has: {', '.join(table.columns)}; {expected}")
    lists = [name for name in ("history", "exclude") if name in table.columns]
    for name in lists:
        kind = table.schema[name]
        if not isinstance(kind, pl.List) or not (kind.inner in (pl.String, pl.Null) or kind.inner.is_integer()):
            raise InputError(f"{source}: column {name!r} is {table.schema[name]}; {expected}")
    return table.with_columns(pl.col(name).cast(pl.List(pl.String)).fill_null([]).list.drop_nulls() for name in lists)


def _padded(rows: Sequence[Sequence[str]]) -> tf.Tensor:
    """Lists of ids -> [B, longest] strings, "" as padding."""
    return tf.ragged.constant(rows, dtype=tf.string, ragged_rank=1).to_tensor("")
