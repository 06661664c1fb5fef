"""What a study is: systems on data sets, each searched alike on validation, then trained from several seeds."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, model_validator

from tfcorr.config import RunSettings, flat, override, put, read_yaml
from tfcorr.evaluation.style import LOOKS
from tfcorr.settings import InputError, Settings, nearest
from tfcorr.stages import MONITORED_K

Tree = dict[str, Any]  # settings of a run, nested or by names such as training.epochs
Name = Annotated[
    str, Field(pattern=r"^[^.=\r\n]*[^.=\s][^.=\r\n]*$")
]  # as a dot or an equals sign would part it, where --set names it
SHARED = ("output", "base", "datasets", "search", "seeds")  # what a study may take from another
ALIKE = (
    "data",
    "evaluation",
    "training.epochs",
    "training.patience",
    "training.min_delta",
    "seed",
    "name",
    "search",
)  # what no system has for itself
PLACES = (
    "data.path",
    "data.data_dir",
    "data.titles.path",
    "data.items.path",
    "data.users.path",
)  # the data tell what lies there


class System(Settings):
    """A row of the tables: what is trained, and which of its stages is measured."""

    like: str | None = Field(
        None, description="a system before it, or of the study that this one is like, whose settings and stage it has"
    )
    settings: Tree = Field({}, description="over those, the study's base and the data set's")
    stage: Literal["popularity", "transitions", "retriever", "ranker", "cascade", "ranker_alone"] = Field(
        "cascade",
        description=(
            "what is reported; ranker is the last tower's own order of what it is handed, ranker_alone of all items"
        ),
    )
    against: str | None = Field(None, description="the system that it is compared with; by default the study's")
    line: str | None = Field(None, description="of the figure, where that is drawn over x")
    x: float | None = Field(None, gt=0, description="its place on the figure's axis")


class StudySettings(Settings):
    """A study; the settings of a cell are the base's, the data set's, the system's and the search's, the later over the
    earlier."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the tables' file")
    title: str = Field(pattern=r"^[^\r\n]*\S[^\r\n]*$", description="the table's heading")
    about: str = Field("", description="Markdown above the tables")
    output: Path = Field(Path("studies"), description="the folder of the tables, the figures and cells.json")
    base: Tree = Field({}, description="settings of every run")
    datasets: dict[Name, Tree] = Field(min_length=1, description="settings by data set")
    systems: dict[Name, System] = Field(min_length=1, description="in the order of the table")
    only: dict[str, tuple[str, ...]] = Field(
        {}, description="by data set, the systems that are trained on it; all by default"
    )
    search: dict[Name, Tree] = Field(
        {"as it is": {}},
        min_length=1,
        description="settings to choose from on validation, for each system alike, by name",
    )
    seeds: tuple[StrictInt, ...] = Field((1, 2, 3), min_length=1, description="of the runs; the search is of the first")
    against: str | None = Field(None, description="the system that the others are compared with")
    columns: tuple[Annotated[str, Field(pattern=r"^(ndcg|recall|mrr)@[1-9]\d*$")], ...] = Field(
        (f"ndcg@{MONITORED_K}", f"recall@{MONITORED_K}", f"mrr@{MONITORED_K}"),
        description="the tables' metrics on test",
    )
    x: str | None = Field(None, description="what the figure's axis is, where systems have an x")
    paper: dict[str, dict[str, str | float]] = Field({}, description="what a paper reports, by data set and system")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        against = [self.against, *(system.against for system in self.systems.values())]
        systems = [
            *(each for names in (*self.only.values(), *self.paper.values()) for each in names),
            *filter(None, against),
        ]
        for names, known in ((systems, list(self.systems)), ([*self.only, *self.paper], list(self.datasets))):
            for name in names:
                if name not in known:
                    raise InputError(f"there is no {name!r}; {nearest(name, known)}")
        return self

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> Self:
        for what, values in (
            ("seeds", self.seeds),
            *((f"only.{name}", systems) for name, systems in self.only.items()),
        ):
            if len(set(values)) < len(values):
                raise InputError(f"{what}: one stands twice in {list(values)}; each counts once")
        return self

    @model_validator(mode="after")
    def _all_are_measured_alike(self) -> Self:
        parts = [*((f"systems.{name}", each.settings) for name, each in self.systems.items())]
        for where, tree in [*parts, *((f"search.{name}", each) for name, each in self.search.items())]:
            wrong = [name for name in flat(tree) if any(name == each or name.startswith(f"{each}.") for each in ALIKE)]
            if wrong:
                raise InputError(
                    f"{where}: {wrong[0]} must be the same for all systems; set it in base or in datasets, seeds in "
                    "seeds"
                )
        return self

    @model_validator(mode="after")
    def _a_figure_has_places(self) -> Self:
        lines = {system.line for system in self.systems.values() if system.x is not None}
        if bool(lines) != (self.x is not None) or len(lines) > len(LOOKS):
            raise InputError(
                f"x: a figure over an axis needs the axis' name, and an x of systems of at most {len(LOOKS)} lines"
            )
        for name, system in self.systems.items():
            if system.line is not None and system.x is None:
                raise InputError(f"systems.{name}: line: {system.line!r} needs the system's place on it, x")
        return self


