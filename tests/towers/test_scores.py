"""Each tower's score against its formula, written out for one context and one candidate in plain NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.towers.test_contract import build, context_of
from tfcorr.towers.bsarec import low_pass_kernels
from tfcorr.towers.dien import AUGRU
from tfcorr.towers.layers import latest_items
from tfcorr.towers.mlp import Dice

HISTORY, USER, ITEM = [0, 4, 9, 2], 3, 7  # oldest first; 0 is padding


def scored(tower, history=HISTORY, user=USER, item=ITEM):
    return float(
        tower.score(context_of(np.array([history], np.int32), np.array([user], np.int32)), tf.constant([[item]]))[0, 0]
    )


def rows(layer):
    return layer.embeddings.numpy().astype(float)


def relu(values):
    return np.maximum(values, 0)


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values)))


def norm(layer, values):
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True)) * layer.gamma.numpy() + layer.beta.numpy()


def dense(layer, values):
    return values @ layer.kernel.numpy() + layer.bias.numpy()


def attend(block, hidden, heads):
    """A block's first part of a sequence [M, D]: each place reads itself and those before it, head by head."""
    q, k, v = (np.split(dense(layer, hidden), heads, axis=1) for layer in (block.query, block.key, block.value))
    read = np.zeros_like(hidden)
    for place in range(len(hidden)):
        of_heads = []
        for head in range(heads):
            logits = k[head][: place + 1] @ q[head][place] / math.sqrt(q[head].shape[1])
            of_heads.append(np.exp(logits) @ v[head][: place + 1] / np.exp(logits).sum())
        read[place] = np.concatenate(of_heads)
    return norm(block.norms[0], hidden + dense(block.output_, read))


def feed_forward(block, hidden):
    """A block's second part, of [..., D]."""
    widened = dense(block.widen, hidden)
    gelu = widened * (1 + np.vectorize(math.erf)(widened / math.sqrt(2))) / 2
    return norm(block.norms[1], hidden + dense(block.narrow, gelu))


def test_mf():
    tower = build("mf", {"dim": 5})
    assert scored(tower) == pytest.approx(
        rows(tower.users)[USER] @ rows(tower.items)[ITEM] + rows(tower.bias)[ITEM, 0], rel=1e-4
    )
    assert scored(tower, user=0) == pytest.approx(rows(tower.bias)[ITEM, 0], rel=1e-5)


def test_fpmc_sums_a_users_taste_and_a_step_from_the_latest_item():
    tower = build("fpmc", {"dim": 5})
    taste, step = rows(tower.users)[USER] @ rows(tower.items)[ITEM], rows(tower.latest)[2] @ rows(tower.following)[ITEM]
    assert scored(tower) == pytest.approx(taste + step, rel=1e-4)
    assert scored(tower, user=0) == pytest.approx(step, rel=1e-4)
    assert scored(tower, history=[0, 0]) == pytest.approx(taste, rel=1e-4)


def test_transrec_is_a_bias_less_a_squared_distance():
    tower = build("transrec", {"dim": 5})
    place, general, own = rows(tower.items), tower.translation.numpy(), rows(tower.users)[USER]
    distance = np.sum((place[2] + general + own - place[ITEM]) ** 2)
    assert scored(tower) == pytest.approx(rows(tower.bias)[ITEM, 0] - distance, rel=1e-4)
    assert scored(tower, user=0) == pytest.approx(
        rows(tower.bias)[ITEM, 0] - np.sum((place[2] + general - place[ITEM]) ** 2), rel=1e-4
    )


def test_npe_rectifies_the_user_the_item_and_the_sum_of_the_history():
    tower = build("npe", {"dim": 5})
    beside = relu(rows(tower.beside)[[4, 9, 2]].sum(axis=0))
    assert scored(tower) == pytest.approx(
        (relu(rows(tower.users)[USER]) + beside) @ relu(rows(tower.items)[ITEM]), rel=1e-4
    )


def test_hrm_takes_the_largest_in_each_dimension_of_the_user_and_the_latest_items():
    tower = build("hrm", {"dim": 5, "latest": 2})
    latest, item = rows(tower.history)[[9, 2]].max(axis=0), rows(tower.items)[ITEM]
    assert scored(tower) == pytest.approx(np.maximum(rows(tower.users)[USER], latest) @ item, rel=1e-4)
    assert scored(tower, user=0) == pytest.approx(latest @ item, rel=1e-4)
    assert scored(tower, history=[0, 0]) == pytest.approx(rows(tower.users)[USER] @ item, rel=1e-4)
    assert scored(tower, history=[0, 0], user=0) == 0


