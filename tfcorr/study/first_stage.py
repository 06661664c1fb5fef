"""The retriever's training by itself, which cells that differ only in what comes after it do once between them."""

import hashlib
import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import polars as pl
import tensorflow as tf

import tfcorr
from tfcorr.config import RunSettings, flat, save_settings
from tfcorr.cooperation.two_stage import RetrieverAlone
from tfcorr.data.sources import load
from tfcorr.files import locked, remove_whole, write_whole
from tfcorr.settings import InputError

PREFIX = "retriever-"  # of the folders that are shared
LATER = ("name", "middle", "ranker", "evaluation.order")  # what the first stage does not read
LATER_TRAINING = ("method", "start", "start_rate", "kl_weight", "adversarial_weight", "ranker")
DRAWS = ("proposal", "alpha", "pool", "pool_scope", "correction")  # what it reads of the sampler's settings
CARRIED = ("provenance.json", "cpu.json")
SHARED_CPU = "shared_cpu.json"  # in a cell's folder, what another spent on the first stage


def has_first_stage(settings: RunSettings) -> bool:
    """Whether the retriever is trained by itself before anything else is."""
    return settings.training.method == "two-stage" or settings.training.starts_from_retriever


def is_of(folder: Path, settings: RunSettings) -> bool:
    """Whether a run's folder is of the data that the settings read today, and of this version."""
    try:
        before = json.loads((folder / "provenance.json").read_text())
        return bool(before["tfcorr"] == tfcorr.__version__ and before["data_sha256"] == load(settings.data).checksum)
    except (InputError, OSError, ValueError):
        return False


class FirstStage(tf.keras.callbacks.Callback):
    """Brings a run's folder the first stage if another cell has trained it, or keeps it for others as soon as it is
    trained.

    A context in which the run is trained, and one of its callbacks. Who finds another process at work on it waits.
    """

    def __init__(self, folder: Path, settings: RunSettings) -> None:
        super().__init__()
        self._folder, self._settings, self._lock = folder, settings, ExitStack()
        self.shared = shared_folder(folder.parent, settings)

    def __enter__(self) -> Self:
        """Waits while another cell trains it, then takes it over if it is there."""
        self._lock.enter_context(locked(self.shared.with_name(f".{self.shared.name}.training.lock")))
        if self.shared.exists() and not is_of(self.shared, self._settings):
            remove_whole(self.shared)
        if self.shared.exists():
            self._lock.close()
            if not self._folder.exists():
                write_whole(self._folder, self._bring)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def on_train_begin(self, logs: Any = None) -> None:
        """Before each stage: a run that was killed after its first begins with another."""
        if not isinstance(self.model, RetrieverAlone):
            self._is_trained()

    def on_train_end(self, logs: Any = None) -> None:
        """After each stage."""
        self._is_trained()

    def _is_trained(self) -> None:
        stages = [path.name for path in (self._folder / "checkpoints").iterdir()]
        if not self.shared.exists() and stages == ["retriever"]:
            write_whole(self.shared, self._keep)
        self._lock.close()

    def _keep(self, folder: Path) -> None:
        _copy(self._folder, folder)
        pl.read_csv(self._folder / "history.csv").filter(stage="retriever").write_csv(folder / "history.csv")

    def _bring(self, folder: Path) -> None:
        _copy(self.shared, folder)
        shutil.copy(self.shared / "history.csv", folder)
        shutil.copy(self.shared / "cpu.json", folder / SHARED_CPU)
        save_settings(self._settings, folder / "settings.yaml")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source / "checkpoints" / "retriever", target / "checkpoints" / "retriever")
    for name in CARRIED:
        shutil.copy(source / name, target)


def shared_folder(root: Path, settings: RunSettings) -> Path:
    """Where the first stage of a training is kept, which is one place for all whose first stages are alike."""
    exact = settings.sampler.pool == "all" and settings.training.loss == "softmax"
    later = [*LATER, *(f"training.{name}" for name in LATER_TRAINING)]
    read = {
        name: value
        for name, value in flat(settings.model_dump(mode="json")).items()
        if not any(name == each or name.startswith(f"{each}.") for each in later)
        and (
            not name.startswith("sampler.")
            or (name.removeprefix("sampler.") in DRAWS and not (exact and name != "sampler.pool"))
        )
    }
    return root / f"{PREFIX}{hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:12]}"
