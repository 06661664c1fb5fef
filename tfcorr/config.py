"""One run = one YAML file = one tree of typed, frozen settings."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny

from tfcorr.cooperation.optimisers import OptimiserSettings
from tfcorr.cooperation.sampling import SamplerSettings
from tfcorr.data.interactions import DataSettings
from tfcorr.settings import InputError, Settings, nearest
from tfcorr.towers import RANKERS, RETRIEVERS, TowerSettings
from tfcorr.towers.din import DINSettings
from tfcorr.towers.sasrec import SASRecSettings


def _tower(registry: dict[str, Any], default: str) -> BeforeValidator:
    def validate(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        name = value.get("name", default)
        if name not in registry:
            raise ValueError(f"there is no {name!r}; {nearest(str(name), list(registry))}")
        return registry[name].Settings.parse(value)

    return BeforeValidator(validate)


class TrainingSettings(Settings):
    """How the towers are trained."""

    method: Literal["corr", "two-stage"] = Field("corr", description="together, or each alone (the baseline)")
    epochs: int = Field(30, ge=1, description="at most; of each stage, where a method has several")
    patience: int = Field(5, ge=1, description="epochs without a better NDCG@20 on validation before training stops")
    batch_size: int = Field(512, ge=1)
    kl_weight: float = Field(1.0, ge=0, description="weight of the distillation in the retriever's loss; 1 is the paper's")
    retriever: OptimiserSettings = OptimiserSettings()
    ranker: OptimiserSettings = OptimiserSettings()


class EvaluationSettings(Settings):
    """What is measured, and the cascade's size."""

    k: tuple[int, ...] = Field((5, 10, 20), min_length=1)
    retrieve: int = Field(500, ge=1, description="how many items the retriever hands to the ranker")
    exclude_seen: bool = Field(False, description="never recommend what the user has had; for ratings, not for repeat purchases")
    batch_size: int = Field(128, ge=1, description="users at once")


class RunSettings(Settings):
    """Everything that a user chooses for a run."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="the run's folder under saved_models; the YAML file's name by default")
    seed: int = Field(1, ge=0)
    history_length: int = Field(50, ge=1, description="M, how many of a user's latest items the towers see")
    data: DataSettings
    retriever: Annotated[SerializeAsAny[TowerSettings], _tower(RETRIEVERS, "sasrec")] = SASRecSettings()
    ranker: Annotated[SerializeAsAny[TowerSettings], _tower(RANKERS, "din")] = DINSettings()
    sampler: SamplerSettings = SamplerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


def load_settings(path: Path, overrides: list[str] | None = None) -> RunSettings:
    """Reads a YAML file and applies overrides such as 'training.epochs=3'. Raises: InputError."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds {type(tree).__name__}, expected a mapping of settings such as 'data: …'")
    tree.setdefault("name", path.stem)
    for override in overrides or []:
        _override(tree, override)
    return RunSettings.parse(tree, str(path))


def save_settings(settings: RunSettings, path: Path) -> None:
    """Writes the settings, defaults included, such that load_settings gives them back."""
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise InputError(f"--set {override}: expected NAME=VALUE, such as --set training.epochs=3")
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override}: {parent!r} is a value and has no settings below it")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"--set {override}: {value!r} is no YAML value") from None