def test_caser_convolves_the_latest_items_in_both_directions():
    tower = build("caser", {"dim": 4, "latest": 3, "horizontal": 2, "vertical": 2}, length=4)
    image = rows(tower.history)[[2, 9, 4]]  # latest first
    found = []
    for height, convolve in enumerate(tower.horizontal, start=1):
        kernel, bias = convolve.kernel.numpy(), convolve.bias.numpy()  # [height, D, filters]
        places = [np.einsum("hd,hdf->f", image[start : start + height], kernel) + bias for start in range(4 - height)]
        found += list(np.max(relu(np.array(places)), axis=0))
    weighed = image.T @ tower.vertical.kernel.numpy()  # [D, vertical]
    hidden = relu(np.concatenate([found, weighed.ravel()]) @ tower.dense.kernel.numpy() + tower.dense.bias.numpy())
    query = np.concatenate([hidden, rows(tower.users)[USER]])
    assert scored(tower) == pytest.approx(query @ rows(tower.items)[ITEM] + rows(tower.bias)[ITEM, 0], rel=1e-4)


def test_narm_attends_to_its_states_by_the_last_one():
    tower = build("narm", {"dim": 4, "hidden": 3})
    states = tower.gru(tower.items(tf.constant([HISTORY[1:]])))[0].numpy()
    of_latest, of_each = states[-1] @ tower.of_latest.kernel.numpy(), states @ tower.of_each.kernel.numpy()
    weights = sigmoid(of_latest + of_each) @ tower.weight.kernel.numpy()[:, 0]
    query = np.concatenate([states[-1], weights @ states]) @ tower.project.kernel.numpy()
    assert scored(tower) == pytest.approx(query @ rows(tower.items)[ITEM], rel=1e-4)


def test_gru4rec_reads_gated_recurrent_states():
    tower = build("gru4rec", {"dim": 4, "hidden": 3})
    kernel, recurrent, bias = (variable.numpy() for variable in tower.gru.trainable_variables)
    state = np.zeros(3)
    for item in HISTORY[1:]:
        given, kept = rows(tower.items)[item] @ kernel + bias[0], state @ recurrent + bias[1]
        update, reset = sigmoid(given[:3] + kept[:3]), sigmoid(given[3:6] + kept[3:6])
        state = update * state + (1 - update) * np.tanh(given[6:] + reset * kept[6:])
    query = state @ tower.project.kernel.numpy() + tower.project.bias.numpy()
    assert scored(tower) == pytest.approx(query @ rows(tower.items)[ITEM], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({}, [0, 1, 2]),
        ({"layers": 2, "heads": 1}, [0, 1, 2]),
        ({"layers": 2, "residual": 0.4}, [0, 1, 2]),
        ({"positions": "latest"}, [2, 1, 0]),
    ],
)
def test_sasrec_reads_the_latest_place_of_its_blocks_each_of_which_may_keep_a_share_of_its_input(settings, numbers):
    tower = build("sasrec", {"dim": 4, "feed_forward": 6, **settings})
    hidden = norm(tower.norm, rows(tower.items)[HISTORY[1:]] + rows(tower.places)[numbers])
    for number, block in enumerate(tower.blocks):
        output = feed_forward(block, attend(block, hidden, settings.get("heads", 2)))
        kept = settings.get("residual", 0)
        hidden = norm(tower.mixed[number], kept * hidden + (1 - kept) * output) if kept else output
    assert scored(tower) == pytest.approx(hidden[-1] @ rows(tower.items)[ITEM], rel=1e-4)


@pytest.mark.parametrize(("filtered", "frequencies"), [(0.7, 2), (0.2, 1), (0.7, 9)])
def test_bsarec_mixes_a_low_pass_filter_of_its_history_with_attention(filtered, frequencies):
    """The filter is NumPy's own transform of the items that there are; of 5 there are 3 frequencies."""
    tower = build("bsarec", {"dim": 4, "heads": 2, "feed_forward": 6, "filtered": filtered, "frequencies": frequencies})
    history = [4, 9, 2, 5, 8]
    hidden = norm(tower.norm, rows(tower.items)[history] + rows(tower.places)[:5])
    for block, layer in zip(tower.blocks, tower.filters, strict=True):
        low = low_frequencies(hidden, frequencies)
        weighed = norm(layer.norm, hidden + low + layer.beta.numpy() ** 2 * (hidden - low))
        hidden = feed_forward(block, filtered * weighed + (1 - filtered) * attend(block, hidden, heads=2))
    expected = hidden[-1] @ rows(tower.items)[ITEM]
    assert scored(tower, history=[0, *history]) == pytest.approx(expected, rel=1e-4)
    assert scored(tower, history=[*history, 0]) == pytest.approx(expected, rel=1e-4)


def low_frequencies(values, frequencies):
    """The part of a sequence [M, ...] that the lowest of its frequencies make."""
    found = np.fft.rfft(values, axis=0)
    found[frequencies:] = 0
    return np.fft.irfft(found, n=len(values), axis=0)


@pytest.mark.parametrize("frequencies", [1, 2, 3, 5, 20])
def test_a_low_pass_kernel_keeps_the_lowest_frequencies_of_a_sequence_of_any_length(frequencies):
    kernels = low_pass_kernels(9, frequencies)
    assert kernels.shape == (10, 9)
    assert not kernels[0].any()
    for length in range(1, 10):
        values = np.random.default_rng(length).normal(size=(length, 3))
        places = np.arange(length)
        filtered = kernels[length][np.abs(places[:, None] - places)] @ values
        np.testing.assert_allclose(filtered, low_frequencies(values, frequencies), atol=1e-12)
        assert not kernels[length, length:].any()


