"""Static proposals Y over the items, from which pools are drawn at the same cost however many items there are."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

PoolScope = Literal["example", "batch"]


class Proposal:
    """A distribution over the items 1 to N. A new one defines `draw` and `log_prob`."""

    def draw(self, shape: tf.Tensor | list[int], generator: tf.random.Generator) -> tf.Tensor:
        """Item numbers of the shape, int32, drawn independently with replacement."""
        raise NotImplementedError

    def log_prob(self, ids: tf.Tensor) -> tf.Tensor:
        """log Y of item numbers [...], float32."""
        raise NotImplementedError

    def pool(self, scope: PoolScope, rows: tf.Tensor, size: int, generator: tf.random.Generator) -> tf.Tensor:
        """A pool for each of the rows [rows, size], or one that all share [size]."""
        return self.draw([size] if scope == "batch" else [rows, size], generator)


class Uniform(Proposal):
    """Every item alike."""

    def __init__(self, items: int) -> None:
        self.items = items

    def draw(self, shape: tf.Tensor | list[int], generator: tf.random.Generator) -> tf.Tensor:
        """As the base class says."""
        points = tf.random.stateless_uniform(shape, generator.make_seeds()[:, 0], maxval=self.items, dtype=tf.float64)
        return 1 + tf.cast(points, tf.int32)

    def log_prob(self, ids: tf.Tensor) -> tf.Tensor:
        """As the base class says."""
        return tf.fill(tf.shape(ids), tf.constant(-np.log(self.items), tf.float32))


class Weighted(Proposal):
    """Items by their weights, through an alias table."""

    def __init__(self, weights: npt.NDArray[np.float64]) -> None:
        """weights [N], each at least 0, for the items 1 to N; they need not sum to 1."""
        shares = weights / weights.sum()
        with np.errstate(divide="ignore"):
            logs = np.log(np.concatenate([[0.0], shares]))  # minus infinity for padding
        kept, aliases = alias_table(shares * len(shares))
        self._items = len(shares)
        with tf.init_scope():  # it may be made while a training step is traced, and outlives that graph
            self._log_probabilities = tf.constant(logs, tf.float32)
            self._kept, self._aliases = tf.constant(kept, tf.float32), tf.constant(aliases, tf.int32)

    def draw(self, shape: tf.Tensor | list[int], generator: tf.random.Generator) -> tf.Tensor:
        """As the base class says."""
        points = tf.random.stateless_uniform(shape, generator.make_seeds()[:, 0], maxval=self._items, dtype=tf.float64)
        columns = tf.cast(points, tf.int32)
        kept = tf.cast(points - tf.floor(points), tf.float32) < tf.gather(self._kept, columns)
        return 1 + tf.where(kept, columns, tf.gather(self._aliases, columns))

    def log_prob(self, ids: tf.Tensor) -> tf.Tensor:
        """As the base class says."""
        return tf.gather(self._log_probabilities, ids)


def proposal_of(kind: Literal["uniform", "popularity"], counts: npt.NDArray[np.int64], alpha: float = 1.0) -> Proposal:
    """The proposal by its name; counts [N] are the items' training interactions.

    Under popularity an item is drawn by its count to the power of alpha; one that training never saw counts as seen
    once, so that every item can be drawn.
    """
    return Uniform(len(counts)) if kind == "uniform" else Weighted(np.maximum(counts, 1).astype(np.float64) ** alpha)


def alias_table(weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Walker's alias table of weights [N] whose mean is 1: the share of itself that each column keeps, and what has the
    rest.

    A column drawn uniformly, and then its alias unless it keeps itself, has the distribution of the weights. Heavy
    columns give what they have above 1, in turn, to what light ones lack; the one that runs out has its own lack filled
    by the next.
    Source: Hübschle-Schneider and Sanders, "Parallel Weighted Random Sampling" (ESA'19), by prefix sums instead of a
    sweep.

    >>> kept, aliases = alias_table(np.array([2.0, 0.5, 0.5]))
    >>> kept.tolist(), aliases.tolist()  # half of what the columns 1 and 2 draw is 0
    ([1.0, 0.5, 0.5], [0, 0, 0])
    """
    kept, aliases = weights.copy(), np.arange(len(weights))
    is_heavy = weights >= min(1.0, weights.max())  # equal weights may all be a little below 1 by rounding
    light, heavy = np.flatnonzero(~is_heavy), np.flatnonzero(is_heavy)
    lacking = np.concatenate([[0.0], np.cumsum(1 - weights[light])])  # before each light column, and in all
    giving = np.cumsum(weights[heavy] - 1)  # up to and with each heavy one
    giver = np.searchsorted(giving, lacking[:-1], side="right")  # the first heavy column that has some left
    aliases[light] = heavy[np.minimum(giver, len(heavy) - 1)]
    spent = np.searchsorted(lacking, giving[:-1])  # the prefix at which a heavy column has run out, if there is one
    out = np.flatnonzero(spent < len(lacking))
    kept[heavy] = 1
    kept[heavy[out]] += giving[out] - lacking[spent[out]]
    aliases[heavy[out]] = heavy[out + 1]
    return kept, aliases
