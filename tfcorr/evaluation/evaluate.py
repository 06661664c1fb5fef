"""Every user's rank in every stage, in batches of users; metrics are means over these ranks."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.data.batches import EvaluationBatch
from tfcorr.evaluation.cascade import Cascade, is_among, score_in_chunks
from tfcorr.evaluation.metrics import MISSED, ranks_of, recall, summarise

Stage = Literal["retriever", "cascade", "ranker"]
Ranks = dict[Stage, npt.NDArray[np.int32]]
RankBatch = Callable[[EvaluationBatch], dict[Stage, tf.Tensor]]
CHUNK = 4096  # candidates a user that are listed at once when the ranker ranks all items


def rank_batch(cascade: Cascade, batch: EvaluationBatch, exclude_seen: bool, stages: tuple[Stage, ...]) -> RankBatch:
    """The graph that ranks one batch of B users: EvaluationBatch, here given by its tensors' specs, -> [B] int32 by stage.

    The retriever's and the cascade's rank are within the items retrieved, and MISSED where the target is not among them;
    the ranker's is among all items. A target that was seen before stays a candidate. Where scores tie at the last place that
    is retrieved, the index's order decides which items are.
    """

    @tf.function(input_signature=[batch])
    def ranks(batch: EvaluationBatch) -> dict[Stage, tf.Tensor]:
        exclude = tf.where(batch.seen == batch.target[:, None], 0, batch.seen) if exclude_seen else batch.seen[:, :0]
        retrieved = cascade.retrieve(batch.context, exclude)
        found: dict[Stage, tf.Tensor] = {}
        if "retriever" in stages:
            found["retriever"] = _rank_among(batch.target, retrieved.ids, retrieved.scores)
        if "cascade" in stages:
            found["cascade"] = _rank_among(batch.target, retrieved.ids, cascade.rank(batch.context, retrieved))
        if "ranker" in stages:
            found["ranker"] = _rank_among_all(cascade, batch, exclude)
        return found

    return ranks


def rank_users(ranks: RankBatch, batches: tf.data.Dataset) -> Ranks:
    """Every user's rank by stage, [users] int32 each, in the order of the batches."""
    found = [ranks(batch) for batch in batches]
    return {stage: np.concatenate([each[stage].numpy() for each in found]) for stage in found[0]}


def _rank_among(target: tf.Tensor, ids: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """The rank [B] of the target [B] among ids [B, K] by their scores; MISSED where it is not among them."""
    is_target = ids == target[:, None]
    target_scores = tf.reduce_max(tf.where(is_target, scores, -np.inf), axis=1)
    ranks = ranks_of(target_scores, tf.where(is_target, -np.inf, scores))
    return tf.where(tf.reduce_any(is_target, axis=1), ranks, MISSED)


def _rank_among_all(cascade: Cascade, batch: EvaluationBatch, exclude: tf.Tensor) -> tf.Tensor:
    """The target's rank [B] by the ranker among all items, scored in chunks."""
    target_scores = cascade.ranker.score(batch.context, batch.target[:, None])[:, 0]
    rank, last = tf.ones_like(batch.target), cascade.index.size + 1
    for start in tf.range(1, last, CHUNK):
        ids = tf.tile(tf.range(start, tf.minimum(start + CHUNK, last))[None, :], [tf.shape(rank)[0], 1])
        others = ~is_among(ids, exclude) & (ids != batch.target[:, None])
        scores = tf.where(others, score_in_chunks(cascade.ranker, batch.context, ids), -np.inf)
        rank += ranks_of(target_scores, scores) - 1
    return rank


def metrics_by_stage(ranks: Ranks, ks: Sequence[int], retrieve: int) -> dict[str, dict[str, float]]:
    """NDCG, Recall and MRR at each k by stage; the retriever's Recall at `retrieve` is the cascade's ceiling."""
    table = {str(stage): summarise(values, ks) for stage, values in ranks.items()}
    table["retriever"][f"recall@{retrieve}"] = float(recall(ranks["retriever"], retrieve).mean())
    return table
