"""What every part's settings share: they are typed, frozen, and a mistake in them is one clear sentence."""

import difflib
import json
from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_core import ErrorDetails


class InputError(ValueError):
    """A mistake in a file, a setting or a request; its text is all that the user is shown."""


class Settings(BaseModel):
    """Base of all settings: frozen, and without room for a misspelt name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Any, where: str = "") -> Self:
        """Validates plain values; `where` names their origin in the message. Raises: InputError."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                _sentence(cls, detail)
                for detail in sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
            ]
            raise InputError((f"{where}: " if where else "") + "; ".join(problems)) from None


def nearest(word: str, words: list[str]) -> str:
    """A hint for a misspelt word: the nearest right one, or all of them.

    >>> nearest("sasrek", ["gru4rec", "sasrec"])
    "did you mean 'sasrec'?"
    >>> nearest("x", ["gru4rec", "sasrec"])
    'expected one of: gru4rec, sasrec'
    """
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(sorted(words))}"


def shown(values: Mapping[str, Any]) -> str:
    """Settings and their values in a line of text."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {json.dumps(value)}"
        for name, value in values.items()
    )


def _sentence(cls: type[Settings], detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown setting {path!r}; {nearest(str(detail['loc'][-1]), _names(cls, detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{path!r} is required"
    message = detail["msg"].removeprefix("Value error, ")
    if not _is_secret(cls, path) and (isinstance(detail["input"], str | int | float | bool) or detail["input"] is None):
        message += f" (received: {detail['input']!r})"
    return f"{path}: {message}" if path else message


def _is_secret(cls: type[Settings], path: str) -> bool:
    """Whether what was received must not be shown."""
    field = cls.model_fields.get(path)
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _names(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The settings that exist where an unknown one was found."""
    for part in path:
        if (
            part not in cls.model_fields
        ):  # a place in a tuple or a key of a mapping, whose element's class has been found already
            continue
        annotation = cls.model_fields[str(part)].annotation
        cls = next(
            kind
            for kind in (annotation, *get_args(annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return [field.alias or name for name, field in cls.model_fields.items()]
