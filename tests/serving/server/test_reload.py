"""Versions come, go and are broken while requests are answered; none is dropped."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tests.serving.server.conftest import copy_of, start_server
from tfcorr import runs
from tfcorr.serving import versions
from tfcorr.serving.recommend import Recommender

ROW = {"history": ["film-1", "film-2"], "k": 5, "exclude": ["film-4"]}


@contextmanager
def serving(run, *options):
    server = start_server(run, "--model", "cascade", *options)
    yield server
    server.process.kill()
    server.process.wait(30)


@pytest.fixture(scope="module")
def changing(trained, tmp_path_factory):
    """A server whose run's versions may be changed, with their folder; the tests go on from what others left, and the
    last stops it."""
    run = tmp_path_factory.mktemp("changing") / "run"
    shutil.copytree(trained.folder, run)
    with serving(run) as server:
        yield server, run / "serving"


@pytest.fixture(scope="module")
def busy(trained, tmp_path_factory):
    """A server that takes two requests at once, and waits no longer than a second; the last of its tests stops it."""
    with serving(copy_of(trained, tmp_path_factory.mktemp("busy")), "--max-requests", 2, "--drain", 1) as server:
        yield server


def publish_copy(folder, version, label):
    """The version that is served again as another, in the way in which an export would put it there."""
    served = str(versions.newest_served(folder))
    for name in versions.MODELS:
        shutil.copytree(folder / name / served, folder / name / f".{version}.partial-0")
        (folder / name / f".{version}.partial-0").rename(folder / name / str(version))
    versions.publish(folder, version, label, 3)


def states(server):
    found = server.get("/v1/models/cascade").json()["model_version_status"]
    return {int(each["version"]): each["state"] for each in found}


def wait_for(server, expected):
    """Until these are the versions' states, and every other version has ended."""
    deadline = time.monotonic() + 30
    while {
        version: state for version, state in states(server).items() if version in expected or state != "END"
    } != expected:
        assert time.monotonic() < deadline, states(server)
        time.sleep(0.1)


class Clients:
    """Threads that ask without a pause, by each way to choose a version; what was answered, and what was not."""

    def __init__(self, server, expected):
        """expected are the lists that histories are answered by, each asked by threads of its own."""
        self.server, self.expected, self.answered, self.failed, self._stop = server, expected, [], [], threading.Event()
        ways = itertools.cycle(
            [self._over_grpc, partial(self._over_rest, "/labels/stable"), partial(self._over_rest, "")]
        )
        self.threads = [threading.Thread(target=self._ask, args=each) for each in zip(ways, expected, strict=False)]
        self.stub, _ = server.stubs()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self.threads:
            thread.join()

    def _ask(self, way, history):
        while not self._stop.is_set():
            try:
                version, items = way(history)
                assert items == self.expected[history], (history, items)
                self.answered.append(version)
            except Exception as error:
                self.failed.append(error)

    def _over_grpc(self, history):
        answer = self.stub.Predict(message("stable", history=history), 30)
        return answer.model_spec.version.value, [item.decode() for item in tf.make_ndarray(answer.outputs["item"])[0]]

    def _over_rest(self, path, history):
        row = {"history": history, "k": 5, "exclude": [""]}
        answer = requests.post(
            f"{self.server.url}/v1/models/cascade{path}:predict", json={"instances": [row]}, timeout=30
        )
        answer.raise_for_status()
        return 0, answer.json()["predictions"][0]["item"]


