"""How many users went from one item to another: the knowledge of pairs of items that no inner product of short vectors
holds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tfcorr.data.histories import Histories
from tfcorr.files import read_intact


@dataclass(frozen=True)
class Transitions:
    """Pairs of items (h, k), and how many users had k within a few interactions after h in training, each user once.

    `keys` [P] int64 are h · (N + 1) + k, ascending; `users` [P] int32 the users of each; `totals` [N + 1] int32 their
    sum by h. `owned` [Q] int64 has the pairs of each user, u · P + the pair's position in `keys`, ascending, u counted
    from 1.
    """

    items: int
    keys: npt.NDArray[np.int64]
    users: npt.NDArray[np.int32]
    totals: npt.NDArray[np.int32]
    owned: npt.NDArray[np.int64]


def count_transitions(histories: Histories, items: int, window: int) -> Transitions:
    """Counts pairs at most `window` interactions apart, in the training split: all but each user's last two
    interactions.

    Args: items is N; item numbers are 1 to N.

    >>> histories = Histories(["a", "b"], np.array([1, 2, 1, 9, 9, 1, 2, 9, 9]), np.array([0, 5, 9]))
    >>> counted = count_transitions(histories, items=9, window=1)
    >>> [(int(key) // 10, int(key) % 10, int(users)) for key, users in zip(counted.keys, counted.users)]
    [(1, 2, 2), (2, 1, 1)]
    """
    ends = np.repeat(histories.offsets[1:] - 2, np.diff(histories.offsets))  # of each position's user, in training
    owners = np.repeat(np.arange(1, len(histories.users) + 1), np.diff(histories.offsets))
    found: list[npt.NDArray[np.int64]] = []
    whose: list[npt.NDArray[np.int64]] = []
    for distance in range(1, window + 1):
        first = np.flatnonzero(np.arange(len(ends)) + distance < ends)
        found.append(histories.items[first].astype(np.int64) * (items + 1) + histories.items[first + distance])
        whose.append(owners[first])
    keys, pair = np.unique(np.concatenate(found), return_inverse=True)
    owned = np.unique(np.concatenate(whose) * len(keys) + pair)
    users = np.bincount(owned % max(len(keys), 1), minlength=len(keys)).astype(np.int32)
    return _transitions(items, keys, users, owned)


def write_transitions(keys: npt.NDArray[np.int64], users: npt.NDArray[np.int32], path: Path) -> None:
    """Writes the pairs as Parquet, without whose they are, which training alone asks."""
    pl.DataFrame({"key": keys, "users": users}).write_parquet(path)


def read_transitions(path: Path, items: int) -> Transitions:
    """Reads what `write_transitions` wrote, of N items. Raises: InputError if there is no such file, or it is
    damaged."""
    table = read_intact(path, pl.read_parquet)
    return _transitions(items, table["key"].to_numpy(), table["users"].to_numpy(), np.zeros(0, np.int64))


def _transitions(
    items: int, keys: npt.NDArray[np.int64], users: npt.NDArray[np.int32], owned: npt.NDArray[np.int64]
) -> Transitions:
    return Transitions(items, keys, users, np.bincount(keys // (items + 1), users, items + 1).astype(np.int32), owned)
