"""What a prepared data set is like: the row that the paper's table 1 has for it, and what helps to choose settings."""

import numpy as np

from tfcorr.data.dataset import Dataset


def describe(dataset: Dataset) -> dict[str, str]:
    """Facts by their names, as text."""
    histories = dataset.histories
    users, items, interactions = len(histories.users), len(dataset.catalogue), len(histories.items)
    lengths = np.diff(histories.offsets)
    owners = np.repeat(np.arange(users, dtype=np.int64), lengths)
    distinct = len(np.unique(owners * (items + 1) + histories.items))
    counts = np.sort(np.bincount(histories.items, minlength=items + 1)[1:])[::-1]
    tenth = counts[: max(items // 10, 1)].sum() / interactions
    return {
        "users": f"{users:,}",
        "items": f"{items:,}",
        "interactions": f"{interactions:,}",
        "density": f"{interactions / users / items:.4%}",
        "interactions a user: mean, median, most": f"{lengths.mean():.1f}, {np.median(lengths):.0f}, {lengths.max():,}",
        "interactions an item: mean, median, most": f"{counts.mean():.1f}, {np.median(counts):.0f}, {counts[0]:,}",
        "repeats, share of interactions with an item had before": f"{1 - distinct / interactions:.1%}",
        "share of the most popular tenth of items": f"{tenth:.1%}",
        "targets for training, validation, test": ", ".join(
            f"{len(histories.targets(split)):,}" for split in ("train", "validation", "test")
        ),
    }
