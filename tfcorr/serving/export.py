"""From trained towers to SavedModels whose inputs and outputs are the user's own string ids.

Four are written, each as NAME/VERSION/: `retriever`, `ranker`, `cascade` (operations of stock TensorFlow only) and
`cascade_scann` (the same signature over a ScaNN index). A version's folder appears whole or not at all. Beside a model
lie requests to warm it up by and, with a cascade, its items' titles, which the page of `tfcorr serve` shows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import tensorflow as tf

from tfcorr.data.batches import Context
from tfcorr.data.features import OUTLIER, Feature
from tfcorr.data.histories import Catalogue
from tfcorr.evaluation.cascade import Cascade, is_among
from tfcorr.files import write_whole
from tfcorr.serving.saved_model import CATALOGUE, LENGTH, foreign_operations, write_warmup
from tfcorr.serving.versions import STABLE, check_label, exclusive, next_version, publish
from tfcorr.towers import Retriever, Tower

LOWEST = tf.float32.min  # the score of a place that holds no item; JSON has no minus infinity
Signatures = dict[str, Callable[..., dict[str, tf.Tensor]]]
Specs = dict[str, tf.TensorSpec]
STRINGS, STRING = tf.TensorSpec([None, None], tf.string), tf.TensorSpec([None], tf.string)
NUMBER = tf.TensorSpec([None], tf.float32)


class Vocabulary(tf.Module):
    """Translates between string ids and numbers of items and users, in graph."""

    def __init__(
        self, catalogue: Catalogue, users: list[str], features: Sequence[Feature], history_length: int
    ) -> None:
        """users are their ids, none if no tower reads them; features, those of users and interactions that a tower
        reads."""
        super().__init__()
        of_features = {feature.name: STRINGS if feature.is_categorical else NUMBER for feature in features}
        self.specs: Specs = {"history": STRINGS} | ({"user": STRING} if users else {}) | of_features
        self.codes = {
            feature.name: CategoryCode(feature) if feature.is_categorical else NumberCode(feature)
            for feature in features
        }
        self.numbers, self.user_numbers = _numbers_of(catalogue.ids), _numbers_of(users) if users else None
        self.ids = tf.Variable(tf.constant(["", *catalogue.ids]), trainable=False)
        self.history_length = history_length

    def context(self, known: tf.Tensor, request: dict[str, tf.Tensor]) -> Context:
        """known [B, H], item numbers with 0 anywhere, of which the last M count, and a request by `specs` -> a
        context."""
        items = tf.ragged.boolean_mask(known, known > 0)[:, -self.history_length :]
        unknown = tf.zeros(tf.shape(known)[:1], tf.int32)
        numbers = unknown if self.user_numbers is None else looked_up(self.user_numbers, request["user"])
        features = {name: code(request[name]) for name, code in self.codes.items()}
        return {"history": items.to_tensor(shape=[None, self.history_length]), "user": numbers, **features}


class NumberCode(tf.Module):
    """From a request's numbers to those that towers see, as `standardised` makes them in training."""

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.mean, self.scale = feature.mean, feature.scale

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Numbers [B], of which one that is none is not known, -> [B]."""
        deviations = tf.clip_by_value((values - self.mean) / self.scale, -OUTLIER, OUTLIER)
        return tf.where(tf.math.is_finite(values), deviations, 0.0)


class CategoryCode(tf.Module):
    """From a request's categories to their numbers; several may stand in a text, where they did in training."""

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.numbers, self.separator = _numbers_of(feature.vocabulary or []), feature.separator

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Texts [B, any], "" as padding, -> [B, any] int32, 0 for one that training did not have."""
        parts = self._parts(values).merge_dims(1, 2).to_tensor("") if self.separator else values
        return looked_up(self.numbers, parts)

    def known(self, values: tf.Tensor) -> tf.Tensor:
        """Of each text [B, any] whether training had it, or had all of those in it, bool [B, any]."""
        if not self.separator:
            return looked_up(self.numbers, values) > 0
        parts = self._parts(values)
        had = (looked_up(self.numbers, parts.flat_values) > 0) | (parts.flat_values == "")
        return tf.reshape(tf.reduce_all(parts.with_flat_values(had), axis=2).flat_values, tf.shape(values))

    def _parts(self, values: tf.Tensor) -> tf.RaggedTensor:
        """Texts [B, W] -> [B, W, any], without blanks around them."""
        flat = tf.strings.split(tf.reshape(values, [-1]), self.separator)
        flat = flat.with_flat_values(tf.strings.strip(flat.flat_values))
        shape = tf.shape(values, tf.int64)
        return tf.RaggedTensor.from_uniform_row_length(flat, shape[1], shape[0])


def _numbers_of(ids: list[str]) -> tf.lookup.StaticHashTable:
    """A table from ids to their numbers, from 1; 0 for any other id."""
    numbers = tf.range(1, len(ids) + 1)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(ids, tf.string), numbers), 0)


def looked_up(table: tf.lookup.StaticHashTable, texts: tf.Tensor) -> tf.Tensor:
    """Texts to their numbers by a table; blanks around a text do not matter, as they did not in training."""
    return table.lookup(tf.strings.strip(texts))


class Endpoint(tf.Module):
    """What is saved: graphs and the variables that they read. Keras objects stay outside, as no one will load them."""

    def __init__(self, vocabulary: Vocabulary, *towers: Tower) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weights = [variable for tower in towers for variable in (*tower.variables, *tower.constants)]

    def signature(
        self, serve: Callable[..., dict[str, tf.Tensor]], **more: tf.TensorSpec
    ) -> Callable[..., dict[str, tf.Tensor]]:
        """The graph of `serve` over what a context is made of, and `more`."""
        return graph_of(serve, self.vocabulary.specs | more)


def graph_of(serve: Callable[..., dict[str, tf.Tensor]], specs: Specs) -> Callable[..., dict[str, tf.Tensor]]:
    """The graph of `serve` over tensors like these."""
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    return tf.autograph.experimental.do_not_convert(tf.function(serve, autograph=False).get_concrete_function)(**named)


class RetrieverEndpoint(Endpoint):
    """history [B, H] and the rest of a context -> {"vector": [B, D]}; a second signature, `items`: {"item" [I] ->
    "vector" [I, D]}."""

    def __init__(self, retriever: Retriever, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, retriever)
        self.encode_context, self.item_vectors = retriever.encode_context, retriever.item_vectors

    def serve(self, history: tf.Tensor, **request: tf.Tensor) -> dict[str, tf.Tensor]:
        """Unknown ids and "" are skipped."""
        context = self.vocabulary.context(looked_up(self.vocabulary.numbers, history), request)
        return {"vector": tf.cast(self.encode_context(context), tf.float32)}

    @tf.function(input_signature=[STRING], autograph=False)
    def items(self, item: tf.Tensor) -> dict[str, tf.Tensor]:
        """The vectors whose inner product with a context's is the retriever's score; zeros for an unknown id."""
        numbers = looked_up(self.vocabulary.numbers, item)
        vectors = tf.cast(self.item_vectors(numbers), tf.float32)
        return {"vector": tf.where(numbers[:, None] > 0, vectors, 0.0)}


class RankerEndpoint(Endpoint):
    """history [B, H] and the rest of a context, candidates [B, K] -> {"ranker_score": [B, K]}."""

    def __init__(self, ranker: Tower, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, ranker)
        self.score = ranker.score

    def serve(self, history: tf.Tensor, candidates: tf.Tensor, **request: tf.Tensor) -> dict[str, tf.Tensor]:
        """An unknown candidate scores float32's minimum."""
        numbers = looked_up(self.vocabulary.numbers, candidates)
        scores = self.score(self.vocabulary.context(looked_up(self.vocabulary.numbers, history), request), numbers)
        return {"ranker_score": tf.where(numbers > 0, scores, LOWEST)}


