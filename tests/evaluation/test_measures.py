"""What a report draws, against plain versions of the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tfcorr.evaluation.report import measures

quick = settings(max_examples=60, deadline=None)
TIMES = st.lists(st.integers(0, 50), min_size=2, max_size=30)


def test_coverage_counts_every_item_once_and_no_empty_place():
    lists = np.array([[3, 1, 0], [3, 5, 1], [0, 0, 0]], np.int32)
    assert measures.recommended(lists, 8).tolist() == [2, 0, 2, 0, 1, 0, 0, 0]
    assert measures.coverage(measures.recommended(lists, 8)) == len({1, 3, 5}) / 8


@given(TIMES)
@quick
def test_gini_is_half_the_relative_mean_difference_of_two_different_items(times):
    n = len(times)
    differences = sum(abs(a - b) for a in times for b in times) / (n * (n - 1))
    expected = differences / (2 * sum(times) / n) if sum(times) else 0.0
    assert measures.gini(np.array(times)) == pytest.approx(expected)


def test_gini_is_0_if_all_are_equal_and_1_if_one_has_all():
    assert measures.gini(np.full(7, 3)) == 0
    assert measures.gini(np.array([0, 0, 9, 0])) == 1
    assert measures.gini(np.array([4])) == 0


def test_novelty_is_the_mean_surprise_of_what_is_listed():
    counts = np.array([8, 4, 3, 1, 0])  # of 16
    lists = np.array([[1, 2], [4, 0], [5, 5], [0, 0]], np.int32)
    assert measures.novelty(lists, counts).tolist() == [(1 + 2) / 2, 4, 4]  # the fourth user is given nothing
    assert measures.self_information(counts)[2] == pytest.approx(-math.log2(3 / 16))
    assert np.isfinite(measures.self_information(np.zeros(3, np.int64))).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 6))
@quick
def test_bins_hold_every_value_once_in_order_and_none_is_empty(values, most):
    bins = measures.quantile_bins(np.array(values), most)
    assert 1 <= len(bins.low) == len(bins.high) <= most
    assert set(bins.of) == set(range(len(bins.low)))
    for value, place in zip(values, bins.of, strict=True):
        assert bins.low[place] <= value <= bins.high[place]
    assert (bins.low[1:] > bins.high[:-1]).all()
    for low, high in zip(bins.low, bins.high, strict=True):
        assert {low, high} <= set(values)


@given(st.integers(1, 60), st.integers(1, 6))
@quick
def test_bins_of_different_values_are_of_one_size(n, most):
    sizes = np.bincount(measures.quantile_bins(np.random.default_rng(n).permutation(n), most).of)
    assert len(sizes) == min(n, most)
    assert sizes.max() - sizes.min() <= 1


def test_an_interval_is_students():
    values = np.random.default_rng(1).normal(size=12)
    found = measures.interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert measures.interval(values[:1]).mean == values[0]
    assert math.isnan(measures.interval(values[:1]).low)


@given(st.integers(1, 10**6))
@quick
def test_cut_offs_and_ranges_of_ranks_end_at_the_limit(limit):
    for found in (measures.cut_offs(limit), measures.rank_bins(limit).tolist()):
        assert found == sorted(set(found))
        assert (found[0], found[-1]) == (1, limit)
        assert len(found) <= 19
    assert len(measures.rank_bins(limit)) <= 12
