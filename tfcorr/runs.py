"""A run is a folder: its settings, its data's catalogue, its towers' weights, and what was measured and exported."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import tfcorr
from tfcorr.config import RunSettings, check_sizes, flat, load_settings, save_settings
from tfcorr.console import plain_console
from tfcorr.data.batches import evaluation_batches, steps_per_epoch, training_batches
from tfcorr.data.dataset import Dataset
from tfcorr.data.features import Feature, read_features, write_features
from tfcorr.data.histories import Catalogue
from tfcorr.data.sources import load
from tfcorr.data.transitions import read_transitions, write_transitions
from tfcorr.distribution import is_chief, strategy_of, wait_for_all
from tfcorr.evaluation.baselines import baseline_ranks
from tfcorr.evaluation.cascade import Cascade, all_item_vectors
from tfcorr.evaluation.evaluate import metrics_by_stage, rank_batch, rank_users, score_batch, score_users
from tfcorr.evaluation.index import IndexKind, build_index
from tfcorr.evaluation.metrics import MISSED
from tfcorr.evaluation.order import fit_order
from tfcorr.evaluation.verdict import Verdict, judge
from tfcorr.files import locked, read_intact, remove_whole, write_whole
from tfcorr.serving.export import export
from tfcorr.serving.versions import STABLE, whole_versions
from tfcorr.settings import InputError
from tfcorr.stages import LAST_STAGE, MONITORED_K, of_other_width, stages_of, start_from_counts
from tfcorr.towers import Domain, Retriever, Tower, tower_of
from tfcorr.towers.counts import PairCounts
from tfcorr.towers.transfer import rows_between, take_over
from tfcorr.training import fit, restore_best, resume_hint

Pairs = dict[int, PairCounts]
ORDER = "order.json"
CASCADES: dict[str, IndexKind] = {"cascade": "exact", "cascade_scann": "scann"}  # SavedModels by name


@dataclass(frozen=True)
class Run:
    """An opened run: its towers, by name in the order in which they work, have the best weights."""

    folder: Path
    settings: RunSettings
    catalogue: Catalogue
    users: list[str]
    features: list[Feature]
    towers: dict[str, Tower]
    order: Mapping[str, float] | None = None  # the weights of the cascade's final order; None is the ranker's own

    @property
    def retriever(self) -> Retriever:
        """The first tower."""
        return self.towers["retriever"]


def train(
    settings: RunSettings,
    root: Path = Path("saved_models"),
    console: Console | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> Run:
    """Trains into `root/<name>`, from the last finished epoch with `resume`. Raises: InputError.

    A folder that exists is refused unless one of `resume` and `overwrite` is set; one in which another process trains,
    always. `callbacks` are called in every stage, at an epoch's end once its row stands in history.csv; one that sets
    `model.stop_training` ends the stage there.
    """
    strategy, writes = strategy_of(settings.training.distribution), is_chief(settings.training.distribution)
    console, folder = (console or plain_console()) if writes else Console(quiet=True), root / settings.name
    _check_path(folder)
    with locked(root / f".{settings.name}.training.lock", others_wait=False) if writes else nullcontext():
        if writes:
            _check_claim(folder, settings, resume, overwrite)
        return _train(settings, folder, strategy, writes, console, resume, callbacks)


def _train(
    settings: RunSettings,
    folder: Path,
    strategy: tf.distribute.Strategy,
    writes: bool,
    console: Console,
    resume: bool,
    callbacks: Sequence[tf.keras.callbacks.Callback],
) -> Run:
    """What `train` does in a folder that it may have, where no other process trains."""
    warm = settings.training.warm_start
    if warm is not None and warm.resolve() == folder.resolve():
        raise InputError(
            f"training.warm_start: {warm} is the run itself, whose weights would be gone; choose another --name"
        )
    old = open_run(warm) if warm is not None else None
    dataset = load(settings.data, old.features if old else ())
    console.print(account_table(dataset))
    tf.keras.utils.set_random_seed(settings.seed)
    known = dataset.catalogue, dataset.histories.users, dataset.features
    pairs = _count(settings, dataset)
    with strategy.scope(), _precision("mixed_bfloat16" if settings.training.mixed_precision else "float32"):
        trained = _build_towers(settings, *known, pairs)
    run = Run(folder, settings, *known, _build_towers(settings, *known, pairs))
    others = of_other_width(settings, run.towers)
    if others:
        console.print(
            f"{', '.join(others)}: item vectors of another width than the retriever's do not start from its; give both "
            "towers one dim",
            soft_wrap=True,
        )
    state = folder / "checkpoints" / "retriever" / "last" / "checkpoint"
    # Once the retriever is trained all vectors come from its own, but for those of another width.
    has_retriever = resume and settings.training.starts_from_retriever and state.exists() and not others
    if old is None and settings.training.item_vectors == "counts" and not has_retriever:
        start_from_counts(trained, dataset, settings.seed, strategy)
    if old is not None:  # also where the run goes on, as some towers may have no state yet
        console.print(_warm_start(old, run, trained), soft_wrap=True)
    if writes:
        _claim(folder, settings, resume)
        _write_provenance(run, dataset, pairs)
    sizes = settings.training.examples, settings.history_length, settings.training.batch_size
    steps = steps_per_epoch(dataset.histories, *sizes)
    try:
        wait_for_all(strategy)
        for stage in stages_of(settings, trained, run.towers, dataset, strategy, steps):
            fit(
                stage,
                batches=lambda epoch, inputs: training_batches(
                    dataset.histories, *sizes, settings.seed, epoch, inputs, dataset.features
                ),
                steps=steps,
                settings=settings.training,
                folder=folder,
                console=console,
                writes=writes,
                callbacks=callbacks,
            )
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"another process of the cluster is gone; start every process again with --resume ({first})"
        ) from None
    if settings.evaluation.order == "ranker":
        return run
    return (
        _with_order(run) if _is_newer_than_weights(run, folder / ORDER) else _fit_order(run, dataset, console, writes)
    )


def open_run(folder: Path) -> Run:
    """Opens a run that has finished an epoch of its last stage and, where its final order is fitted, its training.
    Raises: InputError."""
    if not (folder / "settings.yaml").is_file():
        raise InputError(f"{folder}: is no run (it has no settings.yaml); train one with: tfcorr train PIPELINE.yaml")
    _check_path(folder)
    settings = load_settings(folder / "settings.yaml")
    if not (folder / "catalogue.parquet").is_file():
        raise InputError(f"{folder}: the run has not started; {resume_hint(folder)}")
    table = read_intact(folder / "catalogue.parquet", pl.read_parquet)
    catalogue = Catalogue(table["id"].to_list(), table["count"].to_numpy(), table["title"].to_list(), table.height)
    users = read_intact(folder / "users.parquet", pl.read_parquet)["id"].to_list()
    known = catalogue, users, read_features(folder / "features.json", len(catalogue) + 1)
    files = {window: folder / f"transitions_{window}.parquet" for window in settings.windows}
    pairs = {window: PairCounts(read_transitions(path, len(catalogue))) for window, path in files.items()}
    run = Run(folder, settings, *known, _build_towers(settings, *known, pairs))
    restore_best(folder, LAST_STAGE[settings.training.method], run.towers)
    return _with_order(run) if settings.evaluation.order == "fitted" else run


def reindexed(run: Run) -> Run:
    """The run with the items and users that its data have today; the towers are as they were trained.

    An item that is new is the mean of the others, and what its features say of it; `changes` tells how many are.
    Raises: InputError if all are.
    """
    dataset = load(run.settings.data, run.features)
    known = dataset.catalogue, dataset.histories.users, dataset.features
    towers = _build_towers(run.settings, *known, _count(run.settings, dataset))
    new = replace(run, catalogue=known[0], users=known[1], features=known[2], towers=towers)
    _take_over(run, new, new.towers)
    return new


def _ids_of(old: Run, new: Run) -> dict[str, tuple[list[str], list[str]]]:
    """The items, users and categories of both, by name."""
    features = {feature.name: feature.vocabulary or [] for feature in old.features}
    return {
        "item": (old.catalogue.ids, new.catalogue.ids),
        "user": (old.users, new.users),
        **{each.name: (features[each.name], each.vocabulary) for each in new.features if each.vocabulary is not None},
    }


def changes(old: Run, new: Run) -> str:
    """How many items, users and categories the new run has, and how many of them are not the old one's."""
    return "; ".join(
        f"{name}s: {len(present):,}, of which {len(set(present) - set(past)):,} new, "
        f"{len(set(past) - set(present)):,} gone"
        for name, (past, present) in _ids_of(old, new).items()
    )


