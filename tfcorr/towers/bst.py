"""BST (Chen et al., DLP-KDD'19): the candidate reads the history through transformer blocks."""

from typing import Literal

import tensorflow as tf
from pydantic import Field, PositiveInt

from tfcorr.data.batches import Context
from tfcorr.towers.attention import NORM, Block, TransformerSettings, visible
from tfcorr.towers.layers import Domain, Dropout, Ranker, dot, places_from_the_latest
from tfcorr.towers.mlp import MLP, Activation
from tfcorr.towers.tables import item_bias, item_table, place_table


class BSTSettings(TransformerSettings):
    """Settings of BST."""

    name: Literal["bst"] = "bst"
    mlp: tuple[PositiveInt, ...] = Field((128, 64), min_length=1, description="hidden widths of the network on top")
    activation: Activation = Field("relu", description="of the network on top")
    inner: bool = Field(False, description="add the inner product of the candidate and what it has read to the score")


class BST(Ranker):
    """score(c, k) = mlp([blocks(v_k, history), v_k]) + b_k, where the candidate attends to the history in every block.

    Unlike in its paper the history does not attend to the candidate but, causally, to itself, so that its blocks are
    computed once for all candidates, and of the last block only the candidate's place is read. Places are counted from
    the latest. `inner` adds ⟨blocks(v_k, history), v_k⟩ to the score.
    """

    Settings = BSTSettings

    def __init__(self, settings: BSTSettings, domain: Domain) -> None:
        super().__init__(name="bst")
        self.items = item_table(domain, settings.dim, "items")
        self.bias = item_bias(domain.items)
        self.places = place_table(domain.history_length, settings.dim, "places")
        self.norm = tf.keras.layers.LayerNormalization(epsilon=NORM)
        self.dropout = Dropout(settings.dropout)
        self.blocks = [
            Block(settings.dim, settings.heads, settings.feed_forward, settings.dropout) for _ in range(settings.layers)
        ]
        self.inner = settings.inner
        self.mlp = MLP(settings.mlp, settings.activation, settings.dropout)

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """context["history"] [B, M] int32, candidates [B, K] int32 -> [B, K] float32."""
        history, vectors = context["history"], self.items(candidates)
        read = self.items(history) + self.places(places_from_the_latest(history))
        read = self.dropout(self.norm(read), training=training)
        asking = self.dropout(self.norm(vectors), training=training)
        columns = tf.broadcast_to(tf.range(tf.shape(history)[1])[None, :], tf.shape(history))
        last = tf.fill(tf.shape(candidates), tf.shape(history)[1] - 1)
        for number, block in enumerate(self.blocks, start=1):
            asking = block(asking, read, visible(history, last), training=training)
            if number < len(self.blocks):
                read = block(read, read, visible(history, columns), training=training)
        scores = self.mlp(tf.concat([asking, vectors], axis=-1), training=training)
        if self.inner:
            scores += dot(asking, vectors)
        return scores + tf.cast(self.bias(candidates)[..., 0], tf.float32)
