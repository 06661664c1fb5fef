"""TransRec (He et al., RecSys'17): a user is a translation from the latest item to the next."""

from typing import Literal

import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_items
from tfcorr.towers.tables import item_bias, item_table, known_vectors, user_table, with_ones


class TransRecSettings(TowerSettings):
    """Settings of TransRec."""

    name: Literal["transrec"] = "transrec"


class TransRec(Retriever):
    """score(u, l, k) = b_k − ‖γ_l + t + t_u − γ_k‖², l the latest item, t the translation of all users.

    With q = γ_l + t + t_u this is the product of [2q, −‖q‖², 1] and [γ_k, 1, b_k − ‖γ_k‖²]. An unknown user's t_u, and
    γ_l where there is no latest item, are zeros. The vectors are not held to the unit ball, which the paper does.
    """

    Settings = TransRecSettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: TransRecSettings, domain: Domain) -> None:
        super().__init__(name="transrec")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items = item_table(domain, settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.translation = self.add_weight(name="translation", shape=[settings.dim], initializer="zeros")
        self.dropout = Dropout(settings.dropout)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32 -> [B, D + 2]."""
        latest, user = known_vectors(self.items, latest_items(context["history"], 1)[:, 0]), self.users(context["user"])
        query = tf.cast(latest, tf.float32) + self.translation + tf.cast(user, tf.float32)
        query = self.dropout(query, training=training)
        return with_ones(tf.concat([2 * query, -tf.reduce_sum(query**2, axis=1, keepdims=True)], axis=1))

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D + 2]."""
        vectors, bias = tf.cast(self.items(ids), tf.float32), tf.cast(self.bias(ids), tf.float32)
        return tf.concat([with_ones(vectors), bias - tf.reduce_sum(vectors**2, axis=-1, keepdims=True)], axis=-1)
