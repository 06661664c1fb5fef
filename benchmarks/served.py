"""What the benchmarks of serving share: a server in a process of its own, and ways to ask it."""

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from measure import trained_towers
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tfcorr.config import RunSettings
from tfcorr.data.histories import Catalogue
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.index import build_index
from tfcorr.serving.export import export

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


def ids_of(items: int) -> list[str]:
    """The ids of random items."""
    return [f"item-{number}" for number in range(1, items + 1)]


def export_random(serving: Path, options: argparse.Namespace, names: Sequence[str]) -> RunSettings:
    """Exports cascades over towers trained on random data; returns their settings.

    Of the options it takes items, steps, batch and retrieve.
    """
    towers, histories, settings = trained_towers(options.items, options.steps, options.batch)
    vectors = all_item_vectors(towers["retriever"], options.items)
    kinds = {"cascade": "exact", "cascade_scann": "scann"}
    cascades = {name: Cascade(towers, build_index(kinds[name], vectors), [options.retrieve]) for name in names}
    ids, counts = ids_of(options.items), histories.item_counts(options.items)
    catalogue = Catalogue(ids, counts, [""] * len(ids), len(ids))
    export(towers, catalogue, [], [], cascades, settings.history_length, True, serving)
    return settings
