"""Slow, plain NumPy versions of the mathematics, written from the paper's equations; they share no code with tfcorr."""

import itertools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def sampled_log_softmax(target_score: float, sample_scores: Floats, target_log_q: float, sample_log_q: Floats) -> float:
    """Equations 1 and 2, term by term: −log of exp(V(k) − log Q(k)) over the sum of the same over {k} ∪ S."""
    numerator = math.exp(target_score) / math.exp(target_log_q)
    denominator = numerator + sum(math.exp(s) / math.exp(q) for s, q in zip(sample_scores, sample_log_q, strict=True))
    return -math.log(numerator / denominator)


def sampled_kl(teacher: Floats, student: Floats, log_q: Floats) -> float:
    """Σ p log(p / p′) with p and p′ the normalised weights exp(score) / Q of the samples."""
    p, other = np.exp(teacher) / np.exp(log_q), np.exp(student) / np.exp(log_q)
    p, other = p / p.sum(), other / other.sum()
    return float(sum(a * math.log(a / b) for a, b in zip(p, other, strict=True)))


def binary_cross_entropy(target_score: float, sample_scores: Floats) -> float:
    """−log of the target's sigmoid, and the mean over the samples of −log of one less theirs."""
    of_samples = [-math.log(1 - 1 / (1 + math.exp(-score))) for score in sample_scores]
    return -math.log(1 / (1 + math.exp(-target_score))) + sum(of_samples) / len(of_samples)


def log_loss(scores: Floats, target: int, samples: npt.NDArray[np.int64], q: Floats) -> float:
    """−log of the target's softmax, of which all other items are counted by samples of probability q each."""
    others = sum(math.exp(scores[item]) / p for item, p in zip(samples, q, strict=True) if item != target) / len(
        samples
    )
    return math.log(math.exp(scores[target]) + others) - scores[target]


def hardness(scores: Floats, target: int, samples: npt.NDArray[np.int64]) -> float:
    """Of the samples that are not the target, the share that scores no lower."""
    others = [scores[item] >= scores[target] for item in samples if item != target]
    return float(np.mean(others)) if others else 0.0


def kl(p: Floats, q: Floats) -> float:
    return float(np.sum(p * (np.log(p) - np.log(q))))


def resampling(
    target: int, pool: list[int], scores: Floats, counts: Floats, temperature: float, correction: str
) -> tuple[Floats, Floats]:
    """The share of every position of [k, *C] in a draw, and Q of every item. Items count from 0.

    counts [items] are the positions that each can expect in C. A position weighs exp(M / T) over the positions that its
    item can expect in {k} ∪ C, where by `item` the target has one more, and by `paper` not; by `hits-removed` those of
    the target weigh nothing, if there are others. Q of an item is of all its positions, or, by `paper`, of one.
    """
    expected = counts.copy()
    if correction == "item":
        expected[target] += 1
    positions = [target, *pool]
    weights = np.array([math.exp(scores[item] / temperature) / expected[item] for item in positions])
    if correction == "hits-removed":
        removed = [item == target for item in positions]
        weights = np.ones(len(positions)) if all(removed) else np.where(removed, 0, weights)
    of_items = np.exp(scores / temperature) / weights.sum()
    return weights / weights.sum(), of_items / expected if correction == "paper" else of_items


def log_q(q: Floats, target: int, samples: int, correction: str) -> tuple[float, Floats]:
    """What the losses subtract at the target, and at a sample by its item: in {k} ∪ S the target has one position more
    than its draws.

    By `hits-removed` no sample counts that is the target, and by `paper` the one more is forgotten.
    """
    of_target = {"hits-removed": 1 / samples, "item": q[target] + 1 / samples, "paper": q[target]}[correction]
    of_samples = q.copy()
    of_samples[target] = math.inf if correction == "hits-removed" else of_target
    return math.log(of_target), np.log(of_samples)


