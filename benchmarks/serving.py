"""Milliseconds in which exported cascades answer one history, in process and served by `tfcorr serve`: prints one
table.

python benchmarks/serving.py --items 250000
"""

import importlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from measure import in_turn, options_of, table
from served import export_random, ids_of, over_grpc, over_rest, server_of


def main() -> None:
    """Trains on random data with some order in it, exports, loads and serves, and asks both cascades in each way in
    turn."""
    parser = options_of(__doc__, rounds=200, steps=500)
    parser.add_argument("--items", type=int, default=250_000)
    parser.add_argument("--retrieve", type=int, default=500)
    parser.add_argument("--k", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as run:
        serving = Path(run, "serving")
        settings = export_random(serving, options, ["cascade", "cascade_scann"])
        ids = ids_of(options.items)
        rng = np.random.default_rng(0)
        history = [ids[number] for number in rng.integers(0, options.items, settings.history_length)]
        request = {"history": tf.constant([history]), "k": tf.constant([options.k]), "exclude": tf.constant([[""]])}
        importlib.import_module("scann")  # registers the operations that its SavedModel holds
        jobs = {}
        with server_of(Path(run), "--model", "cascade", "--model", "cascade_scann") as server:
            for name in ("cascade", "cascade_scann"):
                model = tf.saved_model.load(f"{serving}/{name}/1")
                jobs[name, "in process"] = lambda model=model: model.signatures["serving_default"](**request)[
                    "item"
                ].numpy()
                for way, make, address in (
                    ("gRPC", over_grpc, server.grpc_address),
                    ("REST", over_rest, server.rest_address),
                ):
                    jobs[name, way] = partial(make(address, name, options.k), history)
            seconds = in_turn(jobs, options.rounds)
    rows = [("cascade", "items", "asked", "p50, ms", "p90", "p99")]
    for (name, way), taken in seconds.items():
        rows.append(
            (name, f"{options.items:,}", way, *(f"{1000 * np.percentile(taken, share):.1f}" for share in (50, 90, 99)))
        )
    table(*rows)


if __name__ == "__main__":
    main()
