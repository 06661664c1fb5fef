"""Every call of TensorFlow Serving's protocols, by its official stubs and by plain HTTP."""

import base64
import re
import socket
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tfcorr.data.sources import load
from tfcorr.serving.client import RemoteRecommender
from tfcorr.serving.recommend import Recommender
from tfcorr.settings import InputError

ROW = {"history": ["film-1", "film-2"], "k": 5, "exclude": ["film-4"]}


def message(model="cascade", signature="", version=None, label=None, output_filter=(), **inputs):
    request = PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def asked(history=("film-1", "film-2"), k=5, exclude=("film-4",)):
    return {"history": [list(history)], "k": np.array([k], np.int32), "exclude": [list(exclude)]}


def refused(call, request):
    with pytest.raises(grpc.RpcError) as error:
        call(request, 30)
    return error.value.code(), error.value.details()


def test_predict_answers_over_both_protocols_what_the_model_answers_in_process(server, trained):
    expected = Recommender(trained.folder).recommend([ROW["history"]], 5, [ROW["exclude"]])
    prediction, _ = server.stubs()
    answer = prediction.Predict(message(**asked()), 30)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("cascade", 1)
    assert answer.model_spec.signature_name == "serving_default"
    rows = server.predict({"instances": [ROW]}).json()["predictions"]
    columns = server.predict({"inputs": {name: [value] for name, value in ROW.items()}}).json()["outputs"]
    for name in ("item", "score", "ranker_score", "retriever_score"):
        values = tf.make_ndarray(answer.outputs[name])
        over_grpc = [value.decode() for value in values[0]] if name == "item" else values[0].tolist()
        assert over_grpc == expected[name].to_list()
        over_rest = rows[0][name] if name == "item" else np.float32(rows[0][name]).tolist()
        assert rows[0][name] == columns[name][0]
        assert over_rest == over_grpc


@pytest.mark.parametrize("index", ["exact", "scann"])
def test_every_test_user_has_one_list_over_grpc_in_process_and_in_evaluation(server, trained, index):
    dataset = load(trained.settings.data)
    places = dataset.histories.targets("test")
    starts = dataset.histories.starts(places)
    ids = dataset.catalogue.ids
    histories = [
        [ids[item - 1] for item in dataset.histories.items[start:place]]
        for start, place in zip(starts, places, strict=True)
    ]
    remote = RemoteRecommender(server.grpc_address, index, rows=8)  # what this server takes at once
    found = remote.recommend(histories, 25)
    expected = Recommender(trained.folder, index).recommend(histories, 25)
    assert found.select("row", "rank", "item").equals(expected.select("row", "rank", "item"))
    for score in (
        "score",
        "ranker_score",
        "retriever_score",
    ):  # of other numbers of rows at once, so that the last digits differ
        np.testing.assert_allclose(found[score], expected[score], rtol=1e-4, atol=1e-6)
    lists = found.group_by("row", maintain_order=True).agg("item")["item"]
    ranks = pl.read_parquet(trained.folder / "ranks.parquet")
    compared = 0
    for history, items, (target, rank) in zip(
        histories, lists.to_list(), ranks.select("target", "cascade").iter_rows(), strict=True
    ):
        if target not in history:  # which evaluation keeps as a candidate, and the endpoint excludes as seen
            assert (items.index(target) + 1 if target in items else None) == rank
            compared += 1
    assert compared > 30
    bodies = [{"instances": [{"history": history, "k": 25, "exclude": []}]} for history in histories[:10]]
    over_rest = [
        server.predict(body, {"exact": "cascade", "scann": "cascade_scann"}[index]).json()["predictions"][0]
        for body in bodies
    ]
    assert [row["item"] for row in over_rest] == lists.to_list()[:10]


def test_a_server_tells_what_is_not_known_as_the_model_in_process_does(server, trained):
    histories, exclude = [["film-1", "x"], ["y"] * 9], [[], ["z", "film-2"]]
    expected = Recommender(trained.folder).unknown(histories, exclude)
    assert RemoteRecommender(server.grpc_address, rows=1).unknown(histories, exclude) == expected
    assert expected == {"history": (["x", "y"], 3), "exclude": (["z"], 2)}


