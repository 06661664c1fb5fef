"""What is recommended to every test user, stage by stage."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.data.batches import EvaluationBatch
from tfcorr.evaluation.cascade import Cascade

Lists = dict[str, npt.NDArray[np.int32]]  # by stage


def recommend_users(cascade: Cascade, batches: tf.data.Dataset, exclude_seen: bool, k: int) -> Lists:
    """The k best items of every user by stage, [users, k] int32 each in the split's order; 0 where a list is shorter.

    `batches` are EvaluationBatches of which the target is not looked at: with `exclude_seen` no item that was seen is
    listed, as in what is exported.
    """

    @tf.function(input_signature=[batches.element_spec], autograph=False)
    def best(batch: EvaluationBatch) -> dict[str, tf.Tensor]:
        scored = cascade.run(batch.context, batch.seen if exclude_seen else batch.seen[:, :0])
        lists = {stage: each.best(stage, k).ids for stage, each in scored.items()}
        return {stage: tf.pad(ids, [[0, 0], [0, k - tf.shape(ids)[1]]]) for stage, ids in lists.items()}

    listed = tf.autograph.experimental.do_not_convert(best)
    found = [(batch.row, listed(batch)) for batch in batches]
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return {stage: np.concatenate([each[stage] for _, each in found])[order] for stage in found[0][1]}
