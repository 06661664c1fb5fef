"""The losses of the cooperation, as pure functions of scores. All in float32; every sum of exponentials is a
log-sum-exp."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import tensorflow as tf

LossName = Literal["softmax", "bce"]
# As a log-probability that is subtracted it makes an item count for nothing; as a logit's malus it is never drawn.
NEVER = 1e9


def sampled_log_softmax(
    target_score: tf.Tensor, sample_scores: tf.Tensor, target_log_q: tf.Tensor, sample_log_q: tf.Tensor
) -> tf.Tensor:
    """The sampled log-softmax loss, −log softmax(V − log_q)[k] over {k} ∪ S, with duplicates kept.

    Args: target_score [B], sample_scores [B, L], and their log-probabilities target_log_q [B], sample_log_q [B, L]
    under the distribution that the samples come from; no gradient flows through these.
    Returns: [B] float32.
    Source: equations 1 and 2 of the paper.

    >>> loss = sampled_log_softmax(tf.constant([2.0]), tf.constant([[0.0, 1.0]]), tf.zeros(1), tf.zeros([1, 2]))
    >>> print(f"{float(loss[0]):.4f}, {np.log(np.exp(2) + np.exp(0) + np.exp(1)) - 2:.4f}")
    0.4076, 0.4076
    """
    corrected = corrected_scores(target_score[:, None], target_log_q[:, None])  # [B, 1]
    everything = tf.concat([corrected, corrected_scores(sample_scores, sample_log_q)], axis=1)
    return tf.reduce_logsumexp(everything, axis=1) - corrected[:, 0]


def full_log_softmax(target_score: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """−log softmax(V)[k] over all items, which sampled_log_softmax estimates.

    Args: target_score [B]; scores [B, N] of all items, the target among them. That its score comes by itself saves the
    gradient a second matrix [B, N].
    Returns: [B] float32.

    >>> print(f"{float(full_log_softmax(tf.constant([2.0]), tf.constant([[0.0, 2.0, 1.0]]))[0]):.4f}")
    0.4076
    """
    return tf.reduce_logsumexp(tf.cast(scores, tf.float32), axis=1) - tf.cast(target_score, tf.float32)


def binary_cross_entropy(
    target_score: tf.Tensor, sample_scores: tf.Tensor, target_log_q: tf.Tensor, sample_log_q: tf.Tensor
) -> tf.Tensor:
    """−log σ(V(k)) − mean_S log(1 − σ(V(s))): each item by itself, as targets are told from others in click models.

    Args: target_score [B], sample_scores [B, L]; of the log-probabilities that sampled_log_softmax takes only NEVER is
    heeded: a sample that has it is none.
    Returns: [B] float32.
    Source: the loss that table 6 of the paper compares with the softmax; the mean over the samples is the authors'
    code's.
    """
    target, samples = tf.cast(target_score, tf.float32), tf.cast(sample_scores, tf.float32)
    counts = sample_log_q < NEVER
    of_samples = tf.reduce_sum(tf.where(counts, tf.nn.softplus(samples), 0.0), axis=1)
    return tf.nn.softplus(-target) + tf.math.divide_no_nan(of_samples, _count(counts))


def policy_gradient(rewards: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """A loss whose gradient is −∇ E[reward] of a policy softmax(V), for samples drawn from it (REINFORCE).

    Each reward is taken relative to the mean of the others, so that the gradient is unbiased and its variance low; with
    this baseline the softmax's normalisation has no part in it: −Σ_s (r_s − r̄) V(s) / (L − 1).

    Args: rewards and scores V of the samples, each [B, L], L at least 2; no gradient flows through the rewards.
    Returns: [B] float32, whose value means nothing.
    Source: equation 5 of IRGAN (Wang et al., SIGIR'17); the baseline, Kool et al. (ICLR workshop 2019).
    """
    rewards = tf.stop_gradient(tf.cast(rewards, tf.float32))
    others = tf.cast(tf.shape(rewards)[1] - 1, tf.float32)
    advantages = rewards - tf.reduce_mean(rewards, axis=1, keepdims=True)
    return -tf.reduce_sum(advantages * tf.cast(scores, tf.float32), axis=1) / others


def sampled_kl(teacher_scores: tf.Tensor, student_scores: tf.Tensor, sample_log_q: tf.Tensor) -> tf.Tensor:
    """The sampled KL(softmax(R − log_q) ‖ softmax(M − log_q)) over S; the teacher R gets no gradient.

    Args: teacher_scores, student_scores and sample_log_q, each [B, L].
    Returns: [B] float32, at least 0.
    Source: section 3.3 of the paper; it tends to the full KL as L grows (theorem 3.2).

    >>> ranker, retriever, log_q = tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 0.0]]), tf.math.log([[0.5, 0.5]])
    >>> print(f"{float(sampled_kl(ranker, retriever, log_q)[0]):.4f}")
    0.3278
    >>> print(f"{float(sampled_kl(ranker, ranker + 7, log_q)[0]):.4f}")  # a softmax does not see a constant
    0.0000
    """
    teacher = tf.nn.log_softmax(corrected_scores(tf.stop_gradient(teacher_scores), sample_log_q))
    student = tf.nn.log_softmax(corrected_scores(student_scores, sample_log_q))
    return tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=1)


def hardness(target_score: tf.Tensor, scores: tf.Tensor, is_target: tf.Tensor) -> tf.Tensor:
    """The share of a row's negatives that score no lower than its target; 0 where it has none.

    Args: target_score [B]; scores [B, L] of the negatives; is_target [B, L] bool, which of them are none.
    Returns: [B] float32; negatives drawn at random tend to 0 as a tower learns, those as hard as the target stand at
    1/2.
    """
    ahead = (scores >= target_score[:, None]) & ~is_target
    return tf.math.divide_no_nan(_count(ahead), _count(~is_target))


def _count(which: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(which, tf.float32), axis=1)


def estimated_log_loss(
    target_score: tf.Tensor, sample_scores: tf.Tensor, log_count: tf.Tensor, is_target: tf.Tensor
) -> tf.Tensor:
    """An estimate of −log softmax(V)[k] over all items: all but the target are counted by the samples, each weighing 1
    / (L Q).

    Unlike the loss that is minimised it does not depend on how hard the samples are, so it falls as V learns. Of
    samples without a probability, whose log_q is 0, it is no estimate.

    Args: target_score [B]; sample_scores, log_count = log(L Q) and is_target, whether the sample is the target, each
    [B, L].
    Returns: [B] float32.
    """
    others = tf.where(is_target, -np.inf, corrected_scores(sample_scores, log_count))
    target = tf.cast(target_score, tf.float32)
    return tf.reduce_logsumexp(tf.concat([target[:, None], others], axis=1), axis=1) - target


def corrected_scores(scores: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Scores less the log-probability of having been drawn, in float32."""
    return tf.cast(scores, tf.float32) - tf.stop_gradient(log_q)


LOSSES: dict[LossName, Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "softmax": sampled_log_softmax,
    "bce": binary_cross_entropy,
}