def resampling_distribution(
    pool: list[int], target: int, scores: Floats, proposal: Floats, temperature: float, correction: str = "paper"
) -> Floats:
    """What one draw from a pool comes to, by item."""
    shares, _ = resampling(target, pool, scores, len(pool) * proposal, temperature, correction)
    return np.bincount([target, *pool], shares, len(scores))


def two_step_distribution(
    size: int, target: int, scores: Floats, proposal: Floats, temperature: float, correction: str = "paper"
) -> Floats:
    """What one draw of the two-step sampler comes to, averaged over every possible pool of `size` draws from Y."""
    total = np.zeros(len(scores))
    for pool in itertools.combinations_with_replacement(range(len(scores)), size):
        orders = math.factorial(size)
        for count in Counter(pool).values():
            orders //= math.factorial(count)
        probability = orders * math.prod(proposal[item] for item in pool)
        total += probability * resampling_distribution(list(pool), target, scores, proposal, temperature, correction)
    return total


def three_step_distribution(
    size: int, samples: int, target: int, first: Floats, second: Floats, proposal: Floats, correction: str
) -> Floats:
    """What one draw of a second tower comes to, from `samples` draws of a first from a pool of `size`, over every way
    to draw these."""
    total = np.zeros(len(first))
    for pool in itertools.product(range(len(first)), repeat=size):
        positions = [target, *pool]
        shares, q = resampling(target, list(pool), first, size * proposal, 1.0, correction)
        for drawn in itertools.product(range(len(positions)), repeat=samples):
            probability = math.prod(proposal[item] for item in pool) * math.prod(shares[position] for position in drawn)
            if probability:
                again = [positions[position] for position in drawn]
                of_again, _ = resampling(target, again, second, samples * q, 1.0, correction)
                total += probability * np.bincount([target, *again], of_again, len(first))
    return total


def full_log_softmax(scores: Floats, target: int) -> float:
    """−log of the target's share of exp(score) over all."""
    return math.log(sum(math.exp(score) for score in scores)) - scores[target]


def rank(target: int, scores: Floats, candidates: list[int]) -> int:
    """1 + the candidates other than the target that score at least as much."""
    return 1 + sum(1 for item in candidates if item != target and scores[item] >= scores[target])


def adam(values: Floats, gradients: list[Floats], rate: float, decay: float) -> Floats:
    """Adam with decoupled weight decay over dense gradients (Kingma and Ba, algorithm 1, with ε outside the
    correction)."""
    values, m, v = values.copy(), np.zeros_like(values), np.zeros_like(values)
    for step, gradient in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        corrected = rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        values = values - corrected * m / (np.sqrt(v) + 1e-7) - rate * decay * values
    return values


def din_attention(
    query: Floats, keys: Floats, weights: dict[str, Floats], hidden: list[tuple[Floats, Floats]]
) -> Floats:
    """DIN's attention network on the concatenation [q, h, q∘h, q−h], one pair at a time: a weight for each key.

    `weights` holds the first layer's blocks q, h, x (for q∘h) and d (for q−h) and its bias b; `hidden` the further
    layers, of which the last has no activation.
    """
    first = np.concatenate([weights["q"], weights["h"], weights["x"], weights["d"]])
    result = []
    for key in keys:
        values = 1 / (1 + np.exp(-(np.concatenate([query, key, query * key, query - key]) @ first + weights["b"])))
        for kernel, bias in hidden[:-1]:
            values = 1 / (1 + np.exp(-(values @ kernel + bias)))
        result.append((values @ hidden[-1][0] + hidden[-1][1])[0])
    return np.array(result)


def split(frequency: list[tuple[str, str, float]], least: int) -> dict[str, list[str]]:
    """The histories that the iterated minimum-interaction filter leaves, by user, in time order; ties by file order."""
    rows = list(frequency)
    while True:
        users, items = Counter(user for user, _, _ in rows), Counter(item for _, item, _ in rows)
        kept = [row for row in rows if users[row[0]] >= least and items[row[1]] >= least]
        if len(kept) == len(rows):
            break
        rows = kept
    histories: dict[str, list[str]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):  # Python's sort is stable
        histories.setdefault(user, []).append(item)
    return histories
