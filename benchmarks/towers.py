"""Examples a CPU-second of each tower's training alone, and what it takes to answer one context: prints one table.

Retrievers with a pool of 100 an example, rankers with 20 negatives; 64 wide, else by default, histories of 20, one
thread.

python benchmarks/towers.py
"""

import statistics
import time

import numpy as np
import tensorflow as tf
from measure import (
    Job,
    batches,
    in_turn,
    options_of,
    random_histories,
    settings_of,
    spread,
    stepper,
    table,
    table_row,
    use_threads,
)

from tfcorr.cooperation.optimisers import LazyAdam
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.two_stage import Alone, RankerAlone, RetrieverAlone
from tfcorr.towers import RANKERS, RETRIEVERS, Domain, Retriever, Tower, tower_of

ITEMS, USERS, LENGTH, DIM, CANDIDATES, ANSWERS = 1349, 943, 20, 64, 500, 20


def answering(tower: Tower) -> Job:
    """A job of ANSWERS times encoding a context, or scoring its candidates."""
    context = {"history": tf.random.uniform([1, LENGTH], 1, ITEMS, tf.int32), "user": tf.constant([1])}
    candidates = tf.range(1, CANDIDATES + 1)[None]
    answer = tf.function(
        lambda: tower.encode_context(context) if isinstance(tower, Retriever) else tower.score(context, candidates)
    )
    return lambda: [answer() for _ in range(ANSWERS)]


def main() -> None:
    """Times one tower after another."""
    options = options_of(__doc__, rounds=5, steps=3).parse_args()
    use_threads(1)
    settings = settings_of("small", training={"batch_size": options.batch})
    histories = random_histories(users=USERS, items=ITEMS, mean=100)
    table(
        (
            "tower",
            "examples a CPU-second",
            f"CPU-ms to encode a context (a retriever) or to score {CANDIDATES} candidates (a ranker)",
        )
    )
    for name, kind in (RETRIEVERS | RANKERS).items():
        tower = tower_of(kind.Settings.parse({"name": name, "dim": DIM}), Domain(ITEMS, USERS, LENGTH))
        sampler = Sampler(settings.sampler, np.ones(ITEMS, np.int64), tower, seed=1)
        is_retriever = isinstance(tower, Retriever)
        model: Alone = (
            RetrieverAlone(tower, sampler, "softmax") if is_retriever else RankerAlone(tower, sampler, "softmax", tower)
        )
        model.compile(optimizer=LazyAdam(1e-3))
        jobs = {"train": stepper(model, batches(settings, histories), options.steps), "answer": answering(tower)}
        seconds = in_turn(jobs, options.rounds, time.process_time)
        rates = [options.steps * options.batch / each for each in seconds["train"]]
        table_row((f"`{name}`", spread(rates, ",.0f"), f"{1000 * statistics.median(seconds['answer']) / ANSWERS:.2f}"))


if __name__ == "__main__":
    main()