def test_each_row_has_as_many_as_it_asks_for(server):
    prediction, _ = server.stubs()
    request = message(history=[["film-1"], ["film-2"]], k=np.array([2, 4], np.int32), exclude=[[""], [""]])
    items = tf.make_ndarray(prediction.Predict(request, 30).outputs["item"])
    assert (items != b"").sum(axis=1).tolist() == [2, 4]
    assert items.shape == (2, 4)


def test_the_retriever_has_two_signatures(server, trained):
    prediction, _ = server.stubs()
    query = tf.make_ndarray(prediction.Predict(message("retriever", history=[ROW["history"]]), 30).outputs["vector"])
    best = Recommender(trained.folder).recommend([ROW["history"]], 25)
    first, other = best["item"][:2]
    vectors = tf.make_ndarray(
        prediction.Predict(message("retriever", "items", item=[first, other]), 30).outputs["vector"]
    )
    for score, vector in zip(best["retriever_score"], vectors, strict=False):
        assert query[0] @ vector == pytest.approx(score, rel=1e-3, abs=1e-5)
    body = {"signature_name": "items", "instances": [first, {"b64": base64.b64encode(other.encode()).decode()}]}
    np.testing.assert_allclose(server.predict(body, "retriever").json()["predictions"], vectors, rtol=1e-6)
    alone = server.predict({"signature_name": "items", "inputs": [first]}, "retriever").json()["outputs"]
    assert np.float32(alone).tolist() == [vectors[0].tolist()]


def test_the_ranker_scores_the_candidates_that_it_is_given(server):
    body = {"instances": [{"history": ROW["history"], "candidates": ["film-3", "film-5", "no such film"]}]}
    scores = server.predict(body, "ranker").json()["predictions"][0]
    assert len(scores) == 3
    assert scores[2] == tf.float32.min


def test_a_version_or_a_label_may_be_named(server):
    prediction, _ = server.stubs()
    for choice in ({"version": 1}, {"label": "stable"}, {}):
        assert prediction.Predict(message(**choice, **asked()), 30).model_spec.version.value == 1
    expected = server.predict({"instances": [ROW]}).json()
    for path in ("cascade/versions/1", "cascade/labels/stable"):
        assert server.predict({"instances": [ROW]}, path).json() == expected


def test_output_filter_leaves_the_rest_out(server):
    prediction, _ = server.stubs()
    assert list(prediction.Predict(message(output_filter=["item"], **asked()), 30).outputs) == ["item"]


def test_metadata_are_the_signatures(server, trained):
    prediction, _ = server.stubs()
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "cascade"
    answer = prediction.GetModelMetadata(request, 30)
    signatures = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert answer.model_spec.version.value == 1
    signature = signatures.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(signature.inputs) == {"history", "k", "exclude"}
    over_rest = server.get("/v1/models/cascade/metadata").json()
    inputs = over_rest["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert {name: info["dtype"] for name, info in inputs.items()} == {
        "history": "DT_STRING",
        "k": "DT_INT32",
        "exclude": "DT_STRING",
    }
    request.metadata_field[:] = ["weights"]
    assert refused(prediction.GetModelMetadata, request)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_status_tells_the_state_of_each_version(server):
    _, models = server.stubs()
    request = GetModelStatusRequest()
    request.model_spec.name = "cascade_scann"
    found = models.GetModelStatus(request, 30).model_version_status
    assert [(each.version, each.state, each.status.error_code) for each in found] == [
        (1, ModelVersionStatus.AVAILABLE, 0)
    ]
    expected = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("", "/versions/1", "/labels/stable"):
        assert server.get(f"/v1/models/cascade_scann{path}").json() == {"model_version_status": [expected]}


