"""The two-step resampling: a pool from a static proposal, and from it the retriever's own draws; and how to draw
otherwise."""

from typing import Literal, NamedTuple, Self

import tensorflow as tf
from pydantic import Field, PositiveInt, model_validator

from tfcorr.cooperation.losses import NEVER
from tfcorr.cooperation.proposals import PoolScope
from tfcorr.settings import Settings

NegativeStrategy = Literal[
    "resample", "uncorrected", "gtop", "gtoprand", "ltop", "ltoprand", "uniform", "popularity", "dns", "in-batch"
]
DistillationSet = Literal["resample", "rand", "top", "toprand"]
Correction = Literal["hits-removed", "item", "paper"]


class SamplerSettings(Settings):
    """The two steps, a pool of n from the proposal and L of them resampled by the retriever's softmax, and what else
    may be drawn."""

    proposal: Literal["uniform", "popularity"] = Field("uniform", description="Y, from which the pool is drawn")
    alpha: float = Field(1.0, ge=0, description="by popularity, an item is drawn by its count to the power of alpha")
    pool: PositiveInt | Literal["all"] = Field(
        4096, description="n, the size of the pool; all: every item once, so that the retriever's softmax is exact"
    )
    pool_scope: PoolScope = Field("batch", description="whether each example has a pool, or a batch shares one")
    samples: int = Field(20, ge=1, description="L, how many the retriever resamples from the pool")
    correction: Correction = Field(
        "hits-removed",
        description="what is done about the target among its own negatives: it is removed; or it counts as the 1 "
        "+ n Y(k) positions "
        "that it has in the pool and beside it; or, as in the paper, it counts as any other item",
    )
    temperature: float = Field(1.0, gt=0, description="T, by which the scores of the tower that resamples are divided")
    negatives: NegativeStrategy | None = Field(
        None,
        description="how the ranker's L are drawn; by default resample, or, for towers trained apart, what the "
        "proposal says",
    )
    distillation: DistillationSet = Field(
        "resample", description="over which L items the retriever learns the ranker's order"
    )
    top: int = Field(
        500, ge=1, description="of the retriever's best items of all, how many gtoprand and toprand draw from"
    )
    local_top: int = Field(50, ge=1, description="of the pool's best, how many ltoprand draws from")
    refresh: int = Field(1, ge=1, description="epochs after which the index of the best items of all is made anew")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.pool == "all":
            if self.correction == "paper":
                raise ValueError(
                    "correction: paper is of a pool that is drawn, pool: all is none; set correction to item or "
                    "hits-removed"
                )
            return self
        if self.negatives in ("ltop", "dns") and self.samples > self.pool:
            raise ValueError(
                f"negatives: {self.negatives} takes {self.samples} samples from a pool of {self.pool}; enlarge "
                "sampler.pool"
            )
        if self.negatives == "ltoprand" and self.local_top > self.pool:
            raise ValueError(f"local_top ({self.local_top}) is more than the pool ({self.pool}); lower it")
        return self


class Drawn(NamedTuple):
    """`samples` [B, L] int32 with `sample_log_q` [B, L], and `target_log_q` [B]: what the losses subtract from these
    items' scores.

    They are log-probabilities of being drawn, or estimates of them, which may be off by a constant of their row.
    `of_item` [B, L] are the samples' probabilities themselves, where sample_log_q are those of positions in a pool.
    """

    samples: tf.Tensor
    sample_log_q: tf.Tensor
    target_log_q: tf.Tensor
    of_item: tf.Tensor | None = None

    @property
    def log_q(self) -> tuple[tf.Tensor, tf.Tensor]:
        """That of the target and of the samples."""
        return self.target_log_q, self.sample_log_q

    @property
    def log_count(self) -> tf.Tensor:
        """The logarithm of how many of the samples each can expect to be, [B, L]."""
        log_q = self.sample_log_q if self.of_item is None else self.of_item
        return log_q + tf.math.log(tf.cast(tf.shape(self.samples)[1], tf.float32))


