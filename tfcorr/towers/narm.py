"""NARM (Li et al., CIKM'17): a recurrent network's last state, and its states as that one attends to them."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_column
from tfcorr.towers.tables import item_table


class NARMSettings(TowerSettings):
    """Settings of NARM."""

    name: Literal["narm"] = "narm"
    hidden: int = Field(128, ge=1, description="width of the recurrent state")


class NARM(Retriever):
    """score(c, k) = ⟨B [h_t, Σ_j α_j h_j], v_k⟩ with α_j = vᵀ σ(A₁ h_t + A₂ h_j), h the states of a GRU and t the
    latest.

    As in its paper α is no softmax, and v_k is the table that the history is embedded by.
    """

    Settings = NARMSettings

    def __init__(self, settings: NARMSettings, domain: Domain) -> None:
        super().__init__(name="narm")
        self.items = item_table(domain, settings.dim, "items")
        self.dropouts = [Dropout(settings.dropout) for _ in range(2)]
        self.gru = tf.keras.layers.GRU(settings.hidden, return_sequences=True)
        self.of_latest, self.of_each = (tf.keras.layers.Dense(settings.hidden, use_bias=False) for _ in range(2))
        self.weight = tf.keras.layers.Dense(1, use_bias=False)
        self.project = tf.keras.layers.Dense(settings.dim, use_bias=False)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32 -> [B, D]; zeros for a history without items."""
        history = context["history"]
        states = self.gru(self.dropouts[0](self.items(history), training=training), mask=history > 0)  # [B, M, H]
        latest = tf.gather(states, latest_column(history), batch_dims=1)  # [B, H]
        weights = self.weight(tf.sigmoid(self.of_latest(latest)[:, None] + self.of_each(states)))  # [B, M, 1]
        local = tf.reduce_sum(tf.where(history[:, :, None] > 0, weights * states, 0), axis=1)
        return self.project(self.dropouts[1](tf.concat([latest, local], axis=1), training=training))

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)
