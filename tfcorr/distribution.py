"""Over how many devices and machines a run is spread: TensorFlow's own strategies, and which process writes the run."""

from typing import Literal

import tensorflow as tf

Distribution = Literal["none", "mirrored", "multi-worker"]


def strategy_of(kind: Distribution) -> tf.distribute.Strategy:
    """The strategy of a setting; to be called before any other use of TensorFlow.

    `mirrored` trains on every GPU of this machine, `multi-worker` on every process that `TF_CONFIG` lists, each of which runs
    the same command on the same files. A replica draws pools of its own; gradients are averaged over the global batch.
    """
    if kind == "none":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy() if kind == "mirrored" else tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(kind: Distribution) -> bool:
    """Whether this process is the one that writes the run's folder: the chief of TF_CONFIG's cluster, or else its worker 0."""
    if kind != "multi-worker":
        return True
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    named = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not named and resolver.task_type in (None, "", "worker") and not resolver.task_id)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every process has come here, so that what the chief wrote before is there for all."""

    @tf.function
    def arrive() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(1.0)), axis=None)

    arrive()
