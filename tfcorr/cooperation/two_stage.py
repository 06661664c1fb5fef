"""The baseline: each tower trained alone, by sampled log-softmax with negatives of a static proposal."""

import tensorflow as tf

from tfcorr.cooperation.losses import sampled_log_softmax
from tfcorr.cooperation.model import LoggedModel, rows_of_all_replicas
from tfcorr.cooperation.sampling import PoolScope, Proposal
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Ranker, Retriever


class TwoStage(LoggedModel):
    """One stage of the baseline: trains one tower and knows no other."""

    def __init__(self, tower: Retriever | Ranker, proposal: Proposal, scope: PoolScope, negatives: int, seed: int) -> None:
        super().__init__("two_stage", ("loss", "pool_log_loss"))
        self.tower, self.proposal, self.scope, self.negatives = tower, proposal, scope, negatives
        self.generator = tf.random.Generator.from_seed(seed)

    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        rows = rows_of_all_replicas(target)
        negatives = self.proposal.pool(self.scope, tf.shape(target)[0], self.negatives, self.generator)
        with tf.GradientTape() as tape:
            target_score, scores = self._score(context, target, negatives)
            log_y = self.proposal.log_prob(target), self.proposal.log_prob(tf.broadcast_to(negatives, tf.shape(scores)))
            loss = sampled_log_softmax(target_score, scores, *log_y)
            total = tf.reduce_sum(loss) / rows
        variables = self.tower.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        everything = tf.concat([target_score[:, None], scores], axis=1)
        return self.record({"loss": loss, "pool_log_loss": tf.reduce_logsumexp(everything, axis=1) - target_score})

    def _score(self, context: Context, target: tf.Tensor, negatives: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The tower's scores [B] of the targets and [B, K] of the negatives."""
        if isinstance(self.tower, Retriever):
            return self.tower.match(self.tower.encode_examples(context, training=True), target, negatives)
        rows = tf.broadcast_to(negatives, [tf.shape(target)[0], self.negatives])
        scores = self.tower.score(context, tf.concat([target[:, None], rows], axis=1), training=True)
        return scores[:, 0], scores[:, 1:]
