"""Where the ranker's negatives and the distillation's items come from: one function a strategy, by its registered name.

The names are those of sections 4.4 and 4.5 of the paper, the definitions what names and the authors' code suggest.
Draws from the retriever's best have no probability to correct for: as in the authors' code, their log_q is 0.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcorr.cooperation.losses import NEVER
from tfcorr.cooperation.proposals import Proposal
from tfcorr.cooperation.sampler import Source
from tfcorr.cooperation.sampling import DistillationSet, Drawn, NegativeStrategy


def resample(source: Source) -> Drawn:
    """L of the pool by the retriever's softmax, with their log_q: the paper's own."""
    return source.resampled().drawn


def uncorrected_resample(source: Source) -> Drawn:
    """What `resample` draws, taken as it comes: the ranker then learns to tell the target from what the retriever
    proposes."""
    return uncorrected(source.resampled().drawn.samples)


def global_top(source: Source) -> Drawn:
    """The retriever's L best of all items."""
    return uncorrected(source.best(source.sampler.settings.samples))


def global_top_random(source: Source) -> Drawn:
    """L, uniformly with replacement, of the retriever's `top` best of all items."""
    return uncorrected(choose(source.best(source.sampler.settings.top), source))


def local_top(source: Source) -> Drawn:
    """The retriever's L best of the pool."""
    return uncorrected(best_of_pool(source, source.sampler.settings.samples))


def local_top_random(source: Source) -> Drawn:
    """L, uniformly with replacement, of the retriever's `local_top` best of the pool."""
    return uncorrected(choose(best_of_pool(source, source.sampler.settings.local_top), source))


def uniform(source: Source) -> Drawn:
    """L of all items, each alike."""
    return static(source, source.sampler.uniform)


def popularity(source: Source) -> Drawn:
    """L of all items by popularity^alpha, corrected for it."""
    return static(source, source.sampler.popularity)


def dynamic(source: Source) -> Drawn:
    """The L of the pool that the ranker itself scores highest (dynamic negative sampling; Zhang et al., SIGIR'13)."""
    pool = source.resampled().pool.items
    scores = tf.where(pool > 0, source.rank(pool), -np.inf)  # a pool of all items has 0 in the target's position
    return uncorrected(best_of(pool, scores, source.sampler.settings.samples))


def in_batch(source: Source) -> Drawn:
    """L targets of other examples of the batch, corrected for popularity, by which they come (Yi et al., RecSys'19)."""
    rows = tf.shape(source.target)[0]
    away = tf.random.stateless_uniform(
        [rows, source.sampler.settings.samples],
        source.sampler.generator.make_seeds()[:, 0],
        1,
        tf.maximum(rows, 2),
        tf.int32,
    )
    samples = tf.gather(source.target, (tf.range(rows)[:, None] + away) % rows)
    shares = source.sampler.shares
    return Drawn(samples, shares.log_prob(samples), shares.log_prob(source.target))


NEGATIVES: dict[NegativeStrategy, Callable[[Source], Drawn]] = {
    "resample": resample,
    "uncorrected": uncorrected_resample,
    "gtop": global_top,
    "gtoprand": global_top_random,
    "ltop": local_top,
    "ltoprand": local_top_random,
    "uniform": uniform,
    "popularity": popularity,
    "dns": dynamic,
    "in-batch": in_batch,
}
DISTILLATION: dict[DistillationSet, Callable[[Source], Drawn]] = {
    "resample": resample,
    "rand": uniform,
    "top": global_top,
    "toprand": global_top_random,
}
GLOBAL = {"gtop", "gtoprand", "top", "toprand"}  # these need an index of all items
UNCORRECTED = {
    "uncorrected",
    "gtop",
    "gtoprand",
    "ltop",
    "ltoprand",
    "dns",
}  # from their draws no loss over all items can be estimated


def negatives_of(strategy: NegativeStrategy, source: Source) -> Drawn:
    """What a strategy draws for the ranker; where hits are removed, no draw that is the target counts as a negative."""
    drawn = NEGATIVES[strategy](source)
    if source.sampler.settings.correction != "hits-removed":
        return drawn
    is_hit = drawn.samples == source.target[:, None]
    return drawn._replace(sample_log_q=tf.where(is_hit, NEVER, drawn.sample_log_q))


def uncorrected(samples: tf.Tensor) -> Drawn:
    """samples [B, L] whose log_q is taken to be 0."""
    zeros = tf.zeros(tf.shape(samples))
    return Drawn(samples, zeros, zeros[:, 0])


def static(source: Source, proposal: Proposal) -> Drawn:
    """L draws of a proposal for each row, with its log-probabilities."""
    samples = proposal.draw([tf.shape(source.target)[0], source.sampler.settings.samples], source.sampler.generator)
    return Drawn(samples, proposal.log_prob(samples), proposal.log_prob(source.target))


def best_of_pool(source: Source, count: int) -> tf.Tensor:
    """The `count` of the pool that the retriever scores highest, best first: [B, count]."""
    resampled = source.resampled()
    return best_of(resampled.pool.items, resampled.scores, count)


def best_of(ids: tf.Tensor, scores: tf.Tensor, count: int) -> tf.Tensor:
    """The `count` highest scored of ids [B, n] by scores [B, n], best first: [B, count]. Duplicates stay."""
    return tf.gather(ids, tf.math.top_k(scores, count).indices, batch_dims=1)


def choose(ids: tf.Tensor, source: Source) -> tf.Tensor:
    """L of ids [B, n] for each row, uniformly with replacement: [B, L]."""
    rows, count = tf.unstack(tf.shape(ids))
    places = tf.random.stateless_uniform(
        [rows, source.sampler.settings.samples], source.sampler.generator.make_seeds()[:, 0], 0, count, tf.int32
    )
    return tf.gather(ids, places, batch_dims=1)
