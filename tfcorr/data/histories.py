"""The catalogue of items and every user's history in time order, split by leave-one-out."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "validation", "test"]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Catalogue:
    """The items. Item number i (1 to N) has the id `ids[i - 1]`; 0 is padding and no item.

    `counts` [N] int64 counts the training interactions only. `titles` is as long as `ids`; "" where none is known. The
    items after the first `warm` have no interactions at all, and are known by their features alone.
    """

    ids: list[str]
    counts: npt.NDArray[np.int64]
    titles: list[str]
    warm: int

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, histories: "Histories", ids: list[str], titles: list[str], warm: int | None = None) -> "Catalogue":
        """The items of the histories, counted there; by default all of them are warm."""
        return cls(ids, histories.item_counts(len(ids)), titles, len(ids) if warm is None else warm)


@dataclass(frozen=True)
class Histories:
    """All users' items in time order, one user after another.

    `items` [interactions] int32; user u owns the places `offsets[u]` to `offsets[u + 1]`, and has the id `users[u]`.
    """

    users: list[str]
    items: IntArray
    offsets: npt.NDArray[np.int64]

    def targets(self, split: Split) -> npt.NDArray[np.int64]:
        """The places of the split's targets: last item for test, the one before for validation, the earlier ones (but
        the first, which has no history) for training."""
        starts, ends = self.offsets[:-1], self.offsets[1:]
        if split == "test":
            return (ends - 1)[ends - starts >= 2]
        if split == "validation":
            return (ends - 2)[ends - starts >= 3]
        counts, first = self.training_counts, self.offsets[:-1][np.diff(self.offsets) > 3] + 1
        return np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)

    def owners(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The user of each place."""
        return np.searchsorted(self.offsets, places, side="right") - 1

    def starts(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The first place of each place's user."""
        return self.offsets[self.owners(places)]

    @cached_property
    def training_counts(self) -> npt.NDArray[np.int64]:
        """How many training targets each user has who has any, in the order of the users."""
        counts = np.diff(self.offsets) - 3  # all but the first, and the targets of validation and test
        return counts[counts > 0]

    def item_counts(self, items: int) -> npt.NDArray[np.int64]:
        """How many interactions each of the items 1 to N has in training, [N]: all but each user's last two."""
        lengths, ends = np.diff(self.offsets), self.offsets[1:]
        kept_out = np.concatenate([ends[lengths >= 1] - 1, ends[lengths >= 2] - 2])
        return (np.bincount(self.items, minlength=items + 1) - np.bincount(self.items[kept_out], minlength=items + 1))[
            1:
        ]
