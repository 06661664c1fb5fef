import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests import oracles
from tests.cooperation.test_corr import ITEMS, LENGTH, RECENT, batch, cooperation, values
from tests.cooperation.test_sampling import FALSE_ALARM, every_correction, limit_of
from tests.towers.test_contract import adam, build
from tfcorr.cooperation import chain as module
from tfcorr.cooperation.chain import Chain
from tfcorr.cooperation.proposals import Weighted
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import Pool, SamplerSettings, resample

THREE = {"retriever": ("fpmc", {}), "middle_1": ("sasrec", {}), "ranker": ("din", RECENT)}
TWO = {"retriever": ("sasrec", {}), "ranker": ("din", RECENT)}


def cascade(towers=None, kl_weight=1.0, dropout=0.0, pool=8, samples=5, middle=4, correction="hits-removed"):
    tf.keras.utils.set_random_seed(0)
    made = {
        name: build(kind, {"dim": 8, "dropout": dropout, **more}, ITEMS, LENGTH)
        for name, (kind, more) in (towers or THREE).items()
    }
    settings = SamplerSettings(pool=pool, pool_scope="example", samples=samples, correction=correction)
    sampler = Sampler(settings, np.ones(ITEMS, np.int64), made["retriever"], seed=5)
    model = Chain(made, sampler, [middle] * (len(made) - 2), "softmax", kl_weight)
    model.compile(optimizer={name: adam(tower) for name, tower in made.items()})
    return model


