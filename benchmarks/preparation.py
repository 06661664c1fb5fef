"""How long interactions take from a file to the first batch, and how much memory: prints one table.

python benchmarks/preparation.py --interactions 10000000
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import peak_memory, table

from tfcorr.data.batches import training_batches
from tfcorr.data.dataset import Dataset
from tfcorr.data.interactions import DataSettings
from tfcorr.data.prepared import write_prepared
from tfcorr.data.sources import load


def write(path: Path, size: int) -> None:
    """A file of random interactions, Zipf-like over the items, twenty a user."""
    rng = np.random.default_rng(0)
    items = np.minimum(rng.zipf(1.2, size), size // 20)
    users, times = rng.integers(0, size // 20, size), rng.integers(0, 10**9, size)
    interactions = pl.DataFrame({"user_id": users.astype(str), "item_id": items.astype(str), "timestamp": times})
    if path.suffix == ".parquet":
        interactions.write_parquet(path)
    else:
        interactions.write_csv(path, compression="gzip" if path.suffix == ".gz" else "uncompressed")


def prepare(settings: DataSettings, output: Path | None) -> tuple[str, str, str]:
    """Seconds to the Dataset, which is written to `output`, and to the first batch; peak memory."""
    started = time.perf_counter()
    dataset: Dataset = load(settings)
    prepared = time.perf_counter()
    next(iter(training_batches(dataset.histories, "prefix", 50, 512, seed=0)))
    first = time.perf_counter()
    if output is not None:
        write_prepared(dataset, output)
    return f"{prepared - started:.1f}", f"{first - started:.1f}", peak_memory()


def main() -> None:
    """Prepares from the file, and then reads what was prepared, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", nargs="+", type=int, default=[10_000_000])
    parser.add_argument("--format", choices=["parquet", "csv", "csv.gz"], default="parquet")
    options = parser.parse_args()
    rows = [("interactions", "from", "to the data set, s", "to the first batch, s", "peak memory")]
    for size in options.interactions:
        with tempfile.TemporaryDirectory() as folder:
            path, prepared = Path(folder) / f"interactions.{options.format}", Path(folder) / "prepared"
            apart(write, path, size)
            rows.append((f"{size:,}", options.format, *apart(prepare, DataSettings(path=path), prepared)))
            rows.append(
                (
                    f"{size:,}",
                    "what was prepared",
                    *apart(prepare, DataSettings(source="prepared", path=prepared), None),
                )
            )
    table(*rows)


def apart(job: Callable[..., Any], *arguments: object) -> Any:
    """What the job returns, run in a process of its own, whose memory is so its own."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(job, arguments)


if __name__ == "__main__":
    main()
