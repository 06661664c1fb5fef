"""One stage of training by Keras' fit: validation, early stopping, checkpoints from which a killed run goes on."""

import ctypes
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tfcorr.config import TrainingSettings
from tfcorr.console import command
from tfcorr.cooperation.model import LoggedModel
from tfcorr.distribution import first_epoch_here, is_asynchronous, wait_for_all
from tfcorr.settings import InputError


class Refreshed(Protocol):
    """An index that is made anew from time to time."""

    def refresh(self) -> bool:
        """Returns whether graphs that search it must be traced again."""


class Diverged(InputError):
    """A loss or a metric became NaN or infinite."""


Validate = Callable[[], dict[str, float]]
Batches = Callable[[int | tf.Tensor, tf.distribute.InputContext], tf.data.Dataset]


@dataclass(frozen=True)
class Stage:
    """A model to train, and what is kept of it.

    `trained` are the towers by name whose variables the model trains, `kept` a second set of towers, which holds the
    average over epochs of the trained ones: it is what `validate` measures, and what is saved when the metric `monitor`
    is at its best. `goes_on` are towers that an earlier stage trained, whose average goes on from what that one kept.
    `index` is what the model draws from, to be refreshed every so many epochs.
    """

    name: str
    model: LoggedModel
    trained: dict[str, tf.keras.Model]
    kept: dict[str, tf.keras.Model]
    validate: Validate
    monitor: str
    index: Refreshed | None = None
    refresh: int = 1
    goes_on: frozenset[str] = frozenset()


class Bookkeeper(tf.keras.callbacks.Callback):
    """After each epoch: validates, keeps the best weights, saves the state, writes history.csv and TensorBoard's log.

    A run killed before its state is saved goes on from the epoch before, and does this epoch again; the best weights,
    which the state holds too, are saved after it.
    """

    def __init__(self, stage: Stage, folder: Path, settings: TrainingSettings, console: Console, writes: bool) -> None:
        """writes: whether this process keeps the run; another only takes part in what all must do to save its state."""
        super().__init__()
        self.stage, self.folder, self.console, self.writes = stage, folder, console, writes
        self.patience, self.min_delta, self.averaging = settings.patience, settings.min_delta, settings.averaging
        self.epochs_done = tf.Variable(0)
        self.best, self.best_epoch = tf.Variable(-1.0, dtype=tf.float64), tf.Variable(0)
        self.gained, self.gained_epoch = tf.Variable(-1.0, dtype=tf.float64), tf.Variable(0)  # by min_delta at least
        counters = {
            "epochs_done": self.epochs_done,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "gained": self.gained,
            "gained_epoch": self.gained_epoch,
        }
        state = tf.train.Checkpoint(model=stage.model, kept=stage.kept, **counters)
        self.state = _manager(state, folder / "checkpoints" / stage.name / "last")
        self.nowhere = None if writes else tempfile.TemporaryDirectory()
        self.saver = _manager(state, Path(self.nowhere.name)) if self.nowhere else self.state
        self.best_towers = best_towers(folder, stage.name, stage.kept)
        log = str(folder / "tensorboard" / stage.name)
        self.summaries = tf.summary.create_file_writer(log) if writes else tf.summary.create_noop_writer()
        self.started = 0.0

    def restore(self) -> int:
        """Goes back to the last state saved, if there is one; returns the number of epochs done."""
        if self.state.latest_checkpoint:
            _restore(self.state)
            self._keep_best()  # as a kill may have come before it did
        return int(self.epochs_done)

    @property
    def stopped_early(self) -> bool:
        """Whether patience has run out."""
        return int(self.epochs_done) - int(self.gained_epoch) >= self.patience

    @property
    def last_is_best(self) -> bool:
        """Whether the last epoch done is the best."""
        return int(self.best_epoch) == int(self.epochs_done)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Does everything that is done once an epoch."""
        trained = time.monotonic() - self.started
        self._average(epoch)
        values = {name: float(value) for name, value in (logs or {}).items()} | self.stage.validate()
        wrong = [name for name, each in values.items() if not math.isfinite(each)]
        if wrong:
            raise Diverged(
                f"{self.stage.name}, epoch {epoch + 1}: {', '.join(wrong)} became NaN or infinite; lower the "
                "learning rates"
            )
        value = values[self.stage.monitor]
        better = value > float(self.best)
        if better:
            self.best.assign(value)
            self.best_epoch.assign(epoch + 1)
        if value > float(self.gained) * (1 + self.min_delta):
            self.gained.assign(value)
            self.gained_epoch.assign(epoch + 1)
        self.epochs_done.assign(epoch + 1)
        row = {"stage": self.stage.name, "epoch": epoch + 1, "seconds": round(trained, 1), **values}
        if self.writes:
            _append_row(self.folder / "history.csv", row)
        with self.summaries.as_default(step=epoch + 1):
            for name, each in values.items():
                tf.summary.scalar(name, each)
        self.summaries.flush()
        self.saver.save(checkpoint_number=epoch + 1)  # by number, as a new process would begin at 1 again
        self._keep_best()
        self.console.print(_epoch_line(row, self.stage.monitor, better), highlight=False, soft_wrap=True)
        self.model.stop_training = self.stopped_early

    def _keep_best(self) -> None:
        """Saves the towers as they are kept if the last epoch was the best, and they do not stand there yet."""
        done, best = int(self.epochs_done), self.best_towers.latest_checkpoint
        if self.writes and self.last_is_best and not (best or "").endswith(f"-{done}"):
            self.best_towers.save(checkpoint_number=done)

    def _average(self, epoch: int) -> None:
        """Moves the kept towers towards the trained ones: an exponential average over epochs."""
        for name, tower in self.stage.trained.items():
            kept, share = self.stage.kept[name], self.averaging if epoch or name in self.stage.goes_on else 0.0
            for average, now in _pairs(kept.trainable_variables, tower.trainable_variables):
                average.assign(share * average + (1 - share) * now)
            for fixed, now in _pairs(kept.non_trainable_variables, tower.non_trainable_variables):
                fixed.assign(now)


def _pairs(kept: Sequence[tf.Variable], trained: Sequence[tf.Variable]) -> Iterator[tuple[tf.Variable, tf.Tensor]]:
    """Each kept variable with the trained one's value, which under parameter servers comes in shards, one after
    another."""
    pieces = iter(trained)
    for variable in kept:
        whole = next(pieces).read_value()
        while whole.shape.rank and whole.shape[0] < variable.shape[0]:
            whole = tf.concat([whole, next(pieces).read_value()], axis=0)
        yield variable, whole


class Refresh(tf.keras.callbacks.Callback):
    """Refreshes a stage's index before its first epoch here, and every so many epochs."""

    def __init__(self, index: Refreshed, every: int) -> None:
        super().__init__()
        self.index, self.every, self.fresh = index, every, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before an epoch's first step."""
        if not (self.fresh and epoch % self.every) and self.index.refresh():
            self.model.make_train_function(force=True)
        self.fresh = True