@pytest.mark.parametrize("pool", [8, "all"])
def test_of_two_towers_it_is_corr(pool):
    chain, corr = cascade(TWO, dropout=0.1, pool=pool), cooperation(dropout=0.1, pool=pool)
    for step in range(3):
        logs = chain.train_step(batch(seed=step)), corr.train_step(batch(seed=step))
    for name, same in {
        "kl_retriever": "kl",
        "log_loss_retriever": "log_loss_retriever",
        "loss_ranker": "loss_ranker",
        "log_loss_ranker": "log_loss_ranker",
    }.items():
        assert float(logs[0][name]) == pytest.approx(float(logs[1][same]), rel=1e-5), name
    for tower in ("retriever", "ranker"):
        for one, other in zip(values(chain.towers[tower]), values(getattr(corr, tower)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@every_correction
@pytest.mark.parametrize("popular", [False, True])
def test_what_the_second_tower_draws_has_its_exact_distribution(popular, correction):
    rng, items, rows = np.random.default_rng(5), 4, 60_000
    first, second, target = rng.normal(size=items), rng.normal(size=items) * 1.5, 2
    generator, targets = tf.random.Generator.from_seed(3), tf.fill([rows], target + 1)

    def scores(of, ids):
        return tf.gather(tf.constant([0.0, *of], tf.float32), tf.concat([targets[:, None], ids], axis=1))

    shares = oracles.softmax(rng.normal(size=items)) if popular else np.full(items, 1 / items)
    proposal, log_size = Weighted(shares), float(np.log(2))
    ids = proposal.draw([rows, 2], generator)
    pool = Pool(ids, proposal.log_prob(ids) + log_size, proposal.log_prob(targets) + log_size)
    once = resample(pool, targets, scores(first, ids), 2, 1.0, correction, generator).drawn
    twice = resample(
        Pool.of(once, correction), targets, scores(second, once.samples), 1, 1.0, correction, generator
    ).drawn
    counts = np.bincount(twice.samples.numpy().ravel() - 1, minlength=items)
    expected = oracles.three_step_distribution(2, 2, target, first, second, shares, correction)
    assert stats.chisquare(counts, expected * rows).pvalue > FALSE_ALARM
    wrong = oracles.two_step_distribution(2, target, second, shares, 1.0, correction)  # the test tells these apart
    assert stats.chisquare(counts, wrong * rows).pvalue < FALSE_ALARM


@every_correction
def test_theorem_3_1_holds_of_the_second_tower(correction):
    """From many draws of the first, which are many of a large pool, the second draws by its own softmax, whatever the
    first's."""
    rng, rows, items = np.random.default_rng(5), 500, 6
    first, second = rng.normal(size=items), rng.normal(size=items) * 1.5
    generator, targets = tf.random.Generator.from_seed(3), tf.ones([rows], tf.int32)
    ids = 1 + generator.uniform([rows, 2000], maxval=items, dtype=tf.int32)
    log_count = tf.math.log(tf.fill([rows, 2000], 2000 / items))
    pool = Pool(ids, log_count, log_count[:, 0])
    for of, count in ((first, 1000), (second, 50)):
        scores = tf.gather(tf.constant([0.0, *of], tf.float32), tf.concat([targets[:, None], pool.items], axis=1))
        drawn = resample(pool, targets, scores, count, 1.0, correction, generator).drawn
        pool = Pool.of(drawn, correction)
    shares = np.bincount(drawn.samples.numpy().ravel() - 1, minlength=items) / drawn.samples.numpy().size
    assert np.abs(shares - limit_of(second, 0, correction)).sum() / 2 < 0.02
    assert np.abs(shares - limit_of(first, 0, correction)).sum() / 2 > 0.2


@every_correction
def test_every_logged_number_of_a_step_is_the_oracles(monkeypatch, correction):
    """From the towers' scores before the step and what each drew, of which the probabilities are found anew."""
    model, (context, target) = cascade(correction=correction), batch(rows=6)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (6, 1))
    score = {name: tower.score(context, ids).numpy().astype(float) for name, tower in model.towers.items()}
    drawn, first, second = {}, model.sampler.resample, module.resample
    monkeypatch.setattr(model.sampler, "resample", lambda *args: drawn.setdefault("retriever", first(*args)))
    monkeypatch.setattr(module, "resample", lambda *args: drawn.setdefault("middle_1", second(*args)))
    logs = {name: float(value) for name, value in model.train_step((context, target)).items()}
    expected = {name: [] for name in logs}
    for row, k in enumerate(target.numpy() - 1):
        of = {name: scores[row] for name, scores in score.items()}
        pool, counts = drawn["retriever"].pool.items.numpy()[row] - 1, np.full(ITEMS, 8 / ITEMS)
        expected["log_loss_retriever"].append(oracles.log_loss(of["retriever"], k, pool, counts[pool] / 8))
        for before, after in (("retriever", "middle_1"), ("middle_1", "ranker")):
            s = drawn[before].drawn.samples[row].numpy() - 1
            shares, q = oracles.resampling(k, list(pool), of[before], counts, 1.0, correction)
            of_target, of_samples = oracles.log_q(q, k, len(s), correction)
            for name in (before, after):
                expected[f"loss_{name}"].append(
                    oracles.sampled_log_softmax(of[name][k], of[name][s], of_target, of_samples[s])
                )
            expected[f"kl_{before}"].append(oracles.sampled_kl(of[after][s], of[before][s], of_samples[s]))
            expected[f"log_loss_{after}"].append(oracles.log_loss(of[after], k, s, q[s]))
            expected[f"hardness_{after}"].append(oracles.hardness(of[after], k, s))
            expected[f"target_share_{before}"].append(np.mean(s == k))
            expected[f"effective_sample_size_{before}"].append(1 / np.sum(shares**2))
            pool, counts = s, len(s) * q
    if correction == "paper":  # whose log_q is of positions
        del expected["log_loss_middle_1"], expected["log_loss_ranker"]
    for name, each in expected.items():
        assert logs[name] == pytest.approx(np.mean(each), rel=1e-3), name


def test_a_steps_gradient_is_that_of_every_pairs_losses(monkeypatch):
    """Each tower's: of the samples that were drawn, scored anew by the towers, and of the same losses summed pair by
    pair."""
    model, (context, target) = cascade(kl_weight=0.7), batch(rows=6)
    drawn, applied, first, second = {}, {}, model.sampler.resample, module.resample
    monkeypatch.setattr(model.sampler, "resample", lambda *args: drawn.setdefault("retriever", first(*args)))
    monkeypatch.setattr(module, "resample", lambda *args: drawn.setdefault("middle_1", second(*args)))
    for name, optimiser in model.optimizer.items():
        monkeypatch.setattr(
            optimiser, "apply_gradients", lambda pairs, name=name: applied.update({name: [g for g, _ in pairs]})
        )
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


def test_all_its_towers_learn_a_cyclic_catalogue():
    """Also where a tower that has learned the rule would draw nothing but the target: the next has other items to learn
    from."""
    model = cascade(dropout=0.1, pool=30, samples=20, middle=10)
    context, target = batch(1200)
    model.fit(
        tf.data.Dataset.from_tensor_slices((context, target)).shuffle(1200, seed=1).batch(60), epochs=7, verbose=0
    )
    context, target = batch(200, seed=9)
    ids = np.tile(np.arange(1, ITEMS + 1, dtype=np.int32), (200, 1))
    for name, tower in model.towers.items():
        assert np.mean(np.argmax(tower.score(context, ids), axis=1) + 1 == target.numpy()) > 0.9, name
