"""The stages of each method of training: which model trains, from which negatives, and what is measured after an epoch."""

from collections.abc import Iterator

import tensorflow as tf

from tfcorr.config import RunSettings
from tfcorr.cooperation.adversarial import Adversarial
from tfcorr.cooperation.corr import CoRR
from tfcorr.cooperation.joint import Joint
from tfcorr.cooperation.optimisers import LazyAdam, OptimiserSettings
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.two_stage import Alone, RankerAlone, RetrieverAlone
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.histories import Dataset
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.evaluate import Stage as RankedStage
from tfcorr.evaluation.evaluate import metrics_by_stage, rank_batch, rank_users
from tfcorr.evaluation.index import ExactIndex, SnapshotIndex
from tfcorr.towers import Ranker, Retriever
from tfcorr.training import Stage, Validate

LAST_STAGE = {"corr": "joint", "adversarial": "joint", "two-stage": "ranker"}
MONITORED_K = 20
Towers = dict[str, tf.keras.Model]


def stages_of(
    settings: RunSettings, trained: Towers, kept: Towers, dataset: Dataset, strategy: tf.distribute.Strategy, steps: int
) -> Iterator[Stage]:
    """The stages of the settings' method, each to be trained before the next is made; `kept` are the towers that keep the best.

    steps is the number of batches an epoch.
    """
    training, counts = settings.training, dataset.catalogue.counts[: dataset.catalogue.warm]  # no other item is drawn
    retriever, ranker = trained["retriever"], trained["ranker"]
    both = _validation(settings, kept, dataset, ("retriever", "cascade"))
    if training.method != "two-stage":
        index = _snapshot(settings, retriever, dataset)
        with strategy.scope():
            sampler = Sampler(settings.sampler, counts, retriever, settings.seed, index.best if index else None)
            model: Joint = (
                CoRR(retriever, ranker, sampler, training.loss, training.kl_weight)
                if training.method == "corr"
                else Adversarial(retriever, ranker, sampler, training.loss, training.adversarial_weight)
            )
            model.compile(optimizer={name: _optimiser(getattr(training, name), tower, steps) for name, tower in trained.items()})
        yield Stage("joint", model, trained, kept, both, f"cascade_ndcg@{MONITORED_K}", index, settings.sampler.refresh)
        return
    with strategy.scope():
        sampler = Sampler(settings.sampler, counts, retriever, settings.seed)
        alone: Alone = RetrieverAlone(retriever, sampler, training.loss)
        alone.compile(optimizer=_optimiser(training.retriever, retriever, steps))
    by_retriever = _validation(settings, kept, dataset, ("retriever",))
    yield Stage("retriever", alone, {"retriever": retriever}, kept, by_retriever, f"retriever_ndcg@{MONITORED_K}")
    # Now the kept retriever has its best weights, and it is the one that draws for the ranker.
    index = _snapshot(settings, kept["retriever"], dataset)
    with strategy.scope():
        sampler = Sampler(settings.sampler, counts, kept["retriever"], settings.seed, index.best if index else None)
        alone = RankerAlone(ranker, sampler, training.loss, kept["retriever"])
        alone.compile(optimizer=_optimiser(training.ranker, ranker, steps))
    yield Stage("ranker", alone, {"ranker": ranker}, kept, both, f"cascade_ndcg@{MONITORED_K}")


def _optimiser(settings: OptimiserSettings, tower: Retriever | Ranker, steps: int) -> LazyAdam:
    rate = tf.keras.optimizers.schedules.ExponentialDecay(settings.learning_rate, steps, settings.decay)
    optimiser = LazyAdam(rate, settings.weight_decay)
    optimiser.build(tower.trainable_variables)
    return optimiser


def _snapshot(settings: RunSettings, retriever: Retriever, dataset: Dataset) -> SnapshotIndex | None:
    """An index of the retriever's items, where a strategy takes the best of all."""
    if not settings.needs_index:
        return None
    return SnapshotIndex(lambda: all_item_vectors(retriever, len(dataset.catalogue)))


def _validation(settings: RunSettings, towers: Towers, dataset: Dataset, stages: tuple[RankedStage, ...]) -> Validate:
    """A function that measures the towers as they are: {"cascade_ndcg@20": …}."""
    retriever, ranker, evaluation = towers["retriever"], towers["ranker"], settings.evaluation
    index = ExactIndex(all_item_vectors(retriever, len(dataset.catalogue)))
    sizes = settings.history_length, evaluation.batch_size
    batches = evaluation_batches(dataset.histories, "validation", *sizes, dataset.features)
    cascade = Cascade(retriever, ranker, index, evaluation.retrieve)
    ranks = rank_batch(cascade, batches.element_spec, evaluation.exclude_seen, stages)

    def validate() -> dict[str, float]:
        index.vectors.assign(all_item_vectors(retriever, len(dataset.catalogue)))
        table = metrics_by_stage(rank_users(ranks, batches), [MONITORED_K], cascade.size)
        return {f"{stage}_{name}": value for stage, values in table.items() for name, value in values.items()}

    return validate
