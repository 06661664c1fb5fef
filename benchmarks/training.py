"""Examples a CPU-second of CoRR's training, steady state, in turn with this machine's own matrix products: prints one
table.

python benchmarks/training.py --sizes small paper --threads 1
"""

import time

from measure import (
    batches,
    cooperation,
    in_turn,
    multiply,
    options_of,
    peak_memory,
    random_histories,
    ratio,
    settings_of,
    spread,
    stepper,
    table,
    use_threads,
)

from tfcorr.towers import din

WIDTH, PRODUCTS = 128, 100  # of the products that are timed in turn


def main() -> None:
    """Times some steps and some products in turn, in CPU-seconds."""
    parser = options_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "paper"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=1349)
    parser.add_argument(
        "--parts", nargs="+", type=int, default=[din.PARTS], help="in which DIN's attention is computed apart"
    )
    options = parser.parse_args()
    use_threads(options.threads)
    histories = random_histories(users=943, items=options.items, mean=100)
    product = multiply(WIDTH)
    jobs = {"product": lambda: [product() for _ in range(PRODUCTS)]}
    for size in options.sizes:
        settings = settings_of(size, training={"batch_size": options.batch})
        for parts in options.parts:
            job = stepper(cooperation(settings, options.items), batches(settings, histories), options.steps)
            jobs[size, parts] = lambda job=job, parts=parts: (
                setattr(din, "PARTS", parts),
                job(),
            )  # before its graph is made
    seconds = in_turn(jobs, options.rounds, time.process_time)
    gflop = [2 * 8192 * WIDTH**2 * PRODUCTS / each / 1e9 for each in seconds["product"]]
    print(f"threads: {options.threads}; a product {WIDTH} wide makes {spread(gflop, '.0f')} GFLOP a CPU-second")
    rows = [
        (
            "sizes",
            "parts of DIN's attention",
            "examples a CPU-second",
            f"CPU-seconds of {options.steps} steps over those of {PRODUCTS} products",
        )
    ]
    product_seconds = seconds.pop("product")
    for (size, parts), taken in seconds.items():
        rates = [options.steps * options.batch / each for each in taken]
        rows.append((size, parts, spread(rates, ",.0f"), ratio(taken, product_seconds)))
    table(*rows)
    print(f"peak memory of all of these together: {peak_memory()}")


if __name__ == "__main__":
    main()
