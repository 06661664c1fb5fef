import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfcorr.cooperation.losses import (
    NEVER,
    binary_cross_entropy,
    estimated_log_loss,
    full_log_softmax,
    hardness,
    sampled_kl,
    sampled_log_softmax,
)

FLOATS = st.floats(-20, 20, width=32)
ROWS = st.integers(1, 6).flatmap(lambda size: st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=size, max_size=size))


@given(ROWS, FLOATS, FLOATS)
@settings(max_examples=50, deadline=None)
def test_sampled_log_softmax_is_equation_1(rows, score, log_q):
    scores, _, sample_log_q = np.array(rows, np.float64).T
    loss = sampled_log_softmax(
        tf.constant([score]),
        tf.constant([scores], tf.float32),
        tf.constant([log_q]),
        tf.constant([sample_log_q], tf.float32),
    )
    assert loss.numpy()[0] == pytest.approx(
        oracles.sampled_log_softmax(score, scores, log_q, sample_log_q), rel=1e-4, abs=1e-4
    )


@given(
    st.lists(FLOATS, min_size=1, max_size=8).flatmap(
        lambda scores: st.tuples(st.just(scores), st.integers(1, len(scores)))
    )
)
@settings(max_examples=50, deadline=None)
def test_full_log_softmax_is_that_of_the_items_1_to_n(drawn):
    scores, target = drawn
    loss = full_log_softmax(tf.constant([scores[target - 1]], tf.float32), tf.constant([scores], tf.float32))
    assert loss.numpy()[0] == pytest.approx(oracles.full_log_softmax(np.array(scores), target - 1), rel=1e-4, abs=1e-4)
    assert full_log_softmax(tf.zeros([1], tf.float16), tf.constant([scores], tf.float16)).dtype == tf.float32


