import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests import oracles
from tests.cooperation.test_corr import ITEMS, LENGTH, RECENT, batch, cooperation, values
from tests.towers.test_contract import adam, build
from tfcorr.cooperation import chain as module
from tfcorr.cooperation.chain import Chain
from tfcorr.cooperation.proposals import Weighted
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import Drawn, SamplerSettings, resample

FALSE_ALARM = 1e-4  # of each chi-square test here; its seed is fixed
THREE = {"retriever": ("fpmc", {}), "middle_1": ("sasrec", {}), "ranker": ("din", RECENT)}
TWO = {"retriever": ("sasrec", {}), "ranker": ("din", RECENT)}


def cascade(towers=None, kl_weight=1.0, dropout=0.0, pool=8, samples=5, middle=4):
    tf.keras.utils.set_random_seed(0)
    made = {name: build(kind, {"dim": 8, "dropout": dropout, **more}, ITEMS, LENGTH) for name, (kind, more) in (towers or THREE).items()}
    sampler = Sampler(SamplerSettings(pool=pool, samples=samples), np.ones(ITEMS, np.int64), made["retriever"], seed=5)
    model = Chain(made, sampler, [middle] * (len(made) - 2), "softmax", kl_weight)
    model.compile(optimizer={name: adam(tower) for name, tower in made.items()})
    return model


