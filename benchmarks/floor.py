"""What this machine could do at best: its rates, and the seconds that the products of a training step take alone:
prints two tables.

python benchmarks/floor.py --sizes small paper
"""

import itertools
import time

import tensorflow as tf
from measure import Job, in_turn, multiply, options_of, settings_of, spread, table, use_threads

from tfcorr.config import RunSettings

ROWS = 8192  # of the products that are timed
FLOATS = 2**27  # of the tensor that is read through


def layers(settings: RunSettings) -> list[tuple[int, int, int]]:
    """The dense layers of the towers' training as (rows an example, width in, width out)."""
    history, candidates = settings.history_length, settings.sampler.samples + 1
    retriever, ranker = settings.retriever, settings.ranker
    dim, inner, own = retriever.dim, retriever.feed_forward, ranker.dim
    *earlier, _ = [history] * retriever.layers  # each but the last block computes every place
    found = [(2 * history, dim, dim) for _ in range(retriever.layers)] + [
        (2 * rows, dim, dim) for rows in (*earlier, 1)
    ]
    found += [(rows, *shape) for rows in (*earlier, 1) for shape in ((dim, inner), (inner, dim))]
    widths = [own, *ranker.attention, 1]
    found += [(rows, own, widths[1]) for rows in (candidates, history)]
    found += [(candidates * history, *pair) for pair in itertools.pairwise(widths)]
    top = [2 * own, *ranker.mlp, 1]
    return found + [(candidates, *pair) for pair in itertools.pairwise(top)]


def forth_and_back(width: int, out: int) -> Job:
    """A job of a dense layer's three products: its own, and those of the gradients of its input and of its weights."""
    inputs, weights, outputs = (tf.random.normal(shape) for shape in ([ROWS, width], [width, out], [ROWS, out]))
    products = tf.function(
        lambda: (
            tf.matmul(inputs, weights),
            tf.matmul(outputs, weights, transpose_b=True),
            tf.matmul(inputs, outputs, transpose_a=True),
        )
    )
    return lambda: [products() for _ in range(20)]


def main() -> None:
    """Times products, reads and gathers in turn, in CPU-seconds of one thread."""
    parser = options_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "paper"])
    options = parser.parse_args()
    use_threads(1)
    values = tf.random.normal([FLOATS])
    read = tf.function(lambda: tf.reduce_sum(values))
    jobs: dict[str, Job] = {"read through memory": read}
    work = {"read through memory": (4e-9 * FLOATS, "GB")}
    for width in (16, 32, 64, 128):
        name = f"products {width} wide"
        product = multiply(width, ROWS)
        jobs[name], work[name] = (
            lambda product=product: [product() for _ in range(50)],
            (50 * 2e-9 * ROWS * width**2, "GFLOP"),
        )
    for items in (10_000, 1_000_000):
        name = f"rows of 64 at random, of {items:,}"
        rows = tf.random.uniform([51_200], 0, items, tf.int32)
        of = tf.random.normal([items, 64])
        gather = tf.function(lambda of=of, rows=rows: tf.gather(of, rows))
        jobs[name], work[name] = lambda gather=gather: [gather() for _ in range(10)], (0.512, "million rows")
    shapes = {size: layers(settings_of(size)) for size in options.sizes}
    jobs |= {str(shape[1:]): forth_and_back(*shape[1:]) for each in shapes.values() for shape in each}
    seconds = in_turn(jobs, options.rounds, time.process_time)
    rows = [("what", "a CPU-second")]
    rows += [
        (name, f"{spread([amount / each for each in seconds[name]], '.1f')} {unit}")
        for name, (amount, unit) in work.items()
    ]
    table(*rows)
    print()
    rows = [
        ("sizes", "MFLOP an example in dense layers, forth and back", "examples a CPU-second, were there nothing else")
    ]
    for size, each in shapes.items():
        flop = sum(3 * 2e-6 * count * width * out for count, width, out in each)
        took = [
            sum(count * seconds[str((width, out))][number] / (20 * ROWS) for count, width, out in each)
            for number in range(options.rounds)
        ]
        rows.append((size, f"{flop:.1f}", spread([1 / one for one in took], ",.0f")))
    table(*rows)


if __name__ == "__main__":
    main()
