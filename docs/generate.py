"""Writes what pages are made of: settings.md from the typed settings, commands.md from the help, the studies' tables
from cells.json.

python docs/generate.py
"""

import tfcorr  # isort: skip  # first, as it quietens TensorFlow

import re
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tfcorr import cli
from tfcorr.config import RunSettings
from tfcorr.study.records import Records
from tfcorr.study.settings import StudySettings, System, load_study
from tfcorr.study.tables import write_tables
from tfcorr.towers import RANKERS, RETRIEVERS
from tfcorr.towers.layers import CountsSettings, TowerSettings

assert tfcorr
HERE = Path(__file__).parent
GENERATED = "<!-- written by docs/generate.py -->\n\n"


def settings_page() -> str:
    """Every setting: its type, its default, what it is."""
    parts = [
        GENERATED + "# Settings\n",
        "A pipeline is a YAML file of these; what it leaves out has its default. The paper's own sizes are in "
        "`pipelines/paper`.\nAny setting can be overridden by `--set NAME=VALUE`, such as `--set training.epochs=3`. "
        "A misspelt name is refused.\n",
        *_section("The run", RunSettings, ""),
    ]
    for title, registry in (("Retrievers", RETRIEVERS), ("Rankers", RANKERS)):
        parts.append(f"## {title}\n")
        parts.append(f"`{title.lower()[:-1]}: {{name: NAME, …}}`, and `tower` in `middle`. All have:\n")
        parts.append(_table(TowerSettings, {"name"}))
        for name, tower in sorted(registry.items()):
            own = set(tower.Settings.model_fields) - set(TowerSettings.model_fields)
            shared = set(TowerSettings.model_fields) - {"name"}
            changed = {each for each in shared if _default(tower.Settings, each) != _default(TowerSettings, each)}
            rows = own | changed
            parts.append(f"### {name}\n")
            parts.append(_table(tower.Settings, set(tower.Settings.model_fields) - rows) if rows else "No others.\n")
    parts.append("## Counts\n")
    parts.append("`counts` of a ranker, which `ranker` has by default in a run, has\n")
    parts.append(_table(CountsSettings, set()))
    parts.append("## A study\n")
    parts.append("The YAML file that [`tfcorr study`](studies.md) takes.\n")
    parts.append(_table(StudySettings, set()))
    parts.append("A system has\n")
    parts.append(_table(System, set()))
    return "\n".join(parts)


def write_studies(output: Path) -> list[Path]:
    """Writes the tables and figures of every study in pipelines, by what is done of them; returns the tables' paths."""
    records, paths = Records(HERE / "studies" / "cells.json"), sorted((HERE.parent / "pipelines").glob("*.yaml"))
    studies = [path for path in paths if "\nsystems:" in path.read_text(encoding="utf-8")]
    return [write_tables(load_study(path), records, output, [f"pipelines/{path.name}"]) for path in studies]


def results_page() -> str:
    """results.md with every study's tables as they are now, between the comments that name their file."""

    def tables(match: re.Match[str]) -> str:
        body = (HERE / match[1]).read_text(encoding="utf-8").split("\n", 1)[1].strip()  # without its heading
        body = re.sub(r"^## ", "#### ", body, flags=re.MULTILINE)
        body = re.sub(r"!\[(.*)\]\((.*)\)", r"![\1](studies/\2)", body)
        return f"<!-- {match[1]} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(
        r"<!-- (studies/\w+\.md) -->.*?<!-- end -->",
        tables,
        (HERE / "results.md").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )


def commands_page() -> str:
    """Every command with its arguments and options."""
    group = typer.main.get_command(cli.app)
    parts = [
        GENERATED + "# Commands\n",
        "Exit codes: 0 done, 1 the input or the settings are wrong, 2 wrong usage, 130 stopped by Ctrl-C.\n",
    ]
    with group.make_context("tfcorr", [], resilient_parsing=True) as context:
        for name in group.list_commands(context):
            parts += _command(f"tfcorr {name}", group.get_command(context, name), context)
    return "\n".join(parts)


def _section(title: str, settings: type[BaseModel], above: str) -> list[str]:
    """A heading, the settings that are plain, then those that are groups."""
    groups = {
        name: each for name, field in settings.model_fields.items() if (each := _group(field.annotation)) is not None
    }
    parts = [
        f"## {title}\n",
        *([textwrap.fill(" ".join(settings.__doc__.split()), 120) + "\n"] if above and settings.__doc__ else []),
        _table(settings, set(groups)),
    ]
    for name, group in groups.items():
        if not issubclass(group, TowerSettings):
            parts += _section(f"`{above}{name}`", group, f"{above}{name}.")
    return parts


def _table(settings: type[BaseModel], without: set[str]) -> str:
    rows = ["| setting | type | default | |", "| --- | --- | --- | --- |"]
    for name, field in settings.model_fields.items():
        if name not in without:
            default = (
                "the file's name"
                if name == "name" and settings in (RunSettings, StudySettings)
                else _shown(_default(settings, name))
            )
            cells = (
                f"`{field.alias or name}`",
                _type(field.annotation) + _limits(field),
                default,
                field.description or "",
            )
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _group(annotation: Any) -> type[BaseModel] | None:
    """The settings that an annotation holds, if it holds any."""
    candidates = [
        annotation,
        *get_args(annotation),
        *(inner for each in get_args(annotation) for inner in get_args(each)),
    ]
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _default(settings: type[BaseModel], name: str) -> Any:
    field = settings.model_fields[name]
    return "required" if field.is_required() else field.get_default(call_default_factory=True)


def _shown(value: Any) -> str:
    if value == "required":
        return value
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is tuple:
        return f"list of {_type(arguments[0])}" if Ellipsis in arguments else f"two {_type(arguments[0])}s"
    if origin is dict:
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    names = {
        "CountsSettings": "mapping",
        "int": "whole number",
        "float": "number",
        "str": "text",
        "bool": "true or false",
        "Path": "path",
        "Any": "anything",
    }
    return names.get(getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation)))


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [(sign, getattr(each, name, None)) for each in field.metadata for name, sign in signs.items()]
    found = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    return f", {' and '.join(found)}" if found else ""


def _command(title: str, command: Any, context: Any) -> list[str]:
    parts = [f"## {title}\n", f"{(command.help or '').strip()}\n"]
    if hasattr(command, "commands"):
        for name in command.list_commands(context):
            parts += _command(f"{title} {name}", command.get_command(context, name), context)
        return parts
    rows = ["| argument or option | default | |", "| --- | --- | --- |"]
    for each in command.params:
        if each.name == "help":
            continue
        is_option = each.param_type_name == "option"
        name = ", ".join(each.opts) if is_option else each.metavar or each.name.upper()
        default = "required" if each.required else "" if each.default in (None, False, (), "") else f"`{each.default}`"
        rows.append(
            f"| `{name.replace('|', chr(92) + '|')}` | {default} | {(getattr(each, 'help', None) or '').strip()} |"
        )
    return [*parts, *(["\n".join(rows) + "\n"] if len(rows) > 2 else [])]


PAGES = {"settings.md": settings_page, "commands.md": commands_page, "results.md": results_page}

if __name__ == "__main__":
    write_studies(HERE / "studies")
    for page, text in PAGES.items():
        (HERE / page).write_text(text(), encoding="utf-8")
