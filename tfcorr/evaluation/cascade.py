"""The cascade: retrieve many by the retriever, rank those by the ranker. Evaluation and export both use this one."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.evaluation.index import Index
from tfcorr.towers.layers import Ranker, Retriever

PAIRS = 50_000  # pairs of a candidate and an item of the history that the ranker sees at once


class Retrieved(NamedTuple):
    """`ids` [B, R] int32 and the retriever's `scores` [B, R], best first; 0 and minus infinity where there is none."""

    ids: tf.Tensor
    scores: tf.Tensor


class Cascade:
    """Retrieves `size` items from the index and scores them by the ranker."""

    def __init__(self, retriever: Retriever, ranker: Ranker, index: Index, size: int) -> None:
        self.retriever, self.ranker, self.index, self.size = retriever, ranker, index, size

    def retrieve(self, context: Context, exclude: tf.Tensor) -> Retrieved:
        """context of B rows; exclude [B, W] int32, 0-padded: items that must not be retrieved."""
        query = tf.cast(self.retriever.encode_context(context), tf.float32)
        ids, scores = self.index.search(query, self.size + tf.shape(exclude)[1])
        scores = tf.where(is_among(ids, exclude) | (ids == 0), -np.inf, scores)
        scores, best = tf.math.top_k(scores, tf.minimum(self.size, tf.shape(scores)[1]))
        return Retrieved(tf.where(scores > -np.inf, tf.gather(ids, best, batch_dims=1), 0), scores)

    def rank(self, context: Context, retrieved: Retrieved) -> tf.Tensor:
        """The ranker's scores of what was retrieved: [B, R], minus infinity where there is nothing."""
        return tf.where(retrieved.ids > 0, score_in_chunks(self.ranker, context, retrieved.ids), -np.inf)


def score_in_chunks(ranker: Ranker, context: Context, candidates: tf.Tensor) -> tf.Tensor:
    """The ranker's scores [B, K] of candidates [B, K], for some at a time: memory does not grow with K."""
    rows, length = tf.unstack(tf.shape(context["history"]))
    width = tf.maximum(PAIRS // tf.maximum(rows * length, 1), 1)
    scores = tf.zeros([rows, 0])
    for start in tf.range(0, tf.shape(candidates)[1], width):
        tf.autograph.experimental.set_loop_options(shape_invariants=[(scores, tf.TensorShape([None, None]))])
        scores = tf.concat([scores, ranker.score(context, candidates[:, start : start + width])], axis=1)
    return scores


def is_among(ids: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Whether each of ids [B, K] stands in its row of others [B, W]: [B, K] bool."""
    ordered = tf.pad(tf.sort(others, axis=1), [[0, 0], [0, 1]], constant_values=-1)  # [B, W + 1]
    places = tf.searchsorted(ordered[:, :-1], ids)
    return tf.gather(ordered, places, batch_dims=1) == ids


def all_item_vectors(retriever: Retriever, items: int) -> tf.Tensor:
    """The vectors of the items 1 to N: [N, D] float32."""
    return tf.cast(retriever.item_vectors(tf.range(1, items + 1)), tf.float32)