class Pool(NamedTuple):
    """C: `items` [B, n] int32 with `log_count` [B, n], the logarithm of how many positions each can expect, n Y where n
    were drawn.

    `target_log_count` [B] is that of the target, by draws alone.
    """

    items: tf.Tensor
    log_count: tf.Tensor
    target_log_count: tf.Tensor

    @classmethod
    def of(cls, drawn: Drawn, correction: Correction) -> "Pool":
        """What was drawn, as the pool of another tower."""
        log_size = tf.math.log(tf.cast(tf.shape(drawn.samples)[1], tf.float32))
        of_target = drawn.target_log_q + log_size
        if correction == "item":  # the position that it has beside its draws does not count here
            of_target = tf.math.log(tf.math.expm1(tf.maximum(of_target, 1e-6)))
        return cls(drawn.samples, drawn.sample_log_q + log_size, of_target)

    def corrected(self, target: tf.Tensor, correction: Correction) -> Drawn:
        """The pool as negatives of the target [B], with what the losses are to subtract.

        In {k} ∪ C the target has one position more than its draws. Either all of these are counted, or those in the
        pool do not count at all, so that the losses are those over all items but for how the others were drawn, or, as
        in the paper, the one more is not counted.
        """
        if correction == "paper":
            return Drawn(self.items, self.log_count, self.target_log_count)
        removed = correction == "hits-removed"
        of_target = (
            tf.zeros_like(self.target_log_count) if removed else tf.nn.softplus(self.target_log_count)
        )  # log(1 + n Y(k))
        of_hits = tf.fill(tf.shape(of_target), NEVER) if removed else of_target
        return Drawn(self.items, tf.where(self.items == target[:, None], of_hits[:, None], self.log_count), of_target)


def pool_of_all(scores: tf.Tensor, target: tf.Tensor) -> tuple[Pool, tf.Tensor, tf.Tensor]:
    """Every item once, but for the target [B], which stands beside them, and has item 0 at its position here.

    Args: scores [B, N] of the items 1 to N. Returns: the pool, the scores of the target [B] and of the pool [B, N].
    """
    size = tf.shape(scores)[1]
    is_target = tf.one_hot(target - 1, size, True, False, dtype=tf.bool)
    items = tf.where(is_target, 0, tf.range(1, size + 1)[None, :])
    others = tf.where(is_target, -NEVER, scores)
    return (
        Pool(items, tf.zeros_like(scores), tf.fill(tf.shape(target), -NEVER)),
        tf.gather(scores, target - 1, batch_dims=1),
        others,
    )


class Resampled(NamedTuple):
    """What the second step drew from the `pool` of n with the retriever's `scores` [B, n], and its statistics.

    `effective_size` [B], 1 / Σ Q² over what can be drawn; `target_share` [B], the share of S that is the target;
    `places` [B, L], where each draw stands in [k, C].
    """

    drawn: Drawn
    pool: Pool
    scores: tf.Tensor
    effective_size: tf.Tensor
    target_share: tf.Tensor
    places: tf.Tensor