def message(label="", rows=1, history=("film-1", "film-2")):
    request = PredictRequest()
    request.model_spec.name = "cascade"
    if label:
        request.model_spec.version_label = label
    inputs = {"history": [list(history)] * rows, "k": np.full(rows, 5, np.int32), "exclude": [[""]] * rows}
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def test_versions_roll_forward_and_back_and_every_request_has_its_own_answer(changing, trained):
    server, folder = changing
    first, second = versions.newest_served(folder), versions.next_version(folder)
    third = second + 1
    histories = [(f"film-{number}", f"film-{2 * number}") for number in range(1, 7)]
    found = Recommender(trained.folder).recommend([list(each) for each in histories], 5)
    lists = found.group_by("row", maintain_order=True).agg("item")["item"].to_list()
    with Clients(server, dict(zip(histories, lists, strict=True))) as clients:
        publish_copy(folder, second, "canary")
        wait_for(server, {first: "AVAILABLE", second: "AVAILABLE"})
        versions.move_labels(folder, {"stable": second, "canary": None})
        wait_for(server, {first: "END", second: "AVAILABLE"})
        publish_copy(folder, third, "stable")  # the label waits until its new version answers
        wait_for(server, {first: "END", second: "END", third: "AVAILABLE"})
        versions.move_labels(folder, {"stable": second})
        wait_for(server, {first: "END", second: "AVAILABLE", third: "END"})
        time.sleep(0.3)
    assert not clients.failed
    assert set(clients.answered) == {0, first, second, third}  # 0 is over REST, which does not say
    assert clients.stub.Predict(message("stable"), 30).model_spec.version.value == second


def test_a_broken_version_or_configuration_takes_nothing_down(changing):
    server, folder = changing
    first, second = versions.newest_served(folder), versions.next_version(folder)
    for name in versions.MODELS:
        shutil.copytree(folder / name / str(first), folder / name / str(second))
    (folder / "cascade" / str(second) / "saved_model.pb").write_bytes(b"\x08\x01 no model")
    versions.publish(folder, second, "stable", 3)
    assert f"version {second}: cannot be loaded" in server.lines_until(f"version {second}: ")[-1]
    found = server.get("/v1/models/cascade").json()["model_version_status"]
    assert [
        (int(each["version"]), each["state"], each["status"]["error_code"])
        for each in found
        if int(each["version"]) in (first, second)
    ] == [
        (second, "END", "UNKNOWN"),
        (first, "AVAILABLE", "OK"),
    ]
    stub, _ = server.stubs()
    assert stub.Predict(message("stable"), 30).model_spec.version.value == first
    (folder / "models.config").write_text("model_config_list {")
    assert "models.config: is damaged" in server.lines_until("damaged")[-1]
    assert stub.Predict(message(), 30).model_spec.version.value == first
    (folder / "models.config").unlink()
    assert "models.config: is not there" in server.lines_until("not there")[-1]
    versions.publish(folder, first, "stable", 3)
    wait_for(server, {first: "AVAILABLE", second: "END"})


def test_a_version_that_hangs_or_is_missing_stops_neither_following_nor_the_end(trained, tmp_path):
    """Its models are served together, so that none answers by it before all are ready or given up."""
    run = copy_of(trained, tmp_path)
    folder = run / "serving"
    with serving(run, "--model", "ranker", "--load-seconds", 15, "--drain", 1) as server:
        publish_copy(folder, 2, "canary")
        wait_for(server, {1: "AVAILABLE", 2: "AVAILABLE"})
        for name in versions.MODELS:
            shutil.copytree(folder / name / "2", folder / name / "3")
        os.unlink(folder / "ranker" / "3" / "saved_model.pb")
        os.mkfifo(folder / "ranker" / "3" / "saved_model.pb")
        versions.publish(folder, 3, "canary", 3)
        time.sleep(4)
        assert states(server)[3] == "LOADING"
        assert server.predict({"instances": [ROW]}).status_code == 200
        assert "ranker version 3: cannot be loaded: it was not ready within 15 s" in server.lines_until("cannot be")[-1]
        wait_for(server, {1: "AVAILABLE", 3: "AVAILABLE"})
        found = server.get("/v1/models/ranker").json()["model_version_status"]
        assert [(each["version"], each["state"]) for each in found] == [
            ("3", "END"),
            ("2", "AVAILABLE"),
            ("1", "AVAILABLE"),
        ]
        assert found[0]["status"]["error_code"] == "DEADLINE_EXCEEDED"
        for name in versions.MODELS:
            (folder / name / "4").symlink_to(folder / name / "1")
        versions.publish(folder, 4, "stable", 3)
        wait_for(server, {3: "AVAILABLE", 4: "AVAILABLE"})
        os.mkfifo(folder / "cascade" / "5")
        versions.publish(folder, 5, "stable", 3)
        assert "cascade version 5: cannot be loaded" in server.lines_until("version 5")[-1]
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 8


