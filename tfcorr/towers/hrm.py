"""HRM (Wang et al., SIGIR'15): the latest items are pooled into one vector, and that with the user's into another."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_items
from tfcorr.towers.tables import item_table, user_table


class HRMSettings(TowerSettings):
    """Settings of HRM."""

    name: Literal["hrm"] = "hrm"
    latest: int = Field(5, ge=1, description="how many of the latest items count as the last transaction")


class HRM(Retriever):
    """score(u, c, k) = ⟨max(u, max_j w_j), v_k⟩, j the latest items; both maxima are taken in each dimension.

    Unlike in its paper w is a table of its own: a shared one ranks the history's own items first. An unknown user, or a
    history without items, has no part in the maximum; where both are, the vector is zeros.
    """

    Settings = HRMSettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: HRMSettings, domain: Domain) -> None:
        super().__init__(name="hrm")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items, self.history = (item_table(domain, settings.dim, name) for name in ("items", "history"))
        self.latest = settings.latest
        self.dropout = Dropout(settings.dropout)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32 -> [B, D]."""
        latest = latest_items(context["history"], self.latest)
        vectors = tf.concat([self.users(context["user"])[:, None], self.history(latest)], axis=1)  # [B, 1 + latest, D]
        is_known = tf.concat([context["user"][:, None], latest], axis=1)[:, :, None] > 0
        pooled = tf.reduce_max(tf.where(is_known, vectors, vectors.dtype.min), axis=1)
        return self.dropout(tf.where(tf.reduce_any(is_known, axis=1), pooled, 0), training=training)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)
