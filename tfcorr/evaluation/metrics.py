"""Ranks and what is computed from them, as pure functions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

MISSED = np.iinfo(np.int32).max  # the rank of a target that was not among the candidates


def ranks_of(target_scores: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """The target's rank among other candidates, 1 the best; a tie counts against it, and so does a score that is no
    number.

    Args: target_scores [B]; scores [B, K] of the others, minus infinity where there is no candidate.
    Returns: [B] int32.

    >>> ranks_of(tf.constant([2.0]), tf.constant([[3.0, 2.0, 1.0, -np.inf]])).numpy().tolist()  # one is ahead, one ties
    [3]
    """
    ahead = ~(scores < target_scores[:, None]) & (scores != -np.inf)
    return 1 + tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)


def ndcg(ranks: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.float64]:
    """NDCG@k of each single target: 1 / log2(1 + rank) within the first k, else 0.

    >>> ndcg(np.array([1, 3, 11]), k=10).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.where(ranks <= k, 1 / np.log2(1.0 + ranks), 0.0)


def recall(ranks: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.float64]:
    """Recall@k of each single target: 1 within the first k, else 0.

    >>> recall(np.array([1, 3, 11]), k=10).tolist()
    [1.0, 1.0, 0.0]
    """
    return (ranks <= k).astype(np.float64)


def mrr(ranks: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.float64]:
    """Reciprocal rank of each single target within the first k, else 0.

    >>> mrr(np.array([1, 4, 11]), k=10).tolist()
    [1.0, 0.25, 0.0]
    """
    return np.where(ranks <= k, 1 / ranks.astype(np.float64), 0.0)


METRICS = {"ndcg": ndcg, "recall": recall, "mrr": mrr}


def summarise(ranks: npt.NDArray[np.int32], ks: Sequence[int]) -> dict[str, float]:
    """Means over users, as {"ndcg@20": …}.

    >>> summarise(np.array([1, 3, 11]), ks=[10])["ndcg@10"]
    0.5
    """
    return {f"{name}@{k}": float(metric(ranks, k).mean()) for name, metric in METRICS.items() for k in ks}
