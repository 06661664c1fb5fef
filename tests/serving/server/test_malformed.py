"""Hundreds of requests with something wrong in them: each has its error, and the next good request is answered."""

import json

import grpc
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest

SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
GOOD = {"instances": [{"history": ["film-1", "film-2"], "k": 5, "exclude": [""]}]}
REFUSED = {400, 404, 405, 413, 414}
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,  # which gRPC itself answers to bytes that are no message
}

names = st.sampled_from(["history", "k", "exclude", "candidates", "item", ""]) | st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.builds(lambda text: {"b64": text}, st.text(max_size=5))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3), max_leaves=12
)
inputs = st.dictionaries(names, values, max_size=4)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "instances": values | st.lists(inputs, max_size=3),
        "inputs": values | inputs,
        "signature_name": values,
        "more": values,
    },
)


def answers_well(server):
    answer = server.predict(GOOD)
    return answer.status_code == 200 and len(answer.json()["predictions"][0]["item"]) == 5


def in_order(server, answer):
    """Answered, or refused with a reason; never a fault of the server's own, and never its end."""
    assert answer.status_code == 200 or (answer.status_code in REFUSED and answer.json()["error"])
    assert server.process.poll() is None


@SETTINGS
@given(bodies, st.sampled_from(["cascade", "cascade_scann", "retriever", "ranker"]))
@example({"inputs": {"history": [[]], "k": [5], "exclude": [[]]}}, "cascade")
@example({"inputs": {"history": [[""]], "k": [10**400], "exclude": [[""]]}}, "cascade")
@example({"inputs": {"history": [["\ud800"]], "k": [5], "exclude": [[""]]}}, "cascade")
@example({"inputs": {"history": [[[[]]]], "candidates": [[""]]}}, "ranker")
@example({"inputs": {"history": [[""]], "candidates": [[]]}}, "ranker")
@example({"inputs": [], "signature_name": "items"}, "retriever")
def test_json_of_any_kind(server, body, model):
    in_order(server, server.predict(json.dumps(body).encode(), model))
    assert answers_well(server)


@SETTINGS
@given(st.binary(max_size=200) | st.builds(lambda cut: json.dumps(GOOD).encode()[:cut], st.integers(0, 60)))
@example(b'{"instances": ' + b"[" * 5000)
@example(b'{"instances": [{"history": ["a"], "k": NaN, "exclude": [""]}]}')
def test_bytes_that_are_no_json(server, body):
    in_order(server, server.predict(body))
    assert answers_well(server)


@SETTINGS
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]), st.text(st.characters(codec="utf-8"), max_size=30))
@example("GET", "models/cascade/versions/-1")
@example("POST", "models/cascade/labels/%00:predict")
@example("GET", "models/" + "x" * 5000)
def test_paths_of_any_kind(server, method, path):
    in_order(server, requests.request(method, f"{server.url}/v1/{path}", json=GOOD, timeout=30))


shapes = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 60), max_size=4)


@st.composite
def tensors(draw):
    """Of any type, shape and content, which need not fit together."""
    proto = TensorProto(dtype=draw(st.integers(0, 30) | st.sampled_from([1, 3, 7, 7])))
    for size in draw(shapes | st.sampled_from([[1, 2], [1], [2, 1]])):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    proto.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    proto.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    proto.tensor_content = draw(st.just(b"") | st.binary(max_size=20))
    return proto


@SETTINGS
@given(st.dictionaries(st.sampled_from(["history", "k", "exclude"]), tensors(), max_size=3), st.text(max_size=8))
def test_tensors_of_any_kind(server, given_tensors, signature):
    request = PredictRequest()
    request.model_spec.name = "cascade"
    request.model_spec.signature_name = signature if len(signature) > 4 else ""
    for name, tensor in given_tensors.items():
        request.inputs[name].CopyFrom(tensor)
    assert _over_grpc(server, request.SerializeToString()) != grpc.StatusCode.INTERNAL  # as it is a message
    assert answers_well(server)


METHODS = ["PredictionService/Predict", "PredictionService/Classify", "ModelService/GetModelStatus", "Nope/X"]


@SETTINGS
@given(st.binary(max_size=300), st.sampled_from(METHODS))
def test_bytes_that_are_no_message(server, body, method):
    _over_grpc(server, body, method)
    assert answers_well(server)


def test_a_few_bytes_that_claim_a_shape_which_fills_the_memory_are_refused(server):
    request = PredictRequest()
    request.model_spec.name = "cascade"
    for name, dtype in (("history", 7), ("exclude", 7), ("k", 3)):
        proto = TensorProto(dtype=dtype, string_val=[b"x"] if dtype == 7 else [], int_val=[3] if dtype == 3 else [])
        for _ in range(1 if name == "k" else 2):
            proto.tensor_shape.dim.add(size=2**20)
        request.inputs[name].CopyFrom(proto)
    assert _over_grpc(server, request.SerializeToString()) == grpc.StatusCode.INVALID_ARGUMENT
    assert answers_well(server)


def _over_grpc(server, body, method="PredictionService/Predict"):
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"/tensorflow.serving.{method}", lambda each: each, lambda each: each)
        code = _code(call, body)
    assert code in CODES
    assert server.process.poll() is None
    return code


def _code(call, body):
    try:
        call(body, 30)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
