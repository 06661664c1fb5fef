"""What is served after exports, moves of labels and kills; every file is checked against its protobuf."""

import subprocess
import sys

import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfcorr import runs
from tfcorr.serving import versions
from tfcorr.serving.saved_model import WARMUP, read_warmup
from tfcorr.settings import InputError

FIELD = descriptor_pb2.FieldDescriptorProto


def a_message(name, scalars=(), messages=()):
    """A message type of these fields: (name, number, type); messages within it are (name, number, message type)."""
    message = descriptor_pb2.DescriptorProto(name=name)
    for field, number, kind in scalars:
        message.field.add(name=field, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
    for field, number, kind in messages:
        message.field.add(
            name=field, number=number, type=FIELD.TYPE_MESSAGE, type_name=f".{kind}", label=FIELD.LABEL_OPTIONAL
        )
    return message


def message_class(name, *messages):
    """The class of a message type; google.protobuf.Int64Value is as protobuf's own wrappers.proto has it."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="t", syntax="proto3", message_type=messages)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))


def monitoring_class():
    """MonitoringConfig, as tensorflow_serving/config/monitoring_config.proto defines it; no package has it for
    Python."""
    prometheus = a_message("PrometheusConfig", [("enable", 1, FIELD.TYPE_BOOL), ("path", 2, FIELD.TYPE_STRING)])
    return message_class(
        "MonitoringConfig",
        prometheus,
        a_message("MonitoringConfig", [], [("prometheus_config", 1, "t.PrometheusConfig")]),
    )


def batching_class():
    """BatchingParameters, as tensorflow_serving/servables/tensorflow/session_bundle_config.proto defines it."""
    wrapper = a_message("Int64Value", [("value", 1, FIELD.TYPE_INT64)])
    wrapped = ["max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"]
    fields = [(name, number, "t.Int64Value") for number, name in enumerate(wrapped, start=1)]
    return message_class(
        "BatchingParameters",
        wrapper,
        a_message("BatchingParameters", [("pad_variable_length_inputs", 7, FIELD.TYPE_BOOL)], fields),
    )


def models(folder, name="models.config"):
    return text_format.Parse((folder / name).read_text(), ModelServerConfig()).model_config_list.config


@pytest.fixture
def exported(trained, tmp_path):
    """A function that exports the trained run once more; and where it lands."""
    run = runs.Run(tmp_path, trained.settings, trained.catalogue, trained.users, trained.features, trained.towers)
    return (lambda **how: runs.export_run(run, **how)), tmp_path / "serving"


def made(folder, *numbers):
    """Versions that are no more than folders."""
    for number in numbers:
        for name in versions.MODELS:
            (folder / name / str(number)).mkdir(parents=True)


def test_the_configuration_names_every_model_with_its_versions_and_labels(trained):
    folder = trained.folder / "serving"
    both = {"cascade", "cascade_scann", "retriever", "ranker"}
    for name, expected in (("models.config", both), ("models-stock.config", both - {"cascade_scann"})):
        found = models(folder, name)
        assert {each.name for each in found} == expected
        for each in found:
            assert each.base_path == f"/models/{each.name}"
            assert each.model_platform == "tensorflow"
            assert list(each.model_version_policy.specific.versions) == [1]
            assert dict(each.version_labels) == {"stable": 1}


def test_batching_and_monitoring_are_what_their_protobufs_say(trained):
    folder = trained.folder / "serving"
    batching = text_format.Parse((folder / "batching.config").read_text(), batching_class()())
    assert batching.max_batch_size.value >= 1
    assert batching.num_batch_threads.value >= 1
    assert not batching.pad_variable_length_inputs
    monitoring = text_format.Parse((folder / "monitoring.config").read_text(), monitoring_class()())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == versions.MONITORING_PATH
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch: 3", batching_class()())


@pytest.mark.parametrize("name", versions.MODELS)
def test_each_version_holds_warm_up_requests_that_it_answers(trained, name):
    folder = trained.folder / "serving" / name / "1"
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(folder / WARMUP))]
    assert [each.WhichOneof("log_type") for each in logs] == ["predict_log"] * len(logs)
    model = tf.saved_model.load(str(folder))
    asked = set()
    for request in read_warmup(folder):
        assert request.model_spec.name == name
        signature = model.signatures[request.model_spec.signature_name]
        inputs = {each: tf.constant(tf.make_ndarray(value)) for each, value in request.inputs.items()}
        outputs = signature(**inputs)
        asked.add((request.model_spec.signature_name, len(next(iter(inputs.values())))))
        assert all(tf.size(value) for value in outputs.values())
    assert len({name for name, _ in asked}) == len(model.signatures)


def test_an_export_is_served_when_all_of_it_is_whole(exported):
    export, folder = exported
    assert export() == 1
    assert versions.labels(folder) == {"stable": 1}
    assert export(label="canary") == 2
    assert versions.labels(folder) == {"stable": 1, "canary": 2}
    assert list(models(folder)[0].model_version_policy.specific.versions) == [1, 2]
    assert versions.newest_served(folder) == 2
    assert [versions.versions_on_disk(folder / name) for name in versions.MODELS] == [{1, 2}] * 4


def test_a_label_rolls_back_and_forward(tmp_path):
    made(tmp_path, 1, 2)
    versions.publish(tmp_path, 1, "stable", 3)
    versions.publish(tmp_path, 2, "stable", 3)
    assert versions.newest_served(tmp_path) == 2
    versions.move_labels(tmp_path, {"stable": 1})
    assert versions.newest_served(tmp_path) == 1
    assert list(models(tmp_path)[3].model_version_policy.specific.versions) == [1]
    assert versions.move_labels(tmp_path, {"stable": 2, "old": 1}) == {"stable": 2, "old": 1}
    assert versions.move_labels(tmp_path, {"old": None}) == {"stable": 2}


@pytest.mark.parametrize(
    ("moves", "sentence"),
    [
        ({"stable": 7}, "there is no whole version 7 in .*; there are: 1, 2"),
        ({"old": None}, "there is no label 'old' to take away; there are: stable"),
        ({"stable": None}, "nothing would be served"),
        ({"a/b": 1}, "label 'a/b': expected a letter or digit"),
        ({"..": 1}, "label '..': expected a letter or digit"),
    ],
)
def test_a_move_that_would_break_serving_is_refused(tmp_path, moves, sentence):
    made(tmp_path, 1, 2)
    versions.publish(tmp_path, 1, "stable", 3)
    with pytest.raises(InputError, match=sentence):
        versions.move_labels(tmp_path, moves)
    assert versions.labels(tmp_path) == {"stable": 1}


def test_only_the_newest_and_the_labelled_versions_are_kept(tmp_path):
    for number in range(1, 7):
        made(tmp_path, number)
        versions.publish(tmp_path, number, "first" if number == 1 else "stable", 3)
    for name in versions.MODELS:
        assert versions.versions_on_disk(tmp_path / name) == {1, 3, 4, 5, 6}


def test_what_a_killed_export_left_takes_no_place(tmp_path):
    made(tmp_path, 1, 2, 3)
    versions.publish(tmp_path, 3, "stable", 2)
    (tmp_path / "retriever" / "4").mkdir()  # whole by itself, but the other models were not written
    (tmp_path / "retriever" / "²").mkdir()  # no version
    with versions.exclusive(tmp_path):
        assert versions.next_version(tmp_path) == 4
        made(tmp_path, 4)
        versions.publish(tmp_path, 4, "stable", 2)
    assert versions.whole_versions(tmp_path) == {2, 3, 4}


def test_what_is_no_version_is_left_alone_and_blocks_nothing(tmp_path):
    """Files, links and other ways to write a number, be they of a model's versions or in the way of the next."""
    made(tmp_path, 1)
    versions.publish(tmp_path, 1, "stable", 1)
    strays = [tmp_path / "cascade" / "008", tmp_path / "ranker" / "5", tmp_path / "ranker" / "notes.txt"]
    strays[0].mkdir()
    for stray in strays[1:]:
        stray.touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "retriever" / "7").symlink_to(
        tmp_path / "elsewhere"
    )  # a version of one model: it goes, its folder stays
    (tmp_path / "retriever" / ".9.partial-1").symlink_to(tmp_path / "nowhere")
    for number in (9, 10):
        with versions.exclusive(tmp_path):
            assert versions.next_version(tmp_path) == number
            made(tmp_path, number)
            versions.publish(tmp_path, number, "stable", 1)
    assert versions.whole_versions(tmp_path) == {9, 10}
    assert all(stray.exists() for stray in [*strays, tmp_path / "elsewhere"])
    assert sorted(path.name for path in (tmp_path / "retriever").iterdir()) == ["10", "9"]
    assert versions.move_labels(tmp_path, {"stable": 9}) == {"stable": 9}


def test_a_damaged_configuration_is_named(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list { oops")
    with pytest.raises(InputError, match=r"models.config: is damaged"):
        versions.labels(tmp_path)


def test_two_exports_at_a_time_make_two_versions(tmp_path):
    """The second waits until the first lets go, and then sees its version."""
    script = """
import sys, time
from pathlib import Path
from tfcorr.serving import versions
folder = Path(sys.argv[1])
with versions.exclusive(folder):
    print("in", flush=True)
    time.sleep(1.5)
    new = versions.next_version(folder)
    for name in versions.MODELS:
        (folder / name / str(new)).mkdir(parents=True)
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with versions.exclusive(tmp_path):
            assert versions.next_version(tmp_path) == 2
