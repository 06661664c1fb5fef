"""The network on top of a ranker: dense layers with an activation and dropout, and one score at the end."""

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from tfcorr.towers.layers import Dropout

Activation = Literal["sigmoid", "relu", "gelu", "dice"]


class MLP(tf.keras.layers.Layer):
    """Dense layers of the widths, each with activation and dropout, and one of width 1 without."""

    def __init__(self, widths: Sequence[int], activation: Activation, dropout: float) -> None:
        super().__init__()
        self.dense = [
            tf.keras.layers.Dense(width, activation=None if activation == "dice" else activation) for width in widths
        ]
        self.dice = [Dice() for _ in widths] if activation == "dice" else []
        self.dropouts = [Dropout(dropout) for _ in widths]
        self.head = tf.keras.layers.Dense(1)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, K, D] -> [B, K] float32."""
        hidden = rows_of(inputs)
        for place, (dense, dropout) in enumerate(zip(self.dense, self.dropouts, strict=True)):
            hidden = dense(hidden)
            if self.dice:
                hidden = self.dice[place](hidden, training=training)
            hidden = dropout(hidden, training=training)
        return tf.cast(tf.reshape(self.head(hidden), tf.shape(inputs)[:-1]), tf.float32)


class Dice(tf.keras.layers.Layer):
    """Dice (Zhou et al., KDD'18): p·x + (1 − p)·α·x, where p is the sigmoid of x normalised over the batch, α is
    learned."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = tf.keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-8)

    def build(self, shape: tf.TensorShape) -> None:
        """Makes α, one for each of the last axis."""
        self.alpha = self.add_weight(name="alpha", shape=shape[-1:], initializer="zeros")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[rows, D] -> [rows, D]."""
        share = tf.sigmoid(self.normalise(inputs, training=training))
        return inputs * (share + (1 - share) * tf.cast(self.alpha, inputs.dtype))


def rows_of(values: tf.Tensor) -> tf.Tensor:
    """[..., D] -> [rows, D]; a dense layer's product, bias and activation are then one operation."""
    return tf.reshape(values, [-1, values.shape[-1]])
