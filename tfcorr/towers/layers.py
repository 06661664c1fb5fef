"""What towers share: their base classes, dropout that can be resumed, and the reading of padded histories."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.data.features import Feature
from tfcorr.settings import InputError, Settings, nearest

if TYPE_CHECKING:
    from tfcorr.towers.counts import PairCounts


class CountsSettings(Settings):
    """What a ranker is told of pairs of items."""

    latest: int = Field(3, ge=1, description="of how many items of the history, the latest, the followers are counted")
    window: int = Field(3, ge=1, description="how many interactions apart a user's two items may be to count as a pair")
    scale: float = Field(20.0, gt=0, description="a pair's share s is told as log(1 + scale · s)")
    power: float = Field(
        0.5, ge=0, le=1, description="s is the pair's users over all that follow its first item, to this power"
    )
    repeats: bool = Field(True, description="also tell how often the candidate stands in the history, and how lately")


class TowerSettings(Settings):
    """Settings that every tower has."""

    name: str
    dim: int = Field(64, ge=1, description="width of the item embeddings")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of values that training drops")
    features: tuple[str, ...] | None = Field(None, description="which of data.features it sees; all by default")
    counts: CountsSettings | None = Field(
        None, description="of a ranker: what it is told of pairs of items; {} is the defaults"
    )


class Domain(NamedTuple):
    """What a tower is made for: so many items and users, each numbered from 1, histories of at most so many items, and
    features.

    `pairs` are what is known of pairs of items, by the window in which they are counted.
    """

    items: int
    users: int
    history_length: int
    features: tuple[Feature, ...] = ()
    pairs: Mapping[int, "PairCounts"] = {}

    @property
    def has_context(self) -> bool:
        """Whether there are features of users or of interactions."""
        return any(feature.of != "item" for feature in self.features)

    def chosen(self, settings: TowerSettings) -> "Domain":
        """The same with the features that the settings name. Raises: InputError if there is no such feature."""
        if settings.features is None:
            return self
        names = [feature.name for feature in self.features]
        unknown = sorted(set(settings.features) - set(names))
        if unknown:
            hint = nearest(unknown[0], names) if names else "data.features has none"
            raise InputError(f"features of {settings.name}: there is no {unknown[0]!r}; {hint}")
        return self._replace(features=tuple(feature for feature in self.features if feature.name in settings.features))


class Tower(tf.keras.Model):
    """What scores items for contexts: a retriever or a ranker. Its graphs are built without AutoGraph."""

    Settings: ClassVar[type[TowerSettings]]
    reads: frozenset[str] = frozenset({"history"})  # the context's tensors that it needs: "history", "user", features

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """context of B rows, candidates [B, K] int32 -> [B, K] float32."""
        raise NotImplementedError

    term_names: tuple[str, ...] = (
        "score",
    )  # what the score is the sum of, where the final order may weigh these apart

    def terms(self, context: Context, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
        """The score's terms [B, K] by name, the tower's main one first; by default the score itself."""
        return {"score": self.score(context, candidates)}

    @property
    def constants(self) -> list[tf.Variable]:
        """What it reads when it is served that is made of the data: it is never trained, and in no checkpoint."""
        return []

    @property
    def item_tables(self) -> dict[str, tf.Variable]:
        """What a candidate's vector is made of, and another tower's may start from: `id` [N + 1, D], and a table by
        feature."""
        table: tf.keras.layers.Layer = self.items
        return table.tables if hasattr(table, "tables") else {"id": table.embeddings}

    def auxiliary_loss(self, context: Context) -> tf.Tensor:
        """What the tower minimises beside its loss over candidates: [B] float32, zeros in most."""
        return tf.zeros(tf.shape(context["history"])[:1])


class Retriever(Tower):
    """A tower whose score is an inner product, so that its items can be indexed.

    A new one defines `Settings`, `encode_context` and `item_vectors`; where it is `causal`, also `encode_places`.
    """

    causal: bool = False  # whether it can encode every place of a history at once, each by what lies before

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32, context["user"] [B] int32 (0 is an unknown one) -> [B, D] float32."""
        raise NotImplementedError

    def encode_places(self, history: tf.Tensor, training: bool = False) -> tf.Tensor:
        """history [B, M] int32 -> [B, M, D] float32: at each place the context that ends with its item."""
        raise NotImplementedError

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """Item numbers [...] int32 -> [..., D] float32."""
        raise NotImplementedError

    def encode_examples(self, context: Context, training: bool = False) -> tf.Tensor:
        """A context of B training examples, by prefix or by window, -> [B, D] float32."""
        if "window" not in context:
            return self.encode_context(context, training)
        places = self.encode_places(context["window"], training)
        return tf.gather(tf.reshape(places, [-1, places.shape[-1]]), context["place"])

    def match(self, query: tf.Tensor, target: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encoded contexts [B, D] against target [B] and others, [B, K] or shared by all rows [K] -> [B], [B, K]
        float32."""
        query, vector, vectors = (
            tf.cast(each, tf.float32) for each in (query, self.item_vectors(target), self.item_vectors(others))
        )
        target_score = dot(query, vector)
        return target_score, tf.matmul(query, vectors, transpose_b=True) if others.shape.rank == 1 else inner(
            query, vectors
        )

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says: the inner products."""
        return inner(self.encode_examples(context, training), self.item_vectors(candidates))


class Ranker(Tower):
    """A tower that may score a context and a candidate in any way. A new one defines `Settings` and `score`."""


class RankerAround(Ranker):
    """A ranker that adds something to another's score."""

    def __init__(self, tower: Ranker, kind: str) -> None:
        super().__init__(name=f"{kind}_{tower.name}")
        self.tower = tower
        self.reads = tower.reads

    @property
    def constants(self) -> list[tf.Variable]:
        """The tower's own."""
        return self.tower.constants

    @property
    def item_tables(self) -> dict[str, tf.Variable]:
        """The tower's own."""
        return self.tower.item_tables

    def auxiliary_loss(self, context: Context) -> tf.Tensor:
        """The tower's own."""
        return self.tower.auxiliary_loss(context)


def inner(queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """queries [B, D], vectors [B, K, D] -> inner products [B, K], computed in float32."""
    return tf.linalg.matvec(tf.cast(vectors, tf.float32), tf.cast(queries, tf.float32))


class Dropout(tf.keras.layers.Layer):
    """Dropout whose random state is part of the checkpoint, so that a resumed run draws what it would have drawn.

    Each call takes one seed from the generator, so that replicas with unequal shares of a batch stay in step. A value
    is dropped by 16 random bits, half as many as a uniform number takes, so the rate is rounded to a multiple of 2⁻¹⁶.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = min(round(rate * 2**16), 2**16 - 1)  # of the 2¹⁶ values that 16 bits have
        # NumPy's global state is what tf.keras.utils.set_random_seed sets.
        self.generator = tf.random.Generator.from_seed(np.random.randint(2**31))

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Any shape; drops with probability `rate` when training, and scales the rest by 1 / (1 - rate)."""
        if not training or self.dropped == 0:
            return inputs
        words, seed = (tf.size(inputs) + 1) // 2, self.generator.make_seeds()[:, 0]
        bits = tf.bitcast(
            tf.random.stateless_uniform([words], seed, minval=None, maxval=None, dtype=tf.uint32), tf.uint16
        )
        kept = tf.reshape(tf.reshape(bits, [-1])[: tf.size(inputs)], tf.shape(inputs)) >= tf.constant(
            self.dropped, tf.uint16
        )
        return tf.where(kept, inputs / (1 - self.dropped / 2**16), 0)


def dot(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Inner products along the last axis of [..., D] and [..., D]: [...], computed in float32."""
    return tf.reduce_sum(tf.cast(one, tf.float32) * tf.cast(other, tf.float32), axis=-1)


def in_parts(function: Callable[..., tf.Tensor], parts: int, *tensors: tf.Tensor) -> tf.Tensor:
    """function(*tensors) of tensors [B, ...], computed for so many parts of the rows apart; it must treat each row
    alone.

    In a graph it is traced once for all parts, and so is its gradient.
    """
    if parts == 1:
        return function(*tensors)
    cuts = tf.range(parts + 1) * tf.shape(tensors[0])[0] // parts
    pieces = [tf.split(tensor, cuts[1:] - cuts[:-1], num=parts) for tensor in tensors]
    traced = tf.function(function, autograph=False)
    return tf.concat([traced(*piece) for piece in zip(*pieces, strict=True)], axis=0)


def places_from_the_oldest(history: tf.Tensor) -> tf.Tensor:
    """[B, M] item numbers -> [B, M] int32: 0 for the oldest item, then 1, …, wherever the padding lies.

    >>> places_from_the_oldest(tf.constant([[0, 7, 8, 9]])).numpy().tolist()
    [[0, 0, 1, 2]]
    """
    return tf.maximum(tf.cumsum(tf.cast(history > 0, tf.int32), axis=1) - 1, 0)


def places_from_the_latest(history: tf.Tensor) -> tf.Tensor:
    """[B, M] item numbers -> [B, M] int32: 0 for the latest item, 1 for the one before, …, wherever the padding lies.

    >>> places_from_the_latest(tf.constant([[7, 8, 9, 0]])).numpy().tolist()
    [[2, 1, 0, 0]]
    """
    return tf.cumsum(tf.cast(history > 0, tf.int32), axis=1, exclusive=True, reverse=True)


def latest_items(history: tf.Tensor, count: int) -> tf.Tensor:
    """[B, M] item numbers -> [B, count]: the latest item, the one before, …, and 0 where there is none.

    >>> latest_items(tf.constant([[0, 7, 8]]), count=3).numpy().tolist()
    [[8, 7, 0]]
    """
    is_at = places_from_the_latest(history)[:, :, None] == tf.range(count)  # [B, M, count]
    return tf.reduce_sum(tf.where(is_at, history[:, :, None], 0), axis=1)


def latest_column(history: tf.Tensor) -> tf.Tensor:
    """[B, M] item numbers -> [B] int32: the column of the latest item (the last column if there is none)."""
    columns = tf.range(tf.shape(history)[1])
    latest = tf.reduce_max(tf.where(history > 0, columns, -1), axis=1)
    return tf.where(latest < 0, tf.shape(history)[1] - 1, latest)
