"""The baseline: each tower trained alone, by sampled log-softmax with negatives of a static proposal."""

import tensorflow as tf

from tfcorr.cooperation.losses import sampled_log_softmax
from tfcorr.cooperation.model import LoggedModel
from tfcorr.cooperation.sampling import Proposal
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Ranker, Retriever


class TwoStage(LoggedModel):
    """One stage of the baseline: trains one tower and knows no other."""

    def __init__(self, tower: Retriever | Ranker, proposal: Proposal, negatives: int, seed: int) -> None:
        super().__init__("two_stage", ("loss", "pool_log_loss"))
        self.tower, self.proposal, self.negatives = tower, proposal, negatives
        self.generator = tf.random.Generator.from_seed(seed)

    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        negatives = self.proposal.draw([tf.shape(target)[0], self.negatives], self.generator)
        log_y = self.proposal.log_prob(target), self.proposal.log_prob(negatives)
        with tf.GradientTape() as tape:
            scores = self.tower.score(context, tf.concat([target[:, None], negatives], axis=1), training=True)
            loss = tf.reduce_mean(sampled_log_softmax(scores[:, 0], scores[:, 1:], *log_y))
        variables = self.tower.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return self.record({"loss": loss, "pool_log_loss": tf.reduce_logsumexp(scores, axis=1) - scores[:, 0]})