def test_a_second_interrupt_ends_it_at_once(trained, tmp_path):
    with serving(copy_of(trained, tmp_path), "--drain", 60) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/models/cascade:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            time.sleep(0.3)
            server.process.send_signal(signal.SIGINT)
            server.lines_until("stopping")
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(5) == 128 + signal.SIGINT


EXPORT = """
import sys, time
from pathlib import Path
import tensorflow as tf
from tfcorr import runs
run = runs.open_run(Path(sys.argv[1]))
saved = []
save = tf.saved_model.save
def save_and_wait(*arguments, **more):
    save(*arguments, **more)
    saved.append(1)
    if len(saved) == 4:
        print("half", flush=True)
        time.sleep(60)
tf.saved_model.save = save_and_wait
runs.export_run(run)
"""


def test_a_killed_export_is_never_loaded_and_the_next_one_clears_it_away(changing, trained):
    """Killed by SIGKILL when three of the four models are whole and the fourth is written, but not in its place."""
    server, folder = changing
    first, second = versions.newest_served(folder), versions.next_version(folder)
    before = versions.versions_on_disk(folder / "cascade_scann")
    with subprocess.Popen([sys.executable, "-c", EXPORT, folder.parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert versions.versions_on_disk(folder / "cascade") == {*before, second}
    assert versions.versions_on_disk(folder / "cascade_scann") == before
    assert list(folder.glob("*/.*.partial-*"))
    time.sleep(2.5)  # the server looks every second
    assert {version for version, state in states(server).items() if state != "END"} == {first}
    assert server.predict({"instances": [ROW]}).status_code == 200
    with pytest.raises(ValueError, match=f"there is no whole version {second}"):
        versions.move_labels(folder, {"stable": second})
    run = runs.Run(folder.parent, trained.settings, trained.catalogue, trained.users, trained.features, trained.towers)
    assert runs.export_run(run) == second
    assert not list(folder.glob("*/.*.partial-*"))
    wait_for(server, {first: "END", second: "AVAILABLE"})


def test_a_server_that_is_told_to_stop_answers_what_it_was_asked(changing):
    server, _ = changing
    stub, _ = server.stubs()
    stub.Predict(message(rows=256), 30)
    asked = [stub.Predict.future(message(rows=256), 30) for _ in range(12)]
    while not any(answer.done() for answer in asked):
        time.sleep(0.001)
    assert "under_way 0.0" not in server.get("/monitoring/prometheus/metrics").text
    server.process.send_signal(signal.SIGTERM)
    assert [len(tf.make_ndarray(answer.result(30).outputs["item"])) for answer in asked] == [256] * 12
    assert server.process.wait(30) == 0
    assert server.process.stdout.read().splitlines()[-1] == "stopped"


def test_too_many_requests_at_once_are_refused_at_once(busy):
    stub, _ = busy.stubs()
    asked = [stub.Predict.future(message(rows=256), 30) for _ in range(12)]
    codes = [answer.code().name for answer in asked]
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert busy.predict({"instances": [ROW]}).status_code == 200


def test_a_slow_sender_is_waited_for_no_longer_than_it_was_said(busy):
    host, port = busy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/models/cascade:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.3)
        busy.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert busy.process.wait(30) == 0
        assert time.monotonic() - started < 8


def test_a_server_that_no_one_listens_to_goes_on_also_without_its_page(trained, tmp_path):
    run = copy_of(trained, tmp_path)
    with serving(run, "--no-page") as server:
        server.process.stdout.close()
        publish_copy(run / "serving", 2, "stable")
        wait_for(server, {1: "END", 2: "AVAILABLE"})
        assert server.predict({"instances": [ROW]}).status_code == 200
        assert server.get("/").status_code == server.get("/page/items?q=film").status_code == 404
