"""The space of a search as Keras Tuner describes it, and whether it makes valid settings."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.hyperparameters import Choice, Float, Int
from keras_tuner.oracles import RandomSearchOracle
from keras_tuner.src.engine.conditions import Parent  # nested conditional scopes, the public way, know one parent alone

from tfcorr.config import RunSettings, flat
from tfcorr.search_space import SearchSpace, in_order
from tfcorr.settings import InputError

Spaces = Mapping[str, SearchSpace]
DRAWS = 100  # choices of settings that are looked at before a search begins


def space_of(spaces: Spaces) -> kt.HyperParameters:
    """The space for Keras Tuner; choices are JSON texts, as it knows none of lists or mappings."""
    space = kt.HyperParameters()
    for name, each, conditions in in_order(spaces):
        parents = [Parent(other, values) for other, values in conditions.items()]
        if each.range is None:
            space.merge([Choice(name, each.choices, conditions=parents)])
            continue
        kind, (low, high) = each.range
        sampling = "log" if kind.startswith("log") else "linear"
        space.merge([(Int if kind.endswith("int") else Float)(name, low, high, sampling=sampling, conditions=parents)])
    return space


def plain(values: Mapping[str, Any], spaces: Spaces) -> dict[str, Any]:
    """A trial's values as settings have them: what is searched alone, and choices read from their JSON."""
    return {
        name: json.loads(values[name]) if spaces[name].range is None else values[name]
        for name in spaces
        if name in values
    }


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Plain values as `load_settings` takes them, a whole group of settings before those within."""
    ordered = sorted(values.items(), key=lambda each: each[0].count("."))
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in ordered]


def own_values(settings: RunSettings, load: Callable[[list[str]], RunSettings]) -> tuple[dict[str, Any], str | None]:
    """The settings' own values, as Keras Tuner has them, or nothing and the first whose own value does not lie in the
    space.

    `load` gives the settings with further overrides.
    """
    found: dict[str, Any] = {}
    now = flat(settings.model_dump(mode="json"))
    for name, space, conditions in in_order(settings.search):
        if any(found.get(other) not in values for other, values in conditions.items()):
            continue
        if space.range is None:
            own: Any = next((each for each in space.choices if _same(load, [f"{name}={each}"], settings)), None)
        else:
            kind, (low, high) = space.range
            value: Any = now.get(name)
            numbers = (int, float) if kind.endswith("float") else (int,)
            own = value if type(value) in numbers and low <= value <= high else None  # true is no number
        if own is None:
            return {}, name
        found[name] = own
    return found, None


def _same(load: Callable[[list[str]], RunSettings], overrides: list[str], settings: RunSettings) -> bool:
    try:
        return load(overrides) == settings
    except InputError:
        return False


def check_draws(spaces: Spaces, load: Callable[[list[str]], RunSettings]) -> list[RunSettings]:
    """Valid settings of many random choices. Raises: InputError if none with a value for some setting makes any."""
    oracle = RandomSearchOracle(hyperparameters=space_of(spaces), seed=1)
    mistakes: dict[str, list[str]] = {name: [] for name in spaces}
    valid = []
    for _ in range(DRAWS):
        values = plain(oracle.populate_space("")["values"], spaces)
        mistake = ""
        try:
            valid.append(load(as_overrides(values)))
        except InputError as error:
            mistake = str(error)
        for name in values:
            mistakes[name].append(mistake)
    for name, found in mistakes.items():
        if found and all(found):
            raise InputError(f"search: no choice with {name} makes valid settings: {found[0]}")
    return valid


def combinations(spaces: Spaces) -> float:
    """How many choices there are at most, conditions aside; infinite with a range of numbers."""
    return math.prod(len(each.choices) if each.range is None else _whole(*each.range) for each in spaces.values())


def _whole(kind: str, ends: tuple[float, float]) -> float:
    return ends[1] - ends[0] + 1 if kind.endswith("int") else math.inf
