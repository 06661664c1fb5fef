"""DIN (Zhou et al., KDD'18): the candidate weighs each item of the history by a small network, without a softmax."""

from typing import Literal

import tensorflow as tf
from pydantic import Field, PositiveInt

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Dropout, Ranker, TowerSettings, dot, in_parts, places_from_the_latest
from tfcorr.towers.mlp import MLP, Activation, rows_of
from tfcorr.towers.tables import item_bias, item_table, place_table

# of a training batch whose attention is computed apart: 16 rows to 64 of them, with their gradients, stay in the cache
PARTS = 16


class DINSettings(TowerSettings):
    """Settings of DIN. Defaults are those of the recipe; `pipelines/paper` has the paper's."""

    name: Literal["din"] = "din"
    dropout: float = Field(0.5, ge=0, lt=1, description="share of values that training drops")
    attention: tuple[PositiveInt, ...] = Field(
        (64, 32), min_length=1, description="hidden widths of the attention network"
    )
    mlp: tuple[PositiveInt, ...] = Field((128, 64), min_length=1, description="hidden widths of the network on top")
    activation: Activation = Field("relu", description="of the network on top; dice is DIN's own")
    item_dropout: float = Field(0.3, ge=0, lt=1, description="of the item vectors, in the history and as candidates")
    recency: bool = Field(True, description="embed how long ago an item was seen, and add it to the attention's keys")
    products: bool = Field(True, description="also give the network on top the product of interest and candidate")
    inner: bool = Field(True, description="add their inner product to the score")


class DIN(Ranker):
    """score(c, k) = mlp([u, v_k]) + b_k with the interest u = Σ_j a(v_k, h_j) h_j, a(q, h) = network([q, h, q∘h, q−h]).

    The network's first layer is linear in [q, h, q∘h, q−h], so it is computed in its split form: W_q q once a
    candidate, W_h h once an item of the history, and only W_x (q∘h) once a pair. (W_q holds the weights of q and q−h
    together.) Beyond the paper, where settings ask for it: `recency` adds to each h_j, for a alone, a vector of how
    long ago it was, and `products` gives the mlp u∘v_k as a third input, which it would else have to learn, and `inner`
    adds ⟨u, v_k⟩ to the score.
    """

    Settings = DINSettings

    def __init__(self, settings: DINSettings, domain: Domain) -> None:
        super().__init__(name="din")
        self.items = item_table(domain, settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.recency = place_table(domain.history_length, settings.dim, "recency") if settings.recency else None
        self.products, self.inner = settings.products, settings.inner
        self.dropout = Dropout(settings.item_dropout) if settings.item_dropout else None
        first, *rest = settings.attention
        self.of_candidate = tf.keras.layers.Dense(first)
        self.of_history = tf.keras.layers.Dense(first, use_bias=False)
        self.of_pair = tf.keras.layers.Dense(first, use_bias=False)
        self.attention = [tf.keras.layers.Dense(width, activation="sigmoid") for width in rest]
        self.weight = tf.keras.layers.Dense(1)
        self.mlp = MLP(settings.mlp, settings.activation, settings.dropout)

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32, candidates [B, K] int32 -> [B, K] float32."""
        history = context["history"]
        values, queries = self.items(history), self.items(candidates)  # [B, M, D], [B, K, D]
        if self.dropout is not None:
            values, queries = (self.dropout(each, training=training) for each in (values, queries))
        keys = values if self.recency is None else values + self.recency(places_from_the_latest(history))
        weights = in_parts(self._attend, PARTS if training else 1, queries, keys)  # [B, K, M]
        weights *= tf.cast(history > 0, queries.dtype)[:, None, :]
        interest = tf.matmul(weights, values)  # [B, K, D]
        products = [interest * queries] if self.products else []
        scores = self.mlp(tf.concat([interest, queries, *products], axis=-1), training=training)
        if self.inner:
            scores += dot(interest, queries)
        return scores + tf.cast(self.bias(candidates)[..., 0], tf.float32)

    def _attend(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """queries [B, K, D], keys [B, M, D] -> the history's weights before masking, [B, K, M]."""
        products = queries[:, :, None, :] * keys[:, None, :, :]  # [B, K, M, D]
        shape = tf.shape(products)
        pairs = tf.reshape(
            self.of_pair(rows_of(products)), tf.concat([shape[:3], [self.of_pair.units]], 0)
        )  # [B, K, M, H]
        hidden = rows_of(
            tf.sigmoid(pairs + self.of_candidate(queries)[:, :, None, :] + self.of_history(keys)[:, None, :, :])
        )
        for dense in self.attention:
            hidden = dense(hidden)
        return tf.reshape(self.weight(hidden), shape[:3])
