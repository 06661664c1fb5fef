"""Pairs of items counted by user, against plain loops."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcorr.data.histories import Histories
from tfcorr.data.transitions import count_transitions, read_transitions, write_transitions
from tfcorr.settings import InputError

ITEMS = 5
PASTS = st.lists(st.lists(st.integers(1, ITEMS), min_size=1, max_size=9), min_size=1, max_size=6)


def histories_of(pasts):
    lengths = [len(past) for past in pasts]
    items = np.array([item for past in pasts for item in past], np.int32)
    return Histories(
        [f"u{user}" for user in range(len(pasts))], items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


def users_by_pair(pasts, window):
    """The users, from 1, who had the second item at most `window` interactions after the first, before their last
    two."""
    users = defaultdict(set)
    for user, past in enumerate(pasts, start=1):
        known = past[: max(len(past) - 2, 0)]
        for first in range(len(known)):
            for second in range(first + 1, min(first + window, len(known) - 1) + 1):
                users[known[first], known[second]].add(user)
    return users


def trainable(pasts):
    return any(len(past) > 3 for past in pasts)


@given(PASTS.filter(trainable), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_pair_counts_each_user_once_in_training_alone_and_knows_whose_it_is(pasts, window):
    found = count_transitions(histories_of(pasts), ITEMS, window)
    expected = users_by_pair(pasts, window)
    pairs = [divmod(int(key), ITEMS + 1) for key in found.keys]
    assert pairs == sorted(expected)
    assert found.users.tolist() == [len(expected[pair]) for pair in pairs]
    assert found.totals.tolist() == [
        sum(len(users) for (first, _), users in expected.items() if first == h) for h in range(ITEMS + 1)
    ]
    owned = sorted((user, pairs.index(pair)) for pair, users in expected.items() for user in users)
    assert found.owned.tolist() == [user * len(pairs) + position for user, position in owned]
    assert (found.items, found.totals[0]) == (ITEMS, 0)


def test_a_larger_window_holds_the_pairs_of_a_smaller_one():
    pasts = np.random.default_rng(0).integers(1, ITEMS + 1, size=(20, 9)).tolist()
    near, far = (count_transitions(histories_of(pasts), ITEMS, window) for window in (1, 3))
    assert set(near.keys) <= set(far.keys)
    assert near.users.sum() < far.users.sum()


@pytest.mark.parametrize("pasts", [[[1, 2, 1, 9]], [[1, 2, 3, 4], [5]]])
def test_the_items_kept_for_validation_and_test_are_in_no_pair(pasts):
    found = count_transitions(histories_of(pasts), 9, 5)
    assert [divmod(int(key), 10) for key in found.keys] == [(1, 2)]


def test_item_numbers_near_the_largest_make_no_other_pair():
    """A key is the first item's number times N + 1, which is beyond 32 bits for a million items."""
    found = count_transitions(histories_of([[10**6, 10**6 - 1, 1, 2, 3]]), 10**6, 1)
    assert [divmod(int(key), 10**6 + 1) for key in found.keys] == [(10**6 - 1, 1), (10**6, 10**6 - 1)]
    assert found.totals.nonzero()[0].tolist() == [10**6 - 1, 10**6]


def test_what_is_written_is_read_again_but_for_whose_it_is(tmp_path):
    counted = count_transitions(histories_of([[1, 2, 3, 4, 5], [2, 1, 2, 3, 3, 3]]), ITEMS, 2)
    write_transitions(counted.keys, counted.users, tmp_path / "pairs.parquet")
    read = read_transitions(tmp_path / "pairs.parquet", ITEMS)
    for name in ("keys", "users", "totals"):
        np.testing.assert_array_equal(getattr(read, name), getattr(counted, name))
        assert getattr(read, name).dtype == getattr(counted, name).dtype
    assert len(read.owned) == 0
    assert len(counted.owned) > 0


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"pairs\.parquet"):
        read_transitions(tmp_path / "pairs.parquet", ITEMS)
    (tmp_path / "pairs.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"pairs\.parquet"):
        read_transitions(tmp_path / "pairs.parquet", ITEMS)