def _take_over(old: Run, new: Run, towers: dict[str, Tower]) -> None:
    """Sets towers made for the new run to the old one's, item by item, user by user, category by category. Raises:
    InputError if none of those that a tower reads is kept."""
    read = {"item", *(feature.name for feature in new.features if feature.of == "item")}
    read = read.union(*(tower.reads for tower in towers.values()))
    for name, (past, present) in _ids_of(old, new).items():
        if name in read and past and present and not set(past) & set(present):
            raise InputError(
                f"{old.folder}: no {name} of the data today is one that the run was trained on: they are such as "
                f"{', '.join(map(repr, present[:3]))}, the run's such as {', '.join(map(repr, past[:3]))}; write them "
                "as then, or train anew"
            )
    rows = {"item": rows_between(old.catalogue.ids, new.catalogue.ids), "user": rows_between(old.users, new.users)}
    before = {feature.name: feature.vocabulary for feature in old.features}
    for feature in new.features:
        known = before[feature.name]
        rows[feature.name] = np.zeros(1, np.int64) if known is None else rows_between(known, feature.vocabulary or [])
    for name, tower in towers.items():
        take_over(old.towers[name], tower, rows)


def _warm_start(old: Run, new: Run, trained: dict[str, Tower]) -> str:
    """Sets both sets of the new run's towers to the old one's; returns what is to be said of it. Raises: InputError."""

    def about(run: Run) -> dict[str, object]:
        towers = {name: tower.model_dump() for name, (tower, _) in run.settings.towers.items()}
        features = [
            (feature.name, feature.of, feature.is_categorical) for feature in run.features
        ]  # in order, as the tables are
        return flat({"history_length": run.settings.history_length, **towers, "data": {"features": features}})

    before, now = about(old), about(new)
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        raise InputError(
            f"training.warm_start: {old.folder} is a run of other towers; these differ: {', '.join(differing)}"
        )
    for towers in (trained, new.towers):
        _take_over(old, new, towers)
    return f"warm start from {old.folder}: {changes(old, new)}"


