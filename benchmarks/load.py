"""A server under load while versions appear and are withdrawn: requests, failures, latencies, memory; prints one table.

python benchmarks/load.py saved_models/movielens100k --seconds 300
"""

import tfcorr  # isort: skip  # first, as it quietens TensorFlow

import argparse
import http.client
import itertools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import tensorflow as tf
from measure import table
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

assert tfcorr
COMMAND = [sys.executable, "-c", "from tfcorr.cli import main; main()"]
# What happens, at these shares of the time: two versions appear, and the second of them is withdrawn.
EVENTS = [
    (0.2, ["export", "RUN", "--label", "canary"]),
    (0.35, ["label", "RUN", "stable=2", "canary="]),
    (0.5, ["export", "RUN"]),
    (0.65, ["label", "RUN", "stable=2"]),
]


class Clients:
    """Threads that ask one history at a time without a pause, by turns over gRPC and over REST."""

    def __init__(self, count: int, histories: list[list[str]], address: str, url: str) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.stop = threading.Event()
        asks = [self._grpc(address) if number % 2 else self._rest(url) for number in range(count)]
        starts = range(0, len(histories), max(len(histories) // count, 1))
        self.threads = [
            threading.Thread(target=self._work, args=(ask, itertools.cycle(histories[start:] + histories[:start])))
            for ask, start in zip(asks, starts, strict=False)
        ]

    def _work(self, ask: Callable[[list[str]], None], histories: itertools.cycle) -> None:
        while not self.stop.is_set():
            started = time.perf_counter()
            try:
                ask(next(histories))
            except (grpc.RpcError, OSError, http.client.HTTPException, RuntimeError) as error:
                self.failures.append(repr(error))
            self.seconds.append(time.perf_counter() - started)

    @staticmethod
    def _grpc(address: str) -> Callable[[list[str]], None]:
        stub = PredictionServiceStub(grpc.insecure_channel(address))

        def ask(history: list[str]) -> None:
            request = PredictRequest()
            request.model_spec.name, request.model_spec.version_label = "cascade", "stable"
            for name, value in (("history", [history]), ("k", np.array([20], np.int32)), ("exclude", [[""]])):
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            stub.Predict(request, 60)

        return ask

    @staticmethod
    def _rest(url: str) -> Callable[[list[str]], None]:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

        def ask(history: list[str]) -> None:
            body = json.dumps({"instances": [{"history": history, "k": 20, "exclude": []}]})
            connection.request("POST", "/v1/models/cascade/labels/stable:predict", body)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(answer.read().decode())
            answer.read()

        return ask


def histories_of(run: Path, count: int, length: int = 50) -> list[list[str]]:
    """Made up, of the run's items as often as they are in training."""
    items = pl.read_parquet(run / "catalogue.parquet")
    rng = np.random.default_rng(0)
    chosen = rng.choice(items["id"].to_numpy(), [count, length], p=items["count"] / items["count"].sum())
    return chosen.tolist()


def resident(process: int) -> float:
    """MiB of memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 2**20


def load(server: subprocess.Popen[str], run: Path, count: int, seconds: int) -> tuple[Clients, list[float], list[str]]:
    """Asks for so many seconds, while the events come to pass; the clients, the server's memory by the second, what it printed."""
    lines = iter(server.stdout.readline, "")
    address, url = re.search(r"gRPC at (\S+), REST at ([^ ,]+)", next(line for line in lines if line.startswith("gRPC"))).groups()
    log: list[str] = []
    threading.Thread(target=lambda: log.extend(lines), daemon=True).start()
    clients = Clients(count, histories_of(run, 1000), address, url)
    memory: list[float] = []
    for thread in clients.threads:
        thread.start()
    began, events = time.monotonic(), list(EVENTS)
    running: list[subprocess.Popen[bytes]] = []
    while (passed := time.monotonic() - began) < seconds:
        memory.append(resident(server.pid))
        if events and passed > events[0][0] * seconds:
            command = [str(run) if word == "RUN" else word for word in events.pop(0)[1]]
            running.append(subprocess.Popen([*COMMAND, *command], stdout=subprocess.DEVNULL))
        time.sleep(1)
    clients.stop.set()
    for thread in clients.threads:
        thread.join()
    assert [each.wait() for each in running] == [0] * len(EVENTS)
    return clients, memory, log


def main() -> None:
    """Serves a copy of the run, asks it, and meanwhile exports it again and moves its labels by the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        shutil.copytree(options.run, run)
        shutil.rmtree(run / "serving", ignore_errors=True)
        subprocess.run([*COMMAND, "export", run], check=True, stdout=subprocess.DEVNULL)
        serve = [*COMMAND, "serve", run, "--port", "0", "--rest-port", "0", "--model", "cascade"]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            clients, memory, log = load(server, run, options.clients, options.seconds)
            server.terminate()
            ended = server.wait(60)
        finally:
            server.kill()
    minute = min(60, len(memory) // 3)
    first, last = statistics.mean(memory[5 : minute + 5]), statistics.mean(memory[-minute:])
    p50, p99 = np.percentile(clients.seconds, [50, 99]) * 1000
    change = f"{100 * (last / first - 1):+.1f}%"
    counts = options.clients, len(clients.seconds), len(clients.failures), f"{len(clients.seconds) / options.seconds:.0f}"
    heads = ("clients", "requests", "failed", "a second", "p50, ms", "p99, ms", "memory, first minute", "last minute", "change")
    table(heads, (*counts, f"{p50:.1f}", f"{p99:.1f}", f"{first:.0f} MiB", f"{last:.0f} MiB", change))
    print(f"{''.join(log)}the server ended with {ended}")
    for failure in clients.failures[:3]:
        print(failure)


if __name__ == "__main__":
    main()
