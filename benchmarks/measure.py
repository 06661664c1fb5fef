"""What the benchmarks share: jobs timed in turn, this machine's own rates, random data, and a training step to time."""

import tfcorr  # isort: skip  # first, as it quietens TensorFlow

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection

import numpy as np
import tensorflow as tf

from tfcorr.config import RunSettings
from tfcorr.cooperation.corr import CoRR
from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.two_stage import RetrieverAlone
from tfcorr.data.batches import training_batches
from tfcorr.data.histories import Histories
from tfcorr.data.transitions import count_transitions
from tfcorr.towers import Domain, Tower, ranker_of, retriever_of
from tfcorr.towers.counts import PairCounts

assert tfcorr
Job = Callable[[], object]
PLAIN = {
    "name": "din",
    "recency": False,
    "products": False,
    "inner": False,
    "item_dropout": 0.0,
    "dropout": 0.3,
    "counts": None,
}
DIN = {
    "small": {"dim": 32, "attention": [32, 16], "mlp": [64, 64], "activation": "sigmoid"},
    "paper": {"dim": 128, "attention": [128, 64], "mlp": [128, 64, 64], "activation": "sigmoid"},
}
PRIVATE = {"pool": 100, "pool_scope": "example"}
SIZES = {
    size: {"retriever": {"name": "sasrec", "dim": dim}, "ranker": PLAIN | DIN[size], "sampler": PRIVATE}
    for size, dim in (("small", 64), ("paper", 128))
}


def options_of(about: str | None, rounds: int = 7, steps: int = 10) -> argparse.ArgumentParser:
    """A parser of the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="in each of which everything is timed once")
    parser.add_argument(
        "--steps", type=int, default=steps, help="of training; in each round, where it is training that is timed"
    )
    parser.add_argument("--batch", type=int, default=512)
    return parser


def in_turn(
    jobs: Mapping[str, Job], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Runs every job once in each round, after one round that is not timed; returns seconds by job, one a round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            started = clock()
            job()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def spread(values: list[float], form: str) -> str:
    """The median with the least and the greatest, as text."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratio(above: list[float], below: list[float]) -> str:
    """The median ratio of two lists of seconds, round by round, with its least and greatest."""
    return spread([a / b for a, b in zip(above, below, strict=True)], ".2f")


def table(*rows: tuple[object, ...]) -> None:
    """Prints rows, the first of which are the heads, as Markdown."""
    for number, row in enumerate(rows):
        table_row(row)
        if number == 0:
            print("|" + " --- |" * len(row), flush=True)


def table_row(row: tuple[object, ...]) -> None:
    """Prints one more row of a table."""
    print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def peak_memory() -> str:
    """What this process has used at most."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def use_threads(threads: int, of_each: int | None = None) -> None:
    """How many operations TensorFlow may compute at once, and on how many threads each; before anything else of it."""
    tf.config.threading.set_intra_op_parallelism_threads(of_each or threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def elsewhere(build: Callable[..., Job], *arguments: object) -> Job:
    """A job that runs in a process of its own, which builds it by `build(*arguments)`; nothing else of it runs
    meanwhile."""
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=_serve, args=(there, build, *arguments), daemon=True).start()

    def job() -> object:
        here.send("run")
        return here.recv()

    return job


def _serve(connection: Connection, build: Callable[..., Job], *arguments: object) -> None:
    job = build(*arguments)
    while connection.recv():
        connection.send(job())


def multiply(width: int, rows: int = 8192) -> Job:
    """A job of one product [rows, width] × [width, width], which takes rows × width² multiply-adds."""
    a, b = tf.random.normal([rows, width]), tf.random.normal([width, width])
    return tf.function(lambda: tf.matmul(a, b))


def random_histories(users: int, items: int, mean: float, seed: int = 0) -> Histories:
    """Histories of Poisson lengths about the mean, at least 4, of items of Zipf-like popularity."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(rng.poisson(mean, users), 4)
    chosen = (items * rng.power(0.4, lengths.sum())).astype(np.int32) + 1
    return Histories(
        [str(user) for user in range(users)], chosen, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


def settings_of(size: str, **more: object) -> RunSettings:
    """Settings of one of SIZES; a data source is named but never read."""
    return RunSettings.parse(
        {"name": size, "history_length": 20, "data": {"source": "movielens-100k"}, **SIZES[size], **more}, size
    )


def cooperation(settings: RunSettings, items: int, users: int = 0, histories: Histories | None = None) -> CoRR:
    """A compiled CoRR of the settings over so many items and users; the histories are those whose pairs are counted, if
    any are."""
    pairs = (
        {window: PairCounts(count_transitions(histories, items, window)) for window in settings.windows}
        if histories
        else {}
    )
    domain = Domain(items, users, settings.history_length, pairs=pairs)
    retriever, ranker = (
        retriever_of(settings.retriever, domain),
        ranker_of(settings.ranker, domain),
    )
    sampler = Sampler(settings.sampler, np.ones(items, np.int64), retriever, settings.seed)
    model = CoRR(retriever, ranker, sampler, settings.training.loss, settings.training.kl_weight)
    model.compile(optimizer={"retriever": LazyAdam(1e-3), "ranker": LazyAdam(1e-3)})
    return model


def retriever_alone(settings: RunSettings, items: int) -> RetrieverAlone:
    """The settings' retriever, compiled to be trained alone."""
    tower = retriever_of(settings.retriever, Domain(items, 0, settings.history_length))
    model = RetrieverAlone(
        tower, Sampler(settings.sampler, np.ones(items, np.int64), tower, settings.seed), settings.training.loss
    )
    model.compile(optimizer=LazyAdam(1e-3))
    return model


def batches(settings: RunSettings, histories: Histories) -> Iterator[object]:
    """The training batches of the settings."""
    training = settings.training
    return iter(
        training_batches(histories, training.examples, settings.history_length, training.batch_size, settings.seed)
    )


def stepper(model: tf.keras.Model, data: Iterator[object], steps: int) -> Job:
    """A job of so many training steps on the next batches."""
    step = tf.function(model.train_step, reduce_retracing=True)

    def job() -> None:
        for _ in range(steps):
            step(next(data))

    return job


def clustered_histories(users: int, items: int, mean: float, seed: int = 0) -> Histories:
    """Histories that stay in one of many clusters of a hundred items four times in five, so that there is something to
    learn."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(rng.poisson(mean, users), 4)
    total, offsets = lengths.sum(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    moves = rng.random(total) > 0.8
    moves[offsets[:-1]] = True
    cluster = rng.integers(0, -(-items // 100), moves.sum())[np.cumsum(moves) - 1]
    chosen = np.minimum(100 * cluster + (100 * rng.power(0.4, total)).astype(np.int64), items - 1)
    return Histories([str(user) for user in range(users)], chosen.astype(np.int32) + 1, offsets)


def trained_towers(
    items: int, steps: int, batch: int, counts: bool = False
) -> tuple[dict[str, Tower], Histories, RunSettings]:
    """The small towers trained for so many steps of CoRR over clustered histories; these and the settings."""
    histories = clustered_histories(users=items, items=items, mean=20)
    sampler = {"pool": 4096, "pool_scope": "batch"}
    ranker = SIZES["small"]["ranker"] | {"counts": {} if counts else None}
    settings = settings_of(
        "small", sampler=sampler, ranker=ranker, training={"examples": "window", "batch_size": batch}
    )
    model = cooperation(settings, items, histories=histories)
    stepper(model, batches(settings, histories), steps)()
    return {"retriever": model.retriever, "ranker": model.ranker}, histories, settings
