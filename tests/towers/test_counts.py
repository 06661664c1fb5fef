"""What rankers are told of pairs of items and of repeats, against plain loops over the histories that were counted."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_transitions import ITEMS as FEW
from tests.data.test_transitions import PASTS, histories_of, trainable, users_by_pair
from tfcorr.config import RunSettings
from tfcorr.data.transitions import count_transitions, read_transitions, write_transitions
from tfcorr.settings import InputError
from tfcorr.towers import Domain, ranker_of, retriever_of
from tfcorr.towers.counts import GAIN, PairCounts
from tfcorr.towers.din import DIN
from tfcorr.towers.sasrec import SASRec

ITEMS, USERS, LENGTH = 8, 12, 5
PAST = np.random.default_rng(0).integers(1, ITEMS + 1, size=(USERS, 11)).tolist()
HISTORY = np.array([[0, 0, 3, 7, 3], [1, 2, 4, 2, 2], [0, 0, 0, 0, 6], [0, 0, 0, 0, 0]], np.int32)
CANDIDATES = np.array([[3, 7, 1], [2, 1, 8], [0, 6, 2], [4, 5, 0]], np.int32)
USER = np.array([3, 0, 12, 1], np.int32)


def pair_counts(pasts, items, window):
    return PairCounts(count_transitions(histories_of(pasts), items, window))


def looked_up(pairs, first, second, without=None):
    """The oracle's counts of one row: [K, J] and [J]; `pairs` are the users of each."""
    users = [[len(pairs.get((h, k), set()) - {without}) for h in first] for k in second]
    return users, [sum(len(each - {without}) for (h, _), each in pairs.items() if h == one) for one in first]


