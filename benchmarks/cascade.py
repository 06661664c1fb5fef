"""Users a second that evaluation ranks, exactly and by ScaNN, and how much of the exact 500 ScaNN finds: prints one
table.

python benchmarks/cascade.py --items 250000
"""

import numpy as np
from measure import in_turn, options_of, peak_memory, ratio, spread, table, trained_towers

from tfcorr.data.batches import evaluation_batches
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.evaluate import rank_batch, rank_users
from tfcorr.evaluation.index import build_index

RETRIEVED = 500


def main() -> None:
    """Trains on random data with some order in it, then times both indexes on the same users in turn."""
    parser = options_of(__doc__, rounds=5, steps=500)
    parser.add_argument("--items", type=int, default=250_000)
    parser.add_argument("--users", type=int, default=1024)
    parser.add_argument("--at-once", type=int, default=128, help="users")
    options = parser.parse_args()
    towers, histories, settings = trained_towers(options.items, options.steps, options.batch)
    vectors = all_item_vectors(towers["retriever"], options.items)
    data = evaluation_batches(histories, "test", settings.history_length, options.at_once, limit=options.users).cache()
    jobs, found = {}, {}
    for kind in ("exact", "scann"):
        cascade = Cascade(towers, build_index(kind, vectors), [RETRIEVED])
        rank = rank_batch(cascade, data.element_spec, False)
        jobs[kind] = lambda rank=rank: rank_users(rank, data)
        found[kind] = np.concatenate([cascade.retrieve(batch.context, batch.seen[:, :0]).ids for batch in data])
    shared = [np.isin(one, other).mean() for one, other in zip(found["exact"], found["scann"], strict=True)]
    seconds = in_turn(jobs, options.rounds)
    rates = {kind: [options.users / each for each in taken] for kind, taken in seconds.items()}
    rows = [("items", "exact, users a second", "ScaNN", "ratio", f"share of the exact {RETRIEVED} that ScaNN finds")]
    faster = ratio(seconds["exact"], seconds["scann"])
    rows.append(
        (
            f"{options.items:,}",
            spread(rates["exact"], ",.0f"),
            spread(rates["scann"], ",.0f"),
            faster,
            f"{np.mean(shared):.4f}",
        )
    )
    table(*rows)
    print(f"peak memory: {peak_memory()}")


if __name__ == "__main__":
    main()
