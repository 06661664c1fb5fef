"""Maximum inner product search over the items: exact, by standard ops only, or approximate, by ScaNN."""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import tensorflow as tf

BLOCK = 65_536  # items scored at once by the exact index: memory grows with users × BLOCK, never with users × items
SMALL = 20_000  # items below which brute force beats a tree
LEAVES_SEARCHED = 0.3  # share of the tree's leaves
REORDERED = 4  # candidates scored again exactly, as a multiple of those asked for

IndexKind = Literal["exact", "scann"]


class Index(Protocol):
    """Searches the items 1 to N; `size` is N."""

    size: int

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """queries [B, D], count () int32 -> item numbers [B, C] int32 and inner products [B, C], best first.

        C is at most `count`; a place that could not be filled holds item 0 and minus infinity.
        """
        ...


class ExactIndex(tf.Module):
    """Scores every item, block by block."""

    def __init__(self, vectors: tf.Tensor) -> None:
        """vectors [N, D] float32, of the items 1 to N."""
        super().__init__()
        self.vectors = tf.Variable(vectors, trainable=False)
        self.size = int(self.vectors.shape[0])

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As the protocol says; ties go to the lower item number."""
        rows = tf.shape(queries)[0]
        count = tf.minimum(count, self.size)

        def more(start: tf.Tensor, ids: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            block = self.vectors[start : start + BLOCK]
            found = tf.matmul(queries, block, transpose_b=True)
            numbers = tf.broadcast_to(start + 1 + tf.range(tf.shape(block)[0])[None, :], tf.shape(found))
            scores, ids = tf.concat([scores, found], 1), tf.concat([ids, numbers], 1)
            scores, best = tf.math.top_k(scores, tf.minimum(count, tf.shape(scores)[1]))
            return start + BLOCK, tf.gather(ids, best, batch_dims=1), scores

        none = 0, tf.zeros([rows, 0], tf.int32), tf.zeros([rows, 0])
        invariants = tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])
        return tf.while_loop(lambda start, *_: start < self.size, more, none, invariants)[1:]


class ScannIndex(tf.Module):
    """ScaNN (Guo et al., ICML'20): a tree of √N leaves of quantised vectors, the best of which are scored again
    exactly.

    Below `SMALL` items ScaNN's own brute force is used, which is faster there, and exact. A SavedModel that holds this
    index loads only where ScaNN's ops are registered, by `import scann`.
    """

    def __init__(self, vectors: tf.Tensor) -> None:
        """vectors [N, D] float32, of the items 1 to N."""
        from scann.scann_ops.py import scann_ops  # registers its ops; the exact cascade must do without

        super().__init__()
        self.size = int(vectors.shape[0])
        builder = scann_ops.builder(vectors.numpy(), 1, "dot_product")
        if self.size < SMALL:
            builder = builder.score_brute_force()
        else:
            leaves = round(self.size**0.5)
            builder = builder.tree(
                leaves, round(leaves * LEAVES_SEARCHED), training_sample_size=min(self.size, 250_000)
            )
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(1)
        self.state = builder.build().serialize_to_module()
        self._searcher = scann_ops.ScannSearcher

    def search(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As the protocol says; ScaNN marks a place that it could not fill by NaN."""
        searcher = self._searcher(self.state.recreate_handle())
        places, scores = searcher.search_batched(queries, count, REORDERED * count)
        places, scores = tf.ensure_shape(places, [None, None]), tf.ensure_shape(scores, [None, None])
        filled = ~tf.math.is_nan(scores)
        return tf.where(filled, places + 1, 0), tf.where(filled, scores, -np.inf)


class SnapshotIndex:
    """The best of all items by their vectors as they were when it was last refreshed: exact below `SMALL` items, else
    ScaNN."""

    def __init__(self, vectors: Callable[[], tf.Tensor]) -> None:
        """vectors gives those of the items 1 to N, [N, D] float32, as they are now."""
        self._vectors = vectors
        self._build()

    def refresh(self) -> bool:
        """Takes the vectors as they are now; returns whether graphs that search must be traced again."""
        if isinstance(self._index, ExactIndex):
            self._index.vectors.assign(self._vectors())
            return False
        self._build()
        return True

    def best(self, queries: tf.Tensor, count: int) -> tf.Tensor:
        """queries [B, D] -> item numbers [B, C] int32, best first; C is `count`, or N if there are fewer.

        A place that the index could not fill holds the best item again.
        """
        ids, _ = self._index.search(tf.cast(queries, tf.float32), tf.constant(count))
        return tf.where(ids > 0, ids, ids[:, :1])

    def _build(self) -> None:
        vectors = self._vectors()
        self._index = build_index("exact" if vectors.shape[0] < SMALL else "scann", vectors)


def build_index(kind: IndexKind, vectors: tf.Tensor) -> ExactIndex | ScannIndex:
    """An index of the vectors [N, D] of the items 1 to N."""
    return ExactIndex(vectors) if kind == "exact" else ScannIndex(vectors)
