"""What a tower learned, given to one of other items: it scores what both know as the first did."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.towers.test_contract import (
    CANDIDATES,
    HISTORY,
    ITEMS,
    LENGTH,
    TOWERS,
    USER,
    USERS,
    VARIANTS,
    context_of,
    features,
    fresh,
    pairs,
)
from tfcorr.data.transitions import Transitions
from tfcorr.towers import Domain, tower_of
from tfcorr.towers.counts import PairCounts
from tfcorr.towers.transfer import rows_between, take_over

# The new items, users and categories: the old ones in another order, and some that are new.
ORDER = np.random.default_rng(3).permutation(ITEMS + 3)
USER_ORDER, KINDS = np.array([5, 2, 0, 1, 3, 4]), ["war", "western", "comedy", "drama"]


def renumbered(order, numbers):
    """The numbers in the new order of what had these in the old one; 0 stays 0."""
    return np.where(numbers > 0, np.argsort(order)[np.maximum(numbers, 1) - 1] + 1, 0).astype(np.int32)


def new_features(old):
    """The old features of the old items at their new places; the new items have none."""
    genre, price, *of_context = old
    values = np.zeros((ITEMS + 4, genre.values.shape[1]), np.int32)
    to_new = np.array([0, *(KINDS.index(kind) + 1 for kind in genre.vocabulary)])
    prices = np.zeros(ITEMS + 4, np.float32)
    places = renumbered(ORDER, np.arange(1, ITEMS + 1))
    values[places], prices[places] = to_new[genre.values[1:]], price.values[1:]
    return replace(genre, values=values, vocabulary=KINDS), replace(price, values=prices), *of_context


def new_pairs(old):
    """The old pairs of the old items, by their new numbers."""
    found = {}
    for window, each in old.items():
        first, second = (
            renumbered(ORDER, numbers).astype(np.int64) for numbers in np.divmod(each.keys.numpy(), ITEMS + 1)
        )
        keys = first * (ITEMS + 4) + second
        order = np.argsort(keys)
        totals = np.zeros(ITEMS + 4, np.int32)
        totals[renumbered(ORDER, np.arange(1, ITEMS + 1))] = each.totals.numpy()[1:]
        found[window] = PairCounts(
            Transitions(ITEMS + 3, keys[order], each.users.numpy()[order], totals, np.zeros(0, np.int64))
        )
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_both_know_is_scored_as_before(variant):
    old, known = fresh(variant), features(ITEMS) if "features" in variant else ()
    settings = TOWERS[VARIANTS[variant]["name"]].Settings.parse(VARIANTS[variant])
    told = new_pairs(pairs(ITEMS)) if "counts" in variant else {}
    new = tower_of(settings, Domain(ITEMS + 3, USERS + 2, LENGTH, new_features(known) if known else (), told))
    before = context_of(HISTORY, USER)
    now = before | {
        "history": tf.constant(renumbered(ORDER, HISTORY)),
        "user": tf.constant(renumbered(USER_ORDER, USER)),
    }
    candidates = tf.constant(renumbered(ORDER, CANDIDATES))
    new.score(now, candidates)
    ids, users = [str(number) for number in range(ITEMS + 3)], [str(number) for number in range(USERS + 2)]
    rows = {
        "item": rows_between(ids[:ITEMS], [ids[number] for number in ORDER]),
        "user": rows_between(users[:USERS], [users[number] for number in USER_ORDER]),
        "genre": rows_between(["comedy", "drama", "war"], KINDS),
        "device": np.arange(3),
        "price": np.zeros(1, np.int64),
        "age": np.zeros(1, np.int64),
    }
    take_over(old, new, rows)
    np.testing.assert_allclose(
        new.score(now, candidates), old.score(before, tf.constant(CANDIDATES)), rtol=1e-4, atol=1e-5
    )


def test_what_is_new_starts_as_the_mean():
    old = fresh("mf")
    new = tower_of(type(old).Settings.parse(VARIANTS["mf"]), Domain(3, 2, LENGTH))
    new.score(context_of(HISTORY[:1], USER[:1]), tf.constant([[1]]))
    take_over(old, new, {"item": np.array([0, 7, -1, 2]), "user": np.array([0, -1, 1])})
    table = old.items.embeddings.numpy()
    np.testing.assert_allclose(new.items.embeddings, [table[0], table[7], table[1:].mean(axis=0), table[2]], rtol=1e-5)
    assert not np.allclose(table[1:].mean(axis=0), 0, atol=1e-3)
