"""What one tower learned, given to another of the same settings whose items, users and categories are others."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcorr.towers.layers import Tower
from tfcorr.towers.tables import ItemFeatures

Rows = npt.NDArray[np.int64]


def rows_between(old: Sequence[str], new: Sequence[str]) -> Rows:
    """For padding and each of the new ids, numbered from 1, its number among the old ones, −1 if it is not among
    them."""
    numbers = {each: number for number, each in enumerate(old, start=1)}
    return np.array([0, *(numbers.get(each, -1) for each in new)])


def take_over(old: Tower, new: Tower, rows: Mapping[str, Rows]) -> None:
    """Sets the new tower's variables to the old one's.

    rows gives, by what the rows of a table are of ("item", "user", a feature's name), the old row of each new one; what
    has none starts as the mean of the old rows.
    """
    of = {id(table.embeddings): table.of for table in old.submodules if getattr(table, "of", None)}
    given = {id(values) for layer in old.submodules if isinstance(layer, ItemFeatures) for values in layer.values}
    for one, other in zip(old.variables, new.variables, strict=True):
        if id(one) in of:
            other.assign(_rows_of(one, rows[of[id(one)]]))
        elif id(one) not in given:  # the features of the new items are their own
            other.assign(one)


def _rows_of(table: tf.Variable, rows: Rows) -> npt.NDArray[np.float32]:
    values = table.numpy()
    return np.where((rows >= 0)[:, None], values[rows], values[1:].mean(axis=0) if len(values) > 1 else values)