INVALID, NOT_FOUND, PRECONDITION = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@pytest.mark.parametrize(
    ("request_", "code", "sentence"),
    [
        (message("", **asked()), INVALID, "names no model"),
        (
            message("nope", **asked()),
            NOT_FOUND,
            "there is no model 'nope'; there are: cascade, cascade_scann, retriever, ranker",
        ),
        (message(version=9, **asked()), NOT_FOUND, "version 9 of cascade is not available; there are: 1"),
        (message(label="nope", **asked()), INVALID, "has no version label 'nope'; there are: stable"),
        (
            message(signature="nope", **asked()),
            PRECONDITION,
            "has no signature 'nope'; there are: known, serving_default",
        ),
        (message(output_filter=["nope"], **asked()), INVALID, "there is no output 'nope'"),
        (message(output_filter=["item", "item"], **asked()), INVALID, "stands twice"),
        (message(history=[["film-1"]]), INVALID, "which are exclude, history, k; missing: exclude, k"),
        (message(more=[1], **asked()), INVALID, "not known: more"),
        (message(**(asked() | {"k": np.array([5], np.int64)})), INVALID, "k: expected int32 [?], received int64"),
        (
            message(**(asked() | {"history": ["film-1"]})),
            INVALID,
            "history: expected string [?, ?], received the shape [1]",
        ),
        (
            message(**(asked() | {"k": np.array([1, 2], np.int32)})),
            INVALID,
            "unequal numbers of rows: exclude 1, history 1, k 2",
        ),
        (message(**asked(k=31)), INVALID, "k: expected 0 to 30, received 31"),
        (message(**asked(k=-1)), INVALID, "k: expected 0 to 30, received -1"),
        (message(**asked(history=["film-1"] * 51)), INVALID, "history: at most 8 rows of 50 values are taken"),
        (message(history=[["a"]] * 9, k=np.full(9, 1, np.int32), exclude=[[""]] * 9), INVALID, "at most 8 rows"),
        (
            message(history=np.zeros([0, 1], object), k=np.zeros(0, np.int32), exclude=np.zeros([0, 1], object)),
            INVALID,
            "has 0",
        ),
    ],
)
def test_a_wrong_call_has_the_code_of_the_original(server, request_, code, sentence):
    prediction, _ = server.stubs()
    found, details = refused(prediction.Predict, request_)
    assert found == code
    assert sentence in details