class CascadeEndpoint(Endpoint):
    """A context, k [B] and exclude [B, W] -> {"item", "score", "ranker_score", "retriever_score"}, each [B, max k].

    The best come first, by score: that of the cascade's final order, a weighted sum of the stages'. A second signature,
    `known`, tells of each text of a request whether it had a place in training.
    """

    def __init__(self, cascade: Cascade, vocabulary: Vocabulary, counts: np.ndarray, exclude_seen: bool) -> None:
        """counts [N] are the items' training interactions, by which a context that the retriever knows nothing of is
        answered."""
        super().__init__(vocabulary, *cascade.towers.values())
        self.identifying = sorted(cascade.retriever.reads & {"history", "user"})
        self.index, self.exclude_seen, self.ranker = cascade.index, exclude_seen, list(cascade.towers)[-1]
        self.cascade = cascade.run
        order = np.argsort(-counts, kind="stable")
        self.popular = tf.Variable((order + 1).astype(np.int32), trainable=False)
        share = np.maximum(counts[order], 0.5) / counts.sum()
        self.log_share = tf.Variable(np.log(share).astype(np.float32), trainable=False)

    def serve(self, history: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor, **request: tf.Tensor) -> dict[str, tf.Tensor]:
        """Recommends for each row its best k items.

        history: item ids, oldest first, "" as padding; unknown ids are skipped. exclude: ids that must not be
        recommended. k: how many, by row; places beyond a row's k, or beyond what there is, hold "" and float32's
        minimum. request: what else the towers read: "user" [B], where an unknown id is no one's, and features. Where
        the retriever knows neither history nor user, as far as it reads these, the most popular items are answered;
        all scores are then the logarithm of the item's share of the training interactions.
        """
        known = looked_up(self.vocabulary.numbers, history)
        context = self.vocabulary.context(known, request)
        excluded = looked_up(self.vocabulary.numbers, exclude)
        if self.exclude_seen:
            excluded = tf.concat([excluded, known], axis=1)
        ranked = self.cascade(context, excluded)["cascade"]
        order = tf.argsort(ranked.scores["cascade"], direction="DESCENDING", stable=True)
        stages = {"score": "cascade", "ranker_score": self.ranker, "retriever_score": "retriever"}
        ids = tf.gather(ranked.ids, order, batch_dims=1)
        scores = {name: tf.gather(ranked.scores[stage], order, batch_dims=1) for name, stage in stages.items()}
        popular, shares = self._most_popular(excluded, tf.shape(ids)[1])
        read = tf.concat([tf.reshape(context[name], [tf.shape(k)[0], -1]) for name in self.identifying], axis=1)
        empty = ~tf.reduce_any(read > 0, axis=1, keepdims=True)
        width = tf.minimum(tf.reduce_max(k, axis=0), tf.shape(ids)[1])
        within = tf.range(width)[None, :] < k[:, None]

        def answer(cascade: tf.Tensor, fallback: tf.Tensor, nothing: tf.Tensor) -> tf.Tensor:
            return tf.where(within & (ids > 0)[:, :width], tf.where(empty, fallback, cascade)[:, :width], nothing)

        return {
            "item": tf.gather(self.vocabulary.ids, answer(ids, popular, 0)),
            **{name: answer(each, shares, LOWEST) for name, each in scores.items()},
        }

    def texts(self) -> Specs:
        """The texts of a request."""
        return {name: spec for name, spec in self.vocabulary.specs.items() if spec.dtype == tf.string} | {
            "exclude": STRINGS
        }

    def known(self, **texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Whether each is an item, a user or a category that training had: Booleans of the texts' shapes."""
        codes, ids = self.vocabulary.codes, {"user": self.vocabulary.user_numbers}
        return {
            name: codes[name].known(each)
            if name in codes
            else looked_up(ids.get(name) or self.vocabulary.numbers, each) > 0
            for name, each in texts.items()
        }

    def _most_popular(self, excluded: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The most popular items that are not excluded, [B, width], and the logarithms of their shares."""
        wanted = tf.minimum(width + tf.shape(excluded)[1], tf.shape(self.popular)[0])
        ids = tf.tile(self.popular[None, :wanted], [tf.shape(excluded)[0], 1])
        shares = tf.where(is_among(ids, excluded), LOWEST, self.log_share[None, :wanted])
        shares, best = tf.math.top_k(shares, width)
        return tf.gather(ids, best, batch_dims=1), shares


def export(
    towers: dict[str, Tower],
    catalogue: Catalogue,
    users: list[str],
    features: Sequence[Feature],
    cascades: dict[str, Cascade],
    history_length: int,
    exclude_seen: bool,
    folder: Path,
    label: str = STABLE,
    keep: int = 3,
) -> int:
    """Writes `folder/NAME/VERSION/` for the retriever, the ranker and each of the cascades by name; returns the
    version.

    The version is one more than the highest there is. When all are whole the label points at it; of the versions that
    have no label, the newest `keep` are kept. Raises: RuntimeError if any but `cascade_scann` holds an operation that
    stock TensorFlow does not have; the version is then not there.
    """
    check_label(label)
    retriever, ranker = towers["retriever"], towers["ranker"]
    reads = frozenset[str]().union(*(tower.reads for tower in towers.values()))
    read = [feature for feature in features if feature.name in reads]
    vocabulary = Vocabulary(catalogue, users if "user" in reads else [], read, history_length)
    endpoints: dict[str, tuple[Endpoint, Signatures]] = {}
    retriever_endpoint, ranker_endpoint = RetrieverEndpoint(retriever, vocabulary), RankerEndpoint(ranker, vocabulary)
    endpoints["retriever"] = (
        retriever_endpoint,
        {
            "serving_default": retriever_endpoint.signature(retriever_endpoint.serve),
            "items": retriever_endpoint.items,
        },
    )
    endpoints["ranker"] = (
        ranker_endpoint,
        {"serving_default": ranker_endpoint.signature(ranker_endpoint.serve, candidates=STRINGS)},
    )
    for name, cascade in cascades.items():
        endpoint = CascadeEndpoint(cascade, vocabulary, catalogue.counts, exclude_seen)
        serve = endpoint.signature(endpoint.serve, k=tf.TensorSpec([None], tf.int32), exclude=STRINGS)
        endpoints[name] = endpoint, {"serving_default": serve, "known": graph_of(endpoint.known, endpoint.texts())}
    popular = np.argsort(-catalogue.counts, kind="stable")
    items = pl.DataFrame({"id": catalogue.ids, "title": catalogue.titles})[popular]
    with exclusive(folder):
        version = next_version(folder)
        for name, (module, signatures) in endpoints.items():
            write_whole(folder / name / str(version), partial(_save, name, module, signatures, items))
        publish(folder, version, label, keep)
    return version


def _save(name: str, module: Endpoint, signatures: Signatures, items: pl.DataFrame, path: Path) -> None:
    logger, level = tf.get_logger(), tf.get_logger().level
    logger.setLevel("WARNING")  # in a notebook it tells of every file, by a name that is soon no more
    try:
        tf.saved_model.save(module, str(path), signatures=signatures)
    finally:
        logger.setLevel(level)
    foreign = foreign_operations(path)
    if foreign and name != "cascade_scann":
        raise RuntimeError(f"{name} holds operations that stock TensorFlow does not have: {sorted(foreign)}")
    write_warmup(path, name, items["id"].head(LENGTH).to_list())
    if isinstance(module, CascadeEndpoint):
        items.write_parquet(path / CATALOGUE)
