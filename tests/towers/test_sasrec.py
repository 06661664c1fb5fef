import numpy as np
import pytest
import tensorflow as tf

from tests.towers.test_contract import build
from tfcorr.settings import InputError
from tfcorr.towers.layers import latest_column, places_from_the_latest, places_from_the_oldest
from tfcorr.towers.sasrec import SASRecSettings, visible


def test_no_place_sees_a_later_item_or_padding():
    history = tf.constant([[0, 5, 6, 7], [1, 2, 0, 0]])
    seen = visible(history, tf.tile(tf.range(4)[None], [2, 1])).numpy()
    for row in range(2):
        for place in range(4):
            for other in range(4):
                assert seen[row, place, other] == (other <= place and history[row, other] > 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_later_item_never_changes_what_an_earlier_place_computes(layers):
    """Every block applied to all places: the outputs before the changed item stay as they were."""
    tower = build("sasrec", {"dim": 8, "layers": layers})

    def outputs(history):
        history = tf.constant([history])
        hidden = tower.norm(tower.items(history) + tower.places(places_from_the_oldest(history)))
        for block in tower.blocks:
            hidden = block(hidden, hidden, visible(history, tf.range(5)[None]))
        return hidden[0].numpy()

    before, after = outputs([3, 1, 4, 1, 5]), outputs([3, 1, 4, 9, 2])
    np.testing.assert_allclose(before[:3], after[:3], rtol=1e-5)
    assert not np.allclose(before[3:], after[3:], rtol=1e-2)
    np.testing.assert_allclose(tower.encode_context({"history": tf.constant([[3, 1, 4, 1, 5]])})[0], before[-1], rtol=1e-4, atol=1e-6)


def test_places_count_items_wherever_the_padding_lies():
    history = tf.constant([[0, 0, 5, 6], [5, 6, 0, 0], [1, 2, 3, 4]])
    assert latest_column(history).numpy().tolist() == [3, 1, 3]
    assert places_from_the_oldest(history).numpy()[:, :].tolist()[0][2:] == [0, 1]
    assert places_from_the_oldest(history).numpy().tolist()[1][:2] == [0, 1]
    assert places_from_the_latest(history).numpy().tolist()[0][2:] == [1, 0]
    assert places_from_the_latest(history).numpy().tolist()[1][:2] == [1, 0]


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match=r"dim \(10\) must be a multiple of retriever.heads \(4\)"):
        SASRecSettings.parse({"dim": 10, "heads": 4})