class ProgressBar(tf.keras.callbacks.Callback):
    """A bar an epoch with the losses so far and the time left, where the output is a terminal."""

    def __init__(self, steps: int, console: Console) -> None:
        super().__init__()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(
            *columns,
            TextColumn("{task.fields[losses]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.steps = steps
        self.task: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Shows the bar."""
        self.progress.start()
        self.task = self.progress.add_task(f"epoch {epoch + 1}", total=self.steps, losses="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar on."""
        self.progress.update(self.task, completed=batch + 1, losses=epoch_losses(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar away."""
        self.progress.remove_task(self.task)
        self.progress.stop()


def fit(
    stage: Stage,
    batches: Batches,
    steps: int,
    settings: TrainingSettings,
    folder: Path,
    console: Console,
    writes: bool,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> None:
    """Trains a stage, from the last state saved in the folder if there is one; leaves what it keeps at its best
    weights.

    Args: batches gives the endless stream of training batches from an epoch on, for an input pipeline; steps is the
    number of batches an epoch; writes is false in the processes that only help the one that keeps the run; callbacks
    are called last.
    """
    _keep_freed_memory()
    bookkeeper, epochs = Bookkeeper(stage, folder, settings, console, writes), settings.epochs
    done = bookkeeper.restore()
    finished = done == epochs or bookkeeper.stopped_early
    if done:
        console.print(
            f"{stage.name}: " + (f"trained already, {done} epochs" if finished else f"going on after epoch {done}")
        )
    if not finished:
        strategy, bar = stage.model.distribute_strategy, ProgressBar(steps, console)
        own = [bookkeeper] if is_asynchronous(strategy) else [bar, bookkeeper]  # there no step is seen to end
        if stage.index is not None:
            own.insert(0, Refresh(stage.index, stage.refresh))
        data = tf.keras.utils.experimental.DatasetCreator(
            lambda inputs: batches(first_epoch_here(strategy, done), inputs)
        )
        try:
            # AutoGraph is kept out of pipeline and layers.
            run = tf.autograph.experimental.do_not_convert(stage.model.fit)
            run(data, epochs=epochs, initial_epoch=done, steps_per_epoch=steps, callbacks=[*own, *callbacks], verbose=0)
        finally:
            bar.progress.stop()
        if bookkeeper.stopped_early:
            rose = f"rose by less than {100 * settings.min_delta:g}%" if settings.min_delta else "did not rise"
            console.print(
                f"{stage.name}: stopped, as {stage.monitor} {rose} in {settings.patience} epochs; "
                f"epoch {int(bookkeeper.best_epoch)} is kept"
            )
        elif bookkeeper.last_is_best and epochs > 1:
            console.print(f"{stage.name}: the last epoch was the best; more of them may be better still")
    wait_for_all(stage.model.distribute_strategy)
    restore_best(folder, stage.name, stage.kept)


def _keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next: by default large blocks go back to the system, which zeroes them
    anew each time."""
    if platform.libc_ver()[0] == "glibc":
        glibc = ctypes.CDLL(None)
        trim, pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
        most = 2**25  # bytes; glibc takes no more for M_MMAP_THRESHOLD
        for parameter, size in ((trim, 2**31 - 1), (pad, 2**26), (mmap, most)):
            glibc.mallopt(parameter, size)


def best_towers(folder: Path, stage: str, towers: dict[str, tf.keras.Model]) -> tf.train.CheckpointManager:
    """The manager of a stage's best weights."""
    return _manager(tf.train.Checkpoint(**towers), folder / "checkpoints" / stage / "best")


def restore_best(folder: Path, stage: str, towers: dict[str, tf.keras.Model]) -> None:
    """Sets the towers to a stage's best weights. Raises: InputError before its first epoch is done, or if they are
    damaged."""
    manager = best_towers(folder, stage, towers)
    if manager.latest_checkpoint is None:
        raise InputError(f"{folder}: stage {stage!r} has finished no epoch; {resume_hint(folder)}")
    _restore(manager)


def _manager(checkpoint: tf.train.Checkpoint, folder: Path) -> tf.train.CheckpointManager:
    _ = checkpoint.save_counter  # makes this variable here, where it is no strategy's
    return tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1)


def _restore(manager: tf.train.CheckpointManager) -> None:
    try:
        manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        raise InputError(
            f"{manager.latest_checkpoint}: is damaged, or of another run: {str(error).splitlines()[0]}"
        ) from None


def resume_hint(folder: Path) -> str:
    """What to type to go on with a run."""
    again = command("tfcorr", "train", folder / "settings.yaml", "--root", folder.parent, "--resume")
    return f"go on with: {again}"


def _append_row(path: Path, row: dict[str, Any]) -> None:
    """Writes the table anew with the row in place of any that a killed run left for the same epoch."""
    frame = pl.DataFrame([row])
    if path.is_file():
        known = pl.read_csv(path)
        earlier = (pl.col("stage") != row["stage"]) | (pl.col("epoch") < row["epoch"])
        frame = pl.concat([known.filter(earlier), frame], how="diagonal_relaxed")
    partial = path.with_suffix(".partial")
    frame.write_csv(partial)
    partial.replace(path)


def epoch_losses(values: Mapping[str, Any]) -> str:
    """The estimated log-losses over all items: the retriever's own loss reads log(L + 1) at all times, and only its
    gradient informs.

    A tower whose samples allow no such estimate, trained alone, shows its loss.
    """
    what = "log_loss" if any(name.startswith("log_loss") for name in values) else "loss"
    shown = {name.removeprefix(what): value for name, value in values.items() if name.startswith(what)}
    return (
        what.replace("_", "-")
        + " "
        + ", ".join(f"{name.strip('_')} {float(value):.3f}".strip() for name, value in shown.items())
    )


def _epoch_line(row: dict[str, Any], monitor: str, better: bool) -> str:
    stage, _, metric = monitor.rpartition("_")
    best = " (best)" if better else ""
    return (
        f"{row['stage']} epoch {row['epoch']}, {row['seconds']:.0f} s: {epoch_losses(row)}; {stage}'s {metric} "
        f"{row[monitor]:.4f}{best}"
    )