def _with_order(run: Run) -> Run:
    """The run with the final order that was fitted for it. Raises: InputError if none was."""
    if not (run.folder / ORDER).is_file():
        raise InputError(f"{run.folder}: its final order has not been fitted yet; {resume_hint(run.folder)}")
    return replace(run, order=read_intact(run.folder / ORDER, lambda path: json.loads(path.read_text()))["weights"])


def _fit_order(run: Run, dataset: Dataset, console: Console, writes: bool) -> Run:
    """The run with the final order that validation asks for, which is kept beside what every stage comes to."""
    settings = run.settings.evaluation
    sizes = run.settings.history_length, settings.batch_size
    batches = evaluation_batches(dataset.histories, "validation", *sizes, dataset.features, settings.validation_users)
    ranks, scored = score_users(score_batch(cascade_of(run), batches.element_spec, settings.exclude_seen), batches)
    order = fit_order(scored, ranks, MONITORED_K)
    kept = {"weights": order.weights, "scales": order.scales, f"ndcg@{MONITORED_K}": order.ndcg}
    if writes:
        write_whole(run.folder / ORDER, lambda path: path.write_text(json.dumps(kept, indent=2) + "\n"))
    shares = ", ".join(f"{name} {weight * order.scales[name]:.2f}" for name, weight in order.weights.items())
    console.print(
        f"final order, by validation: {shares} (weights of scores of one scale)", highlight=False, soft_wrap=True
    )
    return replace(run, order=order.weights)


def cascade_of(run: Run, index: IndexKind = "exact", size: int | None = None) -> Cascade:
    """The run's cascade over an index of its items: 'exact' or 'scann'."""
    vectors = all_item_vectors(run.retriever, len(run.catalogue))
    return Cascade(run.towers, build_index(index, vectors), run.settings.sizes(size), run.order)


