"""What lets any tower see features of the user and of the moment: each wraps a tower, and knows nothing of its kind."""

import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.towers.layers import Domain, Ranker, RankerAround, Retriever, TowerSettings
from tfcorr.towers.mlp import MLP
from tfcorr.towers.tables import FeatureVector, item_table


class ContextVector(tf.keras.layers.Layer):
    """The sum of the vectors of the context's features."""

    def __init__(self, domain: Domain, dim: int) -> None:
        super().__init__()
        self.features = [feature for feature in domain.features if feature.of != "item"]
        self.vectors = [FeatureVector(feature, dim) for feature in self.features]

    @property
    def names(self) -> frozenset[str]:
        """The features that it reads."""
        return frozenset(feature.name for feature in self.features)

    def call(self, context: Context) -> tf.Tensor:
        """context[name] [B, W] int32 or [B] float32 -> [B, D]."""
        return tf.add_n(
            [vector(context[feature.name]) for feature, vector in zip(self.features, self.vectors, strict=True)]
        )


class ContextualRetriever(Retriever):
    """score(c, k) = the tower's own + ⟨x_c, z_k⟩, x the context's features and z a table of items, folded into the
    vectors."""

    def __init__(self, tower: Retriever, settings: TowerSettings, domain: Domain) -> None:
        super().__init__(name=f"contextual_{tower.name}")
        self.tower, self.context = tower, ContextVector(domain, settings.dim)
        self.crossed = item_table(domain, settings.dim, "crossed")
        self.reads, self.causal = tower.reads | self.context.names, tower.causal

    def encode_context(self, context: Context, training: bool = False) -> tf.Tensor:
        """As the tower's, [B, D], with more columns."""
        return self._beside(self.tower.encode_context(context, training), context)

    def encode_examples(self, context: Context, training: bool = False) -> tf.Tensor:
        """As the tower's, [B, D], with more columns."""
        return self._beside(self.tower.encode_examples(context, training), context)

    def encode_places(self, history: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The tower's own: a place of a history has no features of its own."""
        return self.tower.encode_places(history, training)

    def item_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """As the tower's, [..., D], with more columns."""
        return tf.concat([tf.cast(each(ids), tf.float32) for each in (self.tower.item_vectors, self.crossed)], axis=-1)

    @property
    def item_tables(self) -> dict[str, tf.Variable]:
        """The tower's own."""
        return self.tower.item_tables

    def _beside(self, query: tf.Tensor, context: Context) -> tf.Tensor:
        return tf.concat([tf.cast(query, tf.float32), tf.cast(self.context(context), tf.float32)], axis=1)


class ContextualRanker(RankerAround):
    """score(c, k) = the tower's own + mlp([x_c, z_k, x_c∘z_k]), x the context's features and z a table of items."""

    def __init__(self, tower: Ranker, settings: TowerSettings, domain: Domain) -> None:
        super().__init__(tower, "contextual")
        self.context = ContextVector(domain, settings.dim)
        self.crossed = item_table(domain, settings.dim, "crossed")
        self.mlp = MLP([settings.dim], "relu", settings.dropout)
        self.reads = tower.reads | self.context.names

    def score(self, context: Context, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As the base class says."""
        items = self.crossed(candidates)  # [B, K, D]
        given = tf.broadcast_to(self.context(context)[:, None], tf.shape(items))
        more = self.mlp(tf.concat([given, items, given * items], axis=-1), training=training)
        return self.tower.score(context, candidates, training) + more
