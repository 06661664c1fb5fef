"""NPE (Nguyen and Takasu, IJCAI'18): a user's taste and the items beside an item, each through a rectifier."""

from typing import Literal

import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings
from tfcorr.towers.tables import item_table, known_vectors, user_table


class NPESettings(TowerSettings):
    """Settings of NPE."""

    name: Literal["npe"] = "npe"


class NPE(Retriever):
    """score(u, c, k) = ⟨relu(p_u), relu(q_k)⟩ + ⟨relu(Σ_j w_j), relu(q_k)⟩, j the items of the history.

    An unknown user's p is zeros.
    """

    Settings = NPESettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: NPESettings, domain: Domain) -> None:
        super().__init__(name="npe")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items, self.beside = (item_table(domain, settings.dim, name) for name in ("items", "beside"))
        self.dropouts = [Dropout(settings.dropout) for _ in range(2)]

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32 -> [B, D]."""
        taste = tf.nn.relu(self.users(context["user"]))
        beside = tf.nn.relu(tf.reduce_sum(known_vectors(self.beside, context["history"]), axis=1))
        return self.dropouts[0](taste, training=training) + self.dropouts[1](beside, training=training)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return tf.nn.relu(self.items(ids))
