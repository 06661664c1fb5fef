"""What all commands share: the app, its console, and options that several have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tfcorr.console import plain_console

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
console = plain_console()

Pipeline = Annotated[Path, typer.Argument(help="The YAML file of settings.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as saved_models/movielens100k.")]
Root = Annotated[Path, typer.Option(help="Where runs land.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Overrides a setting; may be repeated.")
]
IndexOption = Annotated[Literal["exact", "scann"], typer.Option(help="How the retriever's items are searched.")]


@app.callback()
def _tfcorr() -> None:
    """Trains a retriever and a ranker together, and ships them as one cascade."""
