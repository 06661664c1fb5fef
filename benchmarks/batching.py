"""Requests a second that an exported cascade answers to several clients in process, by how they are batched: prints one
table.

python benchmarks/batching.py saved_models/movielens100k --clients 1 16
"""

import tfcorr  # isort: skip  # first, as it quietens TensorFlow

import argparse
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from load import K, histories_of
from measure import spread, table

from tfcorr.serving.recommend import served_model
from tfcorr.serving.server.batcher import Batcher, Job

assert tfcorr
ROWS = 64  # at once
Arrays = dict[str, np.ndarray]
Ask = Callable[[Arrays], Arrays]


def ways(run: Path) -> dict[str, Ask]:
    """Each alone; by TensorFlow's in-graph batching, on one and two threads; as `tfcorr serve` does."""
    model = tf.saved_model.load(str(served_model(run, "cascade")))
    serve = model.signatures["serving_default"]
    serve._keep = model

    def alone(request: Arrays, _: str = "") -> Arrays:
        return {
            name: values.numpy()
            for name, values in serve(**{name: tf.constant(each) for name, each in request.items()}).items()
        }

    def in_graph(threads: int) -> Ask:
        def answer(history: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(values for _, values in sorted(serve(history=history, k=k, exclude=exclude).items()))

        batched = tf.nondifferentiable_batch_function(threads, ROWS, 0, max_enqueued_batches=1000, autograph=False)(
            answer
        )

        def named(history: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.name_scope(f"threads_{threads}"):  # functions of one name would share a queue, and mix their rows
                return batched(history, k, exclude)

        ids, number = tf.TensorSpec([None, None], tf.string), tf.TensorSpec([None], tf.int32)
        graph = tf.function(named, autograph=False).get_concrete_function(ids, number, ids)
        return lambda request: {
            str(place): values.numpy() for place, values in enumerate(graph(*map(tf.constant, request.values())))
        }

    batcher = Batcher(lambda _, request: alone(request), ROWS)
    return {
        "each alone": alone,
        "in graph, 1 thread": in_graph(1),
        "in graph, 2 threads": in_graph(2),
        "tfcorr serve's": lambda request: batcher.submit(Job("", request)).result(),
    }


def asked(ask: Ask, requests: list[Arrays], clients: int, seconds: float) -> list[float]:
    """Seconds that each answer took, to so many clients that ask without a pause."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        while (started := time.perf_counter()) < end:
            ask(requests[place % len(requests)])
            taken.append(time.perf_counter() - started)
            place += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def mixed() -> str:
    """Whether in-graph batching keeps two functions of one name apart: each of 16 threads asks one of them."""

    def times(factor: float) -> Callable[[tf.Tensor], tf.Tensor]:
        weights = tf.random.normal([300, 300])
        slow = tf.nondifferentiable_batch_function(2, ROWS, 0, autograph=False)(
            lambda x: factor * x + 0 * tf.linalg.matmul(tf.linalg.matmul(x, weights), weights)
        )
        return tf.function(slow).get_concrete_function(tf.TensorSpec([None, 300]))

    functions, wrong = {1.0: times(1.0), 5.0: times(5.0)}, []

    def work(factor: float) -> None:
        for _ in range(200):
            wrong.append(abs(float(functions[factor](tf.ones([1, 300]))[0, 0]) - factor) > 0.1)

    threads = [threading.Thread(target=work, args=(factor,)) for factor in [1.0, 5.0] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (
        f"two in-graph batched functions of one name, asked at the same time: {sum(wrong)} of {len(wrong)} answers "
        "were the other's"
    )


def threads_left(functions: int = 8) -> str:
    """How many threads stay when in-graph batched functions, each of a name of its own, are no more."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def use(number: int) -> None:
        batched = tf.nondifferentiable_batch_function(2, ROWS, 0, autograph=False)(lambda x: number * x)

        def named(x: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(f"version_{number}"):
                return batched(x)

        tf.function(named).get_concrete_function(tf.TensorSpec([None, 1]))(tf.ones([1, 1]))

    use(0)
    before = threads()
    for number in range(1, functions + 1):
        use(number)
    gc.collect()
    return (
        f"{functions} in-graph batched functions of two threads and a name each, used and let go of: "
        f"{threads() - before} threads more"
    )


def main() -> None:
    """Times every way in turn, in each of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each way, in each round")
    options = parser.parse_args()
    single = [{"exclude": [[""]], "history": [history], "k": [K]} for history in histories_of(options.run, 64)]
    types = {"exclude": object, "history": object, "k": np.int32}
    requests = [{name: np.array(each[name], types[name]) for name in ("history", "k", "exclude")} for each in single]
    named = ways(options.run)
    for ask in named.values():
        ask(requests[0])
    rows: list[tuple[object, ...]] = [("batched", "clients", "answers a second", "p50, ms", "p99, ms")]
    for clients in options.clients:
        rounds = [
            {name: asked(ask, requests, clients, options.seconds) for name, ask in named.items()}
            for _ in range(options.rounds)
        ]
        for name in named:
            rates = [len(each[name]) / options.seconds for each in rounds]
            p50, p99 = ([float(np.percentile(each[name], share)) * 1000 for each in rounds] for share in (50, 99))
            rows.append((name, clients, spread(rates, ".0f"), spread(p50, ".1f"), spread(p99, ".1f")))
    table(*rows)
    print(mixed())
    print(threads_left())


if __name__ == "__main__":
    main()
