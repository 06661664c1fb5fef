"""Every user's rank in every stage, in batches of users; metrics are means over these ranks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.data.batches import EvaluationBatch
from tfcorr.evaluation.cascade import Cascade, is_among, terms_in_chunks
from tfcorr.evaluation.metrics import MISSED, ranks_of, recall, summarise
from tfcorr.evaluation.order import Scored

Ranks = dict[str, npt.NDArray[np.int32]]  # by stage
RankBatch = Callable[[EvaluationBatch], dict[str, tf.Tensor]]
ScoreBatch = Callable[[EvaluationBatch], tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]]
CHUNK = 4096  # candidates a user that are listed at once when the ranker ranks all items


def rank_batch(
    cascade: Cascade, batch: EvaluationBatch, exclude_seen: bool, last: str = "cascade", ranker_alone: bool = False
) -> RankBatch:
    """The graph that ranks one batch of B users: EvaluationBatch, here given by its tensors' specs, -> [B] int32 by
    stage.

    The stages are those of the cascade up to the last; a rank is among what the stage was handed, and MISSED where the
    target is not. `ranker_alone` adds the stage of that name, the last tower's order of all items. A target that was
    seen before stays a candidate. Where scores tie at the last position that is handed on, the order before decides
    which items are.
    """

    @tf.function(input_signature=[batch], autograph=False)
    def ranks(batch: EvaluationBatch) -> dict[str, tf.Tensor]:
        exclude = _excluded(batch, exclude_seen)
        scored = cascade.run(batch.context, exclude, last)
        found = {stage: _rank_among(batch.target, each.ids, each.scores[stage]) for stage, each in scored.items()}
        if ranker_alone:
            found["ranker_alone"] = _rank_among_all(cascade, batch, exclude)
        return found

    return tf.autograph.experimental.do_not_convert(ranks)  # AutoGraph is kept out of layers, too


def rank_users(ranks: RankBatch, batches: tf.data.Dataset) -> Ranks:
    """Every user's rank by stage, [users] int32 each, in the split's order."""
    found = [(batch.row, ranks(batch)) for batch in batches]
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return {stage: np.concatenate([each[stage] for _, each in found])[order] for stage in found[0][1]}


def score_batch(cascade: Cascade, batch: EvaluationBatch, exclude_seen: bool) -> ScoreBatch:
    """The graph that scores one batch of B users by every tower, for orders that are still to be fitted.

    It gives ranks by tower as `rank_batch` does, the scores [B, R] by name of what was handed to the last tower, and
    the column [B] of the target among it, -1 where it is not.
    """
    last = list(cascade.towers)[-1]

    @tf.function(input_signature=[batch], autograph=False)
    def score(batch: EvaluationBatch) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]:
        scored = cascade.run(batch.context, _excluded(batch, exclude_seen), last)
        ranks = {stage: _rank_among(batch.target, each.ids, each.scores[stage]) for stage, each in scored.items()}
        is_target = scored[last].ids == batch.target[:, None]
        column = tf.where(tf.reduce_any(is_target, axis=1), tf.argmax(is_target, axis=1), -1)
        return ranks, scored[last].scores, column

    return tf.autograph.experimental.do_not_convert(score)


def score_users(score: ScoreBatch, batches: tf.data.Dataset) -> tuple[Ranks, Scored]:
    """Every user's rank by tower, [users] int32 each in no certain order, and what was scored of whom the target was
    handed on."""
    every, kept, columns = [], [], []
    for batch in batches:
        ranks, scores, column = score(batch)
        found = column.numpy() >= 0
        every.append(ranks)
        columns.append(column.numpy()[found])
        kept.append({name: each.numpy()[found] for name, each in scores.items()})
    joined = {stage: np.concatenate([each[stage] for each in every]) for stage in every[0]}
    scores = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]}
    column = np.concatenate(columns)
    return joined, Scored(scores, column, len(next(iter(joined.values()))) - len(column))


def _excluded(batch: EvaluationBatch, exclude_seen: bool) -> tf.Tensor:
    """What must not be recommended, [B, W]: what was seen, where it must not be, but for the target."""
    return tf.where(batch.seen == batch.target[:, None], 0, batch.seen) if exclude_seen else batch.seen[:, :0]


def _rank_among(target: tf.Tensor, ids: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """The rank [B] of the target [B] among ids [B, K] by their scores; MISSED where it is not among them."""
    is_target = ids == target[:, None]
    target_scores = tf.reduce_max(tf.where(is_target, scores, -np.inf), axis=1)
    ranks = ranks_of(target_scores, tf.where(is_target, -np.inf, scores))
    return tf.where(tf.reduce_any(is_target, axis=1), ranks, MISSED)


def _rank_among_all(cascade: Cascade, batch: EvaluationBatch, exclude: tf.Tensor) -> tf.Tensor:
    """The target's rank [B] by the ranker among all items, scored in chunks."""
    ranker = cascade.towers["ranker"]
    target_scores = ranker.score(batch.context, batch.target[:, None])[:, 0]
    last = cascade.index.size + 1

    def more(start: tf.Tensor, rank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = tf.tile(tf.range(start, tf.minimum(start + CHUNK, last))[None, :], [tf.shape(rank)[0], 1])
        others = ~is_among(ids, exclude) & (ids != batch.target[:, None])
        scores = tf.where(others, tf.add_n(list(terms_in_chunks(ranker, batch.context, ids).values())), -np.inf)
        return start + CHUNK, rank + ranks_of(target_scores, scores) - 1

    return tf.while_loop(lambda start, _: start < last, more, (1, tf.ones_like(batch.target)))[1]


def metrics_by_stage(ranks: Ranks, ks: Sequence[int], handed_on: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """NDCG, Recall and MRR at each k by stage; Recall at what a stage hands on is the ceiling of the next."""
    table = {stage: summarise(values, ks) for stage, values in ranks.items()}
    for stage in handed_on.keys() & table.keys():
        table[stage][f"recall@{handed_on[stage]}"] = float(recall(ranks[stage], handed_on[stage]).mean())
    return table
