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
from tfcorr.cooperation.sampling import Drawn, SamplerSettings, resample

ITEMS = 6
FALSE_ALARM = 1e-4  # of each chi-square test here; its seed is fixed


def generator(seed=3):
    return tf.random.Generator.from_seed(seed)


def scores_and_proposal(popular):
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.5, 3, size=ITEMS) if popular else np.ones(ITEMS)
    return rng.normal(size=ITEMS) * 1.5, weights / weights.sum()


def draw_two_steps(pool_size, target, scores, proposal, temperature, rows, scope="example", samples=1):
    """What the sampler draws for `rows` equal contexts, items counted from 0."""
    rng, y = generator(), Weighted(proposal)
    of_item = tf.constant([0.0, *scores], tf.float32)
    pool = y.draw([rows, pool_size] if scope == "example" else [pool_size], rng)
    ids = tf.broadcast_to(pool, [rows, pool_size])
    targets = tf.fill([rows], target + 1)
    all_scores = tf.gather(of_item, tf.concat([targets[:, None], ids], axis=1))
    return resample(Drawn(ids, y.log_prob(ids), y.log_prob(targets)), targets, all_scores, samples, temperature, rng), pool


@pytest.mark.parametrize("popular", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_two_step_sampler_draws_from_its_exact_distribution(popular, temperature):
    scores, proposal = scores_and_proposal(popular)
    drawn, _ = draw_two_steps(3, 2, scores, proposal, temperature, rows=40_000)
    counts = np.bincount(drawn.drawn.samples.numpy().ravel() - 1, minlength=ITEMS)
    expected = oracles.two_step_distribution(3, 2, scores, proposal, temperature)
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > FALSE_ALARM
    wrong = oracles.two_step_distribution(3, 2, scores, proposal, temperature * 1.3)  # the test tells these apart
    assert stats.chisquare(counts, wrong * counts.sum()).pvalue < FALSE_ALARM


@pytest.mark.parametrize("popular", [False, True])
def test_theorem_3_1_two_step_sampler_tends_to_the_retrievers_softmax(popular):
    """The total variation to softmax(M) falls as n grows, exactly as enumerated for small n and as drawn for a large one."""
    scores, proposal = scores_and_proposal(popular)
    softmax = oracles.softmax(scores)
    distances = [np.abs(oracles.two_step_distribution(n, 2, scores, proposal, 1.0) - softmax).sum() / 2 for n in (1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    drawn, _ = draw_two_steps(1000, 2, scores, proposal, 1.0, rows=2_000, samples=20)
    counts = np.bincount(drawn.drawn.samples.numpy().ravel() - 1, minlength=ITEMS)
    assert np.abs(counts / counts.sum() - softmax).sum() / 2 < distances[-1] / 3


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_log_q_and_statistics_are_those_of_the_pool(scope):
    scores, proposal = scores_and_proposal(popular=True)
    drawn, pool = draw_two_steps(5, 1, scores, proposal, 0.7, rows=8, scope=scope, samples=4)
    for row in range(8):
        ids = np.array([1, *((pool[row] if scope == "example" else pool).numpy() - 1)])
        weights = np.exp(scores[ids] / 0.7) / proposal[ids]  # one for each place, duplicates apart
        q = weights / weights.sum()
        of_item = np.log(q * 5 * proposal[ids])
        by_item = {int(item): float(of_item[place]) for place, item in enumerate(ids)}
        np.testing.assert_allclose(drawn.drawn.target_log_q[row], of_item[0], rtol=1e-4)
        np.testing.assert_array_equal(drawn.drawn.samples[row].numpy() - 1, ids[drawn.places[row].numpy()])
        np.testing.assert_allclose(
            drawn.drawn.sample_log_q[row], [by_item[item - 1] for item in drawn.drawn.samples[row].numpy()], rtol=1e-4
        )
        np.testing.assert_allclose(drawn.effective_size[row], 1 / np.sum(q**2), rtol=1e-4)
        assert drawn.target_share[row] == np.mean(drawn.drawn.samples[row].numpy() == 2)


@pytest.mark.parametrize("popular", [False, True])
def test_losses_of_two_step_samples_tend_to_the_full_ones(popular):
    """Of scores other than the retriever's, over a large pool and many samples; whatever the proposal.

    The gradient's error is the sum of its parts' over 6 items; 0.1 is ten times what is found here, and without log Y in log_q a
    popular proposal's is 0.5.
    """
    scores, proposal = scores_and_proposal(popular)
    others, target = np.random.default_rng(6).normal(size=ITEMS), 3
    drawn, _ = draw_two_steps(2000, target, scores, proposal, 0.8, rows=50, samples=500)
    ids, log_q = drawn.drawn.samples.numpy(), drawn.drawn.sample_log_q
    of_item = tf.Variable(np.concatenate([[0.0], others]), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        ranked = tf.gather(of_item, ids)
        losses = {"right": sampled_log_softmax(tf.repeat(of_item[target + 1], 50), ranked, drawn.drawn.target_log_q, log_q)}
        log_y = np.log(proposal).astype(np.float32)
        of_places = drawn.drawn.target_log_q - log_y[target], log_q - log_y[ids - 1]
        losses["wrong"] = sampled_log_softmax(tf.repeat(of_item[target + 1], 50), ranked, *of_places)
        means = {name: tf.reduce_mean(loss) for name, loss in losses.items()}
    full = oracles.softmax(others)
    error = {}
    for name, mean in means.items():
        gradient = tf.convert_to_tensor(tape.gradient(mean, of_item)).numpy()[1:]
        error[name] = np.abs(gradient - (full - np.eye(ITEMS)[target])).sum()
    assert error["right"] < 0.1
    assert (error["wrong"] > 0.3) == popular
    estimate = estimated_log_loss(tf.repeat(of_item[target + 1], 50), ranked, log_q, ids == target + 1).numpy().mean()
    assert estimate == pytest.approx(-np.log(full[target]), abs=0.05)


@pytest.mark.parametrize("popular", [False, True])
def test_retrievers_loss_reads_log_l_plus_1_with_temperature_1(popular):
    scores, proposal = scores_and_proposal(popular)
    drawn, _ = draw_two_steps(30, 0, scores, proposal, 1.0, rows=16, samples=20)
    of_item = tf.constant([0.0, *scores], tf.float32)
    loss = sampled_log_softmax(
        tf.repeat(of_item[1], 16), tf.gather(of_item, drawn.drawn.samples), drawn.drawn.target_log_q, drawn.drawn.sample_log_q
    )
    np.testing.assert_allclose(loss, np.log(21), rtol=1e-5)


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


@pytest.mark.parametrize("wrong", [{"pool": 0}, {"samples": 0}, {"temperature": 0.0}, {"alpha": -1.0}, {"pool_scope": "epoch"}])
def test_sampler_settings_refuse_what_cannot_be_sampled(wrong):
    with pytest.raises(ValidationError):
        SamplerSettings(**wrong)
