"""What a second thread gains: two processes, of one thread and of two, train in turn; prints one table.

python benchmarks/threads.py --sizes small paper
"""

from measure import (
    Job,
    batches,
    cooperation,
    elsewhere,
    in_turn,
    options_of,
    random_histories,
    ratio,
    settings_of,
    spread,
    stepper,
    table,
    use_threads,
)


def training(threads: int, size: str, batch: int, steps: int) -> Job:
    """A job of training steps on so many threads."""
    use_threads(threads)
    settings = settings_of(size, training={"batch_size": batch})
    return stepper(cooperation(settings, 1349), batches(settings, random_histories(users=943, items=1349, mean=100)), steps)


def main() -> None:
    """Times both in turn, by the clock on the wall."""
    parser = options_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "paper"])
    parser.add_argument("--threads", nargs=2, type=int, default=[1, 2])
    options = parser.parse_args()
    few, many = options.threads
    rows = [("sizes", f"examples a second, threads: {few}", f"threads: {many}", "ratio")]
    for size in options.sizes:
        jobs = {each: elsewhere(training, each, size, options.batch, options.steps) for each in options.threads}
        seconds = in_turn(jobs, options.rounds)
        rates = {each: [options.steps * options.batch / taken for taken in seconds[each]] for each in jobs}
        rows.append((size, spread(rates[few], ",.0f"), spread(rates[many], ",.0f"), ratio(seconds[few], seconds[many])))
    table(*rows)


if __name__ == "__main__":
    main()
