"""What a report needs to know of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfcorr.evaluation.evaluate import Ranks
from tfcorr.evaluation.report.history import History
from tfcorr.evaluation.report.lists import Lists

RANKER_ALONE = "ranker_alone"  # the last tower's order of all items


@dataclass(frozen=True)
class Measured:
    """A run as it was trained and measured; users are those of the test split, in one order, items are numbered from 1.

    `settings` are flat. `ranks` are each user's [users] by stage, MISSED where the target was not among what the stage
    was handed; `handed_on` is how many items a stage hands on, `index` how the retriever's were searched. `lengths`
    [users] are the interactions before the target, and `targets` [users] its number. `lists` [users, k] are the items
    recommended, by stage; `counts` [N] are the training interactions with each item.
    """

    label: str
    folder: Path
    settings: dict[str, Any]
    history: History
    ranks: Ranks
    handed_on: dict[str, int]
    index: str
    lengths: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    lists: Lists
    counts: npt.NDArray[np.int64]

    @property
    def popularity(self) -> npt.NDArray[np.int64]:
        """How many training interactions each user's target has, [users]."""
        return self.counts[self.targets - 1]
