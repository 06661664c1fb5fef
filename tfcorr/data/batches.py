"""From Histories to the tensors that towers see: windows gathered in graph, one gather a batch."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.data.histories import Histories, Split

SORTED = 64  # training batches of which the examples are sorted by length together
Context = dict[str, tf.Tensor]
Examples = Literal["prefix", "window"]


class EvaluationBatch(NamedTuple):
    """`context["history"]` [B, M] int32; `target` [B] int32; `seen` [B, W] int32, all earlier items, 0-padded."""

    context: Context
    target: tf.Tensor
    seen: tf.Tensor


def windows(items: tf.Tensor, starts: tf.Tensor, places: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """The `length` items before each place, not reaching back before its start: [B, length], oldest first, 0-padded left."""
    reach = places[:, None] + tf.range(-tf.cast(length, places.dtype), 0)  # [B, M]
    return tf.where(reach >= starts[:, None], tf.gather(items, tf.maximum(reach, 0)), 0)


def training_batches(
    histories: Histories,
    examples: Examples,
    length: int,
    batch_size: int,
    seed: int,
    first_epoch: int | tf.Tensor = 0,
    inputs: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """An endless stream of (context, target [B] int32) from `first_epoch` on; an epoch has `steps_per_epoch` batches.

    Where `inputs` tells of several replicas, every batch is divided among them, and the stream holds the parts of those that
    this input pipeline feeds, one after another.

    context["history"] [B, M] holds each target's own history. With examples by `window`, context["window"] [W, M] also holds
    the inputs of W runs of targets, and context["place"] [B] where each target stands in it, counted row by row.

    Every epoch visits every training target once, in an order that depends on `seed` and the epoch's number alone. Of each
    `SORTED` batches the examples are sorted by length and the batches shuffled again, and a batch is as wide as its longest
    history, so that little padding is computed.
    """
    places = histories.targets("train")
    starts, steps = histories.starts(places), steps_per_epoch(histories, examples, length, batch_size)
    items, all_places, all_starts = tf.constant(histories.items), tf.constant(places), tf.constant(starts)
    lengths = tf.constant(np.minimum(places - starts, length))
    counts = tf.constant(_targets_by_user(histories))
    inputs = inputs or tf.distribute.InputContext()
    replicas = inputs.num_replicas_in_sync
    fed = replicas // inputs.num_input_pipelines  # by this pipeline

    def units(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What is shuffled: runs of targets of one user, by their first number and size [U]; single ones by their history."""
        return (tf.range(len(places), dtype=tf.int64), lengths) if examples == "prefix" else _runs(counts, length, seed, epoch)

    def sorted_batches(epoch: tf.Tensor, first_step: tf.Tensor, firsts: tf.Tensor, sizes: tf.Tensor) -> tf.data.Dataset:
        """Up to SORTED batches of units, of sizes that differ by one at most."""
        key, count = tf.stack([tf.constant(seed, tf.int64), epoch]), tf.size(sizes, tf.int64)
        last_step = tf.minimum(first_step + SORTED, steps)
        begin, end = first_step * count // steps, last_step * count // steps
        shuffled = tf.random.experimental.index_shuffle(tf.range(begin, end), key, count - 1)
        ordered = tf.gather(shuffled, tf.argsort(tf.gather(sizes, shuffled), stable=True))

        def one(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step = first_step + tf.random.experimental.index_shuffle(step, key + first_step, last_step - first_step - 1)
            chosen = ordered[step * count // steps - begin : (step + 1) * count // steps - begin]
            return tf.gather(firsts, chosen), tf.gather(sizes, chosen)

        return tf.data.Dataset.range(last_step - first_step).map(one)

    def batch(firsts: tf.Tensor, sizes: tf.Tensor) -> tuple[Context, tf.Tensor]:
        context: Context = {}
        if examples == "window":
            inside = tf.sequence_mask(sizes)  # [W, M]
            numbers = firsts[:, None] + tf.range(tf.shape(inside, tf.int64)[1])
            inputs = tf.gather(items, tf.gather(all_places, tf.minimum(numbers, len(places) - 1)) - 1)
            context = {"window": tf.where(inside, inputs, 0), "place": tf.where(tf.reshape(inside, [-1]))[:, 0]}
            firsts = tf.boolean_mask(numbers, inside)
        place, width = tf.gather(all_places, firsts), tf.reduce_max(tf.concat([[1], tf.gather(lengths, firsts)], 0))
        context["history"] = windows(items, tf.gather(all_starts, firsts), place, width)
        return context, tf.gather(items, place)

    def parts(firsts: tf.Tensor, sizes: tf.Tensor) -> tf.data.Dataset:
        """What each of this pipeline's replicas has of a batch."""

        def one(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            count = tf.size(firsts, tf.int64)
            part = slice(replica * count // replicas, (replica + 1) * count // replicas)
            return firsts[part], sizes[part]

        first = inputs.input_pipeline_id * fed
        return tf.data.Dataset.range(first, first + fed).map(one)

    def batches_of_units(epoch: tf.Tensor) -> tf.data.Dataset:
        found = units(epoch)
        return tf.data.Dataset.range(0, steps, SORTED).flat_map(lambda first_step: sorted_batches(epoch, first_step, *found))

    stream = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(batches_of_units)
    return (stream if replicas == 1 else stream.flat_map(parts)).map(batch).prefetch(4)


def steps_per_epoch(histories: Histories, examples: Examples, length: int, batch_size: int) -> int:
    """Batches an epoch, such that one holds about `batch_size` targets; by windows, at least one window."""
    counts = _targets_by_user(histories)
    steps = -(-counts.sum() // batch_size)
    return int(steps if examples == "prefix" else min(steps, np.sum(-(-counts // length))))


def _targets_by_user(histories: Histories) -> npt.NDArray[np.int64]:
    """How many training targets each user has who has any, in the order of the users."""
    return np.unique(histories.owners(histories.targets("train")), return_counts=True)[1]


def _runs(counts: tf.Tensor, length: int, seed: int, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts every user's targets into runs of `length`, at places that differ from epoch to epoch: first numbers, sizes."""
    offset = tf.random.stateless_uniform([], tf.stack([tf.constant(seed, tf.int64), epoch]), 0, length, tf.int64)
    runs = (counts - 1 + offset) // length + 1
    of_user = tf.repeat(tf.range(tf.size(counts)), runs)
    run = tf.range(tf.size(of_user, tf.int64)) - tf.gather(tf.cumsum(runs, exclusive=True), of_user)
    first = tf.maximum(run * length - offset, 0)
    end = tf.minimum((run + 1) * length - offset, tf.gather(counts, of_user))
    return tf.gather(tf.cumsum(counts, exclusive=True), of_user) + first, end - first


def evaluation_batches(histories: Histories, split: Split, length: int, batch_size: int) -> tf.data.Dataset:
    """One pass over a split's targets, in their order, as EvaluationBatch."""
    places = histories.targets(split)
    items = tf.constant(histories.items)

    def batch(place: tf.Tensor, start: tf.Tensor) -> EvaluationBatch:
        seen = windows(items, start, place, tf.reduce_max(place - start))
        return EvaluationBatch({"history": windows(items, start, place, length)}, tf.gather(items, place), seen)

    return tf.data.Dataset.from_tensor_slices((places, histories.starts(places))).batch(batch_size).map(batch).prefetch(2)
