"""Targets a CPU-second of SASRec alone, trained at every position of a window, and by prefix: prints one table.

python benchmarks/windows.py --length 50
"""

import time

from measure import (
    batches,
    in_turn,
    options_of,
    random_histories,
    retriever_alone,
    settings_of,
    spread,
    stepper,
    table,
    use_threads,
)


def main() -> None:
    """Times some steps of each in turn, in CPU-seconds."""
    parser = options_of(__doc__)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--mean", type=float, default=100, help="of a user's interactions")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--negatives", type=int, default=100)
    parser.add_argument("--scopes", nargs="+", default=["batch", "example"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    histories = random_histories(users=5_000, items=options.items, mean=options.mean)
    jobs = {}
    for scope in options.scopes:
        for examples in ("window", "prefix"):
            training = {"batch_size": options.batch, "examples": examples}
            sampler = {"pool": options.negatives, "pool_scope": scope}
            settings = settings_of("small", history_length=options.length, training=training, sampler=sampler)
            jobs[examples, scope] = stepper(
                retriever_alone(settings, options.items), batches(settings, histories), options.steps
            )
    seconds = in_turn(jobs, options.rounds, time.process_time)
    rows = [("examples", f"{options.negatives} negatives a", "targets a CPU-second")]
    for (examples, scope), taken in seconds.items():
        rows.append((examples, scope, spread([options.steps * options.batch / each for each in taken], ",.0f")))
    table(*rows)


if __name__ == "__main__":
    main()
