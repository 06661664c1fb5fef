"""SASRec (Kang and McAuley, ICDM'18): causal self-attention over the history; the latest place's output is the context."""

from typing import Literal

import tensorflow as tf
from pydantic import Field, model_validator

from tfcorr.data.batches import Context
from tfcorr.towers.layers import (
    Dropout,
    Retriever,
    TowerSettings,
    item_table,
    latest_column,
    places_from_the_oldest,
)

MASKED = -1e9  # added to a logit: as good as minus infinity, and a row masked whole stays finite


class SASRecSettings(TowerSettings):
    """Defaults are those of the paper's section 4.1.3."""

    name: Literal["sasrec"] = "sasrec"
    layers: int = Field(1, ge=1)
    heads: int = Field(2, ge=1)
    feed_forward: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "SASRecSettings":
        if self.dim % self.heads:
            raise ValueError(f"retriever.dim ({self.dim}) must be a multiple of retriever.heads ({self.heads})")
        return self


class SASRec(Retriever):
    """score(c, k) = ⟨transformer(history)[latest], v_k⟩, v the item table that the history is embedded by.

    Post-norm blocks with GELU and learned places; the item table has no bias.
    """

    Settings = SASRecSettings
    causal = True

    def __init__(self, settings: SASRecSettings, items: int, history_length: int) -> None:
        super().__init__(name="sasrec")
        self.items = item_table(items, settings.dim, "items")
        self.places = item_table(history_length, settings.dim, "places")
        self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-12)
        self.dropout = Dropout(settings.dropout)
        self.blocks = [Block(settings) for _ in range(settings.layers)]

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32 -> [B, D]; a history without items gives the vector of its padding alone."""
        history = context["history"]
        hidden = self._encode(history, self.blocks[:-1], training)
        # Only the latest place is read, so the last block computes no other.
        latest = latest_column(history)[:, None]  # [B, 1]
        query = tf.gather(hidden, latest, batch_dims=1)  # [B, 1, D]
        return self.blocks[-1](query, hidden, visible(history, latest), training=training)[:, 0]

    def encode_places(self, history: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says; attention sees no later place."""
        return self._encode(history, self.blocks, training)

    def _encode(self, history: tf.Tensor, blocks: "list[Block]", training: bool) -> tf.Tensor:
        """history [B, M] through the blocks, every place of it: [B, M, D]."""
        embedded = self.items(history) + self.places(places_from_the_oldest(history))
        hidden = self.dropout(self.norm(embedded), training=training)
        columns = tf.broadcast_to(tf.range(tf.shape(history)[1])[None, :], tf.shape(history))
        for block in blocks:
            hidden = block(hidden, hidden, visible(history, columns), training=training)
        return hidden

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)


def visible(history: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Which columns of the history [B, M] a query at each of `columns` [B, Q] may see: [B, Q, M] bool."""
    earlier = tf.range(tf.shape(history)[1])[None, None, :] <= columns[:, :, None]
    return earlier & (history > 0)[:, None, :]


class Block(tf.keras.layers.Layer):
    """Self-attention and feed-forward, each with dropout, residual and a norm after it."""

    def __init__(self, settings: SASRecSettings) -> None:
        super().__init__()
        self.heads, self.width = settings.heads, settings.dim // settings.heads
        self.query, self.key, self.value, self.output_ = (tf.keras.layers.Dense(settings.dim) for _ in range(4))
        self.widen = tf.keras.layers.Dense(settings.feed_forward, activation=tf.nn.gelu)
        self.narrow = tf.keras.layers.Dense(settings.dim)
        self.norms = [tf.keras.layers.LayerNormalization(epsilon=1e-12) for _ in range(2)]
        self.dropouts = [Dropout(settings.dropout) for _ in range(3)]

    def call(self, queries: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """queries [B, Q, D], keys [B, M, D], mask [B, Q, M] bool -> [B, Q, D]."""
        q, k, v = self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(keys))
        logits = tf.cast(tf.einsum("bqhd,bmhd->bhqm", q, k), tf.float32) / self.width**0.5
        weights = tf.nn.softmax(logits + tf.where(mask, 0.0, MASKED)[:, None])
        weights = self.dropouts[0](tf.cast(weights, v.dtype), training=training)
        attended = tf.reshape(tf.einsum("bhqm,bmhd->bqhd", weights, v), tf.shape(queries))
        hidden = self.norms[0](queries + self.dropouts[1](self.output_(attended), training=training))
        return self.norms[1](hidden + self.dropouts[2](self.narrow(self.widen(hidden)), training=training))

    def _split(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, tf.concat([tf.shape(values)[:2], [self.heads, self.width]], 0))
