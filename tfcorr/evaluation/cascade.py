"""The cascade: retrieve many by the retriever, rank those by the ranker. Evaluation and export both use this one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.evaluation.index import Index
from tfcorr.towers.layers import Retriever, Tower, inner

PAIRS = 50_000  # pairs of a candidate and an item of the history that a ranker sees at once


class Candidates(NamedTuple):
    """What a stage was handed: `ids` [B, R] int32 and its `scores` of them [B, R], beside the retriever's, `retrieved` [B, R].

    Where there is none, the id is 0 and scores are minus infinity.
    """

    ids: tf.Tensor
    retrieved: tf.Tensor
    scores: tf.Tensor

    def best(self, size: int) -> "Candidates":
        """The `size` that score highest, or all that there are, best first."""
        scores, best = tf.math.top_k(self.scores, tf.minimum(size, tf.shape(self.scores)[1]))
        return Candidates(tf.gather(self.ids, best, batch_dims=1), tf.gather(self.retrieved, best, batch_dims=1), scores)

    def blended(self, weight: float) -> "Candidates":
        """The same, scored by (1 − weight) · the stage's score + weight · the retriever's."""
        scores = (1 - weight) * self.scores + weight * self.retrieved
        return self._replace(scores=tf.where(self.ids > 0, scores, -np.inf))


class Cascade:
    """Retrieves items from the index; each further tower scores what the one before hands on, the best by its own scores."""

    def __init__(self, towers: dict[str, Tower], index: Index, sizes: Sequence[int], blend: float = 0.0) -> None:
        """towers by name: the retriever, those in the middle if there are any, the ranker.

        sizes are how many items each but the last hands on; blend is the weight of the retriever in the order that is answered.
        """
        self.towers, self.index, self.sizes, self.blend = towers, index, tuple(sizes), blend
        self.stages = (*list(towers)[:-1], "cascade")  # what can be measured, in order: the ranker's stage is the whole cascade

    @property
    def handed_on(self) -> dict[str, int]:
        """How many items each stage but the last hands on."""
        return dict(zip(self.stages, self.sizes, strict=False))

    @property
    def retriever(self) -> Retriever:
        """The first tower."""
        return self.towers["retriever"]

    def retrieve(self, context: Context, exclude: tf.Tensor) -> Candidates:
        """context of B rows; exclude [B, W] int32, 0-padded: items that must not be retrieved."""
        query = tf.cast(self.retriever.encode_context(context), tf.float32)
        ids, scores = self.index.search(query, self.sizes[0] + tf.shape(exclude)[1])
        scores = tf.where(is_among(ids, exclude) | (ids == 0), -np.inf, scores)
        best = Candidates(ids, scores, scores).best(self.sizes[0])
        return best._replace(ids=tf.where(best.scores > -np.inf, best.ids, 0))

    def run(self, context: Context, exclude: tf.Tensor, last: str = "cascade") -> dict[str, Candidates]:
        """What each stage up to the last was handed, scored by it; context and exclude are as `retrieve` takes them."""
        found = {"retriever": self.retrieve(context, exclude)}
        scored = found["retriever"]
        for stage, tower, size in zip(self.stages[1:], list(self.towers.values())[1:], self.sizes, strict=True):
            if last in found:
                break
            handed = scored.best(size) if len(found) > 1 else scored  # what was retrieved is the best already
            scores = tf.where(handed.ids > 0, score_in_chunks(tower, context, handed.ids), -np.inf)
            found[stage] = scored = handed._replace(scores=scores)
        return found


def score_in_chunks(tower: Tower, context: Context, candidates: tf.Tensor) -> tf.Tensor:
    """The tower's scores [B, K] of candidates [B, K], for some at a time: memory does not grow with K."""
    rows, length = tf.unstack(tf.shape(context["history"]))
    query = tower.encode_context(context) if isinstance(tower, Retriever) else None
    width = tf.maximum(PAIRS // tf.maximum(rows * (length if query is None else 1), 1), 1)

    def more(start: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        some = candidates[:, start : start + width]
        found = tower.score(context, some) if query is None else inner(query, tower.item_vectors(some))
        return start + width, tf.concat([scores, found], axis=1)

    invariants = tf.TensorShape([]), tf.TensorShape([None, None])
    return tf.while_loop(lambda start, _: start < tf.shape(candidates)[1], more, (0, tf.zeros([rows, 0])), invariants)[1]


def is_among(ids: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Whether each of ids [B, K] stands in its row of others [B, W]: [B, K] bool."""
    ordered = tf.pad(tf.sort(others, axis=1), [[0, 0], [0, 1]], constant_values=-1)  # [B, W + 1]
    places = tf.searchsorted(ordered[:, :-1], ids)
    return tf.gather(ordered, places, batch_dims=1) == ids


def all_item_vectors(retriever: Retriever, items: int) -> tf.Tensor:
    """The vectors of the items 1 to N: [N, D] float32."""
    return tf.cast(retriever.item_vectors(tf.range(1, items + 1)), tf.float32)
