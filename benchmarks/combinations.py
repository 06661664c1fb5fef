"""Trains every pair of towers, and one pair by every training, loss and strategy, for an epoch each: prints one table.

python benchmarks/combinations.py                         all of them, on MovieLens-100K: about 40 minutes on 2 cores
python benchmarks/combinations.py --only retriever ranker --set data.path=clicks.parquet --pipeline clicks.yaml
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from measure import table, table_row

import tfcorr  # isort: skip  # measure imports it first, and so quietens TensorFlow
from rich.console import Console

from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.cooperation.strategies import DISTILLATION, NEGATIVES
from tfcorr.towers import RANKERS, RETRIEVERS

assert tfcorr
METHODS = ("corr", "two-stage", "adversarial")
HEADS = ("retriever", "ranker", "method", "loss", "negatives", "distillation")
USUAL = ("sasrec", "din", "corr", "softmax", "resample", "resample")


def combinations(varied: list[str]) -> list[tuple[str, ...]]:
    """Each combination once: all pairs of towers, then the usual pair with what else is varied."""
    found = []
    if "retriever" in varied or "ranker" in varied:
        found += [(*pair, *USUAL[2:]) for pair in itertools.product(RETRIEVERS, RANKERS)]
    if "method" in varied or "loss" in varied:
        found += [(*USUAL[:2], method, loss, *USUAL[4:]) for method in METHODS for loss in ("softmax", "bce")]
    if "negatives" in varied:
        found += [
            (*USUAL[:2], method, "softmax", negatives, "resample") for method in METHODS for negatives in NEGATIVES
        ]
    if "distillation" in varied:
        found += [(*USUAL[:5], distillation) for distillation in DISTILLATION]
    return list(dict.fromkeys(found))


def main() -> None:
    """Trains and measures one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="pipelines/movielens100k.yaml")
    parser.add_argument("--only", nargs="+", choices=HEADS, default=HEADS, help="what is varied")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="overrides a setting; may be repeated"
    )
    options = parser.parse_args()
    table((*HEADS, "seconds", "retriever's NDCG@20", "cascade's"))
    for combination in combinations(list(options.only)):
        chosen = dict(zip(HEADS, combination, strict=True))
        usual = load_settings(options.pipeline, options.set)
        of_towers = [
            f"{role}={{name: {chosen[role]}}}"
            for role in ("retriever", "ranker")
            if getattr(usual, role).name != chosen[role]
        ]
        others = [f"training.{each}={chosen[each]}" for each in ("method", "loss")]
        others += [f"sampler.{each}={chosen[each]}" for each in ("negatives", "distillation")]
        settings = load_settings(
            options.pipeline, ["training.epochs=1", *options.set, *of_towers, *others], "combination"
        )
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            run = runs.train(settings, Path(folder), Console(quiet=True))
            seconds = time.monotonic() - started
            metrics = runs.evaluate(run).metrics
        table_row(
            (
                *combination,
                f"{seconds:.0f}",
                *(f"{metrics[stage]['ndcg@20']:.4f}" for stage in ("retriever", "cascade")),
            )
        )


if __name__ == "__main__":
    main()
