"""One run = one YAML file = one tree of typed, frozen settings."""

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, PositiveInt, SerializeAsAny, model_validator

from tfcorr.cooperation.losses import LossName
from tfcorr.cooperation.optimisers import OptimiserSettings
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.cooperation.strategies import GLOBAL
from tfcorr.data.batches import Examples
from tfcorr.data.interactions import DataSettings
from tfcorr.distribution import Distribution
from tfcorr.search_space import SearchSpace, in_order
from tfcorr.settings import InputError, Settings, nearest
from tfcorr.towers import RANKERS, RETRIEVERS, TowerSettings
from tfcorr.towers.bsarec import BSARecSettings
from tfcorr.towers.din import DINSettings

COUNTED: dict[str, Any] = {"counts": {}}  # what a run's ranker has, if nothing else is said


def _tower(registry: Mapping[str, Any], default: str, more: Mapping[str, Any] | None = None) -> BeforeValidator:
    def validate(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = {**(more or {}), **value}
        name = value.get("name", default)
        if not isinstance(name, str) or name not in registry:
            raise ValueError(f"there is no {name!r}; {nearest(str(name), list(registry))}")
        return registry[name].Settings.parse(value)

    return BeforeValidator(validate)


class TrainingSettings(Settings):
    """How the towers are trained."""

    method: Literal["corr", "two-stage", "adversarial"] = Field(
        "corr", description="together, each alone (the baseline), or the retriever as the ranker's adversary"
    )
    start: Literal["random", "retriever"] = Field(
        "retriever",
        description=(
            "retriever: it is trained alone first, unless this is a warm start, and the other towers' item "
            "vectors start from its"
        ),
    )
    start_rate: float = Field(
        0.3,
        gt=0,
        description="of start: retriever, what its learning rate is multiplied by when it goes on with the others",
    )
    item_vectors: Literal["counts", "random"] = Field(
        "counts",
        description=(
            "what every tower's begin as: factors of how often items stand near each other in training, or noise"
        ),
    )
    warm_start: Path | None = Field(
        None,
        description="a run of the same towers, whose weights this one starts from; its items and users may be others",
    )
    loss: LossName = Field(
        "softmax", description="of both towers over the target and its negatives; the paper's is softmax"
    )
    epochs: int = Field(30, ge=1, description="at most; of each stage, where a method has several")
    patience: int = Field(
        3, ge=1, description="epochs whose NDCG@20 on validation is no better by min_delta before training stops"
    )
    min_delta: float = Field(
        0.001, ge=0, lt=1, description="share by which an NDCG@20 must be better to go on for; the best is kept anyhow"
    )
    batch_size: int = Field(256, ge=1, description="training targets a step")
    examples: Examples = Field(
        "prefix",
        description=(
            "the retriever reads each target's history by itself (the paper), or a window of history once "
            "for all its targets"
        ),
    )
    distribution: Distribution = Field("none", description="over this machine's GPUs, or the processes of TF_CONFIG")
    mixed_precision: bool = Field(
        False, description="compute the towers in bfloat16, scores and losses in float32; for GPUs"
    )
    averaging: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="share of the earlier epochs in the average that is kept; 0 keeps the last as it is",
    )
    kl_weight: float = Field(
        1.0, ge=0, description="of corr: weight of the distillation in the retriever's loss; 1 is the paper's"
    )
    adversarial_weight: float = Field(
        1.0, ge=0, description="of adversarial: weight of the policy gradient in the retriever's loss"
    )
    retriever: OptimiserSettings = OptimiserSettings()
    ranker: OptimiserSettings = OptimiserSettings(decay=0.5, weight_decay=1.0)

    @property
    def starts_from_retriever(self) -> bool:
        """Whether the retriever is first trained alone: by `start`, but for a warm start, in which every tower has
        learned already."""
        return self.start == "retriever" and self.warm_start is None


class MiddleSettings(Settings):
    """A tower between the retriever and the ranker: it ranks what it is handed, and hands on the best."""

    tower: Annotated[SerializeAsAny[TowerSettings], _tower(ChainMap(RETRIEVERS, RANKERS), "sasrec")]
    keep: int = Field(500, ge=20, description="how many items it hands on")
    samples: int = Field(
        10, ge=1, description="of corr: how many it resamples, of what was drawn for it, for the next tower"
    )
    optimiser: OptimiserSettings = OptimiserSettings()


