"""Runs, and searches for the settings of better ones."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tfcorr.cli.app import Overrides, Pipeline, Root, app, console
from tfcorr.cli.tables import print_evaluation
from tfcorr.console import command
from tfcorr.search_space import Algorithm
from tfcorr.settings import shown


@app.command()
def train(
    pipeline: Pipeline,
    name: Annotated[
        str | None, typer.Option(help="The run's folder under --root; the YAML file's name by default.")
    ] = None,
    root: Root = Path("saved_models"),
    override: Overrides = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Start from a run of the same towers; its items and users may be others."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
) -> None:
    """Trains, measures on the test split, and exports.

    Example: `tfcorr train pipelines/movielens100k.yaml --set training.epochs=3`
    """
    from tfcorr import runs
    from tfcorr.config import load_settings
    from tfcorr.distribution import is_chief

    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with a run, --overwrite replaces it: give one of them")
    warm = [f"training.warm_start={json.dumps(str(warm_start))}"] if warm_start else []
    settings = load_settings(pipeline, [*(override or []), *warm], name)
    try:
        run = runs.train(settings, root, console, resume, overwrite)
    except KeyboardInterrupt:
        again = command("tfcorr", "train", pipeline, "--resume")
        console.print(f"\ninterrupted; go on with: {again}, and the same options as before", soft_wrap=True)
        raise typer.Exit(130) from None
    if not is_chief(settings.training.distribution):
        return
    print_evaluation(runs.evaluate(run), as_json=False)
    if not runs.is_exported(run):
        console.print(f"exported version {runs.export_run(run)} to {run.folder / 'serving'}", soft_wrap=True)


@app.command()
def tune(
    pipeline: Pipeline,
    trials: Annotated[
        int, typer.Option(min=1, help="How many there are to be in the end; started again, a search goes on.")
    ] = 20,
    algorithm: Annotated[Algorithm, typer.Option(help="How the next trial is chosen.")] = "bayesian",
    objective: Annotated[
        str, typer.Option(help="What to maximise: a metric of any stage on validation.")
    ] = "cascade_ndcg@20",
    root: Annotated[Path, typer.Option(help="Where the search lands, as NAME-search.")] = Path("saved_models"),
    override: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a search of the same name.")] = False,
) -> None:
    """Searches for better settings, in the space that the pipeline's `search` describes. Started again, it goes on.

    Example: `tfcorr tune pipelines/movielens100k.yaml --trials 20`
    """
    from tfcorr.tuning import search

    try:
        found = search(pipeline, trials, algorithm, objective, override or [], root, console, overwrite)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on with the search")
        raise typer.Exit(130) from None
    if found is None:
        return
    console.print(f"{found.objective} on validation, the best first:")
    for trial in found.ranked[:5]:
        own = (
            ", the pipeline's own settings"
            if found.has_own and trial is found.trials[0]
            else f": {shown(trial.values)}"
        )
        console.print(
            f"{trial.objective:.4f}  {trial.name}, {trial.epochs} epochs{own}", soft_wrap=True, highlight=False
        )
    failed = len(found.trials) - len(found.ranked)
    if failed:
        console.print(
            f"{failed} of {len(found.trials)} trials failed; {found.folder / 'trials.csv'} says why", soft_wrap=True
        )
    console.print(
        f"all trials: {found.folder / 'trials.csv'}, as a picture: {found.folder / 'search.png'}", soft_wrap=True
    )
    console.print(f"the best settings: {command('tfcorr', 'train', found.folder / 'best.yaml')}", soft_wrap=True)
