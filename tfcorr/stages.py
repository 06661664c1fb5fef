"""The stages of each method of training: which model trains, from which negatives, and what is measured after an
epoch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.config import RunSettings
from tfcorr.cooperation.adversarial import Adversarial
from tfcorr.cooperation.chain import Chain
from tfcorr.cooperation.corr import CoRR
from tfcorr.cooperation.model import LoggedModel
from tfcorr.cooperation.optimisers import LazyAdam, OptimiserSettings, Schedule
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.two_stage import RankerAlone, RetrieverAlone
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.dataset import Dataset
from tfcorr.data.spectral import spectral_vectors
from tfcorr.distribution import of_first_replica
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.evaluate import Ranks, metrics_by_stage, rank_batch, rank_users, score_batch, score_users
from tfcorr.evaluation.index import ExactIndex, SnapshotIndex
from tfcorr.evaluation.order import fit_order
from tfcorr.towers import Retriever, Tower
from tfcorr.training import Stage, Validate

LAST_STAGE = {"corr": "joint", "adversarial": "joint", "two-stage": "ranker"}
MONITORED_K = 20
NEAR = 3  # interactions apart that two items stand near each other
Towers = dict[str, Tower]


def stages_of(
    settings: RunSettings, trained: Towers, kept: Towers, dataset: Dataset, strategy: tf.distribute.Strategy, steps: int
) -> Iterator[Stage]:
    """The stages of the settings' method, each to be trained before the next is made; `kept` are the towers that keep
    the best.

    steps is the number of batches an epoch.
    """
    training, counts = settings.training, dataset.catalogue.counts[: dataset.catalogue.warm]  # no other item is drawn
    retriever, *others = trained
    optimisers = {name: optimiser for name, (_, optimiser) in settings.towers.items()}
    cascade = f"cascade_ndcg@{MONITORED_K}"
    if training.method == "two-stage" or training.starts_from_retriever:
        with strategy.scope():
            sampler = Sampler(settings.sampler, counts, trained[retriever], settings.seed)
            model: LoggedModel = RetrieverAlone(trained[retriever], sampler, training.loss)
            model.compile(optimizer=_optimiser(optimisers[retriever], trained[retriever], steps))
        measured = _validation(settings, kept, dataset, retriever)
        alone = {retriever: kept[retriever]}  # without the others, so that it is the first stage of any
        yield Stage(
            retriever, model, {retriever: trained[retriever]}, alone, measured, f"{retriever}_ndcg@{MONITORED_K}"
        )
    if training.starts_from_retriever:
        _start_from(kept[retriever], trained)
    if training.method != "two-stage":
        index = _snapshot(settings, trained[retriever], dataset)
        if training.starts_from_retriever:
            rate = optimisers[retriever].learning_rate * training.start_rate
            optimisers |= {retriever: optimisers[retriever].model_copy(update={"learning_rate": rate})}
        with strategy.scope():
            sampler = Sampler(
                settings.sampler, counts, trained[retriever], settings.seed, index.best if index else None
            )
            model = _joint(settings, trained, sampler)
            model.compile(
                optimizer={name: _optimiser(optimisers[name], tower, steps) for name, tower in trained.items()}
            )
        goes_on = frozenset({retriever} if training.starts_from_retriever else ())
        yield Stage(
            "joint",
            model,
            trained,
            kept,
            _validation(settings, kept, dataset),
            cascade,
            index,
            settings.sampler.refresh,
            goes_on,
        )
        return
    # Now the kept retriever has its best weights, and it is the one that draws for the others.
    index = _snapshot(settings, kept[retriever], dataset)
    for name in others:
        with strategy.scope():
            sampler = Sampler(settings.sampler, counts, kept[retriever], settings.seed, index.best if index else None)
            model = RankerAlone(trained[name], sampler, training.loss, kept[retriever])
            model.compile(optimizer=_optimiser(optimisers[name], trained[name], steps))
        last = "cascade" if name == others[-1] else name
        yield Stage(
            name,
            model,
            {name: trained[name]},
            kept,
            _validation(settings, kept, dataset, last),
            f"{last}_ndcg@{MONITORED_K}",
        )


def of_other_width(settings: RunSettings, towers: Towers) -> list[str]:
    """The towers that should start from the retriever's item vectors and cannot, as theirs are of another width."""
    if not settings.training.starts_from_retriever:
        return []
    widths = {name: int(tower.item_tables["id"].shape[1]) for name, tower in towers.items()}
    return [name for name, width in widths.items() if width != widths["retriever"]]


