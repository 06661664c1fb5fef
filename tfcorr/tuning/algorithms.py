"""Keras Tuner's algorithms of search, made such that a killed search loses nothing."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from tfcorr.files import write_whole
from tfcorr.search_space import Algorithm
from tfcorr.settings import InputError


class _Kept:
    """What is added to each oracle: what it saves appears whole, and the first trial may be given.

    An oracle writes a new trial first and then its list of them. A trial that a killed search did not list was never
    begun: it is drawn again.
    """

    first: dict[str, Any]

    def _random_values(self: Any) -> dict[str, Any] | None:
        return dict(self.first) if self.first and not self.trials else super()._random_values()  # type: ignore[misc]

    def _save_trial(self: Any, trial: Any) -> None:
        write_whole(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", partial(_save, trial))

    def save(self: Any) -> None:
        """Saves everything but the trials."""
        write_whole(Path(self._get_oracle_fname()), partial(_save, self))

    def reload(self: Any) -> None:
        """Goes back to what was saved."""
        super().reload()  # type: ignore[misc]
        self.trials = {number: self.trials[number] for number in self.start_order}
        # What has ended is not to be run again, though it was saved before it was taken from those under way.
        self._retry_queue = [
            number for number in self._retry_queue if self.trials[number].status == TrialStatus.RUNNING
        ]


def _save(what: Any, path: Path) -> None:
    path.write_text(json.dumps(what.get_state()), encoding="utf-8")


class _Bayesian(_Kept, BayesianOptimizationOracle):
    def populate_space(self: Any, trial_id: str) -> dict[str, Any]:
        """The next trial's values; in place of a trial that there was already, as in a small space, any other."""
        found = super().populate_space(trial_id)
        return self._random_populate_space() if found["values"] and self._duplicate(found["values"]) else found


class _Random(_Kept, RandomSearchOracle):
    pass


class _Hyperband(_Kept, HyperbandOracle):
    pass


def oracle_of(
    algorithm: Algorithm,
    space: kt.HyperParameters,
    first: dict[str, Any],
    objective: str,
    trials: int,
    epochs: int,
    seed: int,
) -> kt.Oracle:
    """What proposes the trials, the first with the values given, if any are.

    Args: objective, the name of a metric to be maximised; trials, how many at most; epochs, how many a trial may come
    to by Hyperband, which begins with few and goes on with the better third.
    """
    common = {
        "objective": kt.Objective(objective, "max"),
        "hyperparameters": space,
        "seed": seed + 1,  # 0 would mean any
        "max_consecutive_failed_trials": trials + 1,
    }
    oracle: Any
    if algorithm == "bayesian":
        at_random = min(3 * len(space.space), max(trials // 2, 3))  # until there is enough to learn from
        oracle = _Bayesian(max_trials=trials, num_initial_points=at_random, **common)
    elif algorithm == "random":
        oracle = _Random(max_trials=trials, **common)
    else:
        oracle = _Hyperband(max_epochs=epochs, hyperband_iterations=None, **common)
        oracle.max_trials = trials
    oracle.first, oracle.verbose = first, 0
    return oracle


def check_bracket(oracle: Any, trials: int, choices: float) -> None:
    """Raises: InputError if Hyperband's first bracket cannot be filled, so that no trial would ever be given more
    epochs.

    Args: trials, how many there may be; choices, how many different ones the space has.
    """
    bracket = oracle._current_bracket
    sizes = [oracle._get_size(bracket, number) for number in range(bracket + 1)]
    needed = (
        f"algorithm: hyperband begins {sizes[0]} trials for {oracle.max_epochs} epochs and raises the better, "
        f"{sum(sizes)} in all"
    )
    if trials < sum(sizes):
        raise InputError(f"{needed}; received {trials} trials; raise them, or lower training.epochs")
    if choices < sizes[0]:
        raise InputError(f"{needed}; the space has only {choices:.0f} choices; take random")