@given(PASTS.filter(trainable), st.integers(1, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_a_lookup_leaves_the_examples_own_user_out_as_if_never_counted(pasts, window, data):
    ids, users = st.lists(st.integers(0, FEW), min_size=2, max_size=2), st.integers(0, len(pasts))
    rows = data.draw(
        st.lists(st.tuples(ids, st.lists(st.integers(0, FEW), min_size=3, max_size=3), users), min_size=1, max_size=3)
    )
    first, second, without = (tf.constant(list(column)) for column in zip(*rows, strict=True))
    counts, pairs = pair_counts(pasts, FEW, window), users_by_pair(pasts, window)
    everyone, others = counts.lookup(first, second), counts.lookup(first, second, without)
    for row, (one, other, user) in enumerate(rows):
        for found, left_out in ((everyone, None), (others, user)):
            expected = looked_up(pairs, one, other, left_out)
            np.testing.assert_array_equal(found[0][row], expected[0])
            np.testing.assert_array_equal(found[1][row], expected[1])
        if user > 0:  # the same, counted anew where the user's history holds nothing
            recounted = users_by_pair(
                [past if number != user else past[:1] for number, past in enumerate(pasts, start=1)], window
            )
            assert looked_up(recounted, one, other) == looked_up(pairs, one, other, user)


def test_an_unknown_user_leaves_nobody_out_and_item_0_has_no_pairs():
    counts = pair_counts(PAST, ITEMS, 3)
    first, second = tf.constant([[1, 2, 0]]), tf.constant([[0, 3, 4]])
    users, totals = counts.lookup(first, second)
    for one, other in zip(counts.lookup(first, second, tf.constant([0])), (users, totals), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (users.dtype, totals.dtype) == (tf.float32, tf.float32)
    assert users.numpy()[0, 1:, :2].sum() > 0
    assert not users.numpy()[0, 0].any()
    assert not users.numpy()[0, :, 2].any()
    assert totals.numpy()[0, 2] == 0


def test_what_is_read_from_a_file_counts_all_users(tmp_path):
    counted = count_transitions(histories_of(PAST), ITEMS, 2)
    write_transitions(counted.keys, counted.users, tmp_path / "pairs.parquet")
    read, counts = PairCounts(read_transitions(tmp_path / "pairs.parquet", ITEMS)), PairCounts(counted)
    everything = tf.range(ITEMS + 1)[None]
    for one, other in zip(read.lookup(everything, everything), counts.lookup(everything, everything), strict=True):
        np.testing.assert_array_equal(one, other)


def counting(seed=1, **counts):
    """A ranker with counts whose weights are drawn, so that each tells."""
    pairs = {window: pair_counts(PAST, ITEMS, window) for window in (1, 3)}
    tf.keras.utils.set_random_seed(seed)
    tower = ranker_of(
        DIN.Settings.parse({"name": "din", "dim": 4, "counts": counts}), Domain(ITEMS, USERS, LENGTH, (), pairs)
    )
    score(tower)
    rng = np.random.default_rng(seed)
    for variable in tower.trainable_variables:
        variable.assign_add(rng.normal(scale=0.3, size=variable.shape))
    return tower


def score(tower, history=HISTORY, candidates=CANDIDATES, user=USER, **options):
    context = {"history": tf.constant(history), "user": tf.constant(user)}
    return tower.score(context, tf.constant(candidates), **options).numpy()


def expected_counts(tower, training, history=HISTORY, candidates=CANDIDATES, user=USER):
    """What the counts add to the scores, pair by pair."""
    told, pairs = tower.settings, users_by_pair(PAST, tower.settings.window)
    weights, by_age, by_times = tower.of_pairs.numpy(), tower.of_age.numpy(), float(tower.of_times)
    found = np.zeros(candidates.shape)
    for row, column in np.ndindex(*candidates.shape):
        latest = [item for item in history[row][::-1] if item > 0]
        candidate, without = candidates[row, column], user[row] if training else None
        for weight, item in zip(weights, latest, strict=False):
            users, totals = looked_up(pairs, [item], [candidate], without)
            share = users[0][0] / max(totals[0], 1) ** told.power
            found[row, column] += GAIN * weight * math.log(1 + told.scale * share)
        if told.repeats and candidate in latest:
            found[row, column] += GAIN * (
                by_age[latest.index(candidate)] + by_times * math.log(1 + latest.count(candidate))
            )
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "counts", [{}, {"latest": 2, "window": 1, "scale": 3.0, "power": 1.0}, {"latest": 9, "repeats": False}]
)
def test_a_score_is_the_towers_own_and_what_is_counted(counts, training):
    tower = counting(**counts)
    expected = expected_counts(tower, training)
    context = {"history": tf.constant(HISTORY), "user": tf.constant(USER)}
    np.testing.assert_allclose(
        tower.counted(context, tf.constant(CANDIDATES), training), expected, rtol=1e-4, atol=1e-5
    )
    assert np.abs(expected).max() > 0.1
    assert np.abs(expected_counts(tower, training=not training) - expected).max() > 0.01  # the test tells these apart
    np.testing.assert_allclose(
        score(tower), score(tower.tower) + expected_counts(tower, training=False), rtol=1e-4, atol=1e-5
    )
    terms = tower.terms(context, tf.constant(CANDIDATES))
    assert list(terms) == ["score", "counts"]
    np.testing.assert_allclose(terms["counts"], expected_counts(tower, training=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms["score"], score(tower.tower), rtol=1e-6)


def test_where_a_tower_is_served_no_user_need_be_known():
    tower = counting()
    alone = tower.score({"history": tf.constant(HISTORY)}, tf.constant(CANDIDATES))
    np.testing.assert_array_equal(alone, score(tower))
    assert tower.reads == {"history"}


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_what_is_counted(training):
    tower = counting()
    right = np.array([[*row[row > 0], *row[row == 0]] for row in HISTORY], np.int32)
    wider = np.pad(HISTORY, [[0, 0], [3, 0]])
    expected = tower.counted(
        {"history": tf.constant(HISTORY), "user": tf.constant(USER)}, tf.constant(CANDIDATES), training
    )
    for history in (right, wider):
        found = tower.counted(
            {"history": tf.constant(history), "user": tf.constant(USER)}, tf.constant(CANDIDATES), training
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    nothing = tower.counted(
        {"history": tf.zeros([1, 4], tf.int32), "user": tf.constant([1])}, tf.constant([[0, 1, 2]]), training
    )
    np.testing.assert_array_equal(nothing, np.zeros([1, 3]))


def test_its_weights_learn_and_those_that_nothing_reads_are_not_trained():
    with_repeats, without = counting(), counting(repeats=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(
            with_repeats.counted(
                {"history": tf.constant(HISTORY), "user": tf.constant(USER)}, tf.constant(CANDIDATES), True
            )
            ** 2
        )
    weights = [with_repeats.of_pairs, with_repeats.of_age, with_repeats.of_times]
    for gradient in tape.gradient(loss, weights):
        assert np.abs(tf.convert_to_tensor(gradient)).sum() > 0
    names = {variable.ref() for variable in without.trainable_variables}
    assert without.of_pairs.ref() in names
    assert not {without.of_age.ref(), without.of_times.ref()} & names


def test_what_is_counted_is_in_no_checkpoint_and_read_where_it_is_served(tmp_path):
    tower = counting()
    held = {variable.ref() for variable in tower.variables}
    assert len(tower.constants) == 3
    assert not held & {constant.ref() for constant in tower.constants}
    path = tf.train.Checkpoint(tower=tower).write(str(tmp_path / "tower"))
    stored = tf.train.list_variables(path)
    assert not any(shape == list(tower.constants[0].shape) for _, shape in stored)
    other = counting(seed=2)
    assert not np.allclose(score(other), score(tower))
    tf.train.Checkpoint(tower=other).read(path).assert_consumed()
    np.testing.assert_allclose(score(other), score(tower), rtol=1e-6)


def test_counts_are_a_rankers_of_a_window_that_is_counted():
    domain = Domain(ITEMS, USERS, LENGTH, (), {1: pair_counts(PAST, ITEMS, 1)})
    with pytest.raises(
        InputError,
        match="counts of sasrec: a retriever's score is an inner product, which counts are not; give them to a",
    ):
        retriever_of(SASRec.Settings.parse({"name": "sasrec", "dim": 4, "counts": {"window": 1}}), domain)
    with pytest.raises(
        InputError, match="counts: pairs in a window of 3 are not counted; give them to the towers' Domain"
    ):
        ranker_of(DIN.Settings.parse({"name": "din", "dim": 4, "counts": {}}), domain)


def test_parameter_servers_hold_no_counts():
    settings = {"name": "walks", "data": {"path": "clicks.csv"}, "ranker": {"counts": {}}}
    assert RunSettings.parse(settings).windows == [3]
    with pytest.raises(InputError, match=r"parameter-server .*counts: null for every tower"):
        RunSettings.parse({**settings, "training": {"distribution": "parameter-server", "start": "random"}})
