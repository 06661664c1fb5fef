"""Over how many devices and machines a run is spread: TensorFlow's own strategies, and which process writes the run."""

import os
from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.settings import InputError

Distribution = Literal["none", "mirrored", "multi-worker", "parameter-server"]
SHARD_BYTES = 2**20  # a table is divided among the parameter servers where each of them gets at least this


def strategy_of(kind: Distribution) -> tf.distribute.Strategy:
    """The strategy of a setting; to be called before any other use of TensorFlow.

    `mirrored` trains on every GPU of this machine, `multi-worker` on every process that `TF_CONFIG` lists, each of
    which runs the same command on the same files. A replica draws pools of its own; gradients are averaged over the
    global batch. Under `parameter-server` the workers train asynchronously on variables that the parameter servers
    hold; embedding tables are divided among these. A worker or a parameter server never returns from here: it serves
    until it is stopped.

    Raises: InputError if TF_CONFIG does not describe the cluster that the setting needs.
    """
    if kind == "none":
        return tf.distribute.get_strategy()
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy()
    resolver, cluster = _cluster(kind)
    if kind == "multi-worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if resolver.task_type in ("worker", "ps"):
        tf.distribute.Server(cluster, resolver.task_type, resolver.task_id, protocol="grpc").join()
    shards = tf.distribute.experimental.partitioners.MinSizePartitioner(SHARD_BYTES, max_shards=cluster.num_tasks("ps"))
    return tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=shards)


def is_chief(kind: Distribution) -> bool:
    """Whether this process is the one that writes the run's folder: the chief of TF_CONFIG's cluster, or else its
    worker 0."""
    if kind != "multi-worker":
        return True
    resolver, cluster = _cluster(kind)
    named = "chief" in cluster.jobs
    return resolver.task_type == "chief" or (
        not named and resolver.task_type in (None, "", "worker") and not resolver.task_id
    )


def _cluster(kind: Distribution) -> tuple[tf.distribute.cluster_resolver.ClusterResolver, tf.train.ClusterSpec]:
    """What TF_CONFIG says: which task this process is, and of what cluster."""
    needed = {"worker"} if kind == "multi-worker" else {"chief", "ps", "worker"}
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")
        cluster = resolver.cluster_spec()
        known = resolver.task_id is None or cluster.task_address(resolver.task_type, resolver.task_id)
    except (ValueError, TypeError, AttributeError) as error:  # of json and of ClusterSpec
        raise InputError(f"TF_CONFIG describes no cluster ({error}); received: {os.environ.get('TF_CONFIG')}") from None
    if not known or not needed <= set(cluster.jobs):
        raise InputError(
            f"training.distribution: {kind} needs TF_CONFIG to list tasks of {', '.join(sorted(needed))}, "
            f"and which of them this process is; received: {os.environ.get('TF_CONFIG', 'no TF_CONFIG')}"
        )
    return resolver, cluster


def is_asynchronous(strategy: tf.distribute.Strategy) -> bool:
    """Whether workers take steps each at its own pace, under parameter servers."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def first_epoch_here(strategy: tf.distribute.Strategy, epoch: int) -> int | tf.Tensor:
    """The epoch whose order of the examples comes first: asynchronous workers begin anywhere, each at a place of its
    own."""
    if not is_asynchronous(strategy):
        return epoch
    # Seeds of 0 stand for none, whatever the global seed is: all workers run this very graph.
    low, high = tf.constant(0, tf.int64), tf.constant(2**40, tf.int64)
    return tf.raw_ops.RandomUniformInt(shape=tf.zeros([0], tf.int32), minval=low, maxval=high, seed=0, seed2=0)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every process has come here, so that what the chief wrote before is there for all."""

    @tf.function(autograph=False)
    def arrive() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(1.0)), axis=None)

    if not is_asynchronous(strategy):  # there the others have nothing to read
        arrive()


def of_first_replica(strategy: tf.distribute.Strategy, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values that the first replica has, in every process: what each computes may differ by its processor."""
    if strategy.num_replicas_in_sync == 1:
        return values

    @tf.function(autograph=False)
    def give() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        mine = tf.where(context.replica_id_in_sync_group == 0, tf.constant(values), 0.0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    return strategy.experimental_local_results(strategy.run(give))[0].numpy()