class EvaluationSettings(Settings):
    """What is measured, and the cascade's size."""

    k: tuple[PositiveInt, ...] = Field((5, 10, 20), min_length=1, description="cut-offs of the metrics")
    retrieve: int = Field(500, ge=20, le=10**6, description="how many items the retriever hands to the ranker")
    order: Literal["fitted", "ranker"] = Field(
        "fitted",
        description="the final one: a weighted sum of the stages' scores, fitted on validation, or the ranker's own",
    )
    exclude_seen: bool = Field(
        False, description="never recommend what the user has had; for ratings, not for repeat purchases"
    )
    batch_size: int = Field(128, ge=1, description="users at once")
    validation_users: PositiveInt | None = Field(
        20_000,
        description="how many users are measured after each epoch, and the final order is fitted on; null takes all",
    )


def check_sizes(sizes: Sequence[int], ks: Sequence[int]) -> None:
    """Raises: InputError if a stage hands on more than it was handed, or a metric's cut-off is beyond what the ranker
    is."""
    if list(sizes) != sorted(sizes, reverse=True):
        raise InputError(
            f"the cascade would hand on {' → '.join(map(str, sizes))} items; lower middle's keep, or raise retrieve"
        )
    if max(ks) > sizes[-1]:
        raise InputError(
            f"k = {max(ks)} is beyond the {sizes[-1]} items that the ranker is handed; lower k, or hand it more"
        )


class RunSettings(Settings):
    """Everything that a user chooses for a run."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="the run's folder under saved_models")
    seed: int = Field(1, ge=0, lt=2**32, description="of everything that is drawn")
    history_length: int = Field(50, ge=1, description="M, how many of a user's latest items the towers see")
    data: DataSettings
    retriever: Annotated[SerializeAsAny[TowerSettings], _tower(RETRIEVERS, "bsarec")] = BSARecSettings()
    middle: tuple[MiddleSettings, ...] = Field(
        (), description="towers between the two, in a cascade of more than two stages"
    )
    ranker: Annotated[SerializeAsAny[TowerSettings], _tower(RANKERS, "din", COUNTED)] = DINSettings.parse(COUNTED)
    sampler: SamplerSettings = SamplerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    search: dict[str, SearchSpace] = Field(
        {},
        exclude=True,
        description=(
            "by a setting's name, such as retriever.dim: what `tfcorr tune` may choose for it; no part of a run"
        ),
    )

    @property
    def towers(self) -> dict[str, tuple[TowerSettings, OptimiserSettings]]:
        """Every tower and its optimiser by name, in the order in which they work."""
        middle = {f"middle_{number}": (each.tower, each.optimiser) for number, each in enumerate(self.middle, start=1)}
        return {
            "retriever": (self.retriever, self.training.retriever),
            **middle,
            "ranker": (self.ranker, self.training.ranker),
        }

    def sizes(self, retrieve: int | None = None) -> list[int]:
        """How many items each tower but the last hands on; `retrieve` in place of the settings' own, if given."""
        return [retrieve or self.evaluation.retrieve, *(each.keep for each in self.middle)]

    @property
    def windows(self) -> list[int]:
        """In which pairs of items are counted for the towers, each once."""
        return sorted({tower.counts.window for tower, _ in self.towers.values() if tower.counts is not None})

    @property
    def needs_index(self) -> bool:
        """Whether a strategy takes the retriever's best of all items."""
        return bool(
            GLOBAL & {self.sampler.negatives, self.sampler.distillation if self.training.method == "corr" else None}
        )

    @model_validator(mode="after")
    def _parameter_servers_divide_tables(self) -> Self:
        if self.training.distribution != "parameter-server":
            return self
        training, sampler = self.training, self.sampler
        unmet = {
            "training.warm_start: null": training.warm_start is not None,
            "training.start: random": training.starts_from_retriever,
            "training.item_vectors: random": training.item_vectors == "counts",
            "counts: null for every tower": bool(self.windows),
            f"strategies that search no index of all items, in place of sampler.negatives: {sampler.negatives} and "
            f"sampler.distillation: {sampler.distillation}": self.needs_index,
        }
        if any(unmet.values()):
            asked = ", ".join(what for what, wrong in unmet.items() if wrong)
            raise InputError(
                "training.distribution: parameter-server divides tables and holds none that are whole; it needs "
                f"{asked}"
            )
        return self

    @model_validator(mode="after")
    def _a_reward_is_relative_to_others(self) -> Self:
        if self.training.method == "adversarial" and self.sampler.samples < 2:
            raise InputError(
                "training.method: adversarial rewards a sample relative to the others; set sampler.samples to 2 at "
                "least"
            )
        return self

    @model_validator(mode="after")
    def _windows_need_causal_retrievers(self) -> Self:
        for tower, _ in self.towers.values():
            if self.training.examples == "window" and tower.name in RETRIEVERS and not RETRIEVERS[tower.name].causal:
                raise InputError(
                    f"training.examples: window needs a causal retriever, {tower.name} is none; set it to prefix"
                )
        return self

    @model_validator(mode="after")
    def _conditions_are_met(self) -> Self:
        in_order(self.search)
        return self

    @model_validator(mode="after")
    def _the_cascade_narrows(self) -> Self:
        check_sizes(self.sizes(), self.evaluation.k)
        return self

    @model_validator(mode="after")
    def _draws_narrow(self) -> Self:
        drawn = [self.sampler.samples, *(each.samples for each in self.middle)]
        if self.training.method == "corr" and drawn != sorted(drawn, reverse=True):
            raise InputError(
                f"the towers would resample {' → '.join(map(str, drawn))} items; lower middle's samples, or raise "
                "sampler.samples"
            )
        return self

    @model_validator(mode="after")
    def _neighbours_resample(self) -> Self:
        others = {self.sampler.negatives or "resample", self.sampler.distillation} - {"resample"}
        if self.middle and (self.training.method == "adversarial" or (self.training.method == "corr" and others)):
            raise InputError(
                "middle: a cascade of more than two stages is trained by training.method corr, with "
                "sampler.negatives and "
                "sampler.distillation resample, or by two-stage"
            )
        return self


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error, where PyYAML would take the last."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts what `<<` names into the mapping; what stands there before must have each key once."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            keys: list[Any] = []
            for key_node, _ in node.value:
                key = "<<" if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node)
                if key in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
                keys.append(key)
        super().flatten_mapping(node)


