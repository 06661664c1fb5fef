"""CoRR: retriever and ranker trained together, each step in one graph."""

import tensorflow as tf

from tfcorr.cooperation.losses import estimated_log_loss, sampled_kl, sampled_log_softmax
from tfcorr.cooperation.model import LoggedModel, rows_of_all_replicas
from tfcorr.cooperation.sampling import Proposal, Resampled, SamplerSettings, resample
from tfcorr.data.batches import Context
from tfcorr.towers.layers import Ranker, Retriever, inner

LOGGED = (
    "loss_retriever",
    "loss_ranker",
    "kl",
    "pool_log_loss_retriever",
    "pool_log_loss_ranker",
    "effective_sample_size",
    "target_share",
)


class CoRR(LoggedModel):
    """The cooperative model of the paper (algorithm 1).

    The retriever resamples L hard negatives from a pool of n; both towers learn to tell the target from them by sampled
    log-softmax; the retriever also learns the ranker's order of them by a sampled KL. Each tower has its own optimiser:
    `compile(optimizer={"retriever": …, "ranker": …})`.
    """

    def __init__(
        self,
        retriever: Retriever,
        ranker: Ranker,
        proposal: Proposal,
        sampler: SamplerSettings,
        kl_weight: float,
        seed: int,
    ) -> None:
        super().__init__("corr", LOGGED)
        self.retriever, self.ranker = retriever, ranker
        self.proposal, self.sampler, self.kl_weight = proposal, sampler, kl_weight
        self.generator = tf.random.Generator.from_seed(seed)

    def train_step(self, data: tuple[Context, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on (context, target [B] int32); returns the epoch's means so far by name."""
        context, target = data
        rows = rows_of_all_replicas(target)
        with tf.GradientTape() as tape:
            query = self.retriever.encode_examples(context, training=True)  # [B, D]
            with tape.stop_recording():
                drawn = self._resample(query, target)
            candidates = tf.concat([target[:, None], drawn.samples], axis=1)  # [B, 1 + L]
            retrieved = inner(query, self.retriever.item_vectors(candidates))
            ranked = self.ranker.score(context, candidates, training=True)
            log_q = drawn.target_log_q, drawn.sample_log_q
            retriever_loss = sampled_log_softmax(retrieved[:, 0], retrieved[:, 1:], *log_q)
            ranker_loss = sampled_log_softmax(ranked[:, 0], ranked[:, 1:], *log_q)
            kl = sampled_kl(ranked[:, 1:], retrieved[:, 1:], drawn.sample_log_q)
            # No variable is in both towers, so one sum gives each its own gradient.
            total = tf.reduce_sum(retriever_loss + self.kl_weight * kl + ranker_loss) / rows
        variables = {"retriever": self.retriever.trainable_variables, "ranker": self.ranker.trainable_variables}
        for tower, gradients in tape.gradient(total, variables).items():
            self.optimizer[tower].apply_gradients(zip(gradients, variables[tower], strict=True))
        return self.record(
            {
                "loss_retriever": retriever_loss,
                "loss_ranker": ranker_loss,
                "kl": kl,
                "pool_log_loss_retriever": drawn.pool_log_loss,
                "pool_log_loss_ranker": estimated_log_loss(ranked[:, 0], ranked[:, 1:], drawn.sample_log_q),
                "effective_sample_size": drawn.effective_size,
                "target_share": drawn.target_share,
            }
        )

    def _resample(self, query: tf.Tensor, target: tf.Tensor) -> Resampled:
        pool = self.proposal.pool(self.sampler.pool_scope, tf.shape(target)[0], self.sampler.pool, self.generator)
        target_score, pool_scores = self.retriever.match(query, target, pool)
        return resample(
            pool, target, pool_scores, target_score, self.proposal, self.sampler.samples, self.sampler.temperature, self.generator
        )
