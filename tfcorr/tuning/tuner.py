"""Keras Tuner's worker: it trains each trial that it is given as a run in the search's folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.errors import FailedTrialError
from keras_tuner.src import config
from rich.console import Console

from tfcorr.config import load_settings, save_settings
from tfcorr.files import write_whole
from tfcorr.history import value_of
from tfcorr.settings import InputError, shown
from tfcorr.trial import Job, train_apart
from tfcorr.tuning.space import Spaces, as_overrides, plain

FAILED = "failed: "  # what stands before a trial's message in its log
STATE = "keras-tuner"  # the folder of what Keras Tuner itself keeps, beside the trials' runs
ENVIRONMENT = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def role() -> str:
    """What Keras Tuner's variables make this process: alone, chief or worker. Raises: InputError if they are not all
    there."""
    given = [name for name in ENVIRONMENT if name in os.environ]
    if not given:
        return "alone"
    if len(given) < len(ENVIRONMENT):
        raise InputError(f"{', '.join(given)} alone in the environment; a shared search needs {', '.join(ENVIRONMENT)}")
    return "chief" if "chief" in os.environ[ENVIRONMENT[0]] else "worker"


def name_of(number: str) -> str:
    """The run's name of one of Keras Tuner's trials, whose number has as many digits as the search had trials when it
    began."""
    return f"trial-{int(number):02}"


class Tuner(BaseTuner):
    """Trains a trial, given by the values that were chosen, in a process of its own; a mistake or a crash in it is its
    failure alone."""

    def __init__(self, oracle: kt.Oracle, job: Job, spaces: Spaces, console: Console) -> None:
        """job is what all trials have in common, but for their names."""
        super().__init__(oracle=oracle, directory=job.root, project_name=STATE)
        self.job, self.spaces, self.console = job, spaces, console

    def _get_tuner_fname(self) -> str:
        if self._is_worker():
            return super()._get_tuner_fname()
        return str(
            Path(self.project_dir) / "tuner.json"
        )  # by the same name for a chief as alone, or it would begin anew

    def run_trial(self, trial: Any) -> dict[str, float]:
        """The objective of one of Keras Tuner's trials."""
        config.DEBUG = True
        values, name = plain(trial.hyperparameters.values, self.spaces), name_of(trial.trial_id)
        self.console.print(f"{name}: {shown(values)}", soft_wrap=True, highlight=False)
        overrides = [*self.job.overrides, *as_overrides(values)]
        try:
            epochs = trial.hyperparameters.values.get("tuner/epochs")
            if epochs is not None:
                overrides.append(f"training.epochs={epochs}")
                self._go_on_from(trial, name, epochs)
            train_apart(replace(self.job, overrides=overrides, name=name))
            value = value_of(Path(self.job.root) / name, self.job.objective)
        except InputError as error:
            self.console.print(f"{name}: failed: {error}", soft_wrap=True, highlight=False)
            with (Path(self.job.root) / f"{name}.log").open("a", encoding="utf-8") as log:
                log.write(f"\n{FAILED}{error}\n")  # as Keras Tuner's workers do not pass it on to their chief
            config.DEBUG = False  # or Keras Tuner prints a traceback of what is no fault of the code
            raise FailedTrialError(str(error)) from None
        self.console.print(f"{name}: {self.job.objective} {value:.4f}", soft_wrap=True, highlight=False)
        return {self.job.objective: value}

    def _go_on_from(self, trial: Any, name: str, epochs: int) -> None:
        """Lets a trial that Hyperband gives more epochs begin where the one before ended."""
        before, folder = trial.hyperparameters.values.get("tuner/trial_id"), Path(self.job.root) / name
        if before is None or folder.exists():
            return
        earlier = Path(self.job.root) / name_of(before)
        settings = load_settings(earlier / "settings.yaml")
        training = settings.training.model_copy(update={"epochs": epochs})

        def copy(partial: Path) -> None:
            shutil.copytree(
                earlier, partial, ignore=shutil.ignore_patterns("ranks.parquet", "report", "serving")
            )  # of other weights
            save_settings(settings.model_copy(update={"name": name, "training": training}), partial / "settings.yaml")

        write_whole(folder, copy)
