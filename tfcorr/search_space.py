"""What a search may choose for a setting, as a pipeline's `search` says it, and how it may choose."""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from tfcorr.settings import InputError, Settings

Interval = tuple[float, float]
Algorithm = Literal["bayesian", "random", "hyperband"]


class SearchSpace(Settings):
    """What `tfcorr tune` may choose for a setting: one of these kinds, as in `search: {retriever.dim: {choice: [32,
    64]}}`."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    choice: tuple[Any, ...] | None = Field(
        None, min_length=2, description="one of these, which may be lists or mappings"
    )
    int_: tuple[int, int] | None = Field(
        None, alias="int", description="a whole number between these two, which it may be"
    )
    log_int: tuple[int, int] | None = Field(
        None, description="a whole number, as likely below their geometric mean as above it"
    )
    float_: Interval | None = Field(None, alias="float", description="a number between these two")
    log_float: Interval | None = Field(None, description="a number, as likely below their geometric mean as above it")
    boolean: bool = Field(False, description="true or false, where this is true")
    when: dict[str, Any] = Field({}, description="only where other settings of the search are this, or one of these")

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        kinds = {"choice": self.choice, "boolean": self.boolean or None, **self._ranges()}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(kinds)}; received {', '.join(given) or 'none'}")
        for each in (*(self.choice or ()), *self.when.values()):
            try:
                json.dumps(each, allow_nan=False)
            except (TypeError, ValueError):
                raise ValueError(f"{each!r} is no value that a setting can have; put a date between quotes") from None
        for name, ends in self._ranges().items():
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{name}: expected [LOWEST, HIGHEST]; received {list(ends)}")
            if ends is not None and name.startswith("log_") and ends[0] <= 0:
                raise ValueError(f"{name}: a logarithmic scale begins above 0; received {list(ends)}")
        return self

    def _ranges(self) -> dict[str, Interval | None]:
        return {"int": self.int_, "log_int": self.log_int, "float": self.float_, "log_float": self.log_float}

    @property
    def range(self) -> tuple[str, Interval] | None:
        """The kind and both ends, where it is a range."""
        return next(((name, ends) for name, ends in self._ranges().items() if ends is not None), None)

    @property
    def choices(self) -> list[str]:
        """As JSON, what may be chosen of a list."""
        return [json.dumps(each) for each in ((False, True) if self.boolean else self.choice or ())]


def in_order(spaces: Mapping[str, SearchSpace]) -> list[tuple[str, SearchSpace, dict[str, list[str]]]]:
    """Each setting of a search after those that it depends on, with the values (as JSON) that those must have.

    Raises: InputError if a `when` names what is not searched, or a value that is none of its choices, or if they go in
    a circle.
    """
    conditions = {
        name: {other: _values(name, other, value, spaces) for other, value in space.when.items()}
        for name, space in spaces.items()
    }
    found: list[str] = []
    while len(found) < len(spaces):
        free = [name for name in spaces if name not in found and conditions[name].keys() <= set(found)]
        if not free:
            raise InputError(
                f"search: the conditions of {', '.join(name for name in spaces if name not in found)} go in a circle"
            )
        found += free
    return [(name, spaces[name], conditions[name]) for name in found]


def _values(name: str, other: str, value: Any, spaces: Mapping[str, SearchSpace]) -> list[str]:
    choices = spaces[other].choices if other in spaces else []
    if not choices:
        raise InputError(f"search.{name}.when: {other} must be a setting of this search that is a choice or a boolean")
    asked = [json.dumps(value)]
    if asked[0] not in choices and isinstance(value, list):
        asked = [json.dumps(each) for each in value]
    unknown = [each for each in asked if each not in choices]
    if unknown or not asked:
        raise InputError(
            f"search.{name}.when: {other} is never {', '.join(unknown) or 'nothing'}; it may be {', '.join(choices)}"
        )
    return asked
