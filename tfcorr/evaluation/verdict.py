"""Whether what was trained is worth it, in a table and a sentence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfcorr.evaluation.compare import Difference, paired_test
from tfcorr.evaluation.metrics import ndcg

SIMPLER = {
    "popularity": "popularity",
    "transitions": "counting transitions",
    "retriever": "the retriever alone",
}  # by stage


class Verdict(NamedTuple):
    """The cascade less each other order, paired by user, and a sentence on what ranks best."""

    differences: list[Difference]
    sentence: str


def judge(ranks: Mapping[str, npt.NDArray[np.int32]], k: int) -> Verdict:
    """Compares the stage `cascade` with every other by NDCG@k, in the order of the ranks [users] by stage.

    The sentence is on the cascade and the best of what would do without it: the retriever alone, or what needs no
    training.
    """
    gains = {stage: ndcg(each, k) for stage, each in ranks.items()}
    found = [
        paired_test(stage, f"ndcg@{k}", gains["cascade"], each) for stage, each in gains.items() if stage != "cascade"
    ]
    best = max((each for each in found if each.stage in SIMPLER), key=lambda each: each.second)
    ahead = [each for each in found if each.high < 0 and each.second > best.second]
    if ahead:  # an order of the cascade's own parts
        best = max(ahead, key=lambda each: each.second)
        return Verdict(found, f"The order of {best.stage} by itself ranks best, above the cascade: {_values(best, k)}.")
    simpler, values = SIMPLER[best.stage], _values(best, k)
    if best.low > 0:
        return Verdict(found, f"The cascade ranks best; next is {simpler}: {values}.")
    if best.high < 0:
        return Verdict(
            found, f"{simpler.capitalize()} ranks best, and the cascade is not worth it on these data: {values}."
        )
    return Verdict(
        found, f"The cascade is level with {simpler}, so what it adds is not worth it on these data: {values}."
    )


def _values(difference: Difference, k: int) -> str:
    return f"NDCG@{k} {difference.first:.4f} against {difference.second:.4f}, {_more(difference)}"


def _more(difference: Difference) -> str:
    """The difference with its interval, in per cent of the other's value where it has one."""
    if not difference.second:
        return f"{difference.difference:+.4f}"
    low, mean, high = (
        100 * each / difference.second for each in (difference.low, difference.difference, difference.high)
    )
    return f"{mean:+.1f}% (95% interval {low:+.1f} to {high:+.1f})"