def test_deepfm_adds_products_of_all_pairs_of_fields_to_a_network():
    tower = build("deepfm", {"dim": 4, "mlp": (3,)})
    fields = [rows(tower.users)[USER], rows(tower.history)[[4, 9, 2]].mean(axis=0), rows(tower.items)[ITEM]]
    pairs = sum(fields[one] @ fields[other] for one in range(3) for other in range(one))
    mlp = tower.mlp
    hidden = relu(np.concatenate(fields) @ mlp.dense[0].kernel.numpy() + mlp.dense[0].bias.numpy())
    deep = (hidden @ mlp.head.kernel.numpy() + mlp.head.bias.numpy())[0]
    assert scored(tower) == pytest.approx(rows(tower.bias)[ITEM, 0] + pairs + deep, rel=1e-4)


def test_bst_lets_the_candidate_read_the_history_and_may_add_their_inner_product():
    """The network on top gets [what the candidate has read, the candidate]; a block's attention is written out for its
    one query."""
    tower = build("bst", {"dim": 4, "heads": 1, "mlp": (5,), "inner": True, "dropout": 0.0})
    block, head = tower.blocks[0], tower.mlp.head
    vector, history = rows(tower.items)[ITEM], rows(tower.items)[HISTORY[1:]] + rows(tower.places)[[2, 1, 0]]
    query, keys = norm(tower.norm, vector), norm(tower.norm, history)
    logits = dense(block.key, keys) @ dense(block.query, query) / 2  # the square root of the width
    attended = np.exp(logits) @ dense(block.value, keys) / np.exp(logits).sum()
    hidden = norm(block.norms[0], query + dense(block.output_, attended))
    read = feed_forward(block, hidden)
    on_top = dense(head, relu(dense(tower.mlp.dense[0], np.concatenate([read, vector]))))[0]
    assert scored(tower) == pytest.approx(on_top + read @ vector + rows(tower.bias)[ITEM, 0], rel=1e-4)


def test_augru_is_a_gru_whose_update_gate_the_attention_scales():
    layer, rng = AUGRU(3), np.random.default_rng(0)
    inputs, weights = rng.normal(size=(2, 4, 5)).astype(np.float32), rng.random((2, 6, 4)).astype(np.float32)
    weights[:, :, 1] = 0  # as for padding
    states = layer(tf.constant(inputs), tf.constant(weights)).numpy()
    of_input, bias = layer.of_input.kernel.numpy(), layer.of_input.bias.numpy()
    of_state, of_reset = layer.of_state.kernel.numpy(), layer.of_reset.kernel.numpy()
    for row, candidate in np.ndindex(2, 6):
        state = np.zeros(3)
        for step in (0, 2, 3):
            gates, kept = inputs[row, step] @ of_input + bias, state @ of_state
            update = weights[row, candidate, step] * sigmoid(gates[:3] + kept[:3])
            new = np.tanh(gates[6:] + (sigmoid(gates[3:6] + kept[3:]) * state) @ of_reset)
            state = (1 - update) * state + update * new
        np.testing.assert_allclose(states[row, candidate], state, rtol=1e-4, atol=1e-6)


def test_diens_auxiliary_loss_foretells_each_next_item_and_never_padding(monkeypatch):
    tower = build("dien", {"dim": 4, "auxiliary": 0.5})
    history = np.array([[0, 4, 9, 2], [5, 6, 0, 0], [0, 0, 0, 8], [0, 0, 0, 0]], np.int32)
    others = np.full((4, 3), 11, np.int32)
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda *_: tf.constant(others))
    losses = tower.auxiliary_loss(context_of(history, np.zeros(4, np.int32))).numpy()
    table = rows(tower.items)
    for row, items in enumerate(history):
        known = items[items > 0]
        interests = tower.extract(tower.items(tf.constant([known])))[0].numpy() if len(known) else []
        terms = [
            -np.log(sigmoid(interests[step] @ table[known[step + 1]]))
            - np.log(1 - sigmoid(interests[step] @ table[11]))
            for step in range(len(known) - 1)
        ]
        assert losses[row] == pytest.approx(0.5 * np.mean(terms) if terms else 0, rel=1e-3)


def test_dice_is_a_rectifier_that_bends_where_the_batch_lies():
    layer, values = Dice(), np.random.default_rng(0).normal(2, 3, size=(500, 2)).astype(np.float32)
    layer(values[:1])
    layer.alpha.assign([0.25, -0.5])
    share = sigmoid((values - values.mean(axis=0)) / values.std(axis=0))
    expected = share * values + (1 - share) * np.array([0.25, -0.5]) * values
    np.testing.assert_allclose(layer(values, training=True), expected, rtol=1e-3, atol=1e-4)


def test_latest_items_are_found_wherever_the_padding_lies():
    history = tf.constant([[0, 0, 5, 6], [7, 8, 9, 0], [0, 0, 0, 0]])
    assert latest_items(history, 3).numpy().tolist() == [[6, 5, 0], [9, 8, 7], [0, 0, 0]]
