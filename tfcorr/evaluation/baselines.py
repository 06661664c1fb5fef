"""What needs no training, and what a trained cascade must beat to be worth it: popularity, and the counts of what
followed what."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tfcorr.data.dataset import Dataset
from tfcorr.data.histories import Histories, Split
from tfcorr.data.transitions import Transitions
from tfcorr.evaluation.evaluate import Ranks

BASELINES = ("popularity", "transitions")
WINDOW = 3  # interactions apart that still make a pair
LATEST, FADE = 3, 0.7  # items of the history whose followers are counted, each by so much of the one after it
SCALE = 20.0
ROWS = 4096  # users at once


def baseline_ranks(dataset: Dataset, split: Split, exclude_seen: bool) -> Ranks:
    """Each user's rank among all items, [users] int32 by baseline, in the split's order.

    `popularity` orders by the training interactions. `transitions` orders by Σ_j 0.7^(j − 1) log(1 + 20 · users(h_j →
    k) / √total(h_j)) over the three latest items h_j, and where that is alike by popularity. What was seen is left out
    where it must not be recommended, but for the target; ties count against it.
    """
    found: dict[str, list[npt.NDArray[np.int32]]] = {name: [] for name in BASELINES}
    histories, counts, weights = dataset.histories, dataset.catalogue.counts, _matrix(dataset.transitions(WINDOW))
    for rows, scored, seen in _batches(histories, split, weights, exclude_seen):
        targets = histories.items[histories.targets(split)[rows]]
        found["popularity"].append(_ranks(targets, sparse.csr_array(scored.shape), seen, counts))
        found["transitions"].append(_ranks(targets, scored, seen, counts))
    return {name: np.concatenate(each) for name, each in found.items()}


def _matrix(transitions: Transitions) -> sparse.csr_array:
    """By the numbers of the first item and of the second: log(1 + 20 · users / √total), [N + 1, N + 1]."""
    first, second = np.divmod(transitions.keys, transitions.items + 1)
    values = np.log1p(SCALE * transitions.users / np.sqrt(transitions.totals[first]))
    return sparse.csr_array((values, (first, second)), shape=(transitions.items + 1,) * 2)


def _batches(
    histories: Histories, split: Split, weights: sparse.csr_array, exclude_seen: bool
) -> Iterator[tuple[slice, sparse.csr_array, npt.NDArray[np.int64]]]:
    """Some users at a time: which, their scores by transitions [rows, N + 1], and what must be left out, as row · (N +
    1) + item."""
    places, size = histories.targets(split), weights.shape[0]
    starts = histories.starts(places)
    for begin in range(0, len(places), ROWS):
        rows = slice(begin, begin + ROWS)
        at, first = places[rows], starts[rows]
        parts = [
            (row := np.flatnonzero(at - 1 - j >= first), histories.items[at[row] - 1 - j], np.full(len(row), FADE**j))
            for j in range(LATEST)
        ]
        row, items, fades = (np.concatenate(each) for each in zip(*parts, strict=True))
        latest = sparse.csr_array((fades, (row, items)), shape=(len(at), size))
        seen = np.zeros(0, np.int64)
        if exclude_seen:
            lengths = at - first
            owner = np.repeat(np.arange(len(at)), lengths)
            position = (
                np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(first, lengths)
            )
            seen = np.unique(owner * size + histories.items[position])
        yield rows, latest @ weights, seen


def _ranks(
    targets: npt.NDArray[np.int32], scored: sparse.csr_array, seen: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """The targets' ranks [B] by scores [B, N + 1], of which all that are not there are 0, and then by counts."""
    rows, size = scored.shape
    popularity = np.concatenate([[-1], counts])
    entries = scored.tocoo()
    row, item = entries.coords[0].astype(np.int64), entries.coords[1].astype(np.int64)
    keys = row * size + item
    own = np.arange(rows) * size + targets
    of_target = np.zeros(rows)
    is_target = item == targets[row]
    of_target[row[is_target]] = entries.data[is_target]
    seen = seen[~np.isin(seen, own)]
    no_less_popular = popularity[item] >= popularity[targets][row]
    ahead = (entries.data > of_target[row]) | ((entries.data == of_target[row]) & no_less_popular)
    found = 1 + np.bincount(row[ahead & ~is_target & ~np.isin(keys, seen)], minlength=rows)
    # A target without a score stands among all that have none.
    among_rest = of_target == 0
    rest = len(counts) - np.searchsorted(np.sort(counts), popularity[targets]) - 1
    rest -= np.bincount(row[no_less_popular & ~is_target], minlength=rows)
    seen_row, seen_item = np.divmod(seen[~np.isin(seen, keys)], size)
    rest -= np.bincount(seen_row[popularity[seen_item] >= popularity[targets][seen_row]], minlength=rows)
    return np.where(among_rest, found + rest, found).astype(np.int32)
