"""The transformer block that SASRec and BST are made of (Vaswani et al., NeurIPS'17), with the norm after each part."""

from typing import Self

import tensorflow as tf
from pydantic import Field, model_validator

from tfcorr.towers.layers import Dropout, TowerSettings

NORM = (
    1e-6  # added to a variance: where dropout leaves next to nothing of a vector, less would make its gradient explode
)
MASKED = -1e9  # added to a logit: as good as minus infinity, and a row masked whole stays finite


class TransformerSettings(TowerSettings):
    """Settings of a tower of blocks."""

    layers: int = Field(1, ge=1, description="blocks, one after another")
    heads: int = Field(2, ge=1, description="of attention, which divide dim among them")
    feed_forward: int = Field(128, ge=1, description="inner width of a block's second part")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


def visible(history: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Which columns of the history [B, M] a query at each of `columns` [B, Q] may see: [B, Q, M] bool."""
    earlier = tf.range(tf.shape(history)[1])[None, None, :] <= columns[:, :, None]
    return earlier & (history > 0)[:, None, :]


class Block(tf.keras.layers.Layer):
    """Self-attention and feed-forward, each with dropout, residual and a norm after it."""

    def __init__(self, dim: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.query, self.key, self.value, self.output_ = (tf.keras.layers.Dense(dim) for _ in range(4))
        self.widen = tf.keras.layers.Dense(feed_forward, activation=tf.nn.gelu)
        self.narrow = tf.keras.layers.Dense(dim)
        self.norms = [tf.keras.layers.LayerNormalization(epsilon=NORM) for _ in range(2)]
        self.dropouts = [Dropout(dropout) for _ in range(3)]

    def call(self, queries: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """queries [B, Q, D], keys [B, M, D], mask [B, Q, M] bool -> [B, Q, D]."""
        return self.feed_forward(self.attend(queries, keys, mask, training), training)

    def attend(self, queries: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The first part, of what `call` takes: [B, Q, D]."""
        q, k, v = self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(keys))
        logits = tf.cast(tf.einsum("bqhd,bmhd->bhqm", q, k), tf.float32) / self.width**0.5
        weights = tf.nn.softmax(logits + tf.where(mask, 0.0, MASKED)[:, None])
        weights = self.dropouts[0](tf.cast(weights, v.dtype), training=training)
        attended = tf.reshape(tf.einsum("bhqm,bmhd->bqhd", weights, v), tf.shape(queries))
        return self.norms[0](queries + self.dropouts[1](self.output_(attended), training=training))

    def feed_forward(self, hidden: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The second part: [B, Q, D] -> [B, Q, D]."""
        return self.norms[1](hidden + self.dropouts[2](self.narrow(self.widen(hidden)), training=training))

    def _split(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, tf.concat([tf.shape(values)[:2], [self.heads, self.width]], 0))
