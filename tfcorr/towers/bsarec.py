"""BSARec (Shin et al., AAAI'24): self-attention beside a low-pass filter over the history, which keeps it from
smoothing everything."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import Field

from tfcorr.data.batches import Context
from tfcorr.towers.attention import NORM, Block, TransformerSettings, visible
from tfcorr.towers.layers import Domain, Dropout, Retriever, latest_column, places_from_the_oldest
from tfcorr.towers.tables import item_table, place_table


class BSARecSettings(TransformerSettings):
    """Defaults are those that its authors chose for Amazon Beauty, but for dim, which all towers share."""

    name: Literal["bsarec"] = "bsarec"
    layers: int = Field(2, ge=1, description="blocks, one after another")
    heads: int = Field(1, ge=1, description="of attention, which divide dim among them")
    feed_forward: int = Field(256, ge=1, description="inner width of a block's second part")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of values that training drops")
    filtered: float = Field(
        0.7, ge=0, le=1, description="share of the filtered input in what a block's second part reads; α in its paper"
    )
    frequencies: int = Field(3, ge=1, description="of the low-pass filter: the constant and so many less one above it")


class BSARec(Retriever):
    """score(c, k) = ⟨blocks(history)[latest], v_k⟩, v the item table that the history is embedded by.

    A block mixes two readings of its input x, α · F(x) + (1 − α) · A(x): A is self-attention, F(x) = norm(x + low + β²
    · (x − low)) with the part `low` of x in the lowest frequencies of the history, and β learned by dimension. Both
    have dropout and a norm of the sum with x; a feed-forward part follows, as in SASRec. Unlike in the authors' code,
    which transforms padding too, the frequencies are those of the history's own length.
    """

    Settings = BSARecSettings

    def __init__(self, settings: BSARecSettings, domain: Domain) -> None:
        super().__init__(name="bsarec")
        self.items = item_table(domain, settings.dim, "items")
        self.places = place_table(domain.history_length, settings.dim, "places")
        self.norm = tf.keras.layers.LayerNormalization(epsilon=NORM)
        self.dropout = Dropout(settings.dropout)
        self.kernels = low_pass_kernels(domain.history_length, settings.frequencies).astype(np.float32)
        self.filters = [FrequencyFilter(settings.dim, settings.dropout) for _ in range(settings.layers)]
        self.blocks = [
            Block(settings.dim, settings.heads, settings.feed_forward, settings.dropout) for _ in range(settings.layers)
        ]
        self.filtered = settings.filtered

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32 -> [B, D]; a history without items gives the vector of its padding alone."""
        history = context["history"]
        places, length = places_from_the_oldest(history), tf.reduce_sum(tf.cast(history > 0, tf.int32), axis=1)
        hidden = self.dropout(self.norm(self.items(history) + self.places(places)), training=training)
        every = tf.broadcast_to(tf.range(tf.shape(history)[1])[None, :], tf.shape(history))
        latest = latest_column(history)[:, None]  # of the last block no other place is read
        for number, (block, frequencies) in enumerate(zip(self.blocks, self.filters, strict=True), start=1):
            columns = every if number < len(self.blocks) else latest  # [B, Q]
            reading = tf.gather(hidden, columns, batch_dims=1)  # [B, Q, D]
            apart = tf.abs(tf.gather(places, columns, batch_dims=1)[:, :, None] - places[:, None, :])  # [B, Q, M]
            kernel = tf.gather_nd(
                self.kernels, tf.stack([tf.broadcast_to(length[:, None, None], tf.shape(apart)), apart], axis=-1)
            )
            kernel = tf.where((history > 0)[:, None, :], kernel, 0)
            low = tf.matmul(tf.cast(kernel, hidden.dtype), hidden)
            mixed = self.filtered * frequencies(reading, low, training=training)
            mixed += (1 - self.filtered) * block.attend(reading, hidden, visible(history, columns), training=training)
            hidden = block.feed_forward(mixed, training=training)
        return hidden[:, 0]

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """[...] int32 -> [..., D]."""
        return self.items(ids)


class FrequencyFilter(tf.keras.layers.Layer):
    """norm(x + dropout(low + β² · (x − low))): the high frequencies weigh β², learned by dimension."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.beta = self.add_weight(
            name="beta", shape=[dim], initializer=tf.keras.initializers.RandomNormal(stddev=1.0)
        )
        self.norm, self.dropout = tf.keras.layers.LayerNormalization(epsilon=NORM), Dropout(dropout)

    def call(self, inputs: tf.Tensor, low: tf.Tensor, training: bool = False) -> tf.Tensor:
        """inputs and their low frequencies, each [B, Q, D] -> [B, Q, D]."""
        weighed = low + tf.cast(self.beta, low.dtype) ** 2 * (inputs - low)
        return self.norm(inputs + self.dropout(weighed, training=training))


def low_pass_kernels(longest: int, frequencies: int) -> npt.NDArray[np.float64]:
    """Of each length t up to the longest and each distance d, what place i + d of a sequence gives to place i: [longest
    + 1, longest].

    Keeping the lowest frequencies of a real Fourier transform is the circular convolution with
    Σ_f w_f cos(2π f d / t) / t, where w_f is 1 for the constant and for t / 2, and 2 else.
    """
    kernels = np.zeros((longest + 1, longest))
    for length in range(1, longest + 1):
        kept = np.arange(min(frequencies, length // 2 + 1))
        weights = np.where((kept == 0) | (2 * kept == length), 1.0, 2.0)
        distances = np.arange(length)
        kernels[length, :length] = weights @ np.cos(2 * np.pi * kept[:, None] * distances / length) / length
    return kernels
