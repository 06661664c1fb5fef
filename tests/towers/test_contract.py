"""What any tower must do, registered ones all: a new tower is held to it by its entry in a registry."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampling import Proposal
from tfcorr.cooperation.two_stage import TwoStage
from tfcorr.towers import RANKERS, RETRIEVERS

ITEMS, LENGTH = 30, 6
SMALL = {"dim": 8, "dropout": 0.3}
TOWERS = {**RETRIEVERS, **RANKERS}
VARIANTS = [(name, SMALL) for name in TOWERS] + [
    ("din", {**SMALL, "recency": True, "activation": "relu"}),
    ("sasrec", {**SMALL, "layers": 2}),
]
every_tower = pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda value: value if isinstance(value, str) else len(value))
every_retriever = pytest.mark.parametrize("name", RETRIEVERS)

HISTORY = np.array([[0, 0, 3, 9, 9, 4], [0, 0, 0, 0, 0, 7], [5, 1, 2, 30, 8, 6], [0, 0, 0, 0, 0, 0]], np.int32)
CANDIDATES = np.array([[1, 2, 30], [7, 7, 1], [0, 4, 5], [3, 2, 1]], np.int32)


def build(name, settings=SMALL, items=ITEMS, length=LENGTH):
    cls = TOWERS[name]
    tower = cls(cls.Settings.parse({"name": name, **settings}), items, length)
    tower.score({"history": tf.zeros([1, length], tf.int32)}, tf.ones([1, 1], tf.int32))
    rng = np.random.default_rng(0)  # initial tables are too small to tell contexts apart
    for variable in tower.trainable_variables:
        variable.assign_add(rng.normal(scale=0.3, size=variable.shape))
    return tower


def score(tower, history=HISTORY, candidates=CANDIDATES, **options):
    return tower.score({"history": tf.constant(history)}, tf.constant(candidates), **options)


@every_tower
def test_scores_are_finite_float32_of_the_candidates_shape(name, settings):
    scores = score(build(name, settings))
    assert scores.dtype == tf.float32
    assert scores.shape == CANDIDATES.shape
    assert np.isfinite(scores).all()


@every_tower
def test_padding_never_changes_a_score_on_whichever_side_it_lies(name, settings):
    tower = build(name, settings)
    right = np.array([[*row[row > 0], *row[row == 0]] for row in HISTORY], np.int32)
    np.testing.assert_allclose(score(tower, right), score(tower), rtol=1e-4, atol=1e-5)
    row = score(tower, HISTORY[1:2, -1:], CANDIDATES[1:2])  # the same history without any padding
    np.testing.assert_allclose(row[0], score(tower)[1], rtol=1e-4, atol=1e-5)


@every_tower
def test_a_score_depends_on_the_candidate_alone_not_on_its_neighbours(name, settings):
    tower = build(name, settings)
    together = score(tower)
    for column in range(CANDIDATES.shape[1]):
        alone = score(tower, candidates=CANDIDATES[:, column : column + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, column], rtol=1e-4, atol=1e-5)
    shuffled = score(tower, HISTORY[::-1], CANDIDATES[::-1])
    np.testing.assert_allclose(shuffled[::-1], together, rtol=1e-4, atol=1e-5)


@every_tower
def test_scores_depend_on_the_history(name, settings):
    tower = build(name, settings)
    scores = score(tower, candidates=np.tile(CANDIDATES[:1], (4, 1))).numpy()
    for first in range(4):
        for second in range(first):
            assert not np.allclose(scores[first], scores[second], rtol=1e-3)


@every_tower
def test_compiled_equals_eager(name, settings):
    tower = build(name, settings)
    compiled = tf.function(lambda history, candidates: tower.score({"history": history}, candidates))
    np.testing.assert_allclose(compiled(tf.constant(HISTORY), tf.constant(CANDIDATES)), score(tower), rtol=1e-4, atol=1e-5)


@every_tower
def test_mixed_precision_keeps_variables_and_scores_float32_and_near_those_of_full_precision(name, settings):
    full = build(name, settings)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = build(name, settings)
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
def test_dropout_acts_in_training_alone(name, settings):
    tower = build(name, settings)
    np.testing.assert_array_equal(score(tower), score(tower))
    assert not np.allclose(score(tower, training=True), score(tower, training=True))


@every_tower
def test_every_variable_learns_and_tables_learn_sparsely(name, settings):
    """From a loss that depends on the scores each way, every variable has a gradient; a table's is IndexedSlices."""
    tower = build(name, settings)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(score(tower) ** 2)
    for variable, gradient in zip(tower.trainable_variables, tape.gradient(loss, tower.trainable_variables), strict=True):
        assert gradient is not None, variable.name
        assert np.abs(tf.convert_to_tensor(gradient)).sum() > 0, variable.name
        if variable.shape[0] == ITEMS + 1:
            assert isinstance(gradient, tf.IndexedSlices), variable.name


