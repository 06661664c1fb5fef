"""CoRR: the ranker teaches the retriever its order of sampled items."""

import tensorflow as tf

from tfcorr.cooperation.joint import Joint, Scores
from tfcorr.cooperation.losses import sampled_kl
from tfcorr.cooperation.sampler import Source
from tfcorr.cooperation.strategies import DISTILLATION


class CoRR(Joint):
    """The cooperative model of the paper (algorithm 1).

    The retriever resamples L hard negatives from a pool of n; both towers learn to tell the target from them by sampled
    log-softmax; the retriever also learns the ranker's order of them by a sampled KL.
    """

    lesson = "kl"

    def teach(self, source: Source, retrieved: Scores, ranked: Scores) -> tf.Tensor:
        """The sampled KL over the distillation's items: [B]."""
        distilled = DISTILLATION[source.sampler.settings.distillation](source)
        teacher = ranked.of(distilled.samples)
        return sampled_kl(teacher, retrieved.of(distilled.samples), distilled.sample_log_q)
