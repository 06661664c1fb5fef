"""What a second thread gains: processes of one thread and of two, and two of one thread at once, in turn; prints one
table.

python benchmarks/threads.py --sizes small paper
"""

from concurrent.futures import ThreadPoolExecutor

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

WAYS = {
    "one thread": (1, 1),
    "two threads": (2, 2),
    "two threads, one an operation": (2, 1),
}  # operations at once, threads of each


def training(threads: tuple[int, int], size: str, batch: int, steps: int) -> Job:
    """A job of training steps on so many threads."""
    use_threads(*threads)
    settings = settings_of(size, training={"batch_size": batch})
    return stepper(
        cooperation(settings, 1349), batches(settings, random_histories(users=943, items=1349, mean=100)), steps
    )


def main() -> None:
    """Times all of them in turn, by the clock on the wall."""
    parser = options_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "paper"])
    options = parser.parse_args()
    rows = [("sizes", "how", "examples a second", "over one thread")]
    for size in options.sizes:
        jobs = {
            name: elsewhere(training, threads, size, options.batch, options.steps) for name, threads in WAYS.items()
        }
        pair = jobs["one thread"], elsewhere(training, (1, 1), size, options.batch, options.steps)
        with ThreadPoolExecutor(2) as both:
            at_once = {"two processes at once": lambda pair=pair, both=both: list(both.map(lambda job: job(), pair))}
            seconds = in_turn(jobs | at_once, options.rounds)
        seconds["two processes at once"] = [each / 2 for each in seconds["two processes at once"]]
        for name, taken in seconds.items():
            rates = [options.steps * options.batch / each for each in taken]
            rows.append((size, name, spread(rates, ",.0f"), ratio(seconds["one thread"], taken)))
    table(*rows)


if __name__ == "__main__":
    main()
