"""From trained towers to SavedModels whose inputs and outputs are the user's own string ids.

Four are written, each as NAME/VERSION/: `retriever`, `ranker`, `cascade` (operations of stock TensorFlow only) and
`cascade_scann` (the same signature over a ScaNN index). A version's folder appears whole or not at all.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfcorr.data.batches import Context
from tfcorr.data.histories import Catalogue
from tfcorr.evaluation.cascade import Cascade, is_among
from tfcorr.files import write_whole
from tfcorr.towers import Ranker, Retriever

LOWEST = tf.float32.min  # the score of a place that holds no item; JSON has no minus infinity
Signatures = dict[str, Callable[..., dict[str, tf.Tensor]]]
STRINGS = tf.TensorSpec([None, None], tf.string)


class Vocabulary(tf.Module):
    """Translates between the user's string ids and item numbers, in graph."""

    def __init__(self, catalogue: Catalogue, history_length: int) -> None:
        super().__init__()
        numbers = tf.range(1, len(catalogue) + 1)
        self.numbers = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(catalogue.ids), numbers), 0)
        self.ids = tf.Variable(tf.constant(["", *catalogue.ids]), trainable=False)
        self.history_length = history_length

    def context(self, known: tf.Tensor) -> Context:
        """known [B, H], item numbers with 0 anywhere -> the context of the last M of them that are items."""
        items = tf.ragged.boolean_mask(known, known > 0)[:, -self.history_length :]
        return {"history": items.to_tensor(shape=[None, self.history_length])}


class Endpoint(tf.Module):
    """What is saved: graphs and the variables that they read. Keras objects stay outside, as no one will load them."""

    def __init__(self, vocabulary: Vocabulary, *towers: tf.keras.Model) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weights = [variable for tower in towers for variable in tower.variables]