def _copy(value: Any, above: tuple[int, ...] = ()) -> Any:
    """YAML's values with nothing shared, however anchors were used. Raises: ValueError for keys that are no text, or
    what holds itself."""
    if not isinstance(value, dict | list):
        return value
    if id(value) in above:
        raise ValueError("an anchor stands within itself")
    above = (*above, id(value))
    if isinstance(value, list):
        return [_copy(each, above) for each in value]
    odd = next((key for key in value if not isinstance(key, str)), None)
    if odd is not None:
        raise ValueError(f"the key {json.dumps(odd, default=str)} is no text; write it in quotes")
    return {key: _copy(each, above) for key, each in value.items()}


def load_settings(path: str | Path, overrides: Sequence[str] = (), name: str | None = None) -> RunSettings:
    """Reads a YAML file and applies overrides such as 'training.epochs=3', and a name for the run. Raises:
    InputError."""
    tree = read_yaml(Path(path), overrides)
    if "systems" in tree:
        raise InputError(f"{path}: is a study of several runs; train it with: tfcorr study {path}")
    if name is not None:
        tree["name"] = name
    return RunSettings.parse(tree, str(path))


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file's settings with the overrides applied, not validated yet; their name is the file's by default.
    Raises: InputError."""
    try:
        tree = _copy(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys))
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such file; give the path of a pipeline, or write one: tfcorr init TABLE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds {type(tree).__name__}, expected a mapping of settings such as 'data: …'")
    tree.setdefault("name", run_name(path.stem))
    for each in overrides:
        override(tree, each)
    return tree


def run_name(text: str) -> str:
    """A run's name that is like a text.

    >>> run_name("clicks (1)")
    'clicks-1'
    """
    plain = "".join(each if each.isalpha() or each.isdecimal() or each in "_.-" else " " for each in text)
    return "-".join(plain.split()).strip("-.")[:100] or "run"


def save_settings(settings: RunSettings, path: Path) -> None:
    """Writes the settings, defaults included, such that load_settings gives them back."""
    path.write_text(
        yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as {"training.epochs": 3}."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found


def override(tree: dict[str, Any], text: str) -> None:
    """Sets one of nested settings by a text such as 'training.epochs=3'. Raises: InputError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {text}: expected NAME=VALUE, such as --set training.epochs=3")
    try:
        put(tree, name, yaml.safe_load(value))
    except (yaml.YAMLError, ValueError) as error:
        reason = error if isinstance(error, InputError) else f"{value!r} is no YAML value"
        raise InputError(f"--set {text}: {reason}") from None


def put(tree: dict[str, Any], name: str, value: Any) -> None:
    """Sets one of nested settings by its name, such as training.epochs. Raises: InputError if a name above it is a
    value."""
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(f"{parent!r} is a value and has no settings below it")
    tree[last] = value
