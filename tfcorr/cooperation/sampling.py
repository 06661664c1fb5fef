"""The two-step resampling: a pool from a static proposal, and from it the retriever's own draws; and how to draw otherwise."""

from typing import Literal, NamedTuple, Self

import tensorflow as tf
from pydantic import Field, model_validator

from tfcorr.cooperation.proposals import PoolScope, Proposal
from tfcorr.settings import Settings

NegativeStrategy = Literal["resample", "gtop", "gtoprand", "ltop", "ltoprand", "uniform", "popularity", "dns", "in-batch"]
DistillationSet = Literal["resample", "rand", "top", "toprand"]


class SamplerSettings(Settings):
    """The two steps, a pool of n from the proposal and L of them resampled by the retriever's softmax, and what else may be drawn."""

    proposal: Literal["uniform", "popularity"] = "uniform"
    alpha: float = Field(1.0, ge=0, description="by popularity, an item is drawn by its count to the power of alpha")
    pool: int = Field(100, ge=1, description="n, the size of the pool")
    pool_scope: PoolScope = Field("example", description="whether each example has a pool, or a batch shares one")
    samples: int = Field(20, ge=1, description="L, how many the retriever resamples from the pool")
    temperature: float = Field(1.0, gt=0, description="T, by which the retriever's scores are divided when resampling")
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
    """`samples` [B, L] int32 with `sample_log_q` [B, L], and `target_log_q` [B], as the losses take them."""

    samples: tf.Tensor
    sample_log_q: tf.Tensor
    target_log_q: tf.Tensor

    @property
    def log_q(self) -> tuple[tf.Tensor, tf.Tensor]:
        """That of the target and of the samples."""
        return self.target_log_q, self.sample_log_q


class Resampled(NamedTuple):
    """What the second step drew from the `pool` [B, n] with the retriever's `scores` [B, n], and its statistics.

    `pool_log_loss` [B], the retriever's own −log softmax(M)[k] over C ∪ {k}; `effective_size` [B], 1 / Σ Q² over C ∪ {k};
    `target_share` [B], the share of S that is the target.
    """

    drawn: Drawn
    pool: tf.Tensor
    scores: tf.Tensor
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
    pool = tf.broadcast_to(pool, tf.shape(pool_scores))
    ids = tf.concat([target[:, None], pool], axis=1)  # [B, 1 + n]
    scores = tf.stop_gradient(tf.cast(tf.concat([target_score[:, None], pool_scores], axis=1), tf.float32))
    log_q = tf.nn.log_softmax(scores / temperature - proposal.log_prob(ids))
    drawn = tf.random.stateless_categorical(log_q, samples, generator.make_seeds()[:, 0], dtype=tf.int32)  # [B, L]
    drawn = tf.minimum(drawn, tf.shape(log_q)[1] - 1)  # beyond that if scores are no numbers, which the losses then show
    sampled = tf.gather(ids, drawn, batch_dims=1)
    return Resampled(
        drawn=Drawn(sampled, tf.gather(log_q, drawn, batch_dims=1), log_q[:, 0]),
        pool=pool,
        scores=scores[:, 1:],
        pool_log_loss=tf.reduce_logsumexp(scores, axis=1) - scores[:, 0],
        effective_size=tf.exp(-tf.reduce_logsumexp(2 * log_q, axis=1)),
        target_share=tf.reduce_mean(tf.cast(sampled == target[:, None], tf.float32), axis=1),
    )