def test_of_two_towers_it_is_corr():
    chain, corr = cascade(TWO, dropout=0.1), cooperation(dropout=0.1)
    for step in range(3):
        logs = chain.train_step(batch(seed=step)), corr.train_step(batch(seed=step))
    for name, same in {"kl_retriever": "kl", "loss_ranker": "loss_ranker", "log_loss_ranker": "log_loss_ranker"}.items():
        assert float(logs[0][name]) == pytest.approx(float(logs[1][same]), rel=1e-5), name
    for tower in ("retriever", "ranker"):
        for one, other in zip(values(chain.towers[tower]), values(getattr(corr, tower)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("popular", [False, True])
def test_what_the_second_tower_draws_has_its_exact_distribution(popular):
    rng, items, rows = np.random.default_rng(5), 4, 60_000
    first, second, target = rng.normal(size=items), rng.normal(size=items) * 1.5, 2
    generator, targets = tf.random.Generator.from_seed(3), tf.fill([rows], target + 1)

    def scores(of, drawn):
        return tf.gather(tf.constant([0.0, *of], tf.float32), tf.concat([targets[:, None], drawn.samples], axis=1))

    shares = oracles.softmax(rng.normal(size=items)) if popular else np.full(items, 1 / items)
    proposal = Weighted(shares)
    ids = proposal.draw([rows, 2], generator)
    pool = Drawn(ids, proposal.log_prob(ids), proposal.log_prob(targets))
    once = resample(pool, targets, scores(first, pool), 2, 1.0, generator).drawn
    twice = resample(once, targets, scores(second, once), 1, 1.0, generator).drawn
    counts = np.bincount(twice.samples.numpy().ravel() - 1, minlength=items)
    expected = oracles.three_step_distribution(2, 2, target, first, second, shares)
    assert stats.chisquare(counts, expected * rows).pvalue > FALSE_ALARM
    wrong = oracles.two_step_distribution(2, target, second, shares, 1.0)  # the test tells these apart
    assert stats.chisquare(counts, wrong * rows).pvalue < FALSE_ALARM


def test_theorem_3_1_holds_of_the_second_tower():
    """From many draws of the first, which are many of a large pool, the second draws by its own softmax, whatever the first's."""
    rng, rows, items = np.random.default_rng(5), 500, 6
    first, second = rng.normal(size=items), rng.normal(size=items) * 1.5
    generator, targets = tf.random.Generator.from_seed(3), tf.ones([rows], tf.int32)
    ids = 1 + generator.uniform([rows, 2000], maxval=items, dtype=tf.int32)
    log_y = tf.math.log(tf.fill([rows, 2000], 1 / items))
    drawn = Drawn(ids, log_y, log_y[:, 0])
    for of, count in ((first, 1000), (second, 50)):
        scores = tf.gather(tf.constant([0.0, *of], tf.float32), tf.concat([targets[:, None], drawn.samples], axis=1))
        drawn = resample(drawn, targets, scores, count, 1.0, generator).drawn
    shares = np.bincount(drawn.samples.numpy().ravel() - 1, minlength=items) / drawn.samples.numpy().size
    assert np.abs(shares - oracles.softmax(second)).sum() / 2 < 0.02
    assert np.abs(shares - oracles.softmax(first)).sum() / 2 > 0.2


def test_every_logged_number_of_a_step_is_the_oracles(monkeypatch):
    """From the towers' scores before the step and what each drew, of which the probabilities are found anew."""
    model, (context, target) = cascade(), batch(rows=6)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (6, 1))
    score = {name: tower.score(context, ids).numpy().astype(float) for name, tower in model.towers.items()}
    drawn, first, second = {}, model.sampler.resample, module.resample
    monkeypatch.setattr(model.sampler, "resample", lambda *args: drawn.setdefault("retriever", first(*args)))
    monkeypatch.setattr(module, "resample", lambda *args: drawn.setdefault("middle_1", second(*args)))
    logs = {name: float(value) for name, value in model.train_step((context, target)).items()}
    expected = {name: [] for name in logs if not name.startswith(("effective", "target_share"))}
    for name, resampled in drawn.items():
        assert logs[f"target_share_{name}"] == pytest.approx(np.mean(resampled.drawn.samples == target[:, None]))
        assert logs[f"effective_sample_size_{name}"] == pytest.approx(np.mean(resampled.effective_size))
    for row, k in enumerate(target.numpy() - 1):
        of = {name: scores[row] for name, scores in score.items()}
        pool = drawn["retriever"].pool.samples.numpy()[row] - 1
        expected["log_loss_retriever"].append(oracles.log_loss(of["retriever"], k, pool, np.full(8, 1 / ITEMS)))
        places, y = np.array([k, *pool]), np.full(9, 1 / ITEMS)
        for before, after in (("retriever", "middle_1"), ("middle_1", "ranker")):
            s = drawn[before].drawn.samples[row].numpy() - 1
            of_places = oracles.softmax(of[before][places] - np.log(y)) * y * (len(places) - 1)  # each place's item's
            q = of_places[[0, *(np.flatnonzero(places == item)[0] for item in s)]]
            for name in (before, after):
                expected[f"loss_{name}"].append(oracles.sampled_log_softmax(of[name][k], of[name][s], np.log(q[0]), np.log(q[1:])))
            expected[f"kl_{before}"].append(oracles.sampled_kl(of[after][s], of[before][s], np.log(q[1:])))
            expected[f"log_loss_{after}"].append(oracles.log_loss(of[after], k, s, q[1:]))
            expected[f"hardness_{after}"].append(oracles.hardness(of[after], k, s))
            places, y = np.array([k, *s]), q
    for name, each in expected.items():
        assert logs[name] == pytest.approx(np.mean(each), rel=1e-3), name


def test_a_steps_gradient_is_that_of_every_pairs_losses(monkeypatch):
    """Each tower's: of the samples that were drawn, scored anew by the towers, and of the same losses summed pair by pair."""
    model, (context, target) = cascade(kl_weight=0.7), batch(rows=6)
    drawn, applied, first, second = {}, {}, model.sampler.resample, module.resample
    monkeypatch.setattr(model.sampler, "resample", lambda *args: drawn.setdefault("retriever", first(*args)))
    monkeypatch.setattr(module, "resample", lambda *args: drawn.setdefault("middle_1", second(*args)))
    for name, optimiser in model.optimizer.items():
        monkeypatch.setattr(optimiser, "apply_gradients", lambda pairs, name=name: applied.update({name: [g for g, _ in pairs]}))
    model.train_step((context, target))
    with tf.GradientTape(persistent=True) as tape:
        total = 0.0
        for before, after in (("retriever", "middle_1"), ("middle_1", "ranker")):
            of = drawn[before].drawn
            ids = tf.concat([target[:, None], of.samples], axis=1)
            log_q = tf.concat([of.target_log_q[:, None], of.sample_log_q], axis=1)
            m, r = (model.towers[name].score(context, ids) - log_q for name in (before, after))
            log_m, log_r = tf.nn.log_softmax(m[:, 1:]), tf.stop_gradient(tf.nn.log_softmax(r[:, 1:]))
            kl = tf.reduce_sum(tf.exp(log_r) * (log_r - log_m), axis=1)
            total += tf.reduce_mean(0.7 * kl - tf.nn.log_softmax(m)[:, 0] - tf.nn.log_softmax(r)[:, 0])
    for name, tower in model.towers.items():
        for one, other in zip(applied[name], tape.gradient(total, tower.trainable_variables), strict=True):
            np.testing.assert_allclose(tf.convert_to_tensor(one), tf.convert_to_tensor(other), rtol=1e-3, atol=1e-6)


def test_each_tower_learns_from_its_successor_alone():
    """Without the KL the last tower moves as it does with it, and every other one in another way."""
    with_kl, without = cascade(kl_weight=1.0), cascade(kl_weight=0.0)
    for model in (with_kl, without):
        model.train_step(batch())
    for name in THREE:
        pairs = zip(values(with_kl.towers[name]), values(without.towers[name]), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs) == (name == "ranker"), name


def test_all_its_towers_learn_a_noisy_cyclic_catalogue():
    """Without noise a tower that has learned the rule draws nothing but the target, and the next would have nothing to learn from."""
    model = cascade(dropout=0.1, pool=30, samples=20, middle=10)
    context, target = batch(1200)
    is_noise, noise = tf.random.uniform([1200], seed=1) < 0.4, tf.random.uniform([1200], 1, ITEMS + 1, tf.int32, seed=2)
    target = tf.where(is_noise, noise, target)
    model.fit(tf.data.Dataset.from_tensor_slices((context, target)).shuffle(1200, seed=1).batch(60), epochs=7, verbose=0)
    context, target = batch(200, seed=9)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (200, 1))
    for name, tower in model.towers.items():
        assert np.mean(np.argmax(tower.score(context, ids), axis=1) + 1 == target.numpy()) > 0.9, name
