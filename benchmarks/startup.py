"""Seconds from typing `tfcorr train` to the end of the first training step: prints one table.

python benchmarks/startup.py pipelines/movielens100k.yaml
"""

import argparse
import subprocess
import sys
import tempfile
import time

from measure import spread, table

PROGRAM = """
import os, sys
from tfcorr.training import ProgressBar
def first_step(*_): print("first step", flush=True); os._exit(0)
ProgressBar.on_train_batch_end = first_step
from tfcorr.cli import main
main()
"""


def main() -> None:
    """Starts the command, with a progress bar that leaves after the first step, some times over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            command = [sys.executable, "-c", PROGRAM, "train", options.pipeline, "--root", folder]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert output.endswith("first step\n"), output
            seconds.append(time.perf_counter() - started)
    table(("pipeline", "seconds to the first step"), (options.pipeline, spread(seconds, ".1f")))


if __name__ == "__main__":
    main()
