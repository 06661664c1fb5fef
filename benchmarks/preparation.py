"""How long interactions take from a Parquet file to the first batch, and how much memory: prints one table.

python benchmarks/preparation.py --interactions 1000000
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from tfcorr.data.batches import training_batches
from tfcorr.data.interactions import DataSettings
from tfcorr.data.sources import load


def main() -> None:
    """Writes a file of random interactions, Zipf-like over the items, and times what a run does with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["parquet", "csv", "csv.gz"], default="parquet")
    options = parser.parse_args()
    size, rng = options.interactions, np.random.default_rng(0)
    items = np.minimum(rng.zipf(1.2, size), size // 20)
    table = pl.DataFrame(
        {"user_id": rng.integers(0, size // 20, size).astype(str), "item_id": items.astype(str), "timestamp": rng.integers(0, 10**9, size)}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"interactions.{options.format}"
        if options.format == "parquet":
            table.write_parquet(path)
        else:
            table.write_csv(path, compression="gzip" if options.format == "csv.gz" else "uncompressed")
        started = time.perf_counter()
        dataset = load(DataSettings(path=path))
        prepared = time.perf_counter()
        next(iter(training_batches(dataset.histories, "prefix", 50, 512, seed=0)))
        first = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("| interactions | format | read and prepare, s | to the first batch, s | peak memory, GiB (the file's making included) |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {size:,} | {options.format} | {prepared - started:.1f} | {first - started:.1f} | {peak:.1f} |")


if __name__ == "__main__":
    main()