def test_the_full_log_softmaxs_gradient_is_the_softmax_less_the_target():
    scores = tf.Variable(np.random.default_rng(3).normal(size=(2, 5)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(full_log_softmax(tf.gather(scores, [4, 1], batch_dims=1), scores))
    expected = [
        oracles.softmax(row) - np.eye(5)[k] for row, k in zip(scores.numpy().astype(float), (4, 1), strict=True)
    ]
    np.testing.assert_allclose(tape.gradient(loss, scores), expected, atol=1e-6)


@given(ROWS, FLOATS)
@settings(max_examples=50, deadline=None)
def test_binary_cross_entropy_is_its_definition_whatever_log_q_is(rows, score):
    scores, log_q, _ = np.array(rows, np.float64).T
    given_log_q = tf.constant([log_q[0]], tf.float32), tf.constant([log_q], tf.float32)
    loss = binary_cross_entropy(tf.constant([score]), tf.constant([scores], tf.float32), *given_log_q)
    assert loss.numpy()[0] == pytest.approx(oracles.binary_cross_entropy(score, scores), rel=1e-3, abs=1e-4)


def test_by_binary_cross_entropy_a_hit_that_is_removed_is_no_negative():
    log_q = tf.constant([[0.0, NEVER, -1.0], [NEVER, NEVER, NEVER]])
    scores = tf.constant([[1.0, 5.0, -2.0], [5.0, 5.0, 5.0]])
    loss = binary_cross_entropy(tf.constant([0.5, 0.5]), scores, tf.zeros([2]), log_q)
    alone = oracles.binary_cross_entropy(0.5, [-700.0])
    np.testing.assert_allclose(loss, [oracles.binary_cross_entropy(0.5, [1.0, -2.0]), alone], rtol=1e-5)


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_sampled_kl_is_its_definition(rows):
    teacher, student, log_q = np.array(rows, np.float64).T
    value = sampled_kl(*(tf.constant([each], tf.float32) for each in (teacher, student, log_q)))
    assert value.numpy()[0] == pytest.approx(oracles.sampled_kl(teacher, student, log_q), rel=1e-3, abs=1e-3)


def test_losses_stay_finite_at_extreme_scores_and_in_half_precision():
    scores, log_q = tf.constant([[6e4, -6e4, 0.0]], tf.float16), tf.constant([[-60.0, -1e-8, -30.0]])
    loss = sampled_log_softmax(scores[:, 0], scores, log_q[:, 0], log_q)
    assert loss.dtype == tf.float32
    assert np.isfinite(loss).all()
    assert np.isfinite(sampled_kl(scores, -scores, log_q)).all()


def test_uniform_negatives_give_plain_sampled_softmax():
    """Negatives straight from a uniform Y have a constant log_q, which cancels: both losses are the plain ones."""
    rng = np.random.default_rng(0)
    scores, other = rng.normal(size=(2, 4, 6)).astype(np.float32)
    log_y = np.full((4, 6), -np.log(1000), np.float32)
    loss = sampled_log_softmax(scores[:, 0], scores[:, 1:], log_y[:, 0], log_y[:, 1:])
    plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.zeros(4, tf.int32), logits=scores)
    np.testing.assert_allclose(loss, plain, rtol=1e-5)
    expected = [
        oracles.kl(oracles.softmax(r.astype(float)), oracles.softmax(m.astype(float)))
        for r, m in zip(other, scores, strict=True)
    ]
    np.testing.assert_allclose(sampled_kl(other, scores, log_y), expected, rtol=1e-4)


def test_corollary_3_3_kl_of_samples_from_q_is_log_l_less_an_entropy():
    """S drawn from Q with T = 1: M − log_q is constant, so the KL estimate is log L − H(softmax(R − M))."""
    rng = np.random.default_rng(1)
    retriever, ranker = rng.normal(size=(2, 5, 20)).astype(np.float32)
    log_q = retriever - 3.7  # any normalising constant
    p = np.array([oracles.softmax(row) for row in (ranker - retriever).astype(float)])
    entropy = -np.sum(p * np.log(p), axis=1)
    np.testing.assert_allclose(sampled_kl(ranker, retriever, log_q), np.log(20) - entropy, rtol=1e-4)


def test_the_estimated_log_loss_tends_to_the_full_one():
    """With samples from any known Q; the mean of 20,000 draws of a bounded weight errs by less than 0.05 here."""
    rng = np.random.default_rng(4)
    scores, q = rng.normal(size=30), oracles.softmax(rng.normal(size=30))
    drawn = rng.choice(30, size=20_000, p=q)
    log_count = tf.constant(np.log(q * 20_000)[None, drawn], tf.float32)
    estimate = estimated_log_loss(
        tf.constant([scores[3]]), tf.constant(scores[None, drawn]), log_count, tf.constant(drawn[None] == 3)
    )
    assert estimate.numpy()[0] == pytest.approx(oracles.full_log_softmax(scores, 3), abs=0.05)
    nothing = estimated_log_loss(tf.constant([1.0]), tf.zeros([1, 4]), tf.zeros([1, 4]), tf.ones([1, 4], tf.bool))
    assert nothing.numpy()[0] == 0  # samples that are all the target count no other item


def test_no_gradient_flows_into_the_teacher_or_through_log_q():
    ranker, retriever, log_q = (tf.Variable(tf.random.normal([3, 5])) for _ in range(3))
    with tf.GradientTape(persistent=True) as tape:
        distillation = sampled_kl(ranker, retriever, log_q)
        loss = sampled_log_softmax(retriever[:, 0], retriever, log_q[:, 0], log_q)
    assert tape.gradient(distillation, ranker) is None
    assert tape.gradient(distillation, log_q) is None
    assert tape.gradient(loss, log_q) is None
    assert tf.reduce_any(tape.gradient(distillation, retriever) != 0)


@pytest.mark.parametrize("popular", [False, True])
def test_theorem_3_2_sampled_losses_tend_to_the_full_ones(popular):
    """With S from Y, the sampled KL, the sampled log-softmax and its gradient tend to those over all items as L grows.

    The log-softmax's sum over S grows with L, so it is the loss less log L and the target's log Y that tends to the
    full one. Errors are means over 300 estimates and shrink tenfold or more from L = 20 to 2,000; asking for a third
    leaves the chance of a false alarm far below 1e-6.
    """
    rng = np.random.default_rng(2)
    items, target = 50, 0
    retriever, ranker = rng.normal(size=(2, items))
    proposal = oracles.softmax(rng.normal(size=items)) if popular else np.full(items, 1 / items)
    p, q = oracles.softmax(ranker), oracles.softmax(retriever)
    errors: dict[str, list[float]] = {"kl": [], "loss": [], "gradient": []}
    for size in (20, 2000):
        drawn = rng.choice(items, size=(300, size), p=proposal)
        log_y = np.log(proposal).astype(np.float32)
        scores = tf.Variable(retriever.astype(np.float32))
        with tf.GradientTape() as tape:
            samples = tf.gather(scores, drawn)
            loss = sampled_log_softmax(
                tf.repeat(scores[target], 300), samples, tf.repeat(log_y[target], 300), log_y[drawn]
            )
            mean = tf.reduce_mean(loss)
        gradient = tf.convert_to_tensor(tape.gradient(mean, scores)).numpy()
        errors["kl"].append(
            np.abs(sampled_kl(ranker.astype(np.float32)[drawn], samples, log_y[drawn]) - oracles.kl(p, q)).mean()
        )
        errors["loss"].append(np.abs(loss - np.log(size) - log_y[target] + np.log(q[target])).mean())
        errors["gradient"].append(np.abs(gradient - (q - np.eye(items)[target])).sum())
    for name, (few, many) in errors.items():
        assert many < few / 3, name
    assert max(many for _, many in errors.values()) < 0.1


def test_hardness_counts_ties_against_the_target_and_leaves_the_target_itself_out():
    scores, is_target = (
        tf.constant([[3.0, 1.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]]),
        tf.constant([[False] * 3 + [True], [True] * 4]),
    )
    assert hardness(tf.constant([2.0, 5.0]), scores, is_target).numpy() == pytest.approx([2 / 3, 0])
