"""What the benchmarks of serving share: a server in a process of its own, and ways to ask it."""

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

COMMAND = [sys.executable, "-c", "from tfcorr.cli import main; main()"]
Ask = Callable[[list[str]], list[str]]  # from a history to the items that are recommended


class Server:
    """Its process, where it listens, and what it has printed since it said so."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [*COMMAND, "serve", run, "--port", "0", "--rest-port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = iter(self.process.stdout.readline, "")
        found = re.search(
            r"gRPC at (\S+), REST at http://([^ ,]+)", next(line for line in lines if line.startswith("gRPC"))
        )
        self.grpc_address, self.rest_address = found.groups()
        self.log: list[str] = []
        threading.Thread(target=lambda: self.log.extend(lines), daemon=True).start()


@contextmanager
def server_of(run: Path, *options: str) -> Iterator[Server]:
    """A server that ends with the block."""
    server = Server(run, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def over_grpc(address: str, model: str, k: int, label: str = "stable") -> Ask:
    """By TensorFlow Serving's official stub."""
    stub = PredictionServiceStub(grpc.insecure_channel(address))

    def ask(history: list[str]) -> list[str]:
        request = PredictRequest()
        request.model_spec.name, request.model_spec.version_label = model, label
        for name, value in (("history", [history]), ("k", np.array([k], np.int32)), ("exclude", [[""]])):
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return [item.decode() for item in tf.make_ndarray(stub.Predict(request, 60).outputs["item"])[0]]

    return ask


def over_rest(address: str, model: str, k: int, label: str = "stable") -> Ask:
    """By one connection that is kept."""
    connection = http.client.HTTPConnection(address, timeout=60)

    def ask(history: list[str]) -> list[str]:
        body = json.dumps({"instances": [{"history": history, "k": k, "exclude": [""]}]})
        connection.request("POST", f"/v1/models/{model}/labels/{label}:predict", body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(text.decode())
        return json.loads(text)["predictions"][0]["item"]

    return ask
