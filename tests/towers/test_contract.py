"""What any tower must do, registered ones all: a new tower is held to it by its entry in a registry."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.cooperation.two_stage import RankerAlone, RetrieverAlone
from tfcorr.data.features import Feature
from tfcorr.data.histories import Histories
from tfcorr.data.transitions import count_transitions
from tfcorr.towers import RANKERS, RETRIEVERS, Domain, ranker_of, retriever_of
from tfcorr.towers.counts import PairCounts

ITEMS, USERS, LENGTH = 30, 4, 6
SMALL = {"dim": 8, "dropout": 0.3}
TOWERS = {**RETRIEVERS, **RANKERS}
VARIANTS = {
    **{name: {"name": name, **SMALL} for name in TOWERS},
    "din, recency, dice": {
        "name": "din",
        **SMALL,
        "recency": True,
        "products": True,
        "inner": True,
        "item_dropout": 0.3,
        "activation": "dice",
    },
    "din, plain": {
        "name": "din",
        **SMALL,
        "recency": False,
        "products": False,
        "inner": False,
        "item_dropout": 0.0,
        "activation": "sigmoid",
    },
    "sasrec, 2 layers": {"name": "sasrec", **SMALL, "layers": 2},
    "bst, 2 layers": {"name": "bst", **SMALL, "layers": 2, "inner": True},
    "sasrec, residual, latest": {"name": "sasrec", **SMALL, "layers": 2, "residual": 0.4, "positions": "latest"},
    "bsarec, 3 layers": {"name": "bsarec", **SMALL, "layers": 3, "heads": 2},
    **{f"{name}, features": {"name": name, **SMALL} for name in ("sasrec", "transrec", "din", "deepfm")},
    **{f"{name}, counts": {"name": name, **SMALL, "counts": {"latest": 2, "window": 2}} for name in ("bst", "din")},
    "din, features, counts": {"name": "din", **SMALL, "counts": {}},
}
every_tower = pytest.mark.parametrize("variant", VARIANTS)
every_retriever = pytest.mark.parametrize("name", RETRIEVERS)

HISTORY = np.array([[0, 0, 3, 9, 9, 4], [0, 0, 0, 0, 0, 7], [5, 1, 2, 30, 8, 6], [0, 0, 0, 0, 0, 0]], np.int32)
USER = np.array([1, 2, 0, 3], np.int32)
CANDIDATES = np.array([[1, 2, 30], [7, 7, 1], [0, 4, 5], [3, 2, 1]], np.int32)


def features(items):
    rng = np.random.default_rng(1)
    genre, price = rng.integers(0, 4, (items + 1, 2)).astype(np.int32), rng.normal(size=items + 1).astype(np.float32)
    genre[0], price[0] = 0, 0
    return (
        Feature("genre", "item", genre, ["comedy", "drama", "war"]),
        Feature("price", "item", price),
        Feature("device", "interaction", np.zeros((1, 2), np.int32), ["phone", "tablet"]),
        Feature("age", "user", np.zeros(1, np.float32)),
    )


@functools.cache
def pairs(items):
    """What is known of pairs of items, of which about each fifth was seen."""
    drawn = np.random.default_rng(2).integers(1, items + 1, USERS * 40).astype(np.int32)
    histories = Histories([f"u{user}" for user in range(USERS)], drawn, 40 * np.arange(USERS + 1))
    return {window: PairCounts(count_transitions(histories, items, window)) for window in (2, 3)}


def adam(tower):
    """An optimiser whose moments are made before a step's graph, or that would have to be made twice."""
    optimiser = LazyAdam(0.01)
    optimiser.build(tower.trainable_variables)
    return optimiser


def build(name, settings=SMALL, items=ITEMS, length=LENGTH, features=()):
    made = retriever_of if name in RETRIEVERS else ranker_of
    known = pairs(items) if "counts" in settings else {}
    tower = made(TOWERS[name].Settings.parse({"name": name, **settings}), Domain(items, USERS, length, features, known))
    tower.score(context_of(np.zeros([1, length], np.int32), np.zeros(1, np.int32)), tf.ones([1, 1], tf.int32))
    rng = np.random.default_rng(0)  # initial tables are too small to tell contexts apart
    for variable in tower.trainable_variables:
        variable.assign_add(rng.normal(scale=0.3, size=variable.shape))
    return tower


def fresh(variant):
    return build(
        VARIANTS[variant]["name"], VARIANTS[variant], features=features(ITEMS) if "features" in variant else ()
    )


@functools.cache
def built(variant):
    """The variant's tower for tests that do not change it."""
    return fresh(variant)


def context_of(history, user):
    device, age = (
        np.stack([user % 3, np.maximum(user - 1, 0) % 3], axis=1).astype(np.int32),
        user.astype(np.float32) / 2,
    )
    return {
        "history": tf.constant(history),
        "user": tf.constant(user),
        "device": tf.constant(device),
        "age": tf.constant(age),
    }


def score(tower, history=HISTORY, candidates=CANDIDATES, user=USER, **options):
    return tower.score(context_of(history, user), tf.constant(candidates), **options)


