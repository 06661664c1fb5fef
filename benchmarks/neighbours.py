"""How long a small request waits beside heavy ones, which ask for many rows at once: prints one table.

python benchmarks/neighbours.py --items 250000 --heavy 20
"""

from measure import options_of, table  # isort: skip  # first, as it imports tfcorr before TensorFlow

import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from served import export_random, ids_of, over_grpc, server_of
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

ROWS, K = 256, 256  # of a heavy request: as many items as the server answers at once


def heavy(address: str, ids: list[str], length: int, stop: threading.Event, answered: list[float]) -> None:
    """Asks for ROWS x K items without a pause."""
    rng = np.random.default_rng(threading.get_ident() % 2**32)
    stub = PredictionServiceStub(grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]))
    request = PredictRequest()
    request.model_spec.name = "cascade"
    histories = [[ids[number] for number in row] for row in rng.integers(0, len(ids), [ROWS, length])]
    for name, value in (("history", histories), ("k", np.full(ROWS, K, np.int32)), ("exclude", [[""]] * ROWS)):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    while not stop.is_set():
        stub.Predict(request, 600)
        answered.append(time.monotonic())


def main() -> None:
    """Exports towers of random data and serves them; one client asks one history at a time, alone and beside others."""
    parser = options_of(__doc__, rounds=60, steps=200)
    parser.add_argument("--items", type=int, default=250_000)
    parser.add_argument("--retrieve", type=int, default=500)
    parser.add_argument("--heavy", type=int, default=20, help="clients that ask for many rows at once")
    options = parser.parse_args()
    rows = [("heavy clients", "answered a minute", "small requests", "p50, ms", "p99, ms", "longest")]
    with tempfile.TemporaryDirectory() as run:
        settings = export_random(Path(run, "serving"), options, ["cascade", "cascade_scann"])
        ids = ids_of(options.items)
        with server_of(Path(run), "--model", "cascade") as server:
            ask = over_grpc(server.grpc_address, "cascade", 20)
            ask(ids[: settings.history_length])
            for count in (0, options.heavy):
                stop, answered, seconds = threading.Event(), list[float](), list[float]()
                arguments = server.grpc_address, ids, settings.history_length, stop, answered
                threads = [threading.Thread(target=heavy, args=arguments) for _ in range(count)]
                began = time.monotonic()
                for thread in threads:
                    thread.start()
                time.sleep(2 if count else 0)
                for _ in range(options.rounds):
                    started = time.monotonic()
                    ask(ids[: settings.history_length])
                    seconds.append(time.monotonic() - started)
                    time.sleep(0.1)
                minutes = (time.monotonic() - began) / 60
                stop.set()
                p50, p99, longest = (f"{1000 * np.percentile(seconds, share):.0f}" for share in (50, 99, 100))
                rows.append((str(count), f"{len(answered) / minutes:.0f}", str(options.rounds), p50, p99, longest))
                for thread in threads:
                    thread.join()
    table(*rows)


if __name__ == "__main__":
    main()
