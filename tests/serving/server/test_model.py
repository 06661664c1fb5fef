"""A version is ready when it has answered its warm-up requests, and leaves nothing when it could not."""

import shutil
import threading

import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfcorr.serving.saved_model import WARMUP
from tfcorr.serving.server.model import LoadedModel


def batchers():
    return [thread for thread in threading.enumerate() if thread.name == "batcher"]


def test_a_model_is_made_when_its_warm_up_requests_are_answered(trained):
    answered = []
    model = LoadedModel(trained.folder / "serving" / "retriever" / "1", 1, 256, answered.append)
    assert answered == [1, 8, 1, 8]  # rows of a request for each of its two signatures
    assert len(batchers()) == 1
    model.close()
    assert not batchers()


def test_a_model_that_cannot_answer_its_warm_up_requests_is_none(trained, tmp_path):
    shutil.copytree(trained.folder / "serving" / "ranker" / "1", tmp_path / "1")
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = "serving_default"
    log.predict_log.request.inputs["history"].CopyFrom(tf.make_tensor_proto([["film-1"]]))  # and no candidates
    with tf.io.TFRecordWriter(str(tmp_path / "1" / WARMUP)) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(TypeError, match="candidates"):
        LoadedModel(tmp_path / "1", 1, 256, print)
    assert not batchers()
