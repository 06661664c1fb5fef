"""Caser (Tang and Wang, WSDM'18): convolutions over the latest items as an image, beside the user."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_items
from tfcorr.towers.tables import item_bias, item_table, known_vectors, user_table, with_ones


class CaserSettings(TowerSettings):
    """Settings of Caser."""

    name: Literal["caser"] = "caser"
    latest: int = Field(5, ge=1, description="how many of the latest items are convolved; L in its paper")
    horizontal: int = Field(16, ge=1, description="filters of each height from 1 to `latest`")
    vertical: int = Field(8, ge=1, description="filters over all of the latest items")


class Caser(Retriever):
    """score(u, c, k) = ⟨[z, p_u], w_k⟩ + b_k, z a dense layer over what the filters find in the latest items' vectors.

    A horizontal filter of height h covers h items in all dimensions, and its largest value counts; a vertical one
    weighs the items alike in every dimension. An unknown user's p is zeros. The history has a table of its own.
    """

    Settings = CaserSettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: CaserSettings, domain: Domain) -> None:
        super().__init__(name="caser")
        self.users = user_table(domain.users, settings.dim, "users")
        self.history = item_table(domain, settings.dim, "history")
        self.items = item_table(domain, 2 * settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.latest = settings.latest
        heights = range(1, settings.latest + 1)
        self.horizontal = [tf.keras.layers.Conv1D(settings.horizontal, height, activation="relu") for height in heights]
        self.vertical = tf.keras.layers.Dense(settings.vertical, use_bias=False)
        self.dropout = Dropout(settings.dropout)
        self.dense = tf.keras.layers.Dense(settings.dim, activation="relu")

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32 -> [B, 2 D + 1]."""
        image = known_vectors(self.history, latest_items(context["history"], self.latest))  # [B, latest, D]
        found = [tf.reduce_max(convolve(image), axis=1) for convolve in self.horizontal]
        weighed = self.vertical(tf.transpose(image, [0, 2, 1]))  # [B, D, vertical]
        features = tf.concat([*found, tf.reshape(weighed, [-1, weighed.shape[1] * weighed.shape[2]])], axis=1)
        hidden = self.dense(self.dropout(features, training=training))
        return with_ones(tf.concat([hidden, self.users(context["user"])], axis=1))

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., 2 D + 1]."""
        return tf.concat([self.items(ids), self.bias(ids)], axis=-1)
