"""A prepared set: what the interactions become, and all that is counted of it once."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from tfcorr.data.features import Feature, FeatureSource, Side, Whose, encode, moments
from tfcorr.data.histories import Catalogue, Histories, IntArray
from tfcorr.data.interactions import FEATURE, Interactions
from tfcorr.data.transitions import Transitions, count_transitions
from tfcorr.settings import InputError

NO_FEATURES = FeatureSource({})
Account = list[tuple[str, int | None, int | None, int | None]]  # what, interactions, users, items
EXAMPLES = 3  # of ids, in messages


@dataclass(frozen=True)
class Dataset:
    """A prepared set: catalogue, histories, and the account of every row."""

    catalogue: Catalogue
    histories: Histories
    account: Account
    features: list[Feature] = field(default_factory=list)
    _transitions: dict[int, Transitions] = field(default_factory=dict, init=False, repr=False, compare=False)

    def transitions(self, window: int) -> Transitions:
        """What followed what within a window of training interactions; counted when first asked for, and kept."""
        if window not in self._transitions:
            self._transitions[window] = count_transitions(self.histories, len(self.catalogue), window)
        return self._transitions[window]

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
    account: Account = [(what, n, None, None) for what, n in interactions.account]
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
    titles = [(interactions.titles or {}).get(item, "") for item in ids]
    if interactions.ragged_titles:
        account.append(about("skipped: a ragged row of the titles", "item", interactions.ragged_titles))
    if interactions.titles is not None:
        account += _without("a title", interactions.where, "item", ids, interactions.titles)
    rowless = dict[Whose, int]()
    sides: list[tuple[Side | None, Whose, list[str]]] = [
        (source.item, "item", ids),
        (source.user, "user", histories.users),
    ]
    for side, of, known in sides:
        if side is not None:
            there = side.ids()
            account += _of_side(side, there, of, known)
            rowless[of] = len(set(known) - set(there))
    features = source.encode_side("item", ids) + source.encode_side("user", histories.users)
    for name, each in source.settings.items():
        if each.of == "interaction":
            column = (
                moments(each.kind, times, interactions.unit)
                if each.kind in ("hour", "weekday")
                else interactions.collect(pl.col(FEATURE + name)).to_series()
            )
            features.append(encode(name, each, column[rows[order]], interactions.where, source.like.get(name)))
    for feature in features:
        lacking = feature.lacking - (feature.of != "interaction")  # row 0 is no one's
        if lacking > rowless.get(feature.of, 0):
            account.append(about(f"of these without the feature {feature.name}", feature.of, lacking))
    return Dataset(Catalogue.of(histories, ids, titles, warm), histories, account, features)


def _of_side(side: Side, ids: list[str], of: Whose, known: list[str]) -> Account:
    """The rows of the account on a table of items or users with these ids. Raises: InputError if it knows none of
    them."""
    name = Path(side.where).name
    again = len(ids) - len(set(ids))
    account = [about(f"skipped: a ragged row of {name}", of, side.ragged)] if side.ragged else []
    account += [about(f"rows of {name} on one that has another, the last of which counts", of, again)] if again else []
    return account + _without(f"a row in {name}", side.where, of, known, ids)


def _without(what: str, where: str, of: Whose, ids: list[str], known: Collection[str]) -> Account:
    """How many of the ids a table beside the interactions does not know. Raises: InputError if it knows none."""
    lacking = len(set(ids) - set(known))
    if known and lacking == len(ids):
        ours, theirs = (", ".join(map(repr, sorted(set(each))[:EXAMPLES])) for each in (ids, known))
        raise InputError(
            f"{where}: no {of} has {what}: ids there are such as {theirs}, {of}s such as {ours}; write both alike, or "
            "leave the table out"
        )
    return [about(f"of these without {what}", of, lacking)] if lacking else []


def about(what: str, of: Whose, count: int) -> tuple[str, int | None, int | None, int | None]:
    """A row of the account, on so many interactions, users or items."""
    counts = {each: count if of == each else None for each in get_args(Whose)}
    return what, counts["interaction"], counts["user"], counts["item"]


def dropped_and_left(before: tuple[int, int, int], left: tuple[int, int, int], least: int, where: str) -> Account:
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
            f"{where}: nothing is left to train on: every user has fewer than 4 interactions, of which the last two "
            "are "
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