def _check_claim(folder: Path, settings: RunSettings, resume: bool, overwrite: bool) -> None:
    """Refuses a folder that this run may not have."""
    is_run = (folder / "settings.yaml").is_file()
    if is_run and resume:
        before, now = (
            flat(each.model_dump(mode="json")) for each in (load_settings(folder / "settings.yaml"), settings)
        )
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing:
            raise InputError(
                f"{folder}: cannot resume with other settings than the run began with; these differ: "
                f"{', '.join(differing)}"
            )
    elif is_run and not overwrite:
        raise InputError(
            f"{folder}: the run exists; go on with --resume, replace it with --overwrite, or choose another --name"
        )
    elif not is_run and folder.exists():
        raise InputError(f"{folder}: is no run (it has no settings.yaml); choose another --name, or remove it by hand")


def _check_path(folder: Path) -> None:
    """Refuses a path that TensorFlow and Polars, which look for files by patterns, would not find again."""
    if set(str(folder)) & set("*?[\\"):
        raise InputError(
            f"{folder}: a run is not found again where its path has one of * ? [ \\; take another folder, or cd to "
            "it first"
        )


def _claim(folder: Path, settings: RunSettings, resume: bool) -> None:
    """Makes the folder this run's own: it appears with its settings in one step, and what it replaces goes in one."""
    if folder.exists() and not resume:
        remove_whole(folder)
    if not folder.exists():
        write_whole(folder, lambda partial: _begin(partial, settings))


def _begin(folder: Path, settings: RunSettings) -> None:
    folder.mkdir()
    save_settings(settings, folder / "settings.yaml")


def _count(settings: RunSettings, dataset: Dataset) -> Pairs:
    """What the settings' towers are told of pairs of items, by window."""
    return {window: PairCounts(dataset.transitions(window)) for window in settings.windows}


def _build_towers(
    settings: RunSettings, catalogue: Catalogue, users: list[str], features: list[Feature], pairs: Pairs
) -> dict[str, Tower]:
    """Towers with their variables made."""
    domain = Domain(len(catalogue), len(users), settings.history_length, tuple(features), pairs)
    nothing = tf.zeros([1, settings.history_length], tf.int32)
    context = {"history": nothing, "user": nothing[:, 0]}
    context |= {
        feature.name: tf.constant(feature.placeholder(1).values) for feature in features if feature.of != "item"
    }
    towers = {}
    for name, (
        tower,
        _,
    ) in settings.towers.items():  # one whole after the other, so that none begins by what follows it
        towers[name] = tower_of(tower, domain)
        towers[name].score(context, nothing[:, :1])
    return towers


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers made within compute by this Keras policy; variables are float32 by any."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def account_table(dataset: Dataset) -> Table:
    """What was read, what was dropped and why, and what is left."""
    table = Table("", "interactions", "users", "items", title="data", title_justify="left")
    for what, *numbers in dataset.account:
        table.add_row(what, *("" if number is None else f"{number:,}" for number in numbers))
    return table


def _write_provenance(run: Run, dataset: Dataset, pairs: Pairs) -> None:
    """The items, the users, the versions and the data's checksum, beside the settings. Raises: InputError if the data
    changed."""
    packages = ["tensorflow", "tf_keras", "tensorflow-recommenders", "scann", "numpy", "polars"]
    provenance = {
        "tfcorr": tfcorr.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        "data_sha256": dataset.checksum,
    }
    if (run.folder / "provenance.json").is_file():
        check_data(run, dataset)
    for window, each in pairs.items():
        write_whole(
            run.folder / f"transitions_{window}.parquet",
            partial(write_transitions, each.keys.numpy(), each.users.numpy()),
        )
    catalogue = {"id": dataset.catalogue.ids, "count": dataset.catalogue.counts, "title": dataset.catalogue.titles}
    write_whole(run.folder / "catalogue.parquet", pl.DataFrame(catalogue).write_parquet)
    write_whole(run.folder / "users.parquet", pl.DataFrame({"id": run.users}, schema={"id": pl.String}).write_parquet)
    write_whole(run.folder / "features.json", lambda path: write_features(dataset.features, path))
    write_whole(run.folder / "provenance.json", lambda path: path.write_text(json.dumps(provenance, indent=2) + "\n"))


