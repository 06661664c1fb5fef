"""What draws for a training step: the pool, what the retriever resamples from it, and what other strategies start from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.cooperation.proposals import Proposal, proposal_of
from tfcorr.cooperation.sampling import NEVER, Pool, Resampled, SamplerSettings, resample
from tfcorr.towers.layers import Retriever

Best = Callable[[tf.Tensor, int], tf.Tensor]  # encoded contexts [B, D] and a count -> the retriever's best items [B, count]


class Sampler:
    """Draws by the settings, from a retriever."""

    def __init__(
        self, settings: SamplerSettings, counts: npt.NDArray[np.int64], retriever: Retriever, seed: int, best: Best | None = None
    ) -> None:
        """counts [N] are the items' training interactions; `best` searches all items, for the strategies that need it.

        The model that draws must hold `generator` as its own, so that checkpoints do.
        """
        self.settings, self._counts, self._retriever, self._best = settings, counts, retriever, best
        self.items, self.generator = len(counts), tf.random.Generator.from_seed(seed)

    @cached_property
    def uniform(self) -> Proposal:
        """Every item alike."""
        return proposal_of("uniform", self._counts)

    @cached_property
    def popularity(self) -> Proposal:
        """Items by popularity^alpha."""
        return proposal_of("popularity", self._counts, self.settings.alpha)

    @cached_property
    def shares(self) -> Proposal:
        """Items by popularity as it is, which is how targets come."""
        return proposal_of("popularity", self._counts)

    @property
    def proposal(self) -> Proposal:
        """That of the settings."""
        return self.uniform if self.settings.proposal == "uniform" else self.popularity

    def pool(self, query: tf.Tensor, target: tf.Tensor) -> tuple[Pool, tf.Tensor, tf.Tensor]:
        """The first step, for encoded contexts [B, D] with targets [B]: the pool, and the retriever's scores of k [B] and of C [B, n]."""
        settings = self.settings
        if settings.pool == "all":
            ids, log_size = tf.range(1, self.items + 1), 0.0
        else:
            ids = self.proposal.pool(settings.pool_scope, tf.shape(target)[0], settings.pool, self.generator)
            log_size = float(np.log(settings.pool))
        target_score, scores = self._retriever.match(query, target, ids)
        items = tf.broadcast_to(ids, tf.shape(scores))
        if settings.pool == "all":  # each once, and the target, which stands beside them, not twice
            is_target = items == target[:, None]
            items, scores = tf.where(is_target, 0, items), tf.where(is_target, -NEVER, scores)
            return Pool(items, tf.zeros_like(scores), tf.fill(tf.shape(target), -NEVER)), target_score, scores
        of_items = tf.broadcast_to(self.proposal.log_prob(ids) + log_size, tf.shape(scores))
        return Pool(items, of_items, self.proposal.log_prob(target) + log_size), target_score, scores

    def resample(self, query: tf.Tensor, target: tf.Tensor) -> Resampled:
        """The two steps, for encoded contexts [B, D] with targets [B]."""
        settings = self.settings
        pool, target_score, scores = self.pool(query, target)
        scores = tf.concat([target_score[:, None], scores], axis=1)
        return resample(pool, target, scores, settings.samples, settings.temperature, settings.correction, self.generator)

    def source(
        self,
        query: Callable[[], tf.Tensor],
        target: tf.Tensor,
        resampled: Callable[[], Resampled],
        rank: Callable[[tf.Tensor], tf.Tensor],
    ) -> "Source":
        """What strategies draw from; `query` gives the encoded contexts, `rank` the ranker's scores of ids, [B, n] of [B, n]."""
        best = self._best

        def best_of_all(count: int) -> tf.Tensor:
            assert best is not None, "a strategy that takes the best of all items needs an index of them"
            return best(tf.stop_gradient(query()), count)

        return Source(self, target, resampled, best_of_all, rank)


@dataclass(frozen=True)
class Source:
    """What a strategy may draw from in one step, for B contexts with `target` [B] int32.

    `resampled()` is what the retriever drew in two steps; `best(count)` are its best items of all, [B, count], best first;
    `rank(ids)` are the ranker's scores [B, n] of ids [B, n].
    """

    sampler: Sampler
    target: tf.Tensor
    resampled: Callable[[], Resampled]
    best: Callable[[int], tf.Tensor]
    rank: Callable[[tf.Tensor], tf.Tensor]