def test_what_is_not_there_is_not_found_or_not_implemented(server):
    prediction, models = server.stubs()
    status = GetModelStatusRequest()
    assert refused(models.GetModelStatus, status)[0] == INVALID
    status.model_spec.name = "nope"
    assert refused(models.GetModelStatus, status)[0] == NOT_FOUND
    status.model_spec.name, status.model_spec.version.value = "cascade", 9
    assert refused(models.GetModelStatus, status)[0] == NOT_FOUND
    assert refused(prediction.Classify, ClassificationRequest())[0] == grpc.StatusCode.UNIMPLEMENTED
    assert refused(models.HandleReloadConfigRequest, ReloadConfigRequest())[0] == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("cascade", b"{", 400, "is no JSON"),
        ("cascade", b"\xff\xfe\x00", 400, "is no JSON"),
        ("cascade", b"[" * 9000, 400, "is no JSON"),
        ("cascade", b"[]", 400, "must be a JSON object"),
        ("cascade", {"signature_name": 3, "instances": [ROW]}, 400, '"signature_name" must be a string'),
        ("cascade", {"instances": [ROW], "inputs": {}}, 400, 'either "instances"'),
        ("cascade", {"instances": []}, 400, "one row at least"),
        (
            "cascade",
            {"instances": [ROW, {"history": []}]},
            400,
            "instance 1 does not have the same inputs as the first",
        ),
        ("cascade", {"instances": ["film-1"]}, 400, "there are several inputs, so each must be named"),
        ("cascade", {"instances": [ROW | {"k": 1.5}]}, 400, "k: expected values of type int32, received 1.5"),
        ("cascade", {"instances": [ROW | {"k": 2**31}]}, 400, "k: expected values of type int32"),
        ("cascade", {"instances": [ROW | {"k": True}]}, 400, "k: expected values of type int32, received true"),
        (
            "cascade",
            {"instances": [ROW | {"history": "film-1"}]},
            400,
            "history: expected string [?, ?], received a list of 1 levels",
        ),
        (
            "cascade",
            {"instances": [ROW | {"history": [1]}]},
            400,
            "history: expected values of type string, received 1",
        ),
        ("cascade", {"instances": [ROW | {"history": [{"b64": "!"}]}]}, 400, "is no base64"),
        (
            "cascade",
            {"instances": [ROW, ROW | {"history": ["film-1"]}]},
            400,
            'unequal lengths [1, 2]; fill the shorter up, ids by ""',
        ),
        ("cascade", {"instances": [ROW | {"k": 31}]}, 400, "k: expected 0 to 30, received 31"),
        ("cascade", {"instances": [ROW] * 9}, 400, "at most 8 rows of 50 values are taken, received the shape [9]"),
        (
            "cascade",
            {"instances": [ROW | {"history": ["x"] * 51}]},
            400,
            "50 values are taken, received the shape [1, 5",
        ),
        (
            "cascade",
            {"inputs": {"history": [[""]], "exclude": [[""]], "k": [1] * 5_000}},
            400,
            "k: at most 8 rows of 50 values are taken",
        ),
        ("cascade", {"signature_name": "nope", "instances": [ROW]}, 400, "has no signature 'nope'"),
        ("cascade", b" " * 20_001, 413, "Maximum request body size"),
        ("nope", {"instances": [ROW]}, 404, "there is no model 'nope'"),
        ("cascade/versions/9", {"instances": [ROW]}, 404, "version 9 of cascade is not available"),
        ("cascade/versions/99999999999999999999", {"instances": [ROW]}, 400, "malformed request"),
        ("cascade/versions/9999999999999999999", {"instances": [ROW]}, 400, "beyond 64 bits"),
        ("cascade/labels/nope", {"instances": [ROW]}, 400, "no version label 'nope'"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(server, path, body, status, sentence):
    answer = server.predict(body, path)
    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text


def test_text_that_is_none_and_bodies_that_do_not_unpack_are_refused(server):
    body = b'{"signature_name": "\\ud800", "instances": [{"history": ["film-1"], "k": 2, "exclude": [""]}]}'
    assert server.predict(body).status_code == 400
    assert server.predict(b"nonsense", headers={"Content-Encoding": "gzip"}).status_code == 400


def test_blanks_around_an_id_do_not_matter(server):
    expected = server.predict({"instances": [ROW]}).json()
    assert expected["predictions"][0]["item"]
    blank = ROW | {"history": [f" {item}\n" for item in ROW["history"]], "exclude": ["\tfilm-4 "]}
    assert server.predict({"instances": [blank]}).json() == expected


def test_many_names_are_told_in_short(server):
    answer = server.predict({"inputs": {f"x{number}": [1] for number in range(1500)}})
    assert (answer.status_code, len(answer.json()["error"])) == (400, 1000)


def test_a_client_asks_again_for_half_where_a_server_takes_fewer_rows(server, trained):
    remote, local = RemoteRecommender(server.grpc_address), Recommender(trained.folder)
    histories = [[f"film-{number}", "x"] for number in range(21)]
    assert remote.rows > 8
    found = remote.recommend(histories, 5)
    assert found.select("row", "rank", "item").equals(local.recommend(histories, 5).select("row", "rank", "item"))
    assert remote.unknown(histories) == local.unknown(histories)


def test_a_long_name_is_told_in_short(server):
    prediction, _ = server.stubs()
    code, details = refused(prediction.Predict, message(signature="x" * 15_000, **asked()))
    assert (code, len(details)) == (PRECONDITION, 1000)


def test_an_answer_is_no_larger_than_was_said(server):
    prediction, _ = server.stubs()
    rows = {"history": [["film-1"]] * 8, "exclude": [[""]] * 8}
    code, details = refused(prediction.Predict, message(k=np.full(8, 30, np.int32), **rows))
    assert (code, "an answer has at most 200 items; 8 rows of 30 are 240" in details) == (INVALID, True)
    assert prediction.Predict(message(k=np.full(8, 25, np.int32), **rows), 30).outputs


def test_a_page_of_another_site_may_not_ask(server):
    """Neither by its own origin, nor by a name of its own that leads to this machine."""
    for headers, status in {
        (): 200,
        (("Origin", server.url),): 200,
        (("Origin", "http://evil.example"),): 403,
        (("Origin", "null"),): 403,
        (("Host", "evil.example"),): 403,
        (("Host", "localhost:1"),): 200,
    }.items():
        assert server.predict({"instances": [ROW]}, headers=dict(headers)).status_code == status, headers
    assert server.get("/", headers={"Host": "evil.example:8501"}).json() == {"error": "this server is not evil.example"}


def test_an_answer_says_neither_versions_nor_may_it_be_taken_for_another_kind_or_framed(server):
    for path in ("/", "/nowhere", "/v1/models/cascade"):
        found = server.get(path).headers
        assert (found["Server"], found["X-Content-Type-Options"]) == ("tfcorr", "nosniff")
    assert "frame-ancestors 'none'" in server.get("/").headers["Content-Security-Policy"]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as other:
        other.sendall(b"no HTTP\r\n\r\n")
        said = other.recv(10_000)
    assert (b"400 Bad Request" in said, b"Server: tfcorr\r\n" in said) == (True, True)


def test_other_paths_and_methods_are_refused(server):
    for path, status in (
        ("/nothing", 404),
        ("/v1/models/cascade:predict", 400),
        ("/v1/models/cascade:regress", 400),
        ("/v1/x", 400),
    ):
        answer = server.get(path)
        assert answer.status_code == status
        assert answer.json()["error"]
    assert server.get("/v1/models/nope").status_code == 404


def test_a_message_that_is_too_large_exhausts(server):
    prediction, _ = server.stubs()
    long = message(**asked(history=["x" * 30_000]))
    assert refused(prediction.Predict, long)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metrics_count_what_was_answered_and_what_was_refused(server):
    server.predict({"instances": [ROW]})
    server.predict({"instances": [ROW]}, "made-up-name")
    text = server.get("/monitoring/prometheus/metrics").text
    assert 'tfcorr_requests_total{api="REST",code="OK",method="Predict",model="cascade"}' in text
    assert 'tfcorr_requests_total{api="REST",code="NOT_FOUND",method="Predict",model=""}' in text
    assert "made-up-name" not in text  # whoever asks must not fill the memory with names
    assert 'tfcorr_request_seconds_bucket{api="gRPC",le="0.1",method="Predict",model="cascade"}' in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    count, latency = (families[f":tensorflow:serving:request_{each}"] for each in ("count", "latency"))
    of_cascade = {"model_name": "cascade", "status": "OK"}
    answered = sum(each.value for each in count.samples if each.labels == of_cascade)
    own = [each for each in families["tfcorr_requests"].samples if each.labels["method"] == "Predict"]
    assert answered == sum(
        each.value for each in own if each.labels["model"] == "cascade" and each.labels["code"] == "OK"
    )
    within = {"model_name": "cascade", "API": "predict", "entrypoint": "REST"}
    buckets = [each.value for each in latency.samples if each.labels.items() > within.items() and "le" in each.labels]
    counted = next(each.value for each in latency.samples if each.name.endswith("_count") and each.labels == within)
    assert buckets == sorted(buckets)
    assert buckets[-1] == counted > 0
    spent = next(each.value for each in latency.samples if each.name.endswith("_sum") and each.labels == within)
    assert 10 < spent / counted < 30e6  # microseconds


def test_a_call_that_ends_without_a_message_is_answered(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
        with pytest.raises(grpc.RpcError) as error:
            call(iter(()), 10)
    assert (error.value.code().name, error.value.details()) == ("INTERNAL", "the call ended without a message")


def test_json_is_as_the_original_writes_it(server):
    """Floats by float32's digits; metadata without the type of what was packed."""
    text = server.predict({"instances": [ROW]}).text
    digits = [
        len(each.replace(".", "").lstrip("-0")) for each in re.findall(r'_score": \[([^\]]*)', text)[0].split(", ")
    ]
    assert max(digits) <= 9
    assert "@type" not in server.get("/v1/models/cascade/metadata").text


def test_the_client_says_what_is_wrong(server):
    with pytest.raises(InputError, match="INVALID_ARGUMENT: cascade has no version label 'nope'"):
        RemoteRecommender(server.grpc_address, label="nope")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1: UNAVAILABLE"):
        RemoteRecommender("127.0.0.1:1")
    with pytest.raises(InputError, match="k: expected 0 to 30, received 99"):
        RemoteRecommender(server.grpc_address).recommend([["film-1"]], 99)


def test_the_example_in_the_docs_prints_what_the_model_answers(server, trained, capsys):
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    history = ["film-1", "film-2"]
    exec(example.replace("127.0.0.1:8500", server.grpc_address).replace('["50", "181", "172"]', str(history)))
    expected = Recommender(trained.folder).recommend([history], 10)["item"].to_list()
    assert capsys.readouterr().out.strip() == str(expected)
