"""SASRec (Kang and McAuley, ICDM'18): causal self-attention over the history; the latest place's output is the
context."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.attention import NORM, Block, TransformerSettings, visible
from tfcorr.towers.layers import (
    Domain,
    Dropout,
    Retriever,
    latest_column,
    places_from_the_latest,
    places_from_the_oldest,
)
from tfcorr.towers.tables import item_table, place_table


class SASRecSettings(TransformerSettings):
    """Settings of SASRec."""

    name: Literal["sasrec"] = "sasrec"
    residual: float = Field(
        0.0, ge=0, lt=1, description="share of a block's input in its output, beside the paper's own residuals"
    )
    positions: Literal["oldest", "latest"] = Field("oldest", description="which item of the history has position 0")


class SASRec(Retriever):
    """score(c, k) = ⟨transformer(history)[latest], v_k⟩, v the item table that the history is embedded by.

    Post-norm blocks with GELU and learned places; the item table has no bias.
    """

    Settings = SASRecSettings
    causal = True

    def __init__(self, settings: SASRecSettings, domain: Domain) -> None:
        super().__init__(name="sasrec")
        self.items = item_table(domain, settings.dim, "items")
        self.places = place_table(domain.history_length, settings.dim, "places")
        self.norm = tf.keras.layers.LayerNormalization(epsilon=NORM)
        self.dropout = Dropout(settings.dropout)
        self.blocks = [
            Block(settings.dim, settings.heads, settings.feed_forward, settings.dropout) for _ in range(settings.layers)
        ]
        self.residual = settings.residual
        self.mixed = [tf.keras.layers.LayerNormalization(epsilon=NORM) for _ in self.blocks if settings.residual]
        self.numbered = places_from_the_oldest if settings.positions == "oldest" else places_from_the_latest

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32 -> [B, D]; a history without items gives the vector of its padding alone."""
        history = context["history"]
        hidden = self._encode(history, len(self.blocks) - 1, training)
        # Only the latest place is read, so the last block computes no other.
        latest = latest_column(history)[:, None]  # [B, 1]
        query = tf.gather(hidden, latest, batch_dims=1)  # [B, 1, D]
        return self._block(-1, query, hidden, visible(history, latest), training)[:, 0]

    def encode_places(self, history: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says; attention sees no later place."""
        return self._encode(history, len(self.blocks), training)

    def _encode(self, history: tf.Tensor, blocks: int, training: bool) -> tf.Tensor:
        """history [B, M] through the first blocks, every place of it: [B, M, D]."""
        embedded = self.items(history) + self.places(self.numbered(history))
        hidden = self.dropout(self.norm(embedded), training=training)
        columns = tf.broadcast_to(tf.range(tf.shape(history)[1])[None, :], tf.shape(history))
        for number in range(blocks):
            hidden = self._block(number, hidden, hidden, visible(history, columns), training)
        return hidden

    def _block(self, number: int, queries: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, training: bool) -> tf.Tensor:
        """One block, with its share of its input kept."""
        output = self.blocks[number](queries, keys, mask, training=training)
        if not self.residual:
            return output
        return self.mixed[number](self.residual * queries + (1 - self.residual) * output)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)
