"""What a report draws, as pure functions of ranks, of recommended lists and of counts."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its 95% interval, which is NaN where there are too few values to tell."""

    mean: float
    low: float
    high: float


def interval(values: Floats) -> Interval:
    """The mean of independent values [n] and its 95% interval by Student's t with n − 1 degrees of freedom."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def cut_offs(limit: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to the limit, which is the last."""
    steps = [step * 10**power for power in range(len(str(limit))) for step in (1, 2, 5)]
    return [*(each for each in steps if each < limit), limit]


def recommended(lists: Ints, items: int) -> npt.NDArray[np.int64]:
    """How often each of the items 1 to N is recommended, [N]; lists [users, k] hold item numbers, 0 where there is
    none."""
    return np.bincount(lists.ravel(), minlength=items + 1)[1:]


def coverage(times: Ints) -> float:
    """Catalogue coverage: the share of the items that are recommended to anyone; times [N] are how often each is.

    Source: Ge, Delgado-Battenfeld and Jannach, Beyond accuracy, RecSys'10.
    """
    return float(np.count_nonzero(times) / len(times))


def gini(times: Ints) -> float:
    """The Gini coefficient of how often each item is recommended, times [N]: 0 if all equally, 1 if one item alone.

    G = Σ_j (2j − N − 1) p_j / (N − 1), with the shares p_j in rising order; 0 where nothing is recommended.
    Source: Shani and Gunawardana, Evaluating recommendation systems, Recommender Systems Handbook, 2011.
    """
    n, total = len(times), times.sum()
    if n < 2 or not total:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * np.sort(times)).sum() / ((n - 1) * total))


def self_information(counts: Ints) -> Floats:
    """−log2 of each item's share of the training interactions, [N] in bits; counts [N].

    An item that has none counts as if it had one, so that it is as surprising as the rarest can be, and not infinitely
    so.
    Source: Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010.
    """
    return np.log2(max(int(counts.sum()), 1)) - np.log2(np.maximum(counts, 1))


def novelty(lists: Ints, counts: Ints) -> Floats:
    """The mean self-information of each user's recommended items, in bits, over the users who have any, [at most
    users].

    lists [users, k] hold item numbers, 0 where there is none; counts [N] are the items' training interactions.
    """
    bits = np.concatenate([[0.0], self_information(counts)])
    filled = (lists > 0).sum(axis=1)
    return bits[lists].sum(axis=1)[filled > 0] / filled[filled > 0]


class Bins(NamedTuple):
    """`of` [n] is the bin of each value; bin b holds the values from `low[b]` to `high[b]`, both included."""

    of: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]


def quantile_bins(values: Ints, most: int = 5) -> Bins:
    """Divides whole values [n] at their quantiles into at most so many bins, none of them empty; equal values stay
    together."""
    tops = np.unique(np.quantile(values, np.arange(1, most + 1) / most, method="inverted_cdf")).astype(np.int64)
    of = np.searchsorted(tops, values)
    return Bins(of, np.array([values[of == each].min() for each in range(len(tops))]), tops)


def rank_bins(size: int, most: int = 12) -> npt.NDArray[np.int64]:
    """The last rank of each of at most so many bins for the ranks 1 to `size`, each twice as wide as the one before, or
    4 times, …"""
    factor = 2
    while factor ** (most - 1) < size:
        factor *= 2
    tops = [factor**power for power in range(most)]
    return np.array([*(each for each in tops if each < size), size])
