import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.towers.test_contract import build


def test_item_dropout_acts_on_history_and_candidates_in_training_alone():
    tower = build("din", {"dim": 8, "dropout": 0.0, "item_dropout": 0.5})
    context, candidates = {"history": tf.constant([[0, 4, 9, 2]])}, tf.constant([[3, 9, 1]])
    plain, again, trained = (tower.score(context, candidates, training=training) for training in (False, False, True))
    np.testing.assert_array_equal(plain, again)
    assert not np.allclose(plain, trained)
    assert build("din", {"dim": 8, "item_dropout": 0.0}).dropout is None  # so that a run without it has no state of it


@pytest.mark.parametrize("more", [False, True])
def test_split_form_is_the_network_on_the_concatenation(more):
    """W_q, W_h and W_x hold the first layer on [q, h, q∘h, q−h] for any share of q−h's weights that is moved into
    them."""
    settings = {
        "dim": 4,
        "attention": (5, 3),
        "mlp": (6,),
        "activation": "sigmoid",
        "recency": more,
        "inner": more,
        "products": more,
    }
    tower = build("din", settings)
    rng = np.random.default_rng(3)
    difference = rng.normal(size=(4, 5))
    weights = {
        "q": tower.of_candidate.kernel.numpy() - difference,
        "h": tower.of_history.kernel.numpy() + difference,
        "x": tower.of_pair.kernel.numpy(),
        "d": difference,
        "b": tower.of_candidate.bias.numpy(),
    }
    hidden = [(dense.kernel.numpy(), dense.bias.numpy()) for dense in [*tower.attention, tower.weight]]
    history, candidates = [0, 4, 9, 2], [3, 9, 1]
    table, places = tower.items.embeddings.numpy(), [None, 2, 1, 0]
    values = table[history[1:]]
    keys = values + tower.recency.embeddings.numpy()[places[1:]] if more else values
    mlp, head = tower.mlp.dense[0], tower.mlp.head
    expected = []
    for candidate in candidates:
        attention = oracles.din_attention(table[candidate], keys, weights, hidden)
        interest, vector = attention @ values, table[candidate]
        features = np.concatenate([interest, vector, interest * vector] if more else [interest, vector])
        layer = 1 / (1 + np.exp(-(features @ mlp.kernel.numpy() + mlp.bias.numpy())))
        score = (layer @ head.kernel.numpy() + head.bias.numpy())[0] + tower.bias.embeddings.numpy()[candidate, 0]
        expected.append(score + interest @ vector if more else score)
    scores = tower.score({"history": tf.constant([history])}, tf.constant([candidates]))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4)
