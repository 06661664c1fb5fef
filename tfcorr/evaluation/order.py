"""The final order: a weighted sum of the stages' scores, whose weights are fitted on examples that no tower was trained
on.

What a tower has learned from an example it knows too well there, so weights learned beside it on the same examples come
out wrong (Wolpert, Stacked generalization, 1992); on validation each stage is worth what it will be worth.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfcorr.evaluation.metrics import MISSED, ndcg

Floats = npt.NDArray[np.float32]
RIDGE = 1.0  # of a user more or less: it keeps the fit finite where scores tell the targets from all others
BLOCK = 2048  # users at once, so that what is computed beside their scores takes little memory
STEPS = 50  # of Newton's method at most; some ten are enough
CLOSE = 1e-6  # improvement of the mean log-loss below which it ends


class Scored(NamedTuple):
    """What was handed on to the last stage, of the users whose target was: `scores` by name [n, R] of R items.

    `column` [n] is the target's. An item that is none has minus infinity. `missed` is how many users more there are.
    """

    scores: dict[str, Floats]
    column: npt.NDArray[np.int64]
    missed: int

    def ranks(self, weights: Mapping[str, float]) -> npt.NDArray[np.int32]:
        """The ranks of all targets by a weighted sum of the scores, [n + missed]; ties count against them."""
        total = self.total(weights)
        target = np.take_along_axis(total, self.column[:, None], axis=1)
        ahead = (~(total < target) & (total != -np.inf)).sum(
            axis=1, dtype=np.int32
        )  # the target itself, and what is no number
        return np.concatenate([ahead, np.full(self.missed, MISSED, np.int32)])

    def total(self, weights: Mapping[str, float]) -> Floats:
        """The weighted sum of the scores, [n, R]."""
        chosen = {name: weight for name, weight in weights.items() if weight}
        is_item = next(iter(self.scores.values())) != -np.inf
        with np.errstate(invalid="ignore"):
            total = sum(np.float32(weight) * self.scores[name] for name, weight in chosen.items())
        return np.where(is_item, total, -np.inf)


class Order(NamedTuple):
    """The weights of the scores by name, and what each stage and the fitted order came to: mean NDCG@k over all
    users."""

    weights: dict[str, float]
    scales: dict[str, float]
    ndcg: dict[str, float]


def fit_order(scored: Scored, stages: Iterable[str], k: int) -> Order:
    """The weights by which a softmax over what was handed on is most likely to choose the targets, or one stage alone
    if that ranks better.

    Each score is divided by its mean deviation within a list, so that weights of stages can be told by their size;
    `weights` are of the scores as they are. `stages` are the names of which each might be the order by itself.
    """
    names = list(scored.scores)
    found = {name: float(ndcg(scored.ranks({name: 1.0}), k).mean()) for name in stages}
    best = max(found, key=lambda name: found[name])
    is_item = scored.scores[best] != -np.inf
    names = [
        name for name in names if np.isfinite(scored.scores[name][is_item]).all()
    ]  # a tower that diverged is no help
    if not len(scored.column) or not names:
        return Order({best: 1.0}, dict.fromkeys(scored.scores, 1.0), found)
    scales = {best: 1.0} | {name: _scale(scored.scores[name]) for name in names}
    features = np.stack([scored.scores[name] / scales[name] for name in names], axis=-1)  # [n, R, S]
    fitted = fit_softmax(features, scored.column)
    weights = {name: float(weight) / scales[name] for name, weight in zip(names, fitted, strict=True)}
    found["cascade"] = float(ndcg(scored.ranks(weights), k).mean())
    return Order(weights if found["cascade"] >= found[best] else {best: 1.0}, scales, found)


def _scale(scores: Floats) -> float:
    """The deviation of the scores within a list, in the mean over lists; 1 where they do not differ."""
    deviations = np.nanstd(np.where(np.isfinite(scores), scores, np.nan), axis=1)
    return float(deviations.mean()) or 1.0


def fit_softmax(features: Floats, column: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The weights w [S] that maximise Σ_n log softmax(features[n] · w)[column[n]] − ridge / 2 · |w|², by Newton's
    method.

    Args: features [n, R, S], minus infinity or NaN where there is no item; column [n], that of the target.
    """
    is_item = np.isfinite(features[..., 0])
    features = np.where(is_item[..., None], features, 0)
    features -= np.take_along_axis(features, column[:, None, None], axis=1)  # so that the target's are zeros
    users, _, size = features.shape
    blocks = [slice(begin, begin + BLOCK) for begin in range(0, users, BLOCK)]

    def shares(weights: npt.NDArray[np.float64], block: slice) -> tuple[Floats, Floats]:
        """The softmax of some users, [b, R], and minus its logarithm at the target, [b]."""
        logits = np.where(is_item[block], features[block] @ weights.astype(np.float32), -np.inf)
        highest = logits.max(axis=1, keepdims=True)
        found = np.exp(logits - highest)
        total = found.sum(axis=1, keepdims=True)
        return found / total, (highest + np.log(total))[:, 0]

    def loss(weights: npt.NDArray[np.float64]) -> float:
        likelihood = sum(float(shares(weights, block)[1].sum(dtype=np.float64)) for block in blocks)
        return (likelihood + RIDGE / 2 * float(weights @ weights)) / users

    weights = np.zeros(size)
    value = loss(weights)
    for _ in range(STEPS):
        gradient, hessian = RIDGE * weights, RIDGE * np.eye(size)
        for block in blocks:
            of_block = shares(weights, block)[0]
            means = np.einsum("nr,nrs->ns", of_block, features[block])
            weighted = (of_block[..., None] * features[block]).reshape(-1, size)
            gradient += means.sum(axis=0, dtype=np.float64)
            hessian += weighted.T @ features[block].reshape(-1, size) - means.T @ means
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while (found := loss(weights - length * step)) > value and length > CLOSE:
            length /= 2
        improvement = value - found
        if improvement > 0:
            weights, value = weights - length * step, found
        if improvement < CLOSE:
            break
    return weights
