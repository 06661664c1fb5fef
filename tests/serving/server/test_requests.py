"""What a request may hold, whatever protocol it came by."""

import numpy as np
import pytest
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tfcorr.serving.server.errors import RequestError
from tfcorr.serving.server.requests import checked
from tfcorr.serving.server.settings import Limits


def test_a_number_may_be_unknown_and_not_infinite():
    known = {"age": np.array([1, np.nan, 3], np.float32)}
    assert checked(known, SignatureDef(), Limits()) is known
    for wrong in (np.inf, -np.inf):
        with pytest.raises(RequestError, match="age: row 1 has a number beyond float32; expected finite ones, or NaN"):
            checked({"age": np.array([1, wrong, 3], np.float32)}, SignatureDef(), Limits())


@pytest.mark.parametrize(("rows", "width", "allowed"), [(4, 25, True), (5, 25, False), (1, 101, False)])
def test_candidates_count_as_an_answers_items(rows, width, allowed):
    arrays = {"candidates": np.full((rows, width), b"x", object)}
    if allowed:
        assert checked(arrays, SignatureDef(), Limits(items=100))
    else:
        with pytest.raises(RequestError, match=f"at most 100 items; {rows} rows of {width} are {rows * width}: ask"):
            checked(arrays, SignatureDef(), Limits(items=100))
