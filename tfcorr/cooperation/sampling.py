"""Where negatives come from: a static proposal, and the two-step resampling on top of it."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from pydantic import Field

from tfcorr.settings import Settings

PoolScope = Literal["example", "batch"]


class SamplerSettings(Settings):
    """The two steps: a pool of n from the proposal, L of them resampled by the retriever's softmax."""

    proposal: Literal["uniform", "popularity"] = "uniform"
    alpha: float = Field(1.0, ge=0, description="the popularity proposal draws an item by its count to the power of alpha")
    pool: int = Field(100, ge=1, description="n, the size of the pool")
    pool_scope: PoolScope = Field("example", description="whether each example has a pool, or a batch shares one")
    samples: int = Field(20, ge=1, description="L, how many the retriever resamples from the pool")
    temperature: float = Field(1.0, gt=0, description="T, by which the retriever's scores are divided when resampling")


class Proposal:
    """A static distribution Y over the items 1 to N: `log_probabilities` [N + 1] float32, minus infinity for padding."""

    def __init__(self, weights: npt.NDArray[np.float64]) -> None:
        """weights [N], each at least 0, for the items 1 to N; they need not sum to 1."""
        shares = weights / weights.sum()
        with np.errstate(divide="ignore"):
            logs = np.log(np.concatenate([[0.0], shares]))
        self.log_probabilities = tf.constant(logs, tf.float32)
        self._is_uniform = bool(np.all(weights == weights[0]))
        kept, aliases = alias_table(shares * len(shares))
        self._kept, self._aliases = tf.constant(kept, tf.float32), tf.constant(aliases, tf.int32)

    def draw(self, shape: tf.Tensor | list[int], generator: tf.random.Generator) -> tf.Tensor:
        """Item numbers of the shape, int32, drawn independently with replacement, each at the same cost however many items."""
        points = tf.random.stateless_uniform(shape, generator.make_seeds()[:, 0], maxval=len(self._kept), dtype=tf.float64)
        columns = tf.cast(points, tf.int32)
        if self._is_uniform:  # no column has an alias
            return 1 + columns
        kept = tf.cast(points - tf.floor(points), tf.float32) < tf.gather(self._kept, columns)
        return 1 + tf.where(kept, columns, tf.gather(self._aliases, columns))

    def pool(self, scope: PoolScope, rows: tf.Tensor, size: int, generator: tf.random.Generator) -> tf.Tensor:
        """A pool for each of the rows [rows, size], or one that all share [size]."""
        return self.draw([size] if scope == "batch" else [rows, size], generator)

    def log_prob(self, ids: tf.Tensor) -> tf.Tensor:
        """log Y of item numbers [...], float32."""
        return tf.gather(self.log_probabilities, ids)


def alias_table(weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Walker's alias table of weights [N] whose mean is 1: the share of itself that each column keeps, and what has the rest.

    A column drawn uniformly, and then its alias unless it keeps itself, has the distribution of the weights. Heavy columns
    give what they have above 1, in turn, to what light ones lack; the one that runs out has its own lack filled by the next.
    Source: Hübschle-Schneider and Sanders, "Parallel Weighted Random Sampling" (ESA'19), by prefix sums instead of a sweep.
    """
    kept, aliases = weights.copy(), np.arange(len(weights))
    is_heavy = weights >= min(1.0, weights.max())  # equal weights may all be a little below 1 by rounding
    light, heavy = np.flatnonzero(~is_heavy), np.flatnonzero(is_heavy)
    lacking = np.concatenate([[0.0], np.cumsum(1 - weights[light])])  # before each light column, and in all
    giving = np.cumsum(weights[heavy] - 1)  # up to and with each heavy one
    giver = np.searchsorted(giving, lacking[:-1], side="right")  # the first heavy column that has some left
    aliases[light] = heavy[np.minimum(giver, len(heavy) - 1)]
    spent = np.searchsorted(lacking, giving[:-1])  # the prefix at which a heavy column has run out, if there is one
    out = np.flatnonzero(spent < len(lacking))
    kept[heavy] = 1
    kept[heavy[out]] += giving[out] - lacking[spent[out]]
    aliases[heavy[out]] = heavy[out + 1]
    return kept, aliases


def proposal_from(settings: SamplerSettings, counts: npt.NDArray[np.int64]) -> Proposal:
    """The proposal of the settings; counts [N] are the items' training interactions.

    Under popularity^alpha, an item that training never saw counts as seen once, so that every item can be drawn.
    """
    if settings.proposal == "uniform":
        return Proposal(np.ones(len(counts)))
    return Proposal(np.maximum(counts, 1).astype(np.float64) ** settings.alpha)


class Resampled(NamedTuple):
    """What the second step drew, with its statistics.

    `samples` [B, L] int32 with `sample_log_q` [B, L]; `target_log_q` [B]; `pool_log_loss` [B], the retriever's own
    −log softmax(M)[k] over C ∪ {k}; `effective_size` [B], 1 / Σ Q² over C ∪ {k}; `target_share` [B], the share of S that
    is the target.
    """

    samples: tf.Tensor
    sample_log_q: tf.Tensor
    target_log_q: tf.Tensor
    pool_log_loss: tf.Tensor
    effective_size: tf.Tensor
    target_share: tf.Tensor


def resample(
    pool: tf.Tensor,
    target: tf.Tensor,
    pool_scores: tf.Tensor,
    target_score: tf.Tensor,
    proposal: Proposal,
    samples: int,
    temperature: float,
    generator: tf.random.Generator,
) -> Resampled:
    """The second step: L draws with replacement from Q, the softmax of M / T − log Y over C ∪ {k}.

    Args: pool [B, n] or, shared by the batch, [n] int32; target [B] int32; pool_scores [B, n] and target_score [B], the
    retriever's, without gradient.
    Source: section 3.2 of the paper; as n grows, Q tends to softmax(M / T) over all items (theorem 3.1).
    """
    ids = tf.concat([target[:, None], tf.broadcast_to(pool, tf.shape(pool_scores))], axis=1)  # [B, 1 + n]
    scores = tf.stop_gradient(tf.cast(tf.concat([target_score[:, None], pool_scores], axis=1), tf.float32))
    log_q = tf.nn.log_softmax(scores / temperature - proposal.log_prob(ids))
    drawn = tf.random.stateless_categorical(log_q, samples, generator.make_seeds()[:, 0], dtype=tf.int32)  # [B, L]
    drawn = tf.minimum(drawn, tf.shape(log_q)[1] - 1)  # beyond that if scores are no numbers, which the losses then show
    sampled = tf.gather(ids, drawn, batch_dims=1)
    return Resampled(
        samples=sampled,
        sample_log_q=tf.gather(log_q, drawn, batch_dims=1),
        target_log_q=log_q[:, 0],
        pool_log_loss=tf.reduce_logsumexp(scores, axis=1) - scores[:, 0],
        effective_size=tf.exp(-tf.reduce_logsumexp(2 * log_q, axis=1)),
        target_share=tf.reduce_mean(tf.cast(sampled == target[:, None], tf.float32), axis=1),
    )
