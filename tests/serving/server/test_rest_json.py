"""From JSON to the arrays that an input takes; the whole protocol is tested against a server elsewhere."""

import base64
import json
import re
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from tfcorr.serving.server import rest_json
from tfcorr.serving.server.errors import RequestError
from tfcorr.serving.server.settings import Limits


def info(dtype, *shape):
    return TensorInfo(dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(shape).as_proto())


@given(st.lists(st.floats(width=32) | st.integers(-(10**6), 10**6), max_size=5))
def test_numbers_are_taken_for_floats(values):
    array = rest_json.array_of("price", json.loads(json.dumps(values)), info(tf.float32, None), Limits())
    np.testing.assert_array_equal(array, np.array(values, np.float32))


@pytest.mark.parametrize("value", [10**400, True, "1", None, [1]])
def test_what_is_no_float_is_refused(value):
    with pytest.raises(RequestError, match="price: expected values of type float32"):
        rest_json.array_of("price", [value], info(tf.float32, None), Limits())


@pytest.mark.parametrize(
    ("values", "shape"),
    [([1] * 257, "[257]"), ([[""] * 2001], "[1, 2001]"), ([[{"b64": ""}] * 2001] * 2, "[2, 2001]")],
)
def test_more_values_than_may_be_are_refused_before_they_are_looked_at(values, shape):
    dtype, dims = (tf.string, (None, None)) if isinstance(values[0], list) else (tf.int32, (None,))
    with pytest.raises(RequestError, match=f"values are taken, received the shape {re.escape(shape)}"):
        rest_json.array_of("x", values, info(dtype, *dims), Limits())


def test_large_bodies_are_soon_read():
    rows = [["film"] * 2000] * 256
    started = time.process_time()
    assert rest_json.array_of("x", rows, info(tf.string, None, None), Limits()).shape == (256, 2000)
    assert time.process_time() - started < 2  # a quarter of a second alone


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=2, max_size=2), max_size=3))
def test_texts_are_taken_as_utf8(rows):
    array = rest_json.array_of("history", rows, info(tf.string, None, None), Limits())
    assert array.tolist() == [[text.encode() for text in row] for row in rows]


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=4))
def test_bytes_come_and_go_as_base64(values):
    """An output whose name ends with _bytes is encoded, as the original does."""
    body = rest_json.predictions({"raw_bytes": np.array(values, object)}, in_rows=True)
    back = rest_json.array_of("item", json.loads(json.dumps(body))["predictions"], info(tf.string, None), Limits())
    assert back.tolist() == values
    unpadded = [{"b64": base64.b64encode(each).decode().rstrip("=")} for each in values]
    assert rest_json.array_of("item", unpadded, info(tf.string, None), Limits()).tolist() == values


@given(st.lists(st.floats(width=32), min_size=1))
def test_floats_are_written_by_the_digits_that_tell_them(values):
    written = rest_json.predictions({"score": np.array(values, np.float32)}, in_rows=False)["outputs"]
    np.testing.assert_array_equal(np.array(written, np.float32), np.array(values, np.float32))
    assert [repr(each).removesuffix(".0") for each in written if abs(each) < 1e5 and each >= 0.001] == [
        str(np.float32(each)).removesuffix(".0") for each in values if abs(each) < 1e5 and each >= 0.001
    ]


def test_rows_and_columns_hold_the_same():
    outputs = {"item": np.array([[b"a", b"b"]], object), "score": np.array([[1.5, 2.5]], np.float32)}
    assert rest_json.predictions(outputs, in_rows=False) == {"outputs": {"item": [["a", "b"]], "score": [[1.5, 2.5]]}}
    assert rest_json.predictions(outputs, in_rows=True) == {"predictions": [{"item": ["a", "b"], "score": [1.5, 2.5]}]}
