"""What draws for a training step: the pool, what the retriever resamples from it, and what other strategies start
from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.cooperation.proposals import Proposal, proposal_of
from tfcorr.cooperation.sampling import Pool, Resampled, SamplerSettings, pool_of_all, resample, resample_all
from tfcorr.settings import InputError
from tfcorr.towers.layers import Retriever

Best = Callable[
    [tf.Tensor, int], tf.Tensor
]  # encoded contexts [B, D] and a count -> the retriever's best items [B, count]


class Sampler:
    """Draws by the settings, from a retriever."""

    def __init__(
        self,
        settings: SamplerSettings,
        counts: npt.NDArray[np.int64],
        retriever: Retriever,
        seed: int,
        best: Best | None = None,
    ) -> None:
        """counts [N] are the items' training interactions; `best` searches all items, for the strategies that need it.

        The model that draws must hold `generator` as its own, so that checkpoints do.
        """
        self.settings, self._counts, self._retriever, self._best = settings, counts, retriever, best
        self.items, self.generator = len(counts), tf.random.Generator.from_seed(seed)
        taken = {"ltop": settings.samples, "dns": settings.samples, "ltoprand": settings.local_top}
        wanted = taken.get(settings.negatives or "", 0)
        if settings.pool == "all" and wanted >= self.items:
            raise InputError(
                f"sampler.negatives: {settings.negatives} takes {wanted} items beside the target, of {self.items} in "
                f"all; lower sampler.{'local_top' if settings.negatives == 'ltoprand' else 'samples'}"
            )

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

    @property
    def is_exact(self) -> bool:
        """Whether the pool is all items, so that the retriever's softmax can be computed and need not be estimated."""
        return self.settings.pool == "all"

    def every(self, query: tf.Tensor) -> tf.Tensor:
        """The retriever's scores of the items 1 to N for encoded contexts [B, D]: [B, N] float32."""
        vectors = self._retriever.item_vectors(tf.range(1, self.items + 1))
        return tf.matmul(tf.cast(query, tf.float32), tf.cast(vectors, tf.float32), transpose_b=True)

    def pool(self, query: tf.Tensor, target: tf.Tensor) -> tuple[Pool, tf.Tensor, tf.Tensor]:
        """The first step, for encoded contexts [B, D] with targets [B]: the pool, and the retriever's scores of k [B]
        and of C [B, n]."""
        if self.is_exact:
            return pool_of_all(self.every(query), target)
        settings = self.settings
        size = int(settings.pool)  # no "all" here
        ids = self.proposal.pool(settings.pool_scope, tf.shape(target)[0], size, self.generator)
        log_size = tf.math.log(tf.cast(size, tf.float32))
        target_score, scores = self._retriever.match(query, target, ids)
        log_count = tf.broadcast_to(self.proposal.log_prob(ids) + log_size, tf.shape(scores))
        return (
            Pool(tf.broadcast_to(ids, tf.shape(scores)), log_count, self.proposal.log_prob(target) + log_size),
            target_score,
            scores,
        )

    def resample(self, query: tf.Tensor, target: tf.Tensor, every: tf.Tensor | None = None) -> Resampled:
        """The two steps, for encoded contexts [B, D] with targets [B]; `every` are their scores of all items, where
        they are known."""
        settings = self.settings
        if self.is_exact:
            every = self.every(query) if every is None else every
            return resample_all(
                every, target, settings.samples, settings.temperature, settings.correction, self.generator
            )
        pool, target_score, scores = self.pool(query, target)
        scores = tf.concat([target_score[:, None], scores], axis=1)
        return resample(
            pool, target, scores, settings.samples, settings.temperature, settings.correction, self.generator
        )

    def source(
        self,
        query: Callable[[], tf.Tensor],
        target: tf.Tensor,
        resampled: Callable[[], Resampled],
        rank: Callable[[tf.Tensor], tf.Tensor],
    ) -> "Source":
        """What strategies draw from; `query` gives the encoded contexts, `rank` the ranker's scores of ids, [B, n] of
        [B, n]."""
        best = self._best

        def best_of_all(count: int) -> tf.Tensor:
            assert best is not None, "a strategy that takes the best of all items needs an index of them"
            return best(tf.stop_gradient(query()), count)

        return Source(self, target, resampled, best_of_all, rank)


@dataclass(frozen=True)
class Source:
    """What a strategy may draw from in one step, for B contexts with `target` [B] int32.

    `resampled()` is what the retriever drew in two steps; `best(count)` are its best items of all, [B, count], best
    first; `rank(ids)` are the ranker's scores [B, n] of ids [B, n], as in training.
    """

    sampler: Sampler
    target: tf.Tensor
    resampled: Callable[[], Resampled]
    best: Callable[[int], tf.Tensor]
    rank: Callable[[tf.Tensor], tf.Tensor]