def resample(
    pool: Pool,
    target: tf.Tensor,
    scores: tf.Tensor,
    samples: int,
    temperature: float,
    correction: Correction,
    generator: tf.random.Generator,
) -> Resampled:
    """The second step: L draws with replacement from Q, the softmax of M / T − log Y over C ∪ {k}.

    Args: pool C of n items a row; target [B] int32; scores [B, 1 + n], the retriever's of [k, C], without gradient. By
    `hits-removed` nothing that is the target is drawn: Q is over the rest of C, and log_q the probability of an item,
    which is Q of its position times the positions that it can expect. The target's is then 1 / L, for it stands beside
    the samples once: so the losses estimate those over all items. By `item` the target may be drawn; it can expect 1 +
    n Y(k) positions in {k} ∪ C, and so 1 + L Q in {k} ∪ S. By `paper` log_q is Q of the position itself, and the target
    is thought to have n Y(k) of them. A pool that another tower resampled may be resampled again.

    Source: section 3.2 of the paper; as n grows, Q tends to softmax(M / T) over all items (theorem 3.1).
    """
    negatives = pool.corrected(target, correction)
    ids = tf.concat([target[:, None], pool.items], axis=1)  # [B, 1 + n]
    scores = tf.stop_gradient(tf.cast(scores, tf.float32))
    of_target = (
        tf.zeros_like(negatives.target_log_q) + NEVER if correction == "hits-removed" else negatives.target_log_q
    )
    log_count = tf.concat([of_target[:, None], negatives.sample_log_q], axis=1)
    of_places = tf.nn.log_softmax(scores / temperature - log_count)  # [B, 1 + n]
    log_q = of_places if correction == "paper" else of_places + log_count
    places = tf.random.stateless_categorical(of_places, samples, generator.make_seeds()[:, 0], dtype=tf.int32)  # [B, L]
    places = tf.minimum(
        places, tf.shape(log_q)[1] - 1
    )  # beyond that if scores are no numbers, which the losses then show
    sampled, sample_log_q, target_log_q = (
        tf.gather(ids, places, batch_dims=1),
        tf.gather(log_q, places, batch_dims=1),
        log_q[:, 0],
    )
    is_target = sampled == target[:, None]
    of_item = tf.gather(of_places + log_count, places, batch_dims=1) if correction == "paper" else None
    if correction != "paper":  # in {k} ∪ S, too, the target has one position more than its draws
        once = tf.fill(tf.shape(target), -tf.math.log(float(samples)))
        target_log_q = (
            once if correction == "hits-removed" else tf.reduce_logsumexp(tf.stack([target_log_q, once]), axis=0)
        )
        # With hits removed the target is drawn only where the pool holds nothing else, and counts for nothing.
        sample_log_q = tf.where(
            is_target, NEVER if correction == "hits-removed" else target_log_q[:, None], sample_log_q
        )
    return Resampled(
        drawn=Drawn(sampled, sample_log_q, target_log_q, of_item),
        pool=pool,
        scores=scores[:, 1:],
        effective_size=tf.exp(-tf.reduce_logsumexp(2 * of_places, axis=1)),
        target_share=tf.reduce_mean(tf.cast(is_target, tf.float32), axis=1),
        places=places,
    )


def resample_all(
    scores: tf.Tensor,
    target: tf.Tensor,
    samples: int,
    temperature: float,
    correction: Correction,
    generator: tf.random.Generator,
) -> Resampled:
    """What `resample` does with a pool of all items, each once: L draws from the softmax of M / T itself.

    Args: scores [B, N], the retriever's of the items 1 to N, without gradient; the others are as those of `resample`.
    With `hits-removed` the softmax is over all but the target.
    """
    scores = tf.stop_gradient(scores)
    pool, _target_score, others = pool_of_all(scores, target)
    log_q = tf.nn.log_softmax((others if correction == "hits-removed" else scores) / temperature)  # [B, N]
    sampled = 1 + tf.minimum(
        tf.random.stateless_categorical(log_q, samples, generator.make_seeds()[:, 0], dtype=tf.int32),
        tf.shape(scores)[1] - 1,
    )
    is_target = sampled == target[:, None]
    sample_log_q = tf.gather(log_q, sampled - 1, batch_dims=1)
    target_log_q = tf.fill(tf.shape(target), -tf.math.log(float(samples)))
    if correction == "item":
        target_log_q = tf.reduce_logsumexp(tf.stack([tf.gather(log_q, target - 1, batch_dims=1), target_log_q]), axis=0)
    of_hits = NEVER if correction == "hits-removed" else target_log_q[:, None]
    return Resampled(
        drawn=Drawn(sampled, tf.where(is_target, of_hits, sample_log_q), target_log_q),
        pool=pool,
        scores=others,
        effective_size=tf.exp(-tf.reduce_logsumexp(2 * log_q, axis=1)),
        target_share=tf.reduce_mean(tf.cast(is_target, tf.float32), axis=1),
        places=tf.where(is_target, 0, sampled),
    )
