"""A search for better settings by Keras Tuner: each trial is a run like any other, trained in a process of its own."""

import io
import json
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl
import tensorflow as tf
import yaml
from rich.console import Console

from tfcorr.config import RunSettings, flat, load_settings, save_settings
from tfcorr.console import plain_console
from tfcorr.data.sources import load as load_data
from tfcorr.files import locked, read_intact, remove_whole, write_whole
from tfcorr.search_space import Algorithm
from tfcorr.settings import InputError, nearest
from tfcorr.stages import MONITORED_K
from tfcorr.towers.own import own_files
from tfcorr.trial import Job
from tfcorr.tuning.algorithms import check_bracket, oracle_of
from tfcorr.tuning.figures import draw
from tfcorr.tuning.space import as_overrides, check_draws, combinations, own_values, plain, space_of
from tfcorr.tuning.tuner import FAILED, Tuner, name_of, role

BEGAN = "search.yaml"
OBJECTIVE = f"cascade_ndcg@{MONITORED_K}"


@dataclass(frozen=True)
class Trial:
    """What came of one choice of settings; `objective` is None where it failed, which `message` explains."""

    name: str
    values: dict[str, Any]
    objective: float | None
    epochs: int
    seconds: float
    message: str


@dataclass(frozen=True)
class Search:
    """A search that has ended: its folder, what was maximised, its trials in the order in which they began.

    `has_own` says whether the first trial had the pipeline's own values.
    """

    folder: Path
    objective: str
    trials: list[Trial]
    has_own: bool

    @property
    def ranked(self) -> list[Trial]:
        """The trials that did not fail, best first."""
        return sorted(
            [each for each in self.trials if each.objective is not None],
            key=lambda each: each.objective or 0.0,
            reverse=True,
        )


def search(
    pipeline: str | Path,
    trials: int = 20,
    algorithm: Algorithm = "bayesian",
    objective: str = OBJECTIVE,
    overrides: Sequence[str] = (),
    root: Path = Path("saved_models"),
    console: Console | None = None,
    overwrite: bool = False,
) -> Search | None:
    """Searches the space that a pipeline's `search` describes for the settings that maximise a metric of validation.

    The first trial has the pipeline's own values, if they lie in the space. A trial's objective is that of the epoch
    whose weights its run keeps. Poor trials are stopped early or, by Hyperband, given few epochs. The folder
    `root/<name>-search` holds every trial's run, `trials.csv`, `search.png`, and `best.yaml` for `tfcorr train`. An
    interrupted search goes on where it was. Where Keras Tuner's variables make this process the chief, workers run the
    trials; a worker returns None.

    Args: trials, how many there are to be in the end, those of earlier calls included; objective, a column of
    history.csv.
    Raises: InputError, also where every trial failed.
    """
    settings, console, this, root = load_settings(pipeline, overrides), console or plain_console(), role(), Path(root)
    _check(settings, pipeline, trials, algorithm, objective)

    def load(more: list[str]) -> RunSettings:
        return load_settings(pipeline, [*overrides, *more])

    for each in (settings, *check_draws(settings.search, load)):
        _check_training(each, algorithm)
    (first, missing), folder = own_values(settings, load), root / f"{settings.name}-search"
    oracle = oracle_of(
        algorithm, space_of(settings.search), first, objective, trials, settings.training.epochs, settings.seed
    )
    if algorithm == "hyperband":
        check_bracket(oracle, trials, combinations(settings.search))
    job = Job(str(pipeline), list(overrides), str(folder), "", objective, algorithm != "hyperband", own_files())
    with nullcontext() if this == "worker" else locked(root / f".{folder.name}.lock", others_wait=False):
        began = _beginnings(settings, algorithm, objective)
        if this == "worker":
            _await(folder, console)
        else:
            load_data(settings.data)  # what is wrong with them is told once, and not by every trial
            _claim(folder, began, overwrite)
        _check_same(folder, began)
        try:
            with redirect_stdout(io.StringIO()):  # it says so when it goes on
                tuner = Tuner(oracle, job, settings.search, console)
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            first_line = str(error).splitlines()[0]
            raise InputError(
                f"{folder}: its keras-tuner folder is damaged: {first_line}; begin anew with --overwrite"
            ) from None
        if missing and not oracle.trials:
            console.print(
                f"the pipeline's own {missing} is not in its search, so the first trial is another", soft_wrap=True
            )
        if oracle.trials:
            console.print(f"{folder}: going on after {len(oracle.trials)} trials", soft_wrap=True)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", module="sklearn"
            )  # of how the Gaussian process is fitted, which nobody here can mend
            try:
                tuner.search()
            except RuntimeError as error:
                if this != "chief":
                    raise
                raise InputError(
                    f"KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT: the chief cannot listen there: {error}"
                ) from None
        if this == "worker":
            return None
        found = Search(
            folder, objective, [_trial(each, settings, folder) for each in oracle.trials.values()], bool(first)
        )
        if len(found.trials) < trials:
            console.print(
                f"{folder}: the space has no other choices; the search ended after {len(found.trials)} trials",
                soft_wrap=True,
            )
        _write(found, settings, load)
    if not found.ranked:
        raise InputError(f"{folder}: every trial failed; the first: {found.trials[0].message}")
    return found


