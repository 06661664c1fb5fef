"""The towers' tables of embeddings: of items with their features, of users, of places, and biases."""

from collections.abc import Sequence

import tensorflow as tf

from tfcorr.data.features import Feature
from tfcorr.towers.layers import Domain

NORMAL = tf.keras.initializers.RandomNormal


def item_table(domain: Domain, dim: int, name: str) -> tf.keras.layers.Layer:
    """An embedding of the item numbers 0 to N by id and features; row 0 is padding's, which towers mask."""
    ids = place_table(domain.items + 1, dim, name, "item")
    features = [feature for feature in domain.features if feature.of == "item"]
    return ItemFeatures(ids, features, dim) if features else ids


def place_table(rows: int, dim: int, name: str, of: str | None = None) -> tf.keras.layers.Embedding:
    """An embedding of the numbers below `rows`; `of` says what they number, where another data set may number it
    otherwise."""
    return _of(of, tf.keras.layers.Embedding(rows, dim, embeddings_initializer=NORMAL(stddev=0.02), name=name))


def _of(of: str | None, table: tf.keras.layers.Embedding) -> tf.keras.layers.Embedding:
    table.of = of
    return table


class ItemFeatures(tf.keras.layers.Layer):
    """The sum of an item's own vector and of its features': so an item that training never saw has a vector of its
    kind."""

    def __init__(self, ids: tf.keras.layers.Embedding, features: Sequence[Feature], dim: int) -> None:
        super().__init__()
        self.ids = ids
        self.values = [self._constant(feature) for feature in features]
        self.of_features = [FeatureVector(feature, dim) for feature in features]

    @property
    def tables(self) -> dict[str, tf.Variable]:
        """The variables that it sums: `id`, and others by their features' names."""
        of_features = {f"feature {each.table.name}": each.table.embeddings for each in self.of_features}
        return {"id": self.ids.embeddings} | of_features

    def _constant(self, feature: Feature) -> tf.Variable:
        initial = tf.keras.initializers.Constant(feature.values)
        dtype = feature.values.dtype.name
        return self.add_weight(
            name=feature.name, shape=feature.values.shape, dtype=dtype, initializer=initial, trainable=False
        )

    def call(self, items: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return tf.add_n(
            [self.ids(items), *(of(tf.gather(v, items)) for of, v in zip(self.of_features, self.values, strict=True))]
        )


class FeatureVector(tf.keras.layers.Layer):
    """A feature's vector: the mean of its categories' embeddings, or a number times a vector; zeros where it is not
    known."""

    def __init__(self, feature: Feature, dim: int) -> None:
        super().__init__()
        rows = 1 if feature.vocabulary is None else len(feature.vocabulary) + 1
        self.is_categorical, self.table = feature.is_categorical, place_table(rows, dim, feature.name, feature.name)

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """[..., W] int32, or [...] float32, -> [..., D]."""
        if not self.is_categorical:
            direction = self.table(tf.zeros([1], tf.int32))[0]
            return tf.cast(values, direction.dtype)[..., None] * direction
        vectors = known_vectors(self.table, values)
        count = tf.reduce_sum(tf.cast(values > 0, vectors.dtype), axis=-1, keepdims=True)
        return tf.reduce_sum(vectors, axis=-2) / tf.maximum(count, 1)


def user_table(users: int, dim: int, name: str) -> "UserTable":
    """An embedding of the user numbers 0 to `users`."""
    return _of("user", UserTable(users + 1, dim, embeddings_initializer=NORMAL(stddev=0.02), name=name))


class UserTable(tf.keras.layers.Embedding):
    """An embedding of users in which an unknown one, number 0, is zeros."""

    def call(self, users: tf.Tensor) -> tf.Tensor:
        """[B] int32 -> [B, D]."""
        return tf.where(users[:, None] > 0, super().call(users), 0)


def item_bias(items: int) -> tf.keras.layers.Embedding:
    """One number an item, zero at first."""
    return _of("item", tf.keras.layers.Embedding(items + 1, 1, embeddings_initializer="zeros", name="item_bias"))


def known_vectors(table: tf.keras.layers.Embedding, items: tf.Tensor) -> tf.Tensor:
    """The table's vectors of items [...], zeros for padding: [..., D]."""
    return tf.where(items[..., None] > 0, table(items), 0)


def with_ones(vectors: tf.Tensor) -> tf.Tensor:
    """[..., D] -> [..., D + 1]: a one at the end, which a bias at the same place of other vectors is multiplied by."""
    return tf.concat([vectors, tf.ones_like(vectors[..., :1])], axis=-1)
