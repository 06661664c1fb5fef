"""From a table to data that runs can read."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tfcorr.cli.app import Overrides, Pipeline, app, console
from tfcorr.console import assigned, command
from tfcorr.settings import InputError

data = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Describes a data set, or makes one up.")
app.add_typer(data, name="data")


@app.command()
def init(
    table: Annotated[
        Path, typer.Argument(help="A CSV, TSV (either may be .gz) or Parquet file with a row an interaction.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The YAML file to write; by default of the table's name, here.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="The column of the users, where it cannot be told.")] = None,
    item: Annotated[str | None, typer.Option(help="The column of the items.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of the times.")] = None,
) -> None:
    """Looks at a table of interactions, guesses its columns, and writes a commented pipeline for it.

    Example: `tfcorr init clicks.csv`
    """
    from tfcorr.config import run_name
    from tfcorr.data.guess import guess, pipeline_text
    from tfcorr.files import write_whole

    path = output or Path(f"{run_name(Path(table.name.removesuffix('.gz')).stem)}.yaml")
    if path.exists():
        raise InputError(f"{path}: is there already; give another name by --output, or remove it")
    given = {role: name for role, name in (("user", user), ("item", item), ("time", time)) if name is not None}
    text = pipeline_text(table, guess(table, given))
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    console.print(text, soft_wrap=True)
    console.print(f"written to {path}; look it over, then type: {command('tfcorr', 'train', path)}", soft_wrap=True)


@app.command()
def prepare(
    pipeline: Pipeline,
    output: Annotated[Path, typer.Argument(help="The folder to write, which must not be there.")],
    override: Overrides = None,
) -> None:
    """Prepares a pipeline's data once, for runs that read it with data.source: prepared.

    Example: `tfcorr prepare pipelines/movielens100k.yaml data/movielens100k`
    """
    from tfcorr.config import load_settings
    from tfcorr.data.prepared import check_absent, check_can_hold, write_prepared
    from tfcorr.data.sources import load
    from tfcorr.runs import account_table

    settings = load_settings(pipeline, override or [])
    check_absent(output)
    check_can_hold(settings.data)
    dataset = load(settings.data)
    write_prepared(dataset, output)
    console.print(account_table(dataset))
    how = assigned("data", {"source": "prepared", "path": str(output)})
    console.print(f"prepared in {output}; train on it with: {how}", soft_wrap=True)


@data.command()
def describe(
    pipeline: Pipeline,
    override: Overrides = None,
) -> None:
    """Prints what a pipeline's data are like: users, items, density, lengths, repeats.

    Example: `tfcorr data describe pipelines/movielens100k.yaml`
    """
    from tfcorr.config import load_settings
    from tfcorr.data import describe
    from tfcorr.data.sources import load

    settings = load_settings(pipeline, override or [])
    table = Table("", settings.name, box=None, padding=(0, 2, 0, 0))
    for name, value in describe.describe(load(settings.data)).items():
        table.add_row(name, value)
    console.print(table)


@data.command()
def synthesize(
    output: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    users: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    items: Annotated[int, typer.Option(min=1, help="How many.")] = 5_000,
    interactions: Annotated[int, typer.Option(min=1, help="How many.")] = 500_000,
    seed: Annotated[int, typer.Option(min=0, help="The same one makes the same table.")] = 1,
) -> None:
    """Writes made-up interactions with popular items, repeats, and items that follow others, to try sizes with.

    Example: `tfcorr data synthesize clicks.parquet --users 107092 --items 1280969 --interactions 6442890`
    """
    from tfcorr.data import synthetic
    from tfcorr.files import write_whole

    if interactions < users:
        raise InputError(
            f"--interactions {interactions}: there are {users} users, of whom each has one at least; raise it"
        )
    if output.suffix != ".parquet" or output.is_dir():
        raise InputError(f"{output}: give the name of a .parquet file to write")
    frame = synthetic.synthesize(users, items, interactions, seed)
    write_whole(output, frame.write_parquet)
    how = assigned("data.path", str(output))
    console.print(f"{frame.height:,} interactions written to {output}; train on them with: {how}", soft_wrap=True)