class RetrieverEndpoint(Endpoint):
    """history [B, H] -> {"vector": [B, D]}; a second signature, `items`: {"item" [I] -> "vector" [I, D]}."""

    def __init__(self, retriever: Retriever, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, retriever)
        self.encode_context, self.item_vectors = retriever.encode_context, retriever.item_vectors

    @tf.function(input_signature=[STRINGS])
    def serve(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        """Unknown ids and "" are skipped."""
        context = self.vocabulary.context(self.vocabulary.numbers.lookup(history))
        return {"vector": tf.cast(self.encode_context(context), tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def items(self, item: tf.Tensor) -> dict[str, tf.Tensor]:
        """The vectors whose inner product with a context's is the retriever's score; zeros for an unknown id."""
        numbers = self.vocabulary.numbers.lookup(item)
        vectors = tf.cast(self.item_vectors(numbers), tf.float32)
        return {"vector": tf.where(numbers[:, None] > 0, vectors, 0.0)}


class RankerEndpoint(Endpoint):
    """history [B, H], candidates [B, K] -> {"ranker_score": [B, K]}."""

    def __init__(self, ranker: Ranker, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, ranker)
        self.score = ranker.score

    @tf.function(input_signature=[STRINGS, STRINGS])
    def serve(self, history: tf.Tensor, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
        """An unknown candidate scores float32's minimum."""
        numbers = self.vocabulary.numbers.lookup(candidates)
        scores = self.score(self.vocabulary.context(self.vocabulary.numbers.lookup(history)), numbers)
        return {"ranker_score": tf.where(numbers > 0, scores, LOWEST)}


class CascadeEndpoint(Endpoint):
    """history [B, H], k [B], exclude [B, W] -> {"item", "ranker_score", "retriever_score"}, each [B, max k], best first."""

    def __init__(self, cascade: Cascade, vocabulary: Vocabulary, counts: np.ndarray, exclude_seen: bool) -> None:
        """counts [N] are the items' training interactions, by which a history without a known item is answered."""
        super().__init__(vocabulary, cascade.retriever, cascade.ranker)
        self.index, self.exclude_seen = cascade.index, exclude_seen
        self.retrieve, self.rank = cascade.retrieve, cascade.rank
        order = np.argsort(-counts, kind="stable")
        self.popular = tf.Variable((order + 1).astype(np.int32), trainable=False)
        share = np.maximum(counts[order], 0.5) / counts.sum()
        self.log_share = tf.Variable(np.log(share).astype(np.float32), trainable=False)

    @tf.function(input_signature=[STRINGS, tf.TensorSpec([None], tf.int32), STRINGS])
    def serve(self, history: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> dict[str, tf.Tensor]:
        """Recommends for each row its best k items.

        history: item ids, oldest first, "" as padding; unknown ids are skipped. exclude: ids that must not be recommended.
        k: how many, by row; places beyond a row's k, or beyond what there is, hold "" and float32's minimum.
        A history without any known id is answered by the most popular items; both scores are then the logarithm of the
        item's share of the training interactions.
        """
        known = self.vocabulary.numbers.lookup(history)
        context = self.vocabulary.context(known)
        excluded = self.vocabulary.numbers.lookup(exclude)
        if self.exclude_seen:
            excluded = tf.concat([excluded, known], axis=1)
        retrieved = self.retrieve(context, excluded)
        ranked = self.rank(context, retrieved)
        ranked, best = tf.math.top_k(ranked, tf.shape(ranked)[1])
        ids = tf.gather(retrieved.ids, best, batch_dims=1)
        scores = tf.gather(retrieved.scores, best, batch_dims=1)
        popular, shares = self._most_popular(excluded, tf.shape(ids)[1])
        empty = ~tf.reduce_any(known > 0, axis=1, keepdims=True)
        width = tf.minimum(tf.reduce_max(k, axis=0), tf.shape(ids)[1])
        within = tf.range(width)[None, :] < k[:, None]

        def answer(cascade: tf.Tensor, fallback: tf.Tensor, nothing: tf.Tensor) -> tf.Tensor:
            return tf.where(within & (ids > 0)[:, :width], tf.where(empty, fallback, cascade)[:, :width], nothing)

        return {
            "item": tf.gather(self.vocabulary.ids, answer(ids, popular, 0)),
            "ranker_score": answer(ranked, shares, LOWEST),
            "retriever_score": answer(scores, shares, LOWEST),
        }

    def _most_popular(self, excluded: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The most popular items that are not excluded, [B, width], and the logarithms of their shares."""
        wanted = tf.minimum(width + tf.shape(excluded)[1], tf.shape(self.popular)[0])
        ids = tf.tile(self.popular[None, :wanted], [tf.shape(excluded)[0], 1])
        shares = tf.where(is_among(ids, excluded), LOWEST, self.log_share[None, :wanted])
        shares, best = tf.math.top_k(shares, width)
        return tf.gather(ids, best, batch_dims=1), shares


def export(
    retriever: Retriever,
    ranker: Ranker,
    catalogue: Catalogue,
    cascades: dict[str, Cascade],
    history_length: int,
    exclude_seen: bool,
    folder: Path,
) -> int:
    """Writes `folder/NAME/VERSION/` for the retriever, the ranker and each of the cascades by name; returns the version.

    The version is one more than the highest there is. Raises: RuntimeError if any but `cascade_scann` holds an operation that
    stock TensorFlow does not have; it is then not there.
    """
    vocabulary = Vocabulary(catalogue, history_length)
    endpoints: dict[str, tuple[Endpoint, Signatures]] = {}
    retriever_endpoint, ranker_endpoint = RetrieverEndpoint(retriever, vocabulary), RankerEndpoint(ranker, vocabulary)
    endpoints["retriever"] = retriever_endpoint, {"serving_default": retriever_endpoint.serve, "items": retriever_endpoint.items}
    endpoints["ranker"] = ranker_endpoint, {"serving_default": ranker_endpoint.serve}
    for name, cascade in cascades.items():
        endpoint = CascadeEndpoint(cascade, vocabulary, catalogue.counts, exclude_seen)
        endpoints[name] = endpoint, {"serving_default": endpoint.serve}
    version = 1 + max((latest_version(folder / name) for name in endpoints), default=0)
    for name, (module, signatures) in endpoints.items():
        write_whole(folder / name / str(version), partial(_save, module, signatures, name != "cascade_scann"))
    return version


def _save(module: Endpoint, signatures: Signatures, stock: bool, path: Path) -> None:
    tf.saved_model.save(module, str(path), signatures=signatures)
    foreign = foreign_operations(path)
    if stock and foreign:
        raise RuntimeError(f"{path.parent.name} holds operations that stock TensorFlow does not have: {sorted(foreign)}")


def latest_version(folder: Path) -> int:
    """The highest version under NAME/, 0 if there is none."""
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def foreign_operations(saved_model: Path) -> set[str]:
    """The operations of a SavedModel that are not TensorFlow's own, or need Python, so that a stock server cannot run them."""
    proto = SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    used: set[str] = set()
    for graph in (meta.graph_def for meta in proto.meta_graphs):
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        used |= {node.op for node in nodes} - functions
    return used - (set(dir(tf.raw_ops)) - {"PyFunc", "PyFuncStateless", "EagerPyFunc"})
