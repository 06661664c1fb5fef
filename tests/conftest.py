import tfcorr  # isort: skip  # before anything that could load Keras 3

import pytest
import tensorflow as tf

assert tfcorr


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tf.keras.utils.set_random_seed(7)
