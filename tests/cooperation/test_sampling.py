import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from tests import oracles
from tfcorr.cooperation.losses import estimated_log_loss, sampled_log_softmax
from tfcorr.cooperation.proposals import Uniform, Weighted, alias_table, proposal_of
from tfcorr.cooperation.sampling import Pool, SamplerSettings, resample

ITEMS = 6
FALSE_ALARM = 1e-4  # of each chi-square test here; its seed is fixed
CORRECTIONS = ["hits-removed", "item", "paper"]
every_correction = pytest.mark.parametrize("correction", CORRECTIONS)


def generator(seed=3):
    return tf.random.Generator.from_seed(seed)


def scores_and_proposal(popular):
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.5, 3, size=ITEMS) if popular else np.ones(ITEMS)
    return rng.normal(size=ITEMS) * 1.5, weights / weights.sum()


def draw_two_steps(
    pool_size, target, scores, proposal, temperature, rows, scope="example", samples=1, correction="paper"
):
    """What the sampler draws for `rows` equal contexts, items counted from 0."""
    rng, y = generator(), Weighted(proposal)
    of_item = tf.constant([0.0, *scores], tf.float32)
    ids = y.draw([rows, pool_size] if scope == "example" else [pool_size], rng)
    ids = tf.broadcast_to(ids, [rows, pool_size])
    targets, log_size = tf.fill([rows], target + 1), float(np.log(pool_size))
    all_scores = tf.gather(of_item, tf.concat([targets[:, None], ids], axis=1))
    pool = Pool(ids, y.log_prob(ids) + log_size, y.log_prob(targets) + log_size)
    return resample(pool, targets, all_scores, samples, temperature, correction, rng)


def limit_of(scores, target, correction):
    """To what the draws tend: the softmax, over all or, where hits are removed, over all but the target."""
    scores = scores.copy()
    if correction == "hits-removed":
        scores[target] = -np.inf
    return oracles.softmax(scores)


@every_correction
@pytest.mark.parametrize("popular", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_two_step_sampler_draws_from_its_exact_distribution(popular, temperature, correction):
    scores, proposal = scores_and_proposal(popular)
    drawn = draw_two_steps(3, 2, scores, proposal, temperature, rows=40_000, correction=correction)
    counts = np.bincount(drawn.drawn.samples.numpy().ravel() - 1, minlength=ITEMS)
    expected = oracles.two_step_distribution(3, 2, scores, proposal, temperature, correction)
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > FALSE_ALARM
    wrong = [oracles.two_step_distribution(3, 2, scores, proposal, temperature * 1.3, correction)]
    wrong += [
        oracles.two_step_distribution(3, 2, scores, proposal, temperature, other)
        for other in CORRECTIONS
        if other != correction
    ]
    for each in wrong:  # the test tells these apart
        assert stats.chisquare(counts, each * counts.sum()).pvalue < FALSE_ALARM


@every_correction
@pytest.mark.parametrize("popular", [False, True])
def test_theorem_3_1_two_step_sampler_tends_to_the_retrievers_softmax(popular, correction):
    """The total variation to softmax(M) falls as n grows, exactly as enumerated for small n and as drawn for a large
    one."""
    scores, proposal = scores_and_proposal(popular)
    limit = limit_of(scores, 2, correction)
    distances = [
        np.abs(oracles.two_step_distribution(n, 2, scores, proposal, 1.0, correction) - limit).sum() / 2
        for n in (1, 2, 4, 8)
    ]
    assert distances == sorted(distances, reverse=True)
    drawn = draw_two_steps(1000, 2, scores, proposal, 1.0, rows=2_000, samples=20, correction=correction)
    counts = np.bincount(drawn.drawn.samples.numpy().ravel() - 1, minlength=ITEMS)
    assert np.abs(counts / counts.sum() - limit).sum() / 2 < distances[-1] / 3


@every_correction
@pytest.mark.parametrize("scope", ["example", "batch"])
def test_log_q_and_statistics_are_those_of_the_pool(scope, correction):
    (scores, proposal), target = scores_and_proposal(popular=True), 3
    drawn = draw_two_steps(5, target, scores, proposal, 0.7, rows=8, scope=scope, samples=4, correction=correction)
    pools = drawn.pool.items.numpy() - 1
    assert (len(np.unique(pools, axis=0)) == 1) == (scope == "batch")
    assert (pools == target).any()  # so some pools have hits
    for row in range(8):
        shares, q = oracles.resampling(target, list(pools[row]), scores, 5 * proposal, 0.7, correction)
        of_target, of_samples = oracles.log_q(q, target, 4, correction)
        samples = drawn.drawn.samples[row].numpy() - 1
        np.testing.assert_allclose(drawn.drawn.target_log_q[row], of_target, rtol=1e-4)
        np.testing.assert_array_equal(samples, np.array([target, *pools[row]])[drawn.places[row].numpy()])
        np.testing.assert_allclose(drawn.drawn.sample_log_q[row], of_samples[samples], rtol=1e-4)
        np.testing.assert_allclose(drawn.effective_size[row], 1 / np.sum(shares**2), rtol=1e-4)
        np.testing.assert_allclose(drawn.scores[row], scores[pools[row]], rtol=1e-5)
        assert drawn.target_share[row] == np.mean(samples == target)


@every_correction
@pytest.mark.parametrize("popular", [False, True])
def test_losses_of_two_step_samples_tend_to_the_full_ones(popular, correction):
    """Of scores other than the retriever's, over a large pool and many samples; whatever the proposal, but for the
    paper's log_q.

    The gradient's error is the sum of its parts' over 6 items; 0.1 is ten times what is found here, and by the paper's
    log_q, which is of positions, a popular proposal's is 0.5.
    """
    scores, proposal = scores_and_proposal(popular)
    others, target = np.random.default_rng(6).normal(size=ITEMS), 3
    drawn = draw_two_steps(2000, target, scores, proposal, 0.8, rows=50, samples=500, correction=correction).drawn
    of_item = tf.Variable(np.concatenate([[0.0], others]), dtype=tf.float32)
    with tf.GradientTape() as tape:
        of_target, ranked = tf.repeat(of_item[target + 1], 50), tf.gather(of_item, drawn.samples)
        mean = tf.reduce_mean(sampled_log_softmax(of_target, ranked, *drawn.log_q))
    full = oracles.softmax(others)
    gradient = tf.convert_to_tensor(tape.gradient(mean, of_item)).numpy()[1:]
    error = np.abs(gradient - (full - np.eye(ITEMS)[target])).sum()
    if correction == "paper" and popular:
        assert error > 0.3
    else:
        assert error < 0.1


@pytest.mark.parametrize(
    "correction",
    ["hits-removed", "item", "paper"],
)
@pytest.mark.parametrize("popular", [False, True])
def test_the_log_loss_over_all_items_is_estimated_whatever_the_correction(popular, correction):
    """Of scores other than the retriever's; 0.05 is five times what is found here."""
    scores, proposal = scores_and_proposal(popular)
    others, target = np.random.default_rng(6).normal(size=ITEMS), 3
    drawn = draw_two_steps(2000, target, scores, proposal, 0.8, rows=50, samples=500, correction=correction).drawn
    of_item = tf.constant([0.0, *others], tf.float32)
    ranked, is_target = tf.gather(of_item, drawn.samples), drawn.samples == target + 1
    estimate = estimated_log_loss(tf.repeat(of_item[target + 1], 50), ranked, drawn.log_count, is_target).numpy().mean()
    assert estimate == pytest.approx(oracles.full_log_softmax(others, target), abs=0.05)


@pytest.mark.parametrize("popular", [False, True])
def test_retrievers_loss_with_temperature_1_reads_its_log_loss_over_the_pool_or_by_the_paper_nothing(popular):
    """M − log_q is one number for every candidate, so by the paper's log_q over a uniform Y the loss is always log(L +
    1).

    Over another Y it is as constant as Y is. With hits removed the target stands beside the samples with its own
    weight.
    """
    scores, proposal = scores_and_proposal(popular)
    of_item = tf.constant([0.0, *scores], tf.float32)
    for correction in ("paper", "hits-removed"):
        drawn = draw_two_steps(30, 0, scores, proposal, 1.0, rows=16, samples=20, correction=correction)
        samples, pools = drawn.drawn.samples.numpy() - 1, drawn.pool.items.numpy() - 1
        loss = sampled_log_softmax(tf.repeat(of_item[1], 16), tf.gather(of_item, samples + 1), *drawn.drawn.log_q)
        if correction == "paper":
            expected = np.log(1 + np.sum(proposal[samples] / proposal[0], axis=1))
            assert popular or np.allclose(expected, np.log(21))
        else:
            expected = [oracles.log_loss(scores, 0, pool, proposal[pool]) for pool in pools]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "power"), [("uniform", 0.0), ("popularity", 0.5)])
