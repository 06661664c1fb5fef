"""The two-step resampling: a pool from a static proposal, and from it the retriever's own draws; and how to draw otherwise."""

from typing import Literal, NamedTuple, Self

import tensorflow as tf
from pydantic import Field, model_validator

from tfcorr.cooperation.proposals import PoolScope
from tfcorr.settings import Settings

NegativeStrategy = Literal["resample", "uncorrected", "gtop", "gtoprand", "ltop", "ltoprand", "uniform", "popularity", "dns", "in-batch"]
DistillationSet = Literal["resample", "rand", "top", "toprand"]


class SamplerSettings(Settings):
    """The two steps, a pool of n from the proposal and L of them resampled by the retriever's softmax, and what else may be drawn."""

    proposal: Literal["uniform", "popularity"] = Field("uniform", description="Y, from which the pool is drawn")
    alpha: float = Field(1.0, ge=0, description="by popularity, an item is drawn by its count to the power of alpha")
    pool: int = Field(100, ge=1, description="n, the size of the pool")
    pool_scope: PoolScope = Field("example", description="whether each example has a pool, or a batch shares one")
    samples: int = Field(20, ge=1, description="L, how many the retriever resamples from the pool")
    temperature: float = Field(1.0, gt=0, description="T, by which the scores of the tower that resamples are divided")
    negatives: NegativeStrategy | None = Field(
        None, description="how the ranker's L are drawn; by default resample, or, for towers trained apart, what the proposal says"
    )
    distillation: DistillationSet = Field("resample", description="over which L items the retriever learns the ranker's order")
    top: int = Field(500, ge=1, description="of the retriever's best items of all, how many gtoprand and toprand draw from")
    local_top: int = Field(50, ge=1, description="of the pool's best, how many ltoprand draws from")
    refresh: int = Field(1, ge=1, description="epochs after which the index of the best items of all is made anew")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.negatives in ("ltop", "dns") and self.samples > self.pool:
            raise ValueError(f"negatives: {self.negatives} takes {self.samples} samples from a pool of {self.pool}; enlarge sampler.pool")
        if self.negatives == "ltoprand" and self.local_top > self.pool:
            raise ValueError(f"local_top ({self.local_top}) is more than the pool ({self.pool}); lower it")
        return self


class Drawn(NamedTuple):
    """`samples` [B, L] int32 with `sample_log_q` [B, L], and `target_log_q` [B]: what the losses subtract from these items' scores.

    They are log-probabilities of being drawn, or estimates of them, which may be off by a constant of their row.
    """

    samples: tf.Tensor
    sample_log_q: tf.Tensor
    target_log_q: tf.Tensor

    @property
    def log_q(self) -> tuple[tf.Tensor, tf.Tensor]:
        """That of the target and of the samples."""
        return self.target_log_q, self.sample_log_q


class Resampled(NamedTuple):
    """What the second step drew from the `pool` of n with the retriever's `scores` [B, n], and its statistics.

    `effective_size` [B], 1 / Σ Q² over C ∪ {k}; `target_share` [B], the share of S that is the target; `places` [B, L], where
    each draw stands in [k, C].
    """

    drawn: Drawn
    pool: Drawn
    scores: tf.Tensor
    effective_size: tf.Tensor
    target_share: tf.Tensor
    places: tf.Tensor


def resample(
    pool: Drawn, target: tf.Tensor, scores: tf.Tensor, samples: int, temperature: float, generator: tf.random.Generator
) -> Resampled:
    """The second step: L draws with replacement from Q, the softmax of M / T − log Y over C ∪ {k}.

    Args: pool C [B, n] with log Y of its items and of the target; target [B] int32; scores [B, 1 + n], the retriever's of
    [k, C], without gradient.
    Unlike in the paper, the log_q of what is drawn is that of an item, not of its place in the pool: Q of the place, times n Y,
    the number of places that an item can expect. Of a uniform Y this is the same but for a constant, which no loss sees; of
    another, the losses would without it tend to those of softmax(V + log Y). So a pool that another tower resampled may be
    resampled again.

    Source: section 3.2 of the paper; as n grows, Q tends to softmax(M / T) over all items (theorem 3.1).
    """
    ids = tf.concat([target[:, None], pool.samples], axis=1)  # [B, 1 + n]
    scores = tf.stop_gradient(tf.cast(scores, tf.float32))
    log_y = tf.concat([pool.target_log_q[:, None], pool.sample_log_q], axis=1)
    of_places = tf.nn.log_softmax(scores / temperature - log_y)  # [B, 1 + n]
    log_q = of_places + log_y + tf.math.log(tf.cast(tf.shape(pool.samples)[1], tf.float32))
    places = tf.random.stateless_categorical(of_places, samples, generator.make_seeds()[:, 0], dtype=tf.int32)  # [B, L]
    places = tf.minimum(places, tf.shape(log_q)[1] - 1)  # beyond that if scores are no numbers, which the losses then show
    sampled = tf.gather(ids, places, batch_dims=1)
    return Resampled(
        drawn=Drawn(sampled, tf.gather(log_q, places, batch_dims=1), log_q[:, 0]),
        pool=pool,
        scores=scores[:, 1:],
        effective_size=tf.exp(-tf.reduce_logsumexp(2 * of_places, axis=1)),
        target_share=tf.reduce_mean(tf.cast(sampled == target[:, None], tf.float32), axis=1),
        places=places,
    )
