"""What counts of pairs cost: a training step, and a served answer, with them over without: prints two tables.

python benchmarks/counts.py --items 250000
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from measure import (
    SIZES,
    batches,
    cooperation,
    in_turn,
    options_of,
    random_histories,
    ratio,
    settings_of,
    stepper,
    table,
    trained_towers,
)

from tfcorr.config import RunSettings
from tfcorr.data.histories import Catalogue
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.index import build_index
from tfcorr.serving.export import export


def main() -> None:
    """Times steps of the recipe's and of the small towers, and answers of exported cascades, in turn."""
    parser = options_of(__doc__)
    parser.add_argument("--items", type=int, default=250_000, help="of the catalogue that is asked")
    parser.add_argument("--answers", type=int, default=300)
    options = parser.parse_args()
    items = 12_000
    histories = random_histories(users=20_000, items=items, mean=9)
    rows: list[tuple[object, ...]] = [("towers", "a training step with counts over one without")]
    for size in ("recipe", "small"):
        jobs = {}
        for counts in (None, {}):
            settings = _settings(size, counts, options.batch)
            jobs[f"counts {counts}"] = stepper(
                cooperation(settings, items, len(histories.users), histories),
                batches(settings, histories),
                options.steps,
            )
        without, with_counts = in_turn(jobs, options.rounds).values()
        rows.append((size, ratio(with_counts, without)))
    table(*rows)
    jobs = {
        name: _answering(options.items, options.steps, options.batch, counts=counts)
        for name, counts in (("without", False), ("with", True))
    }
    seconds = in_turn(jobs, options.answers)
    rows = [("counts", "items", "an answer in process, exact: p50, ms", "p99")]
    for name, taken in seconds.items():
        rows.append((name, f"{options.items:,}", *(f"{1000 * np.percentile(taken, share):.2f}" for share in (50, 99))))
    table(*rows)


def _settings(size: str, counts: dict[str, object] | None, batch: int) -> RunSettings:
    if size == "small":
        return settings_of(
            "small", ranker=SIZES["small"]["ranker"] | {"counts": counts}, training={"batch_size": batch}
        )
    data, training = {"source": "movielens-100k"}, {"batch_size": batch}
    return RunSettings.parse({"name": "recipe", "data": data, "ranker": {"counts": counts}, "training": training})


def _answering(items: int, steps: int, batch: int, counts: bool) -> object:
    towers, histories, settings = trained_towers(items, steps, batch, counts)
    cascade = Cascade(towers, build_index("exact", all_item_vectors(towers["retriever"], items)), [500])
    ids = [f"item-{number}" for number in range(1, items + 1)]
    rng, length = np.random.default_rng(0), settings.history_length
    starts = rng.integers(0, len(histories.items) - length, 200)
    requests = [
        {
            "history": tf.constant([[ids[item - 1] for item in histories.items[start : start + length]]]),
            "k": tf.constant([20]),
            "exclude": tf.constant([[""]]),
        }
        for start in starts
    ]
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Catalogue(ids, histories.item_counts(items), [""] * items, items)
        export(towers, catalogue, [], [], {"cascade": cascade}, length, True, Path(folder, "serving"))
        model = tf.saved_model.load(f"{folder}/serving/cascade/1")
    every = itertools.cycle(requests)

    def answer() -> object:
        return model.signatures["serving_default"](**next(every))["item"].numpy()

    return answer


if __name__ == "__main__":
    main()
