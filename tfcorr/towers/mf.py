"""Matrix factorisation (Koren et al., Computer 2009), for contexts that are only a user."""

from typing import Literal

import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings
from tfcorr.towers.tables import item_bias, item_table, user_table, with_ones


class MFSettings(TowerSettings):
    """Settings of MF."""

    name: Literal["mf"] = "mf"


class MF(Retriever):
    """score(u, k) = ⟨p_u, q_k⟩ + b_k; an unknown user's p is zeros, so that its items are ordered by their bias."""

    Settings = MFSettings
    reads = frozenset({"user"})

    def __init__(self, settings: MFSettings, domain: Domain) -> None:
        super().__init__(name="mf")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items = item_table(domain, settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.dropout = Dropout(settings.dropout)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["user"] [B] int32 -> [B, D + 1]."""
        return with_ones(self.dropout(self.users(context["user"]), training=training))

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D + 1]."""
        return tf.concat([self.items(ids), self.bias(ids)], axis=-1)
