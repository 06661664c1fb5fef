"""What batches of like lengths gain over histories that are all padded to the longest allowed: prints one table.

python benchmarks/padding.py --length 50 --mean 8
"""

import tensorflow as tf
from measure import (
    batches,
    cooperation,
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


def main() -> None:
    """Times some steps on batches as they come, and padded, in turn."""
    parser = options_of(__doc__, steps=20)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--mean", type=float, default=8, help="of a user's interactions")
    parser.add_argument("--sizes", nargs="+", default=["small"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    use_threads(options.threads)
    histories = random_histories(users=20_000, items=20_000, mean=options.mean)

    def padded(data):
        for context, target in data:
            missing = options.length - tf.shape(context["history"])[1]
            yield context | {"history": tf.pad(context["history"], [[0, 0], [missing, 0]])}, target

    rows = [("sizes", "as long as the longest, examples a second", f"padded to {options.length}", "ratio")]
    for size in options.sizes:
        settings = settings_of(size, history_length=options.length, training={"batch_size": options.batch})
        model = cooperation(settings, 20_000)
        plain, full = batches(settings, histories), padded(batches(settings, histories))
        seconds = in_turn(
            {"plain": stepper(model, plain, options.steps), "padded": stepper(model, full, options.steps)},
            options.rounds,
        )
        rates = [[options.steps * options.batch / each for each in taken] for taken in seconds.values()]
        rows.append(
            (size, spread(rates[0], ",.0f"), spread(rates[1], ",.0f"), ratio(seconds["padded"], seconds["plain"]))
        )
    table(*rows)


if __name__ == "__main__":
    main()
