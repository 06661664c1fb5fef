"""The baseline: each tower trained alone, the ranker also by what the retriever, trained before and now frozen, draws
for it."""

import math
from collections.abc import Sequence
from functools import cache

import tensorflow as tf

from tfcorr.cooperation.losses import LOSSES, LossName, estimated_log_loss, full_log_softmax, hardness
from tfcorr.cooperation.model import LoggedModel, rows_of_all_replicas
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.strategies import UNCORRECTED, negatives_of
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Retriever, Tower, inner

SOME = 1000  # items, at most, of which it is seen by the exact softmax how many stand before the target


class Alone(LoggedModel):
    """What trains one tower and changes no other."""

    def __init__(
        self, tower: Tower, sampler: Sampler, loss: LossName, logged: Sequence[str] = ("loss", "log_loss", "hardness")
    ) -> None:
        super().__init__("alone", logged)
        self.tower, self.sampler, self.loss_function, self.generator = tower, sampler, LOSSES[loss], sampler.generator

    def update(
        self, tape: tf.GradientTape, total: tf.Tensor, loss: tf.Tensor, **others: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Moves the tower against the gradient of the total; records the loss and what else there is, each [B]."""
        variables = self.tower.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        return self.record({"loss": loss, **others})


class RetrieverAlone(Alone):
    """Trains a retriever; its negatives are the whole pool, or, by the exact softmax, all other items."""

    tower: Retriever

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        is_exact = self.sampler.is_exact and self.loss_function is LOSSES["softmax"]
        with tf.GradientTape() as tape:
            query = self.tower.encode_examples(context, training=True)
            values = self._exact(query, target) if is_exact else self._sampled(query, target)
            total = tf.reduce_sum(values["loss"]) / rows_of_all_replicas(target)
        return self.update(tape, total, **values)

    def _exact(self, query: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, target_score = self.sampler.every(query), inner(query, self.tower.item_vectors(target[:, None]))[:, 0]
        loss = full_log_softmax(target_score, scores)
        step = math.ceil(self.sampler.items / SOME)  # as to count all takes as long as to score them
        is_target = tf.range(1, self.sampler.items + 1, step) == target[:, None]
        return {"loss": loss, "log_loss": loss, "hardness": hardness(target_score, scores[:, ::step], is_target)}

    def _sampled(self, query: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        pool, target_score, scores = self.sampler.pool(query, target)
        loss = self.loss_function(target_score, scores, *pool.corrected(target, self.sampler.settings.correction).log_q)
        is_target = pool.items == target[:, None]
        log_loss = estimated_log_loss(target_score, scores, pool.log_count, is_target)
        return {"loss": loss, "log_loss": log_loss, "hardness": hardness(target_score, scores, is_target)}


class RankerAlone(Alone):
    """Trains a ranker: with negatives of a static proposal, or of a strategy that draws by the frozen retriever."""

    tower: Tower

    def __init__(self, tower: Tower, sampler: Sampler, loss: LossName, retriever: Retriever) -> None:
        logged = ("loss", "hardness") if sampler.settings.negatives in UNCORRECTED else ("loss", "log_loss", "hardness")
        super().__init__(tower, sampler, loss, logged)
        self.retriever = retriever

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        rows, settings = rows_of_all_replicas(target), self.sampler.settings
        query = cache(lambda: self.retriever.encode_context(context))
        resampled = cache(lambda: self.sampler.resample(query(), target))
        source = self.sampler.source(
            query, target, resampled, lambda ids: self.tower.score(context, ids, training=True)
        )
        drawn = negatives_of(settings.negatives or settings.proposal, source)
        with tf.GradientTape() as tape:
            scores = self.tower.score(context, tf.concat([target[:, None], drawn.samples], axis=1), training=True)
            loss = self.loss_function(scores[:, 0], scores[:, 1:], *drawn.log_q)
            total = tf.reduce_sum(loss + self.tower.auxiliary_loss(context)) / rows
        is_target = drawn.samples == target[:, None]
        log_loss = estimated_log_loss(scores[:, 0], scores[:, 1:], drawn.log_count, is_target)
        return self.update(
            tape, total, loss, log_loss=log_loss, hardness=hardness(scores[:, 0], scores[:, 1:], is_target)
        )
