"""FPMC (Rendle et al., WWW'10): a factorised Markov chain of the latest item, personalised by a factorisation of user
and item."""

from typing import Literal

import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_items
from tfcorr.towers.tables import item_table, known_vectors, user_table


class FPMCSettings(TowerSettings):
    """Settings of FPMC."""

    name: Literal["fpmc"] = "fpmc"


class FPMC(Retriever):
    """score(u, l, k) = ⟨u, v_k⟩ + ⟨x_l, y_k⟩ with l the latest item, as the product of [u, x_l] and [v_k, y_k].

    An unknown user's u, and x where there is no latest item, are zeros.
    """

    Settings = FPMCSettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: FPMCSettings, domain: Domain) -> None:
        super().__init__(name="fpmc")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items, self.latest, self.following = (
            item_table(domain, settings.dim, name) for name in ("items", "latest", "following")
        )
        self.dropout = Dropout(settings.dropout)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32 -> [B, 2 D]."""
        latest = known_vectors(self.latest, latest_items(context["history"], 1)[:, 0])
        return self.dropout(tf.concat([self.users(context["user"]), latest], axis=1), training=training)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., 2 D]."""
        return tf.concat([self.items(ids), self.following(ids)], axis=-1)
