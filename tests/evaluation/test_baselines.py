"""The baselines against a dense oracle, and what is said of a cascade beside them."""

import math

import numpy as np
import pytest

from tests import oracles
from tfcorr.data.dataset import Dataset
from tfcorr.data.histories import Catalogue, Histories
from tfcorr.evaluation import baselines
from tfcorr.evaluation.baselines import baseline_ranks
from tfcorr.evaluation.metrics import MISSED
from tfcorr.evaluation.verdict import judge

ITEMS = 12


def some_histories(users=60):
    rng = np.random.default_rng(4)
    lengths = rng.integers(2, 9, users)
    return Histories(
        [f"u{u}" for u in range(users)],
        rng.integers(1, ITEMS + 1, lengths.sum()).astype(np.int32),
        np.cumsum([0, *lengths]),
    )


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_of_the_baselines_are_those_of_scoring_every_item(split, exclude_seen, monkeypatch):
    monkeypatch.setattr(baselines, "ROWS", 7)
    data = some_histories()
    pasts = [data.items[start:end].tolist() for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    training = [past[:-2] for past in pasts]
    counts = np.bincount([item for past in training for item in past], minlength=ITEMS + 1)
    pairs = [
        {(past[i], past[j]) for i in range(len(past)) for j in range(i + 1, min(i + 4, len(past)))} for past in training
    ]
    users = {pair: sum(pair in of_user for of_user in pairs) for pair in set().union(*pairs)}
    total = {item: sum(count for (first, _), count in users.items() if first == item) for item in range(1, ITEMS + 1)}
    catalogue = Catalogue([f"i{item}" for item in range(1, ITEMS + 1)], counts[1:], [""] * ITEMS, ITEMS)
    found = baseline_ranks(Dataset(catalogue, data, []), split, exclude_seen)
    users_of_split = [past for past in pasts if len(past) >= (2 if split == "test" else 3)]
    assert len(found["transitions"]) == len(users_of_split)
    for number, past in enumerate(users_of_split):
        *seen, target = past if split == "test" else past[:-1]
        candidates = [item for item in range(1, ITEMS + 1) if not exclude_seen or item == target or item not in seen]
        scores = np.zeros(ITEMS + 1)
        for j, first in enumerate(seen[::-1][:3]):
            for item in candidates:
                if (first, item) in users:
                    scores[item] += 0.7**j * math.log1p(20 * users[first, item] / math.sqrt(total[first]))
        order = scores.round(9) * 1e6 + counts
        assert found["popularity"][number] == oracles.rank(target, counts, candidates)
        assert found["transitions"][number] == oracles.rank(target, order, candidates)


@pytest.mark.parametrize(
    ("cascade", "retriever", "ranker", "sentence"),
    [
        (1, 3, 2, "The cascade ranks best; next is the retriever alone: NDCG@20 0.8333 against 0.4167, +100.0%"),
        (
            3,
            1,
            2,
            "The retriever alone ranks best, and the cascade is not worth it on these data: NDCG@20 0.4167 against "
            "0.8333, -50.0%",
        ),
        (
            3,
            3,
            4,
            "The cascade is level with the retriever alone, so what it adds is not worth it on these data: NDCG@20 "
            "0.4167 against 0.4167",
        ),
        (
            3,
            5,
            1,
            "The order of ranker by itself ranks best, above the cascade: NDCG@20 0.4167 against 0.8333, -50.0%",
        ),
    ],
)
def test_what_ranks_best_is_named_in_a_sentence(cascade, retriever, ranker, sentence):
    def ranks(hit):
        return np.array([hit] * 50 + [MISSED] * 10, np.int32)

    stages = {
        "popularity": ranks(20),
        "transitions": ranks(19),
        "retriever": ranks(retriever),
        "ranker": ranks(ranker),
        "cascade": ranks(cascade),
    }
    verdict = judge(stages, 20)
    assert verdict.sentence.startswith(sentence)
    assert [each.stage for each in verdict.differences] == ["popularity", "transitions", "retriever", "ranker"]
