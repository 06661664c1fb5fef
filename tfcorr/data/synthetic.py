"""Made-up interactions of any size with something to learn in them: popular items, repeats, and items that follow
others."""

import numpy as np
import numpy.typing as npt
import polars as pl

FOLLOWERS = 4  # items that may follow an item
SKEW = 0.8  # the exponent of Zipf's law, by which the items' popularity falls
REPEATS, STEPS = 0.15, 0.5  # shares of interactions that repeat an item of the user's, and that follow the one before
SPREAD = 1.0  # standard deviation of the logarithm of the users' numbers of interactions


def synthesize(users: int, items: int, interactions: int, seed: int) -> pl.DataFrame:
    """Columns user_id, item_id (String) and timestamp (Int64, seconds), in the order of users and, within, of time.

    Each user has at least one interaction. After item i, half of the time, comes one of its FOLLOWERS, the first of
    them half of these times, the second a quarter; else, now and then, an item of the user's own past; else any, by
    Zipf's law.
    """
    rng = np.random.default_rng(seed)
    lengths = _lengths(users, interactions, rng)
    starts = np.cumsum(lengths) - lengths
    popularity = np.cumsum(np.arange(1, items + 1) ** -SKEW)
    names = rng.permutation(items)  # so that an item's number does not tell how popular it is

    def popular(count: int) -> npt.NDArray[np.int64]:
        return np.searchsorted(popularity, rng.random(count) * popularity[-1])

    followers = popular(items * FOLLOWERS).reshape(items, FOLLOWERS)
    shares = 0.5 ** np.arange(1, FOLLOWERS + 1)
    chosen = np.empty(interactions, np.int64)
    order = np.argsort(-lengths, kind="stable")
    active = starts[order]  # of the users with the most interactions first
    left = len(order)
    for step in range(int(lengths.max())):
        while lengths[order[left - 1]] <= step:
            left -= 1
        places = active[:left] + step
        kind = rng.random(left)
        picked = popular(left)
        if step:
            before = chosen[places - 1]
            follower = rng.choice(FOLLOWERS, left, p=shares / shares.sum())
            own = chosen[active[:left] + rng.integers(0, step, left)]
            picked = np.select([kind < STEPS, kind < STEPS + REPEATS], [followers[before, follower], own], picked)
        chosen[places] = picked
    gaps = rng.exponential(6 * 3600, interactions)
    gaps[starts] = rng.uniform(0, 30 * 86_400, users)
    elapsed = np.cumsum(gaps)
    times = 1.6e9 + elapsed - np.repeat(elapsed[starts] - gaps[starts], lengths)
    return pl.DataFrame(
        {
            "user_id": pl.Series(np.repeat(np.arange(users), lengths)).cast(pl.String),
            "item_id": pl.Series(names[chosen]).cast(pl.String),
            "timestamp": times.astype(np.int64),
        }
    )


def _lengths(users: int, interactions: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Each user's number of interactions, at least 1 and log-normal beyond, which add up."""
    weights = rng.lognormal(sigma=SPREAD, size=users)
    lengths = 1 + rng.multinomial(interactions - users, weights / weights.sum())
    return lengths.astype(np.int64)
