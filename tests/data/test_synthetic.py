import itertools
from collections import Counter

import numpy as np
import polars as pl
import pytest

from tfcorr.data.dataset import prepare
from tfcorr.data.describe import describe
from tfcorr.data.interactions import Interactions
from tfcorr.data.synthetic import REPEATS, STEPS, synthesize


@pytest.fixture(scope="module")
def frame():
    return synthesize(users=2000, items=500, interactions=40_000, seed=1)


def test_sizes_are_those_asked_for_and_a_seed_gives_the_same_again(frame):
    assert frame.height == 40_000
    assert frame["user_id"].n_unique() == 2000
    assert frame["item_id"].n_unique() <= 500
    assert frame.equals(synthesize(users=2000, items=500, interactions=40_000, seed=1))
    assert not frame.equals(synthesize(users=2000, items=500, interactions=40_000, seed=2))
    times = frame.group_by("user_id", maintain_order=True).agg(pl.col("timestamp").is_sorted())
    assert times["timestamp"].all()


def test_what_is_planted_is_there(frame):
    """Popular items, an item's followers, and repeats are each far more frequent than by chance."""
    counts = frame["item_id"].value_counts()["count"].sort(descending=True).to_numpy()
    assert counts[:50].sum() > 3 * counts[-250:].sum()
    pairs, before = Counter(), Counter()
    for items in frame.group_by("user_id").agg("item_id")["item_id"].to_list():
        pairs.update(itertools.pairwise(items))
        before.update(items[:-1])
    item, often = before.most_common(1)[0]
    following = sorted((count for (first, _), count in pairs.items() if first == item), reverse=True)
    assert following[0] / often == pytest.approx(STEPS * 8 / 15, abs=0.1)
    shuffled = frame.with_columns(pl.col("item_id").shuffle(seed=0))
    repeats = [
        1 - each.select(pl.struct("user_id", "item_id").n_unique()).item() / each.height for each in (frame, shuffled)
    ]
    assert repeats[0] > repeats[1] + REPEATS / 3


def test_description_counts_what_is_there():
    rows = [(f"u{u}", f"i{i}", t) for u in range(2) for t, i in enumerate([0, 1, 0, 2, 2 + u])]
    columns = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").lazy()
    facts = describe(prepare(Interactions(columns, [("read", 10)], "rows"), 1))
    assert facts["users"] == "2"
    assert facts["items"] == "4"
    assert facts["interactions"] == "10"
    assert facts["density"] == "125.0000%"
    assert facts["interactions a user: mean, median, most"] == "5.0, 5, 5"
    assert facts["interactions an item: mean, median, most"] == "2.5, 2, 4"
    assert facts["repeats, share of interactions with an item had before"] == "30.0%"
    assert facts["targets for training, validation, test"] == "4, 2, 2"
    assert np.isclose(float(facts["share of the most popular tenth of items"].removesuffix("%")), 40)