@dataclass(frozen=True)
class Cell:
    """One training and its measurement; it is another cell if any setting is another, but for where its data lie."""

    dataset: str
    settings: RunSettings

    @cached_property
    def explicit(self) -> Tree:
        """The settings that are not the defaults, and the towers' names."""
        towers = {"retriever": {"name": self.settings.retriever.name}, "ranker": {"name": self.settings.ranker.name}}
        usual = flat(RunSettings.parse({"name": "cell", "data": {}, **towers}).model_dump(mode="json"))
        found = sorted(flat(self.settings.model_dump(mode="json")).items())
        always = ("retriever.name", "ranker.name", "seed")
        never = ("name", *PLACES)
        return {
            name: value
            for name, value in found
            if name not in never and (name in always or name not in usual or usual[name] != value)
        }

    @cached_property
    def key(self) -> str:
        """What tells it from other cells, short enough for a file's name."""
        return hashlib.sha256(json.dumps([self.dataset, self.explicit]).encode()).hexdigest()[:12]


class Study:
    """A study whose every cell has valid settings."""

    def __init__(self, settings: StudySettings, origin: str) -> None:
        """origin names the file in messages. Raises: InputError."""
        self.settings, self._origin = settings, origin
        self._cells = {
            (dataset, system, point, seed): Cell(dataset, self._parse(dataset, system, point, seed))
            for dataset, system in self.rows()
            for point, seed in product(settings.search, settings.seeds)
        }

    @cached_property
    def datasets(self) -> list[str]:
        """Those on which something is trained."""
        return list(dict.fromkeys(dataset for dataset, _ in self.rows()))

    def rows(self) -> Iterator[tuple[str, str]]:
        """Every data set with every system that is trained on it."""
        for dataset in self.settings.datasets:
            for system in self.settings.only.get(dataset, self.settings.systems):
                yield dataset, system

    def cell(self, dataset: str, system: str, point: str, seed: int) -> Cell:
        """That of a system with one of the search's choices."""
        return self._cells[dataset, system, point, seed]

    def example(self, dataset: str) -> Cell:
        """One on this data set, for what all of them have alike."""
        return next(cell for cell in self._cells.values() if cell.dataset == dataset)

    def objective(self, system: str) -> str:
        """By which a system's settings are chosen: a metric on validation."""
        return f"{'retriever' if self.settings.systems[system].stage == 'retriever' else 'cascade'}_ndcg@{MONITORED_K}"

    def against(self, system: str) -> str | None:
        """The name of the system that this one is compared with."""
        return self.settings.systems[system].against or self.settings.against

    def _parse(self, dataset: str, system: str, point: str, seed: int) -> RunSettings:
        study, where = self.settings, f"{self._origin}: {dataset}, {system}"
        parts = [
            study.base,
            study.datasets[dataset],
            study.systems[system].settings,
            study.search[point],
            {"name": "cell", "seed": seed},
        ]
        settings = RunSettings.parse(_joined(parts, where), where)
        for k in sorted(
            {MONITORED_K, *(int(column.partition("@")[2]) for column in study.columns)} - set(settings.evaluation.k)
        ):
            raise InputError(
                f"{where}: evaluation.k is {list(settings.evaluation.k)}, but the tables are of {k}; add it"
            )
        return settings


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study's YAML file and applies overrides such as 'seeds=[1]'. Raises: InputError.

    Where it has `like: FILE`, another study beside it, it takes what it does not say of SHARED from there.
    """
    path = Path(path)
    tree, systems = _read(path, ())
    for each in overrides:
        kind, name, *_ = [*each.partition("=")[0].split("."), "", ""]
        if kind in ("systems", "search", "datasets") and name and name not in tree.get(kind, {}):
            raise InputError(f"--set {each}: {kind} has no {name!r}; {nearest(name, list(tree.get(kind, {})))}")
        override(tree, each)
    settings = StudySettings.parse(tree, str(path))
    for name, system in settings.systems.items():
        systems[name] = _complete(system, systems, f"{path}: {name}")
    whole = StudySettings.parse(
        {**dict(settings), "systems": {name: systems[name] for name in settings.systems}}, str(path)
    )
    return Study(whole, str(path))


def _read(path: Path, above: tuple[Path, ...]) -> tuple[Tree, dict[str, System]]:
    """A study's file with what it takes from the one that it is like, and that one's systems. Raises: InputError."""
    tree = read_yaml(path)
    if "systems" not in tree:
        raise InputError(f"{path}: is no study, as it has no systems; train a single run with: tfcorr train {path}")
    like, systems = tree.pop("like", None), dict[str, System]()
    if like is not None:
        other = path.parent / str(like)
        if other in (path, *above):
            raise InputError(f"{path}: like: {like} leads back to it")
        shared, systems = _read(other, (path, *above))
        for name, each in shared["systems"].items():
            systems[name] = _complete(System.parse(each, f"{other}: systems.{name}"), systems, f"{other}: {name}")
        tree = {name: shared[name] for name in SHARED if shared.get(name)} | tree
    for kind in {"systems", "search", "datasets", "base"} & tree.keys():
        if not isinstance(tree[kind], dict) or not tree[kind]:
            raise InputError(
                f"{path}: {kind}: expected a mapping that holds something, received {json.dumps(tree[kind])}"
            )
    tree["base"] = _nested(tree.get("base", {}), f"{path}: base")  # so that an override finds its place
    for kind in {"search", "datasets"} & tree.keys():
        tree[kind] = {name: _nested(each, f"{path}: {kind}.{name}") for name, each in tree[kind].items()}
    for name, each in tree["systems"].items():
        if isinstance(each, dict) and "settings" in each:
            each["settings"] = _nested(each["settings"], f"{path}: systems.{name}.settings")
    return tree, systems


def _complete(system: System, known: Mapping[str, System], where: str) -> System:
    """The system with what it has of the one that it is like. Raises: InputError if there is no such one."""
    if system.like is None:
        return system
    if system.like not in known:
        raise InputError(f"{where}: like: there is no {system.like!r} before it; {nearest(system.like, list(known))}")
    other = known[system.like]
    settings = _joined([other.settings, system.settings], where)
    return system.model_copy(
        update={"settings": settings, "stage": system.stage if "stage" in system.model_fields_set else other.stage}
    )


def _nested(value: Any, where: str) -> Any:
    return _joined([value], where) if isinstance(value, dict) else value


def _joined(parts: Sequence[Tree], where: str) -> Tree:
    """Settings one over the other, nested. Raises: InputError."""
    tree: Tree = {}
    for name, value in (each for part in parts for each in flat(part).items()):
        try:
            put(tree, name, value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return tree
