import pytest
import tensorflow as tf

from tfcorr.settings import InputError
from tfcorr.towers.attention import visible
from tfcorr.towers.layers import latest_column, places_from_the_latest, places_from_the_oldest
from tfcorr.towers.sasrec import SASRecSettings


def test_no_place_sees_a_later_item_or_padding():
    history = tf.constant([[0, 5, 6, 7], [1, 2, 0, 0]])
    seen = visible(history, tf.tile(tf.range(4)[None], [2, 1])).numpy()
    for row in range(2):
        for place in range(4):
            for other in range(4):
                assert seen[row, place, other] == (other <= place and history[row, other] > 0)


def test_places_count_items_wherever_the_padding_lies():
    history = tf.constant([[0, 0, 5, 6], [5, 6, 0, 0], [1, 2, 3, 4]])
    assert latest_column(history).numpy().tolist() == [3, 1, 3]
    assert places_from_the_oldest(history).numpy()[:, :].tolist()[0][2:] == [0, 1]
    assert places_from_the_oldest(history).numpy().tolist()[1][:2] == [0, 1]
    assert places_from_the_latest(history).numpy().tolist()[0][2:] == [1, 0]
    assert places_from_the_latest(history).numpy().tolist()[1][:2] == [1, 0]


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match=r"dim \(10\) must be a multiple of heads \(4\)"):
        SASRecSettings.parse({"dim": 10, "heads": 4})