@every_tower
def test_a_random_state_in_a_checkpoint_gives_the_same_dropout_again(name, settings, tmp_path):
    tower = build(name, settings)
    path = tf.train.Checkpoint(tower=tower).write(str(tmp_path / "tower"))
    drawn = score(tower, training=True)
    other = build(name, settings)
    tf.train.Checkpoint(tower=other).read(path).assert_consumed()
    np.testing.assert_array_equal(score(other, training=True), drawn)


@every_tower
def test_weights_saved_here_score_the_same_in_a_fresh_process(name, settings, tmp_path):
    tower = build(name, settings)
    tf.train.Checkpoint(tower=tower).write(str(tmp_path / "tower"))
    np.save(tmp_path / "scores.npy", score(tower))
    program = f"""
from tests.towers import test_contract as contract
import numpy as np, tensorflow as tf
tower = contract.build({name!r}, {settings!r})
for variable in tower.trainable_variables:
    variable.assign(tf.zeros_like(variable))
tf.train.Checkpoint(tower=tower).read({str(tmp_path / "tower")!r}).assert_consumed()
np.testing.assert_allclose(contract.score(tower), np.load({str(tmp_path / "scores.npy")!r}), rtol=1e-5, atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", TOWERS)
def test_learns_a_cyclic_catalogue_to_near_certainty(name):
    """After item i comes item i + 1. A tower alone, with uniform negatives, ranks the next item first nearly always."""
    tower = build(name, {"dim": 16, "dropout": 0.0, **({"recency": True, "activation": "relu"} if name == "din" else {})}, length=3)
    model = TwoStage(tower, Proposal(np.ones(ITEMS)), "example", negatives=10, seed=0)
    model.compile(optimizer=LazyAdam(0.01))
    starts = np.arange(4000) % ITEMS
    history = (starts[:, None] + np.arange(3)) % ITEMS + 1
    data = tf.data.Dataset.from_tensor_slices(({"history": history.astype(np.int32)}, ((starts + 3) % ITEMS + 1).astype(np.int32)))
    model.fit(data.shuffle(4000, seed=1).batch(100), epochs=8, verbose=0)
    everything = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (ITEMS, 1))
    best = np.argmax(score(tower, history[:ITEMS].astype(np.int32), everything), axis=1) + 1
    assert np.mean(best == (starts[:ITEMS] + 3) % ITEMS + 1) > 0.95


@every_retriever
def test_a_retrievers_score_is_the_inner_product_of_its_vectors(name):
    tower = build(name)
    query = tower.encode_context({"history": tf.constant(HISTORY)}).numpy()
    vectors = tower.item_vectors(tf.constant(CANDIDATES)).numpy()
    np.testing.assert_allclose(np.einsum("bd,bkd->bk", query, vectors), score(tower), rtol=1e-4, atol=1e-5)
    assert tower.item_vectors(tf.constant(3)).shape == query.shape[1:]
    assert tower.item_vectors(tf.range(5)).shape == (5, query.shape[1])


@pytest.mark.parametrize(("name", "settings"), [each for each in VARIANTS if each[0] in RETRIEVERS and RETRIEVERS[each[0]].causal])
def test_a_causal_retrievers_places_are_its_contexts_and_a_later_item_changes_none_before_it(name, settings):
    tower = build(name, settings)
    places = tower.encode_places(tf.constant(HISTORY)).numpy()
    for end in range(1, LENGTH + 1):
        known = HISTORY[:, end - 1] > 0
        context = tower.encode_context({"history": tf.constant(HISTORY[:, :end])}).numpy()
        np.testing.assert_allclose(places[known, end - 1], context[known], rtol=1e-4, atol=1e-5)
    flat = np.flatnonzero(HISTORY)
    examples = tower.encode_examples({"window": tf.constant(HISTORY), "place": tf.constant(flat)}).numpy()
    np.testing.assert_allclose(examples, places.reshape(-1, places.shape[-1])[flat], rtol=1e-6)
