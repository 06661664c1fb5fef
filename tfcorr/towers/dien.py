"""DIEN (Zhou et al., AAAI'19): interests extracted by a recurrent network, and evolved by one that the candidate
steers."""

from typing import Literal

import numpy as np
import tensorflow as tf
from pydantic import Field, PositiveInt

from tfcorr.data.batches import Context
from tfcorr.towers.attention import MASKED
from tfcorr.towers.layers import Domain, Ranker, TowerSettings
from tfcorr.towers.mlp import MLP, Activation
from tfcorr.towers.tables import item_bias, item_table


class DIENSettings(TowerSettings):
    """Settings of DIEN."""

    name: Literal["dien"] = "dien"
    mlp: tuple[PositiveInt, ...] = Field((128, 64, 64), min_length=1, description="hidden widths of the network on top")
    activation: Activation = Field("dice", description="of the network on top")
    auxiliary: float = Field(1.0, ge=0, description="weight of the loss by which each interest foretells the next item")


class DIEN(Ranker):
    """score(c, k) = mlp([h, v_k]) + b_k, h the last state of an AUGRU over interests i_1 … i_t.

    The interests are the states of a GRU over the history's vectors; a_j = softmax_j(i_jᵀ W v_k) scales the AUGRU's
    update gate at step j, so that padding, whose a is 0, leaves its state as it is.
    """

    Settings = DIENSettings

    def __init__(self, settings: DIENSettings, domain: Domain) -> None:
        super().__init__(name="dien")
        self.items = item_table(domain, settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.extract = tf.keras.layers.GRU(settings.dim, return_sequences=True)
        self.attend = tf.keras.layers.Dense(settings.dim, use_bias=False)
        self.evolve = AUGRU(settings.dim)
        self.mlp = MLP(settings.mlp, settings.activation, settings.dropout)
        self.auxiliary, self.count = settings.auxiliary, domain.items
        self.generator = tf.random.Generator.from_seed(np.random.randint(2**31))

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32, candidates [B, K] int32 -> [B, K] float32."""
        history, vectors = context["history"], self.items(candidates)
        is_known = history > 0
        interests = self.extract(self.items(history), mask=is_known)  # [B, M, D]
        logits = tf.cast(tf.einsum("bkd,bmd->bkm", self.attend(vectors), interests), tf.float32)
        weights = tf.nn.softmax(logits + tf.where(is_known, 0.0, MASKED)[:, None, :])
        weights = tf.cast(tf.where(is_known[:, None, :], weights, 0), vectors.dtype)  # [B, K, M]
        evolved = self.evolve(interests, weights)
        scores = self.mlp(tf.concat([evolved, vectors], axis=-1), training=training)
        return scores + tf.cast(self.bias(candidates)[..., 0], tf.float32)

    def auxiliary_loss(self, context: Context) -> tf.Tensor:
        """The mean over steps of −log σ(⟨i_j, v_{j+1}⟩) − log(1 − σ(⟨i_j, v_n⟩)), n a random item, by the weight: [B].

        Source: equation 6 of its paper.
        """
        history = context["history"]
        if not self.auxiliary:
            return tf.zeros(tf.shape(history)[:1])
        vectors = self.items(history)
        interests = self.extract(vectors, mask=history > 0)[:, :-1]
        seed = self.generator.make_seeds()[:, 0]
        others = tf.random.stateless_uniform(tf.shape(history[:, 1:]), seed, 1, self.count + 1, tf.int32)
        is_step = tf.cast((history[:, :-1] > 0) & (history[:, 1:] > 0), tf.float32)

        def logits(items: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.reduce_sum(interests * items, axis=-1), tf.float32)

        losses = tf.nn.softplus(-logits(vectors[:, 1:])) + tf.nn.softplus(logits(self.items(others)))  # [B, M - 1]
        return self.auxiliary * tf.reduce_sum(losses * is_step, axis=1) / tf.maximum(tf.reduce_sum(is_step, axis=1), 1)


class AUGRU(tf.keras.layers.Layer):
    """A GRU whose update gate is multiplied by an attention weight, run for all candidates of a context at once."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.of_input = tf.keras.layers.Dense(3 * units)
        self.of_state = tf.keras.layers.Dense(2 * units, use_bias=False)
        self.of_reset = tf.keras.layers.Dense(units, use_bias=False)

    def call(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """inputs [B, M, D], weights [B, K, M] -> the last state [B, K, units]."""
        gates = tf.transpose(self.of_input(inputs), [1, 0, 2])  # [M, B, 3 units]
        shares = tf.transpose(weights, [2, 0, 1])  # [M, B, K]
        state = tf.zeros(tf.concat([tf.shape(weights)[:2], [self.units]], 0), inputs.dtype)
        self.of_state(state[:1]), self.of_reset(state[:1])  # their variables must be made outside the loop

        def step(state: tf.Tensor, given: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            gate, share = given
            update, reset, new = tf.split(gate[:, None, :], 3, axis=-1)  # [B, 1, units] each
            of_update, of_reset = tf.split(self.of_state(state), 2, axis=-1)
            update = share[:, :, None] * tf.sigmoid(update + of_update)
            new = tf.tanh(new + self.of_reset(tf.sigmoid(reset + of_reset) * state))
            return state + update * (new - state)

        states = tf.scan(step, (gates, shares), initializer=state)
        return states[-1]