def _check(settings: RunSettings, pipeline: str | Path, trials: int, algorithm: Algorithm, objective: str) -> None:
    """Raises: InputError if there is nothing to search, or it cannot be searched so."""
    if not settings.search:
        raise InputError(
            f"{pipeline}: says nothing of what to search; add, for instance, search: "
            f"{{retriever.dim: {{choice: [32, 64]}}}}"
        )
    if not isinstance(trials, int) or trials < 1:
        raise InputError(f"trials: expected 1 or more, received {trials}")
    if algorithm not in get_args(Algorithm):
        raise InputError(f"algorithm: there is no {algorithm!r}; {nearest(str(algorithm), list(get_args(Algorithm)))}")
    reserved = [name for name in settings.search if name in ("name", "search") or name.startswith("search.")]
    if reserved:
        raise InputError(f"search.{reserved[0]}: is no setting of a run")
    stages = [*list(settings.towers)[:-1], "cascade"]
    known = [f"{stage}_{metric}@{MONITORED_K}" for stage in stages for metric in ("ndcg", "recall", "mrr")]
    known += [f"{stage}_recall@{size}" for stage, size in zip(stages, settings.sizes(), strict=False)]
    if objective not in known:
        raise InputError(f"objective: no run measures {objective!r} on validation; {nearest(str(objective), known)}")
    if algorithm == "hyperband" and "training.epochs" in settings.search:
        raise InputError("algorithm: hyperband chooses training.epochs itself; leave it out of the search")


def _check_training(settings: RunSettings, algorithm: Algorithm) -> None:
    """Raises: InputError if a trial cannot be trained so."""
    spread = settings.training.distribution
    if spread in ("multi-worker", "parameter-server"):
        raise InputError(
            f"training.distribution: {spread} spreads one run over processes; a search is shared by Keras Tuner's "
            "workers instead"
        )
    if algorithm == "hyperband" and (settings.training.method == "two-stage" or settings.training.start == "retriever"):
        raise InputError(
            "algorithm: hyperband trains some runs for more epochs, and these have stages one after another; take "
            "bayesian"
        )


def _beginnings(settings: RunSettings, algorithm: Algorithm, objective: str) -> dict[str, Any]:
    """What must not change while a search goes on."""
    spaces = {name: space.model_dump(mode="json", exclude_defaults=True) for name, space in settings.search.items()}
    return {
        "algorithm": algorithm,
        "objective": objective,
        "search": spaces,
        "settings": flat(settings.model_dump(mode="json")),
    }


def _claim(folder: Path, began: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder a search's own, if it is not there. Raises: InputError if it is something else's."""
    if folder.exists() and not (folder / BEGAN).is_file():
        raise InputError(
            f"{folder}: is no search (it has no search.yaml); choose another name for the pipeline, or remove it by "
            "hand"
        )
    if folder.exists() and overwrite:
        remove_whole(folder)
    if folder.exists():
        return

    def begin(partial: Path) -> None:
        partial.mkdir()
        (partial / BEGAN).write_text(yaml.safe_dump(began, sort_keys=False, allow_unicode=True), encoding="utf-8")

    write_whole(folder, begin)


def _await(folder: Path, console: Console) -> None:
    """Lets a worker wait until its chief has begun the search."""
    if not (folder / BEGAN).is_file():
        console.print(f"{folder}: waiting for the chief to begin the search", soft_wrap=True)
    while not (folder / BEGAN).is_file():
        time.sleep(0.5)


def _check_same(folder: Path, began: dict[str, Any]) -> None:
    """Raises: InputError if the search in the folder began otherwise."""
    before = flat(read_intact(folder / BEGAN, _mapping))
    now = flat(began)
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        raise InputError(
            f"{folder}: the search began otherwise; these differ: {', '.join(differing)}; bring them back, or begin "
            "anew with --overwrite"
        )


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    if not isinstance(found, dict):
        raise ValueError("expected a mapping")
    return found


def _trial(kept: Any, settings: RunSettings, folder: Path) -> Trial:
    """What came of one of Keras Tuner's trials."""
    name, seconds = name_of(kept.trial_id), []
    with suppress(pl.exceptions.PolarsError, OSError):  # a run may have been removed since
        seconds = pl.read_csv(folder / name / "history.csv")["seconds"].to_list()
    log = folder / f"{name}.log"
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    failures = [line.removeprefix(FAILED) for line in said if line.startswith(FAILED)]
    completed = kept.status == "COMPLETED"
    return Trial(
        name=name,
        values=plain(kept.hyperparameters.values, settings.search),
        objective=float(kept.score) if completed else None,
        epochs=len(seconds),
        seconds=sum(seconds),
        message="" if completed or not failures else failures[-1],
    )


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write(found: Search, settings: RunSettings, load: Callable[[list[str]], RunSettings]) -> None:
    """The table, the figure, and the settings of the best."""
    rows = [
        {"trial": each.name, found.objective: each.objective, "epochs": each.epochs, "seconds": each.seconds}
        | {name: _cell(each.values[name]) if name in each.values else None for name in settings.search}
        | {"message": each.message}
        for each in found.trials
    ]
    write_whole(found.folder / "trials.csv", pl.DataFrame(rows, infer_schema_length=None).write_csv)
    if not found.ranked:
        return
    write_whole(found.folder / "search.png", lambda path: draw(found.trials, found.objective, settings.search, path))
    best = load(as_overrides(found.ranked[0].values)).model_copy(update={"name": f"{settings.name}-best"})
    write_whole(found.folder / "best.yaml", lambda path: save_settings(best, path))