def _start_from(best: Tower, towers: Towers) -> None:
    """Sets the retriever to its best weights, and every other tower's item vectors, with the features that both see, to
    its, where they are of one width."""
    for variable, value in zip(towers["retriever"].variables, best.variables, strict=True):
        variable.assign(value)
    for tower in list(towers.values())[1:]:
        for name, table in tower.item_tables.items():
            if name in best.item_tables and best.item_tables[name].shape == table.shape:
                table.assign(best.item_tables[name])


def start_from_counts(towers: Towers, dataset: Dataset, seed: int, strategy: tf.distribute.Strategy) -> None:
    """Sets every tower's item vectors to what the training split's counts of neighbours say, where they say
    anything."""
    by_width: dict[int, npt.NDArray[np.float32]] = {}
    for tower in towers.values():
        table = tower.item_tables["id"]
        width = int(table.shape[1])
        if width not in by_width:
            by_width[width] = of_first_replica(strategy, spectral_vectors(dataset.transitions(NEAR), width, seed))
        vectors = by_width[width]
        table.assign(np.where(vectors.any(axis=1, keepdims=True), vectors, table.numpy()))


def _joint(settings: RunSettings, towers: Towers, sampler: Sampler) -> LoggedModel:
    """What trains all towers together."""
    training = settings.training
    if settings.middle:
        return Chain(towers, sampler, [each.samples for each in settings.middle], training.loss, training.kl_weight)
    pair = towers["retriever"], towers["ranker"]
    if training.method == "corr":
        return CoRR(*pair, sampler, training.loss, training.kl_weight)
    return Adversarial(*pair, sampler, training.loss, training.adversarial_weight)


def _optimiser(settings: OptimiserSettings, tower: Tower, steps: int) -> LazyAdam:
    optimiser = LazyAdam(Schedule(settings, steps), settings.weight_decay)
    optimiser.build(tower.trainable_variables)
    return optimiser


def _snapshot(settings: RunSettings, retriever: Retriever, dataset: Dataset) -> SnapshotIndex | None:
    """An index of the retriever's items, where a strategy takes the best of all."""
    if not settings.needs_index:
        return None
    return SnapshotIndex(lambda: all_item_vectors(retriever, len(dataset.catalogue)))


def _validation(settings: RunSettings, towers: Towers, dataset: Dataset, last: str = "cascade") -> Validate:
    """A function that measures the towers as they are, stage by stage up to the last: {"cascade_ndcg@20": …}."""
    retriever, evaluation = towers["retriever"], settings.evaluation
    index = ExactIndex(all_item_vectors(retriever, len(dataset.catalogue)))
    sizes = settings.history_length, evaluation.batch_size
    batches = evaluation_batches(dataset.histories, "validation", *sizes, dataset.features, evaluation.validation_users)
    cascade = Cascade(towers, index, settings.sizes())
    if last == "cascade" and evaluation.order == "fitted":
        score = score_batch(cascade, batches.element_spec, evaluation.exclude_seen)
    else:
        ranks = rank_batch(cascade, batches.element_spec, evaluation.exclude_seen, last)

    def measure() -> Ranks:
        if last != "cascade" or evaluation.order == "ranker":
            return rank_users(ranks, batches)
        found, scored = score_users(score, batches)
        return found | {"cascade": scored.ranks(fit_order(scored, found, MONITORED_K).weights)}

    def validate() -> dict[str, float]:
        index.vectors.assign(all_item_vectors(retriever, len(dataset.catalogue)))
        table = metrics_by_stage(measure(), [MONITORED_K], cascade.handed_on)
        return {f"{stage}_{name}": value for stage, values in table.items() for name, value in values.items()}

    return validate
