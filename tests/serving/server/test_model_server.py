"""TensorFlow Serving's own binary: started with the right flags, and asked where it is installed."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.serving.server.conftest import copy_of
from tests.serving.server.test_reload import message, publish_copy
from tfcorr.serving.recommend import Recommender

COMMAND = [sys.executable, "-c", "from tfcorr.cli import main; main()", "serve"]
# Says what it was given, then waits for its end.
FAKE = """#!/bin/sh
for flag in "$@"; do echo "$flag"; done > "$SAID"
trap 'echo told to stop >> "$SAID"; exit 0' TERM
while true; do sleep 0.05; done
"""


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_binary_is_started_over_the_exports_and_follows_their_labels(trained, tmp_path):
    folder, said = copy_of(trained, tmp_path / "run"), tmp_path / "said"
    binary = tmp_path / "bin" / "tensorflow_model_server"
    binary.parent.mkdir()
    binary.write_text(FAKE)
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {"PATH": f"{binary.parent}:{os.environ['PATH']}", "SAID": str(said)}
    command = [*COMMAND, folder, "--insecure", "--port", "9500", "--rest-port", "9501"]
    with subprocess.Popen(command, env=environment) as process:
        wait_for(lambda: said.is_file() and len(said.read_text().splitlines()) == 6)
        flags = dict(line.removeprefix("--").split("=", 1) for line in said.read_text().splitlines())
        assert (flags["port"], flags["rest_api_port"]) == ("9500", "9501")
        assert flags["allow_version_labels_for_unavailable_models"] == "true"
        assert flags["monitoring_config_file"] == str(folder / "serving" / "monitoring.config")

        def models():
            with open(flags["model_config_file"]) as file:
                return text_format.Parse(file.read(), ModelServerConfig()).model_config_list.config

        assert {model.name: model.base_path for model in models()} == {
            name: str(folder / "serving" / name) for name in ("cascade", "retriever", "ranker")
        }
        publish_copy(folder / "serving", 2, "stable")
        wait_for(lambda: dict(models()[0].version_labels) == {"stable": 2})
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert said.read_text().splitlines()[-1] == "told to stop"


def test_a_binary_that_is_killed_is_no_success(trained, tmp_path):
    binary = tmp_path / "bin" / "tensorflow_model_server"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\nkill -9 $$\n")
    binary.chmod(0o755)
    environment = os.environ | {"PATH": f"{binary.parent}:{os.environ['PATH']}"}
    command = [*COMMAND, trained.folder, "--insecure"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "ended with code -9" in ended.stderr) == (1, True)
    ended = subprocess.run(
        [*command, "--port", "0"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, "give ports other than 0" in ended.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("tensorflow_model_server") is None, reason="tensorflow_model_server is not installed")
def test_the_real_binary_answers_as_the_model_does_in_process(trained, tmp_path):
    folder = copy_of(trained, tmp_path / "run")
    with subprocess.Popen([*COMMAND, folder, "--insecure", "--port", "9510", "--rest-port", "9511"]) as process:
        with grpc.insecure_channel("127.0.0.1:9510") as channel:
            grpc.channel_ready_future(channel).result(60)
            answer = PredictionServiceStub(channel).Predict(message(), 60)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    expected = Recommender(trained.folder).recommend([["film-1", "film-2"]], 5)["item"].to_list()
    assert [item.decode() for item in tf.make_ndarray(answer.outputs["item"])[0]] == expected