def test_proposal_draws_by_count_to_the_power_of_alpha(kind, power):
    counts = np.array([100, 25, 4, 1, 0, 9])
    proposal = proposal_of(kind, counts, alpha=0.5)
    weights = np.maximum(counts, 1.0) ** power
    expected = weights / weights.sum()
    drawn = np.bincount(proposal.draw([100, 500], generator()).numpy().ravel(), minlength=7)
    assert drawn[0] == 0
    assert stats.chisquare(drawn[1:], expected * 50_000).pvalue > FALSE_ALARM
    np.testing.assert_allclose(tf.exp(proposal.log_prob(tf.range(1, 7))), expected, rtol=1e-5)


@given(st.lists(st.one_of(st.integers(0, 5).map(float), st.floats(1e-3, 1e6)), min_size=1, max_size=40).filter(any))
def test_an_alias_table_has_the_distribution_of_its_weights(weights):
    """Each column's own share, and what those that name it give away, add up to its weight."""
    weights = np.array(weights) / np.mean(weights)
    kept, aliases = alias_table(weights)
    assert kept.min() > -1e-9
    assert kept.max() < 1 + 1e-9
    np.testing.assert_allclose(kept + np.bincount(aliases, 1 - kept, len(weights)), weights, atol=1e-9)


def test_a_proposal_over_a_million_items_can_draw_the_first_and_the_last():
    proposal = Uniform(1_000_000)
    drawn = proposal.draw([4_000_000], generator()).numpy()
    assert 1 <= drawn.min() < 10
    assert 999_990 < drawn.max() <= 1_000_000
    np.testing.assert_allclose(proposal.log_prob(1_000_000), -np.log(1e6), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": 0},
        {"pool": "most"},
        {"samples": 0},
        {"temperature": 0.0},
        {"alpha": -1.0},
        {"pool_scope": "epoch"},
        {"correction": "none"},
        {"pool": "all", "correction": "paper"},
    ],
)
def test_sampler_settings_refuse_what_cannot_be_sampled(wrong):
    with pytest.raises(ValidationError):
        SamplerSettings(**wrong)