def check_data(run: Run, dataset: Dataset) -> None:
    """Raises: InputError if the data are not those that the run was trained on."""
    trained_on = read_intact(run.folder / "provenance.json", lambda path: json.loads(path.read_text()))["data_sha256"]
    if trained_on != dataset.checksum:
        raise InputError(
            f"{run.folder}: the data have changed since the run began (SHA-256 {dataset.checksum[:12]}…, was "
            f"{trained_on[:12]}…); "
            "bring the old data back, or train anew under another --name"
        )


@dataclass(frozen=True)
class Evaluation:
    """Metrics by stage, baselines first; how fast the cascade was measured, and whether it is worth it."""

    metrics: dict[str, dict[str, float]]
    users: int
    users_per_second: float
    verdict: Verdict


def evaluate(
    run: Run,
    ks: Sequence[int] | None = None,
    retrieve: int | None = None,
    index: IndexKind = "exact",
    ranker_alone: bool = False,
) -> Evaluation:
    """Measures the run on the test split and keeps each user's rank in `ranks.parquet`, null where the target was
    missed.

    The cut-offs and the number of items retrieved are the run's own settings by default; `ranker_alone` also ranks all
    items.

    Raises: InputError if the data have changed, or a k is beyond what is retrieved.
    """
    settings = run.settings.evaluation
    ks, retrieve = ks or settings.k, retrieve or settings.retrieve
    check_sizes(run.settings.sizes(retrieve), ks)
    dataset = load(run.settings.data, run.features)
    check_data(run, dataset)
    cascade = cascade_of(run, index, retrieve)
    sizes = run.settings.history_length, settings.batch_size
    batches = evaluation_batches(dataset.histories, "test", *sizes, dataset.features)
    rank = rank_batch(cascade, batches.element_spec, settings.exclude_seen, ranker_alone=ranker_alone)
    rank_users(rank, batches.take(1))  # builds the graph, which is not to be timed
    started = time.monotonic()
    ranks = rank_users(rank, batches)
    seconds = time.monotonic() - started
    ranks = baseline_ranks(dataset, "test", settings.exclude_seen) | ranks
    places = dataset.histories.targets("test")
    users, targets = dataset.histories.owners(places), dataset.histories.items[places]
    columns = {
        "user": [dataset.histories.users[user] for user in users],
        "target": [dataset.catalogue.ids[target - 1] for target in targets],
    }
    missed = [pl.when(pl.col(stage) != MISSED).then(pl.col(stage)).alias(stage) for stage in ranks]
    how = {"retrieve": str(retrieve), "index": index, "exclude_seen": str(settings.exclude_seen)}
    table = pl.DataFrame(columns | ranks).with_columns(missed)
    write_whole(run.folder / "ranks.parquet", lambda path: table.write_parquet(path, metadata=how))
    verdict = judge(ranks, MONITORED_K if MONITORED_K in ks else max(ks))
    return Evaluation(metrics_by_stage(ranks, ks, cascade.handed_on), len(places), len(places) / seconds, verdict)


def is_exported(run: Run) -> bool:
    """Whether the newest export is newer than the weights, be it served or not."""
    serving = run.folder / "serving"
    return _is_newer_than_weights(
        run, serving / "cascade" / str(max(whole_versions(serving), default=0)) / "saved_model.pb"
    )


def _is_newer_than_weights(run: Run, path: Path) -> bool:
    """Whether the file is there, and was written after the best weights."""
    best = run.folder / "checkpoints" / LAST_STAGE[run.settings.training.method] / "best" / "checkpoint"
    return path.is_file() and path.stat().st_mtime > best.stat().st_mtime


def export_run(run: Run, label: str = STABLE, keep: int = 3) -> int:
    """Writes the run's SavedModels under `serving/`, to be served under a label; returns their version.

    Of the versions without a label, all but the newest `keep` are removed.
    """
    cascades = {name: cascade_of(run, index) for name, index in CASCADES.items()}
    settings = run.settings
    return export(
        run.towers,
        run.catalogue,
        run.users,
        run.features,
        cascades,
        settings.history_length,
        settings.evaluation.exclude_seen,
        run.folder / "serving",
        label,
        keep,
    )
