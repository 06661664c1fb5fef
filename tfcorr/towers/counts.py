"""What lets any ranker know what no inner product can say: how often an item followed another, and whether the user had
it before."""

import numpy as np
import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.data.transitions import Transitions
from tfcorr.settings import InputError
from tfcorr.towers.layers import CountsSettings, Domain, Ranker, RankerAround, latest_items, places_from_the_latest

# of the weights learned: as Adam's steps are of one size, they so come as far as their range asks for in one epoch
GAIN = 10.0


class PairCounts:
    """Transitions as a graph reads them. One is shared by all towers; it is rebuilt from the data, so no checkpoint
    holds it."""

    def __init__(self, transitions: Transitions) -> None:
        with tf.init_scope():
            arrays = transitions.keys, transitions.users, transitions.totals, transitions.owned
            self.keys, self.users, self.totals, self.owned = (tf.Variable(each, trainable=False) for each in arrays)
        self.items, self.pairs = transitions.items, len(transitions.keys)

    @property
    def constants(self) -> list[tf.Variable]:
        """What is read when a cascade answers."""
        return [self.keys, self.users, self.totals]

    def lookup(
        self, first: tf.Tensor, second: tf.Tensor, without: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """How many users went from each of the first items [B, J] to each of the second [B, K], and all that followed
        the first.

        `without` [B] int32 are users who are not counted: in training those whose examples they are, or a pair's count
        would tell whether it is the target. Of item 0 there are no pairs.
        Returns: [B, K, J] and [B, J] float32.
        """
        first, second = tf.cast(first, tf.int64), tf.cast(second, tf.int64)
        keys = self.keys.read_value()  # once: a second kind of read would copy it
        wanted = first[:, None, :] * (self.items + 1) + second[:, :, None]  # [B, K, J]
        position, is_pair = _find(keys, wanted)
        users = tf.where(is_pair, tf.gather(self.users.read_value(), position), 0)
        totals = tf.gather(self.totals.read_value(), first)
        if without is not None:
            owned, user = self.owned.read_value(), tf.cast(without, tf.int64)[:, None] * self.pairs  # [B, 1]
            found = tf.where(is_pair)  # few are pairs, and only these are looked up
            pair = tf.gather(user[:, 0], found[:, 0]) + tf.cast(tf.gather_nd(position, found), tf.int64)
            users -= tf.scatter_nd(found, tf.cast(_find(owned, pair)[1], tf.int32), tf.shape(users, tf.int64))
            begin, end = (
                _count_below(keys, (first + more) * (self.items + 1)) for more in (0, 1)
            )  # of the first items' pairs
            totals -= tf.cast(_count_below(owned, user + end) - _count_below(owned, user + begin), tf.int32)
        return tf.cast(users, tf.float32), tf.cast(totals, tf.float32)


def _find(ascending: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each of the values [...] stands among ascending ones [P], int32, and whether it does."""
    position = tf.minimum(tf.searchsorted(ascending, tf.reshape(values, [-1])), tf.size(ascending) - 1)
    return tf.reshape(position, tf.shape(values)), tf.reshape(
        tf.gather(ascending, position), tf.shape(values)
    ) == values


def _count_below(ascending: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """How many of the ascending ones [P] are below each of the values [...]: int64."""
    return tf.reshape(tf.searchsorted(ascending, tf.reshape(values, [-1]), out_type=tf.int64), tf.shape(values))


class CountingRanker(RankerAround):
    """score(c, k) = the tower's own + counted(c, k), a weighted sum of what is counted.

    For h_j, the j-th latest item of the history, x_j = log(1 + scale · users(h_j → k) / total(h_j)^power), with a
    weight each. With `repeats`, for a candidate that stands in the history: a weight by how many items ago it did last,
    and a weight times the logarithm of how often it does. In training the example's own user is not counted, wherever
    in the training split the user has the pair: where one user goes from h to k twice, the count less this event would
    still show it.
    """

    def __init__(self, tower: Ranker, settings: CountsSettings, domain: Domain) -> None:
        super().__init__(tower, "counting")
        if settings.window not in domain.pairs:
            raise InputError(
                f"counts: pairs in a window of {settings.window} are not counted; give them to the towers' Domain"
            )
        self.settings, self.longest = settings, domain.history_length
        self._pairs = domain.pairs[settings.window]
        by_age = (1 / np.arange(1, settings.latest + 1) / GAIN).astype(np.float32)
        self.of_pairs = self.add_weight(
            name="pairs", shape=by_age.shape, initializer=tf.keras.initializers.Constant(by_age)
        )
        self.of_age = self.add_weight(
            name="age", shape=[domain.history_length + 1], initializer="zeros", trainable=settings.repeats
        )
        self.of_times = self.add_weight(name="times", shape=[], initializer="zeros", trainable=settings.repeats)

    @property
    def constants(self) -> list[tf.Variable]:
        """The tower's own, and the pairs'."""
        return [*self.tower.constants, *self._pairs.constants]

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says; in training context["user"] [B] int32 is needed."""
        return self.tower.score(context, candidates, training) + self.counted(context, candidates, training)

    term_names = ("score", "counts")

    def terms(self, context: Context, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
        """The tower's own score, and what the counts add to it."""
        return {"score": self.tower.score(context, candidates), "counts": self.counted(context, candidates)}

    def counted(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the counts add to the score: [B, K] float32."""
        history = context["history"]
        latest = latest_items(history, self.settings.latest)
        users, totals = self._pairs.lookup(latest, candidates, context["user"] if training else None)
        shares = users / tf.maximum(totals, 1.0)[:, None, :] ** self.settings.power
        scores = GAIN * tf.linalg.matvec(tf.math.log1p(self.settings.scale * shares), self.of_pairs)
        if not self.settings.repeats:
            return scores
        items = tf.where(candidates > 0, candidates, -1)  # no padding is one
        is_there = history[:, None, :] == items[:, :, None]  # [B, K, M]
        age = tf.reduce_min(tf.where(is_there, places_from_the_latest(history)[:, None, :], self.longest), axis=2)
        times = tf.math.log1p(tf.reduce_sum(tf.where(is_there, 1.0, 0.0), axis=2))
        weight = tf.where(age < self.longest, tf.gather(self.of_age, age), 0.0)
        return scores + GAIN * (weight + self.of_times * times)
