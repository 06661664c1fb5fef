"""Adversarial training: the retriever generates what the ranker takes for a target, as in IRGAN (Wang et al.,
SIGIR'17)."""

import tensorflow as tf

from tfcorr.cooperation.joint import Joint, Scores
from tfcorr.cooperation.losses import policy_gradient
from tfcorr.cooperation.sampler import Source


class Adversarial(Joint):
    """The ranker discriminates the target from the retriever's samples; the retriever is rewarded for samples that it
    mistakes.

    A sample's reward is what the ranker would lose by it: under `bce` log(1 + exp R(s)), as in IRGAN, under `softmax`
    the same of R(s) − R(k). Unlike in IRGAN the retriever goes on learning from the targets too, instead of before, by
    its own loss.
    """

    lesson = "policy_loss"

    def teach(self, source: Source, retrieved: Scores, ranked: Scores) -> tf.Tensor:
        """The policy gradient's loss over what the retriever resampled: [B]."""
        samples = source.resampled().drawn.samples
        scores = ranked.of(samples)
        rewards = tf.nn.softplus(scores if self.loss_name == "bce" else scores - ranked.of_target[:, None])
        return policy_gradient(rewards, retrieved.of(samples))
