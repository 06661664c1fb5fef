"""GRU4Rec (Hidasi et al., ICLR'16): a recurrent network over the history; its state after the latest item is the
context."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Retriever, TowerSettings, latest_column
from tfcorr.towers.tables import item_table


class GRU4RecSettings(TowerSettings):
    """Settings of GRU4Rec."""

    name: Literal["gru4rec"] = "gru4rec"
    hidden: int = Field(128, ge=1, description="width of the recurrent state")


class GRU4Rec(Retriever):
    """score(c, k) = ⟨W h, v_k⟩ with h = GRU(history)[latest]; the item table is also that of the history."""

    Settings = GRU4RecSettings
    causal = True

    def __init__(self, settings: GRU4RecSettings, domain: Domain) -> None:
        super().__init__(name="gru4rec")
        self.items = item_table(domain, settings.dim, "items")
        self.dropout = Dropout(settings.dropout)
        self.gru = tf.keras.layers.GRU(settings.hidden, return_sequences=True)
        self.project = tf.keras.layers.Dense(settings.dim)

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32 -> [B, D]; a history without items gives the vector of the empty state."""
        states = self._states(context["history"], training)
        return self.project(tf.gather(states, latest_column(context["history"]), batch_dims=1))

    def encode_places(self, history: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says."""
        return self.project(self._states(history, training))

    def _states(self, history: tf.Tensor, training: bool) -> tf.Tensor:
        """[B, M] -> [B, M, hidden]; padding leaves the state as it is."""
        return self.gru(self.dropout(self.items(history), training=training), mask=history > 0)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)
