"""CoRR between neighbours, in a cascade of more than two towers."""

import itertools
from collections.abc import Sequence

import tensorflow as tf

from tfcorr.cooperation.losses import LOSSES, LossName, estimated_log_loss, full_log_softmax, hardness, sampled_kl
from tfcorr.cooperation.model import LoggedModel, rows_of_all_replicas
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import Pool, resample
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Retriever, Tower, inner


class Chain(LoggedModel):
    """Every two neighbours cooperate as the two towers of CoRR do; with two towers this is CoRR.

    The retriever resamples L of the pool. The next tower resamples of these by its own softmax, and so on: what a tower
    has drawn, with the probabilities by which it did, is the pool of the next. From what one has drawn both it and its
    successor learn to tell the target, and it learns its successor's order. A tower in the middle so minimises the sum
    of two losses; their mean is what is logged.
    """

    def __init__(
        self, towers: dict[str, Tower], sampler: Sampler, samples: Sequence[int], loss: LossName, weight: float
    ) -> None:
        """towers by name, a Retriever first; samples, how many each between it and the last draws; weight is the
        KL's."""
        of_all = [f"{what}_{name}" for what in ("loss", "log_loss") for name in towers]
        of_drawing = [
            f"{what}_{name}" for what in ("kl", "effective_sample_size", "target_share") for name in list(towers)[:-1]
        ]
        of_given = [f"hardness_{name}" for name in list(towers)[1:]]
        super().__init__("chain", (*of_all, *of_drawing, *of_given))
        self.towers, self.sampler, self.samples, self.generator = towers, sampler, samples, sampler.generator
        self.loss_function, self.weight = LOSSES[loss], weight
        self.is_exact = sampler.is_exact and loss == "softmax"

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        rows, names, values = rows_of_all_replicas(target), list(self.towers), {}
        learned: dict[str, list[tf.Tensor]] = {name: [] for name in names}
        with tf.GradientTape() as tape:
            retriever: Retriever = self.towers["retriever"]
            query = retriever.encode_examples(context, training=True)  # [B, D]
            every = self.sampler.every(query) if self.is_exact else None
            with tape.stop_recording():
                resampled = self.sampler.resample(query, target, every)
            scores = inner(query, retriever.item_vectors(tf.concat([target[:, None], resampled.drawn.samples], axis=1)))
            pool = resampled.pool
            is_hit = pool.items == target[:, None]
            values["log_loss_retriever"] = (
                estimated_log_loss(scores[:, 0], resampled.scores, pool.log_count, is_hit)
                if every is None
                else full_log_softmax(scores[:, 0], every)
            )
            total = tf.zeros_like(target, tf.float32)
            for place, (before, after) in enumerate(itertools.pairwise(names)):
                drawn, tower = resampled.drawn, self.towers[after]
                given = tower.score(
                    context, tf.concat([target[:, None], drawn.samples], axis=1), training=True
                )  # [B, 1 + L]
                if before == "retriever" and every is not None:  # what its draws would estimate
                    learned[before].append(values["log_loss_retriever"])
                else:
                    learned[before].append(self.loss_function(scores[:, 0], scores[:, 1:], *drawn.log_q))
                learned[after].append(self.loss_function(given[:, 0], given[:, 1:], *drawn.log_q))
                values[f"effective_sample_size_{before}"] = resampled.effective_size
                values[f"target_share_{before}"] = resampled.target_share
                values[f"kl_{before}"] = sampled_kl(given[:, 1:], scores[:, 1:], drawn.sample_log_q)
                is_target = drawn.samples == target[:, None]
                values[f"log_loss_{after}"] = estimated_log_loss(given[:, 0], given[:, 1:], drawn.log_count, is_target)
                values[f"hardness_{after}"] = hardness(given[:, 0], given[:, 1:], is_target)
                total += (
                    learned[before][-1]
                    + learned[after][-1]
                    + self.weight * values[f"kl_{before}"]
                    + tower.auxiliary_loss(context)
                )
                if place < len(self.samples):
                    with tape.stop_recording():
                        settings = self.sampler.settings
                        pool, size = Pool.of(drawn, settings.correction), self.samples[place]
                        resampled = resample(
                            pool, target, given, size, settings.temperature, settings.correction, self.generator
                        )
                    scores = tf.gather(given, tf.pad(resampled.places, [[0, 0], [1, 0]]), batch_dims=1)
            total = tf.reduce_sum(total) / rows
        variables = {name: tower.trainable_variables for name, tower in self.towers.items()}
        for name, gradients in tape.gradient(total, variables).items():
            self.optimizer[name].apply_gradients(zip(gradients, variables[name], strict=True))
        return self.record(values | {f"loss_{name}": tf.stack(losses) for name, losses in learned.items()})
