"""What every joint training of retriever and ranker shares: a step that draws, scores and updates both in one graph."""

from collections.abc import Callable

import tensorflow as tf

from tfcorr.cooperation.losses import LOSSES, LossName, estimated_log_loss, full_log_softmax, hardness
from tfcorr.cooperation.model import LoggedModel, rows_of_all_replicas
from tfcorr.cooperation.sampler import Sampler, Source
from tfcorr.cooperation.sampling import Resampled
from tfcorr.cooperation.strategies import UNCORRECTED, negatives_of
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Ranker, Retriever, inner

LOGGED = (
    "loss_retriever",
    "loss_ranker",
    "log_loss_retriever",
    "log_loss_ranker",
    "effective_sample_size",
    "target_share",
    "hardness",
)


class Joint(LoggedModel):
    """Both towers learn to tell the target from negatives; what the ranker teaches the retriever besides is a
    subclass's `teach`.

    The retriever's negatives are resampled by itself, the ranker's drawn by the sampler's strategy. Each tower has its
    own optimiser: `compile(optimizer={"retriever": …, "ranker": …})`.
    """

    lesson: str  # the name by which the loss of `teach` is logged

    def __init__(self, retriever: Retriever, ranker: Ranker, sampler: Sampler, loss: LossName, weight: float) -> None:
        """weight is that of the lesson in the retriever's loss."""
        logged = [*LOGGED, self.lesson]
        if sampler.settings.negatives in UNCORRECTED:
            logged.remove("log_loss_ranker")
        super().__init__(type(self).__name__.lower(), logged)
        self.retriever, self.ranker, self.sampler, self.weight = retriever, ranker, sampler, weight
        self.loss_name, self.generator = loss, sampler.generator
        self.is_exact = sampler.is_exact and loss == "softmax"

    def teach(self, source: Source, retrieved: "Scores", ranked: "Scores") -> tf.Tensor:
        """The loss by which the retriever learns from the ranker: [B]; no gradient may flow into the ranker.

        `retrieved` and `ranked` give the towers' scores of the target [B] and of items drawn [B, L].
        """
        raise NotImplementedError

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        rows, loss = rows_of_all_replicas(target), LOSSES[self.loss_name]
        with tf.GradientTape() as tape:
            query = self.retriever.encode_examples(context, training=True)  # [B, D]
            every = self.sampler.every(query) if self.is_exact else None
            with tape.stop_recording():
                resampled = self.sampler.resample(query, target, every)
                source = self.sampler.source(
                    lambda: query, target, lambda: resampled, lambda ids: self.ranker.score(context, ids, training=True)
                )
                negatives = negatives_of(self.sampler.settings.negatives or "resample", source)
            retrieved = Scores(
                lambda ids: inner(query, self.retriever.item_vectors(ids)), target, resampled.drawn.samples
            )
            ranked = Scores(lambda ids: self.ranker.score(context, ids, training=True), target, negatives.samples)
            if every is None:
                retriever_loss = loss(retrieved.of_target, retrieved.of_samples, *resampled.drawn.log_q)
            else:  # what that estimates
                retriever_loss = full_log_softmax(retrieved.of_target, every)
            ranker_loss = loss(ranked.of_target, ranked.of_samples, *negatives.log_q)
            lesson = self.teach(source, retrieved, ranked)
            # No variable is in both towers, so one sum gives each its own gradient.
            of_ranker = ranker_loss + self.ranker.auxiliary_loss(context)
            total = tf.reduce_sum(retriever_loss + self.weight * lesson + of_ranker) / rows
        variables = {"retriever": self.retriever.trainable_variables, "ranker": self.ranker.trainable_variables}
        for tower, gradients in tape.gradient(total, variables).items():
            self.optimizer[tower].apply_gradients(zip(gradients, variables[tower], strict=True))
        is_target = negatives.samples == target[:, None]
        return self.record(
            {
                "loss_retriever": retriever_loss,
                "loss_ranker": ranker_loss,
                self.lesson: lesson,
                "log_loss_retriever": retriever_loss if self.is_exact else self._log_loss(retrieved, resampled, target),
                "log_loss_ranker": estimated_log_loss(
                    ranked.of_target, ranked.of_samples, negatives.log_count, is_target
                ),
                "effective_sample_size": resampled.effective_size,
                "target_share": resampled.target_share,
                "hardness": hardness(ranked.of_target, ranked.of_samples, is_target),
            }
        )

    def _log_loss(self, retrieved: "Scores", resampled: Resampled, target: tf.Tensor) -> tf.Tensor:
        pool = resampled.pool
        return estimated_log_loss(retrieved.of_target, resampled.scores, pool.log_count, pool.items == target[:, None])


class Scores:
    """A tower's scores of the target [B] and of samples [B, L], computed together, and of other items when they are
    asked for."""

    def __init__(self, score: Callable[[tf.Tensor], tf.Tensor], target: tf.Tensor, samples: tf.Tensor) -> None:
        scores = score(tf.concat([target[:, None], samples], axis=1))
        self._score, self._samples = score, samples
        self.of_target, self.of_samples = scores[:, 0], scores[:, 1:]

    def of(self, samples: tf.Tensor) -> tf.Tensor:
        """[B, L] -> [B, L]; those of the samples themselves are not computed again."""
        return self.of_samples if samples is self._samples else self._score(samples)
