"""The cascade: retrieve many by the retriever, rank those by the ranker. Evaluation and export both use this one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.evaluation.index import Index
from tfcorr.towers.layers import Retriever, Tower, inner

PAIRS = 50_000  # pairs of a candidate and an item of the history that a ranker sees at once


class Candidates(NamedTuple):
    """What a stage was handed: `ids` [B, R] int32 and their `scores` [B, R] by the name of what scored them, in the
    order of the stages.

    Where there is none, the id is 0 and scores are minus infinity.
    """

    ids: tf.Tensor
    scores: dict[str, tf.Tensor]

    def best(self, by: str, size: int) -> "Candidates":
        """The `size` that score highest, or all that there are, best first."""
        _, best = tf.math.top_k(self.scores[by], tf.minimum(size, tf.shape(self.ids)[1]))
        return Candidates(
            tf.gather(self.ids, best, batch_dims=1),
            {name: tf.gather(each, best, batch_dims=1) for name, each in self.scores.items()},
        )

    def scored(self, **scores: tf.Tensor) -> "Candidates":
        """The same with more scores by name."""
        return Candidates(
            self.ids, self.scores | {name: tf.where(self.ids > 0, each, -np.inf) for name, each in scores.items()}
        )


class Cascade:
    """Retrieves items from the index; each further tower scores what the one before hands on, the best by its own
    scores.

    What the last one was handed is answered in the order of `cascade`, a weighted sum of all stages' scores.
    """

    def __init__(
        self, towers: dict[str, Tower], index: Index, sizes: Sequence[int], order: Mapping[str, float] | None = None
    ) -> None:
        """towers by name: the retriever, those in the middle if there are any, the ranker.

        sizes are how many items each but the last hands on; order has the weights of the final order by the names of
        scores: of the stages and of the terms of towers (NAME_TERM). By default it is the last tower's own.
        """
        self.towers, self.index, self.sizes = towers, index, tuple(sizes)
        self.order = dict(order) if order is not None else {list(towers)[-1]: 1.0}
        self.stages = (*towers, "cascade")  # what can be measured, in order

    @property
    def handed_on(self) -> dict[str, int]:
        """How many items each stage but the last hands on."""
        return dict(zip(self.stages, self.sizes, strict=False))

    @property
    def retriever(self) -> Retriever:
        """The first tower."""
        return self.towers["retriever"]

    def retrieve(self, context: Context, exclude: tf.Tensor) -> Candidates:
        """context of B rows; exclude [B, W] int32, 0-padded: items that must not be retrieved."""
        query = tf.cast(self.retriever.encode_context(context), tf.float32)
        ids, scores = self.index.search(query, self.sizes[0] + tf.shape(exclude)[1])
        scores = tf.where(is_among(ids, exclude) | (ids == 0), -np.inf, scores)
        best = Candidates(ids, {"retriever": scores}).best("retriever", self.sizes[0])
        return best._replace(ids=tf.where(best.scores["retriever"] > -np.inf, best.ids, 0))

    def run(self, context: Context, exclude: tf.Tensor, last: str = "cascade") -> dict[str, Candidates]:
        """What each stage up to the last was handed, scored by it; context and exclude are as `retrieve` takes them."""
        found = {"retriever": self.retrieve(context, exclude)}
        before = "retriever"
        for (stage, tower), size in zip(list(self.towers.items())[1:], self.sizes, strict=True):
            if last in found:
                return found
            handed = (
                found[before] if before == "retriever" else found[before].best(before, size)
            )  # what was retrieved is the best already
            terms = terms_in_chunks(tower, context, handed.ids)
            more = {f"{stage}_{term}": terms[term] for term in list(terms)[1:]}
            found[stage], before = handed.scored(**{stage: tf.add_n(list(terms.values()))}, **more), stage
        if last == "cascade":
            ranked = found[before]
            found["cascade"] = ranked.scored(
                cascade=tf.add_n([weight * ranked.scores[name] for name, weight in self.order.items()])
            )
        return found


def terms_in_chunks(tower: Tower, context: Context, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
    """The terms of the tower's scores of candidates [B, K], [B, K] by name, for some at a time: memory does not grow
    with K."""
    rows, length = tf.unstack(tf.shape(context["history"]))
    query = tower.encode_context(context) if isinstance(tower, Retriever) else None
    width = tf.maximum(PAIRS // tf.maximum(rows * (length if query is None else 1), 1), 1)

    def of(some: tf.Tensor) -> dict[str, tf.Tensor]:
        return tower.terms(context, some) if query is None else {"score": inner(query, tower.item_vectors(some))}

    def more(start: tf.Tensor, terms: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        found = of(candidates[:, start : start + width])
        return start + width, {name: tf.concat([each, found[name]], axis=1) for name, each in terms.items()}

    nothing = {name: tf.zeros([rows, 0]) for name in tower.term_names}
    invariants = tf.TensorShape([]), {name: tf.TensorShape([None, None]) for name in nothing}
    return tf.while_loop(lambda start, _: start < tf.shape(candidates)[1], more, (0, nothing), invariants)[1]


def is_among(ids: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Whether each of ids [B, K] stands in its row of others [B, W]: [B, K] bool."""
    ordered = tf.pad(tf.sort(others, axis=1), [[0, 0], [0, 1]], constant_values=-1)  # [B, W + 1]
    places = tf.searchsorted(ordered[:, :-1], ids)
    return tf.gather(ordered, places, batch_dims=1) == ids


def all_item_vectors(retriever: Retriever, items: int) -> tf.Tensor:
    """The vectors of the items 1 to N: [N, D] float32."""
    return tf.cast(retriever.item_vectors(tf.range(1, items + 1)), tf.float32)
