"""From Interactions to integers: a Catalogue of items and every user's history in time order, split by leave-one-out."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tfcorr.data.features import Feature, FeatureSource, encode, moments
from tfcorr.data.interactions import FEATURE, Interactions
from tfcorr.settings import InputError

Split = Literal["train", "validation", "test"]
IntArray = npt.NDArray[np.int32]
NO_FEATURES = FeatureSource({})


@dataclass(frozen=True)
class Catalogue:
    """The items. Item number i (1 to N) has the id `ids[i - 1]`; 0 is padding and no item.

    `counts` [N] int64 counts the training interactions only. `titles` is as long as `ids`; "" where none is known. The items
    after the first `warm` have no interactions at all, and are known by their features alone.
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
        """The places of the split's targets: last item for test, the one before for validation, the earlier ones (but the
        first, which has no history) for training."""
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
        return (np.bincount(self.items, minlength=items + 1) - np.bincount(self.items[kept_out], minlength=items + 1))[1:]


@dataclass(frozen=True)
class Dataset:
    """A prepared set: catalogue, histories, and the account of every row as (what, interactions, users, items)."""

    catalogue: Catalogue
    histories: Histories
    account: list[tuple[str, int, int | None, int | None]]
    features: list[Feature] = field(default_factory=list)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over ids, items, offsets and features: the same if and only if the prepared data are the same."""
        digest = hashlib.sha256("\n".join([*self.catalogue.ids, "", *self.histories.users]).encode())
        digest.update(self.histories.items.tobytes())
        digest.update(self.histories.offsets.tobytes())
        for feature in self.features:
            digest.update("\n".join([feature.name, feature.of, *(feature.vocabulary or [])]).encode())
            digest.update(feature.values.tobytes())
        return digest.hexdigest()


def prepare(interactions: Interactions, min_interactions: int, source: FeatureSource = NO_FEATURES) -> Dataset:
    """Drops rare users and items until none is left, numbers the rest, sorts by user and time (ties by file order).

    Items that only the source's table of items has are numbered after the others, where they are wanted.

    Raises: InputError if nothing is left, or nothing to train on.
    """
    account: list[tuple[str, int, int | None, int | None]] = [(what, n, None, None) for what, n in interactions.account]
    user_ids, item_ids = (interactions.collect(pl.col(role).unique())[role].sort() for role in ("user", "item"))
    columns = interactions.collect(_numbered("user", user_ids), _numbered("item", item_ids), pl.col("time"))
    users, items, times = (column.to_numpy() for column in columns)
    rows = _frequent(users, items, min_interactions)
    kept_users, users_left = np.unique(users[rows], return_inverse=True)
    kept_items, items_left = np.unique(items[rows], return_inverse=True)
    left = (len(rows), len(kept_users), len(kept_items))
    account += dropped_and_left((len(users), len(user_ids), len(item_ids)), left, min_interactions, interactions.where)
    order = np.lexsort((times[rows], users_left))
    histories = Histories(
        users=user_ids.gather(kept_users).to_list(),
        items=(items_left[order] + 1).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(users_left))]).astype(np.int64),
    )
    check_trainable(len(histories.training_counts), interactions.where)
    ids = item_ids.gather(kept_items).to_list()
    warm = len(ids)
    if source.cold and source.item is not None:
        ids += sorted(set(source.item.ids()) - set(ids))
    titles = [interactions.titles.get(item, "") for item in ids]
    features = source.encode_side("item", ids) + source.encode_side("user", histories.users)
    for name, each in source.settings.items():
        if each.of == "interaction":
            column = (
                moments(each.kind, times) if each.kind in ("hour", "weekday") else interactions.collect(pl.col(FEATURE + name)).to_series()
            )
            features.append(encode(name, each, column[rows[order]], interactions.where, source.like.get(name)))
    return Dataset(Catalogue.of(histories, ids, titles, warm), histories, account, features)


def dropped_and_left(
    before: tuple[int, int, int], left: tuple[int, int, int], least: int, where: str
) -> list[tuple[str, int, int | None, int | None]]:
    """The account's last rows, of (interactions, users, items) before and after the rare were dropped.

    Raises: InputError if nothing is left.
    """
    if not left[0]:
        raise InputError(
            f"{where}: nothing is left of {before[0]} interactions: no user or no item has at least {least} of them; "
            "lower data.min_interactions, or bring more data"
        )
    interactions, users, items = (after - earlier for after, earlier in zip(left, before, strict=True))
    return [(f"dropped: fewer than {least} interactions", interactions, users, items), ("left", *left)]


def check_trainable(users: int, where: str) -> None:
    """Raises: InputError if no user has a training target; `users` is how many have one."""
    if not users:
        raise InputError(
            f"{where}: nothing is left to train on: every user has fewer than 4 interactions, of which the last two are "
            "kept for validation and test; bring longer histories"
        )


def _numbered(role: str, ids: pl.Series) -> pl.Expr:
    """Each row's place among the sorted ids, as Int32: memory then holds no string more than once."""
    return pl.col(role).cast(pl.Enum(ids)).to_physical().cast(pl.Int32)


def _frequent(users: IntArray, items: IntArray, least: int) -> npt.NDArray[np.int64]:
    """The rows that are left when users and items with fewer than `least` rows have been dropped until none is left."""
    rows = np.arange(len(users))
    while True:
        enough = (np.bincount(users[rows])[users[rows]] >= least) & (np.bincount(items[rows])[items[rows]] >= least)
        if enough.all():
            return rows
        rows = rows[enough]
