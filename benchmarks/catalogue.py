"""How a training step's time depends on the number of items and on the pool: prints one table.

python benchmarks/catalogue.py --items 10000 1000000 --pools example:100 batch:100 batch:4096
"""

import statistics

from measure import (
    batches,
    cooperation,
    in_turn,
    options_of,
    peak_memory,
    random_histories,
    ratio,
    settings_of,
    stepper,
    table,
    use_threads,
)


def main() -> None:
    """Times some steps of every combination in turn; the first pool over the fewest items is what the others are held
    to."""
    parser = options_of(__doc__)
    parser.add_argument("--items", nargs="+", type=int, default=[10_000, 1_000_000])
    parser.add_argument("--pools", nargs="+", default=["example:100", "batch:100", "batch:4096"], help="SCOPE:SIZE")
    parser.add_argument("--ranker-dim", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    use_threads(options.threads)
    jobs = {}
    for items in options.items:
        histories = random_histories(users=20_000, items=items, mean=50)
        for pool in options.pools:
            scope, number = pool.split(":")
            sampler = {"pool": int(number), "pool_scope": scope}
            ranker = {"dim": options.ranker_dim, "attention": [32, 16], "mlp": [64, 64]}
            settings = settings_of("small", sampler=sampler, ranker=ranker, training={"batch_size": options.batch})
            jobs[items, pool] = stepper(cooperation(settings, items), batches(settings, histories), options.steps)
    seconds = in_turn(jobs, options.rounds)
    fewest, first = options.items[0], options.pools[0]
    rows = [("items", "pool", "ms a step", f"over the same pool at {fewest:,} items", f"over {first} at as many items")]
    for (items, pool), taken in seconds.items():
        milliseconds = 1000 * statistics.median(taken) / options.steps
        rows.append(
            (
                f"{items:,}",
                pool,
                f"{milliseconds:.0f}",
                ratio(taken, seconds[fewest, pool]),
                ratio(taken, seconds[items, first]),
            )
        )
    table(*rows)
    print(f"peak memory of all of these together: {peak_memory()}")


if __name__ == "__main__":
    main()