@every_tower
def test_scores_are_finite_float32_of_the_candidates_shape(variant):
    scores = score(built(variant))
    assert scores.dtype == tf.float32
    assert scores.shape == CANDIDATES.shape
    assert np.isfinite(scores).all()


@every_tower
def test_padding_never_changes_a_score_on_whichever_side_it_lies(variant):
    tower = built(variant)
    right = np.array([[*row[row > 0], *row[row == 0]] for row in HISTORY], np.int32)
    np.testing.assert_allclose(score(tower, right), score(tower), rtol=1e-4, atol=1e-5)
    row = score(tower, HISTORY[1:2, -1:], CANDIDATES[1:2], USER[1:2])  # the same history without any padding
    np.testing.assert_allclose(row[0], score(tower)[1], rtol=1e-4, atol=1e-5)


@every_tower
def test_a_score_depends_on_the_candidate_alone_not_on_its_neighbours(variant):
    tower = built(variant)
    together = score(tower)
    for column in range(CANDIDATES.shape[1]):
        alone = score(tower, candidates=CANDIDATES[:, column : column + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, column], rtol=1e-4, atol=1e-5)
    shuffled = score(tower, HISTORY[::-1], CANDIDATES[::-1], USER[::-1])
    np.testing.assert_allclose(shuffled[::-1], together, rtol=1e-4, atol=1e-5)


@every_tower
def test_scores_depend_on_the_context(variant):
    tower = built(variant)
    scores = score(tower, candidates=np.tile(CANDIDATES[:1], (4, 1))).numpy()
    for first in range(4):
        for second in range(first):
            assert not np.allclose(scores[first], scores[second], rtol=1e-3)


@every_tower
def test_compiled_equals_eager(variant):
    tower = built(variant)
    in_graph = tf.autograph.experimental.do_not_convert(
        tf.function(tower.score, autograph=False)
    )  # as all of tfcorr's graphs are built
    compiled = in_graph(context_of(HISTORY, USER), tf.constant(CANDIDATES))
    np.testing.assert_allclose(compiled, score(tower), rtol=1e-4, atol=1e-5)


@every_tower
def test_mixed_precision_keeps_variables_and_scores_float32_and_near_those_of_full_precision(variant):
    full = built(variant)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = fresh(variant)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for one, other in zip(mixed.trainable_variables, full.trainable_variables, strict=True):
        assert one.dtype == tf.float32
        one.assign(other)
    with tf.GradientTape() as tape:
        scores = score(mixed)
        loss = tf.reduce_sum(scores**2)
    assert scores.dtype == tf.float32
    assert not np.array_equal(scores, score(full))
    np.testing.assert_allclose(scores, score(full), rtol=0.1, atol=0.05)
    assert all(gradient is not None for gradient in tape.gradient(loss, mixed.trainable_variables))


@every_tower
def test_dropout_acts_in_training_alone(variant):
    tower = built(variant)
    np.testing.assert_array_equal(score(tower), score(tower))
    assert not np.allclose(score(tower, training=True), score(tower, training=True))


@every_tower
def test_every_variable_learns_and_tables_learn_sparsely(variant):
    """From a loss that depends on the scores each way, every variable has a gradient; a table's is IndexedSlices."""
    tower = built(variant)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(score(tower, candidates=np.maximum(CANDIDATES, 1)) ** 2)
    for variable, gradient in zip(
        tower.trainable_variables, tape.gradient(loss, tower.trainable_variables), strict=True
    ):
        assert gradient is not None, variable.name
        assert np.abs(tf.convert_to_tensor(gradient)).sum() > 0, variable.name
        if variable.shape[:1] == [ITEMS + 1]:
            assert isinstance(gradient, tf.IndexedSlices), variable.name


@every_tower
def test_a_random_state_in_a_checkpoint_gives_the_same_dropout_again(variant, tmp_path):
    tower = fresh(variant)
    path = tf.train.Checkpoint(tower=tower).write(str(tmp_path / "tower"))
    drawn = score(tower, training=True)
    other = fresh(variant)
    tf.train.Checkpoint(tower=other).read(path).assert_consumed()
    np.testing.assert_array_equal(score(other, training=True), drawn)


