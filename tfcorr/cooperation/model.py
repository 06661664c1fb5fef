"""What every trainable model of the cooperation shares: the means that an epoch logs."""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs


class LoggedModel(tfrs.Model):
    """A tfrs.Model that logs named means. A new trainer defines `train_step`, calls `record` in it and keeps AutoGraph
    out of it."""

    def __init__(self, name: str, logged: Sequence[str]) -> None:
        super().__init__(name=name)
        self.means = {each: tf.keras.metrics.Mean(name=each) for each in logged}

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The means, which Keras resets at each epoch's start."""
        return list(self.means.values())

    def record(self, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Adds a batch's values, of any shape, to the means that there are; returns the epoch's means so far by
        name."""
        for name, mean in self.means.items():
            mean.update_state(values[name])
        return {name: mean.result() for name, mean in self.means.items()}


def rows_of_all_replicas(target: tf.Tensor) -> tf.Tensor:
    """How many examples all replicas have in this step, () float32; target [B] are those of this one.

    Gradients are summed over the replicas, so a loss is the sum over its own examples divided by this: the mean over
    the global batch, however it was divided.
    """
    rows, context = tf.cast(tf.shape(target)[0], tf.float32), tf.distribute.get_replica_context()
    return rows if context.num_replicas_in_sync == 1 else context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
