"""What a study is: systems on data sets, each searched alike on validation, then trained from several seeds."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tfcorr.config import RunSettings, flat, override, put, read_yaml
from tfcorr.settings import InputError, Settings, nearest
from tfcorr.stages import MONITORED_K

SHARED = ("output", "base", "datasets", "search", "seeds")  # what a study may take from another
Tree = dict[str, Any]  # settings of a run, nested or by names such as training.epochs


class System(Settings):
    """A row of the tables: what is trained, and which of its stages is measured."""

    like: str | None = Field(None, description="a system before it, or of the study that this one is like, whose settings it starts from")
    settings: Tree = Field({}, description="over those, the study's base and the data set's")
    stage: Literal["retriever", "cascade", "ranker"] = Field("cascade", description="what is reported: ranker is over all items")
    against: str | None = Field(None, description="the system that it is compared with; by default the study's")
    line: str | None = Field(None, description="of the figure, where that is drawn over x")
    x: float | None = Field(None, description="its place on the figure's axis")


class StudySettings(Settings):
    """A study; the settings of a cell are the base's, the data set's, the system's and the search's, the later over the earlier."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the tables' file")
    title: str = Field(description="the table's heading")
    about: str = Field("", description="Markdown above the tables")
    output: Path = Field(Path("studies"), description="the folder of the tables, the figures and cells.json")
    base: Tree = Field({}, description="settings of every run")
    datasets: dict[str, Tree] = Field(min_length=1, description="settings by data set")
    systems: dict[str, System] = Field(min_length=1, description="in the order of the table")
    only: dict[str, tuple[str, ...]] = Field({}, description="by data set, the systems that are trained on it; all by default")
    search: dict[str, Tree] = Field(
        {"as it is": {}},
        min_length=1,
        description="settings to choose from on validation, for each system alike, by name",
    )
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="of the runs; the search is of the first")
    against: str | None = Field(None, description="the system that the others are compared with")
    x: str | None = Field(None, description="what the figure's axis is, where systems have an x")
    paper: dict[str, dict[str, str]] = Field({}, description="what a paper reports, by data set and system")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        against = [self.against, *(system.against for system in self.systems.values())]
        systems = [*(each for names in (*self.only.values(), *self.paper.values()) for each in names), *filter(None, against)]
        for names, known in ((systems, list(self.systems)), ([*self.only, *self.paper], list(self.datasets))):
            for name in names:
                if name not in known:
                    raise InputError(f"there is no {name!r}; {nearest(name, known)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One training and its measurement; it is another cell if any setting is another, but for where its data lie."""

    dataset: str
    settings: RunSettings

    @cached_property
    def explicit(self) -> Tree:
        """The settings that the study names, by name."""
        found = flat(self.settings.model_dump(mode="json", exclude_unset=True))
        return {name: value for name, value in sorted(found.items()) if name not in ("name", "data.path")}

    @cached_property
    def key(self) -> str:
        """What tells it from other cells, short enough for a file's name."""
        return hashlib.sha256(json.dumps([self.dataset, self.explicit]).encode()).hexdigest()[:12]


class Study:
    """A study whose every cell has valid settings."""

    def __init__(self, settings: StudySettings, origin: str) -> None:
        """origin names the file in messages. Raises: InputError."""
        self.settings, self._origin = settings, origin
        self._cells: dict[tuple[str, str, str, int], Cell] = {}
        for dataset, system in self.rows():
            for point in settings.search:
                for seed in settings.seeds:
                    self._cells[dataset, system, point, seed] = Cell(dataset, self._parse(dataset, system, point, seed))

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

    def objective(self, system: str) -> str:
        """By which a system's settings are chosen: a metric on validation."""
        return f"{'retriever' if self.settings.systems[system].stage == 'retriever' else 'cascade'}_ndcg@{MONITORED_K}"

    def _parse(self, dataset: str, system: str, point: str, seed: int) -> RunSettings:
        study, tree = self.settings, {"name": "cell"}
        parts = [study.base, study.datasets[dataset], study.systems[system].settings, study.search[point], {"seed": seed}]
        where = f"{self._origin}: {dataset}, {system}"
        for part in parts:
            for name, value in flat(part).items():
                try:
                    put(tree, name, value)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
        return RunSettings.parse(tree, where)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study's YAML file and applies overrides such as 'seeds=[1]'. Raises: InputError.

    Where it has `like: FILE`, another study beside it, it takes what it does not say of SHARED from there.
    """
    path = Path(path)
    tree = _systems_of(read_yaml(path), path)
    like, others = tree.pop("like", None), dict[str, Any]()
    if like is not None:
        other = _systems_of(read_yaml(path.parent / str(like)), path.parent / str(like))
        tree, others = {name: other[name] for name in SHARED if name in other} | tree, other["systems"]
    for each in overrides:
        override(tree, each)
    settings = StudySettings.parse(tree, str(path))
    known = {name: System.parse(each, f"{like}: systems.{name}") for name, each in others.items()}
    for name, system in settings.systems.items():
        known[name] = _complete(system, known, f"{path}: {name}")
    return Study(settings.model_copy(update={"systems": {name: known[name] for name in settings.systems}}), str(path))


def _systems_of(tree: Tree, path: Path) -> Tree:
    """The same. Raises: InputError if it is no study's."""
    if not isinstance(tree.get("systems"), dict):
        raise InputError(f"{path}: is no study, as it has no systems; train a single run with: tfcorr train {path}")
    return tree


def _complete(system: System, known: Mapping[str, System], where: str) -> System:
    """The system with the settings of the one that it is like. Raises: InputError if there is no such one."""
    if system.like is None:
        return system
    if system.like not in known:
        raise InputError(f"{where}: like: there is no {system.like!r} before it; {nearest(system.like, list(known))}")
    return system.model_copy(update={"settings": {**flat(known[system.like].settings), **flat(system.settings)}})
