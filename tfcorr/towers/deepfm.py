"""DeepFM (Guo et al., IJCAI'17): a factorisation machine and a dense network over the same embeddings."""

from typing import Literal

import tensorflow as tf
from pydantic import Field, PositiveInt

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Ranker, TowerSettings
from tfcorr.towers.mlp import MLP, Activation
from tfcorr.towers.tables import item_bias, item_table, known_vectors, user_table


class DeepFMSettings(TowerSettings):
    """Settings of DeepFM."""

    name: Literal["deepfm"] = "deepfm"
    mlp: tuple[PositiveInt, ...] = Field((128, 64), min_length=1, description="hidden widths of the dense network")
    activation: Activation = Field("relu", description="of the dense network")


class DeepFM(Ranker):
    """score(u, c, k) = b_k + Σ_{f<g} ⟨x_f, x_g⟩ + mlp([x_1, …]) over the fields user, candidate and history.

    The history's vector is the mean of its items'. What is linear in user or history alone moves all candidates alike,
    and is left out. An unknown user's vector, and that of a history without items, are zeros.
    """

    Settings = DeepFMSettings
    reads = frozenset({"history", "user"})

    def __init__(self, settings: DeepFMSettings, domain: Domain) -> None:
        super().__init__(name="deepfm")
        self.users = user_table(domain.users, settings.dim, "users")
        self.items, self.history = (item_table(domain, settings.dim, name) for name in ("items", "history"))
        self.bias = item_bias(domain.items)
        self.mlp = MLP(settings.mlp, settings.activation, settings.dropout)

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M], context["user"] [B] int32, candidates [B, K] int32 -> [B, K] float32."""
        known = tf.reduce_sum(tf.cast(context["history"] > 0, self.compute_dtype), axis=1, keepdims=True)
        seen = tf.reduce_sum(known_vectors(self.history, context["history"]), axis=1) / tf.maximum(known, 1)
        of_context = tf.stack([self.users(context["user"]), seen], axis=1)  # [B, 2, D]
        fields = tf.concat(
            [tf.repeat(of_context[:, None], tf.shape(candidates)[1], axis=1), self.items(candidates)[:, :, None]],
            axis=2,
        )
        # Σ_{f<g} ⟨x_f, x_g⟩ = (‖Σ x_f‖² − Σ ‖x_f‖²) / 2, in float32: [B, K, fields, D] -> [B, K]
        wide = tf.cast(fields, tf.float32)
        pairs = tf.reduce_sum(tf.reduce_sum(wide, axis=2) ** 2 - tf.reduce_sum(wide**2, axis=2), axis=-1) / 2
        flat = tf.reshape(fields, tf.concat([tf.shape(candidates), [fields.shape[2] * fields.shape[3]]], 0))
        scores = self.mlp(flat, training=training)
        return scores + pairs + tf.cast(self.bias(candidates)[..., 0], tf.float32)