def test_weights_saved_here_score_the_same_in_a_fresh_process(tmp_path):
    for number, variant in enumerate(VARIANTS):
        tf.train.Checkpoint(tower=built(variant)).write(str(tmp_path / f"{number}"))
    np.savez(tmp_path / "scores.npz", **{variant: score(built(variant)) for variant in VARIANTS})
    program = f"""
from tests.towers import test_contract as contract
import numpy as np, tensorflow as tf
expected = np.load({str(tmp_path / "scores.npz")!r})
for number, variant in enumerate(contract.VARIANTS):
    tower = contract.fresh(variant)
    for variable in tower.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(tower=tower).read({str(tmp_path)!r} + f"/{{number}}").assert_consumed()
    np.testing.assert_allclose(contract.score(tower), expected[variant], rtol=1e-5, atol=1e-6, err_msg=variant)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


SEES = {"mf": "user", "transrec": "twin", "fpmc": "latest"}  # other towers see all that lies in the history
RULES = {"din": {"recency": True, "activation": "relu", "item_dropout": 0.0}}
EPOCHS = 12  # at most: most towers know the rule after 1 or 2


def learn(name, history, user, target):
    """Which targets a tower, trained alone with uniform negatives until these are all, ranks first: [B] bool."""
    items = int(max(history.max(), target.max()))
    tower = build(name, {"dim": 32, "dropout": 0.0, **RULES.get(name, {})}, items, history.shape[1])
    retriever = tower if name in RETRIEVERS else built("mf")
    sampler = Sampler(SamplerSettings(pool=10, samples=10), np.ones(items, np.int64), retriever, seed=0)
    model = (
        RetrieverAlone(tower, sampler, "softmax")
        if name in RETRIEVERS
        else RankerAlone(tower, sampler, "softmax", retriever)
    )
    model.compile(optimizer=adam(tower))
    rows = np.tile(np.arange(len(target)), -(-4000 // len(target)))
    context = {"history": history[rows].astype(np.int32), "user": user[rows].astype(np.int32)}
    data = tf.data.Dataset.from_tensor_slices((context, target[rows].astype(np.int32)))
    everything = np.tile(np.arange(1, items + 1, dtype=np.int32), (len(target), 1))
    for _ in range(EPOCHS):
        model.fit(data.shuffle(len(rows)).batch(100), verbose=0)
        first = (
            np.argmax(score(tower, history.astype(np.int32), everything, user.astype(np.int32)), axis=1) + 1 == target
        )
        if first.all():
            break
    return first


@pytest.mark.parametrize("name", TOWERS)
def test_learns_a_cyclic_catalogue_to_near_certainty_and_a_rule_that_needs_two_steps_back(name):
    """After each of 30 items comes the next. Of 24 more a pair has its target: one of the first 4, then one of the next
    4.

    A tower that sees the latest item alone learns the first rule and not the second. Two learn neither, but what is
    next to them: one sees the user alone, and learns that each has an item of its own; to the other the next item is a
    translation away, and no translation comes back in a circle, so there each item of the first half is followed by its
    twin in the second.
    """
    starts = np.arange(ITEMS)
    circle, after = (starts[:, None] + np.arange(3)) % ITEMS + 1, (starts + 3) % ITEMS + 1
    pairs = np.array([(0, ITEMS + first, ITEMS + second) for first in range(1, 5) for second in range(5, 9)])
    targets = ITEMS + 9 + np.arange(len(pairs))
    match SEES.get(name):
        case "user":
            assert learn(name, circle[:USERS], np.arange(1, USERS + 1), after[:USERS]).all()
        case "twin":
            assert learn(name, starts[:15, None] + 1, np.zeros(15), starts[:15] + 16).mean() > 0.95
        case seen:
            rules = np.concatenate([circle, pairs]), np.zeros(ITEMS + len(pairs)), np.concatenate([after, targets])
            by_latest, by_both = np.split(learn(name, *rules), [ITEMS])
            assert by_latest.mean() > 0.95
            assert by_both.mean() <= 0.25 if seen == "latest" else by_both.mean() > 0.95


@every_tower
def test_a_scores_terms_are_those_that_are_named_and_sum_to_it(variant):
    tower = built(variant)
    terms = tower.terms(context_of(HISTORY, USER), tf.constant(CANDIDATES))
    assert tuple(terms) == tower.term_names
    assert len(terms) == 1 + ("counts" in variant)
    np.testing.assert_allclose(sum(each.numpy() for each in terms.values()), score(tower), rtol=1e-5, atol=1e-6)


@every_retriever
def test_a_retrievers_score_is_the_inner_product_of_its_vectors(name):
    tower = build(name)
    query = tower.encode_context(context_of(HISTORY, USER)).numpy()
    vectors = tower.item_vectors(tf.constant(CANDIDATES)).numpy()
    np.testing.assert_allclose(np.einsum("bd,bkd->bk", query, vectors), score(tower), rtol=1e-4, atol=1e-5)
    assert tower.item_vectors(tf.constant(3)).shape == query.shape[1:]
    assert tower.item_vectors(tf.range(5)).shape == (5, query.shape[1])


CAUSAL = [name for name in RETRIEVERS if RETRIEVERS[name].causal]


@pytest.mark.parametrize("variant", [*CAUSAL, "sasrec, 2 layers"])
def test_a_causal_retrievers_places_are_its_contexts_and_a_later_item_changes_none_before_it(variant):
    tower = built(variant)
    places = tower.encode_places(tf.constant(HISTORY)).numpy()
    for end in range(1, LENGTH + 1):
        known = HISTORY[:, end - 1] > 0
        context = tower.encode_context(context_of(HISTORY[:, :end], USER)).numpy()
        np.testing.assert_allclose(places[known, end - 1], context[known], rtol=1e-4, atol=1e-5)
    flat = np.flatnonzero(HISTORY)
    examples = tower.encode_examples({"window": tf.constant(HISTORY), "place": tf.constant(flat)}).numpy()
    np.testing.assert_allclose(examples, places.reshape(-1, places.shape[-1])[flat], rtol=1e-6)
