"""How good runs are."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tfcorr.cli.app import IndexOption, Overrides, Root, RunFolder, app, console
from tfcorr.cli.tables import differences_table, print_evaluation


@app.command()
def evaluate(
    run: RunFolder,
    k: Annotated[
        list[int] | None, typer.Option(min=1, help="Cut-offs; may be repeated, or be followed by several.")
    ] = None,
    retrieve: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="How many items the retriever hands to the ranker.")
    ] = None,
    index: IndexOption = "exact",
    ranker_alone: Annotated[bool, typer.Option("--ranker-alone", help="Also rank all items by the ranker.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measures a run on its test split, stage by stage, and keeps every user's rank in ranks.parquet.

    Example: `tfcorr evaluate saved_models/movielens100k --k 5 10 20 --ranker-alone`
    """
    from tfcorr import runs

    print_evaluation(runs.evaluate(runs.open_run(run), k, retrieve, index, ranker_alone), as_json)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Runs' folders, 1 to 6; the others are compared with the first."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; by default report in the first run's folder.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Cut-off of the metrics, and length of the lists.")] = 20,
) -> None:
    """Writes one page, and its figures, of an evaluated run, or of several side by side, in place of an earlier one.

    Example: `tfcorr report saved_models/movielens100k saved_models/movielens100k-two-stage`
    """
    from tfcorr.reports import report as write_report

    console.print(f"report written to {write_report(runs, output, k)}", soft_wrap=True)


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN[,RUN…]", help="A run's folder, or several that differ only in their seed.")
    ],
    second: Annotated[str, typer.Argument(metavar="RUN[,RUN…]", help="What to compare it with.")],
    k: Annotated[int, typer.Option(min=1, help="Cut-off.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compares two runs by a paired test over users: difference, 95% interval and p-value.

    Example: `tfcorr compare saved_models/movielens100k saved_models/movielens100k-two-stage`
    """
    from dataclasses import asdict

    from tfcorr.evaluation.compare import compare as compare_runs

    groups = [[Path(folder) for folder in group.split(",")] for group in (first, second)]
    differences = compare_runs(groups[0], groups[1], k)
    if as_json:
        print(json.dumps({"differences": [asdict(each) for each in differences]}))
        return
    console.print(f"first: {first}, second: {second}, difference: first less second", soft_wrap=True)
    console.print(differences_table(differences))


@app.command()
def study(
    study: Annotated[Path, typer.Argument(help="The YAML file of a study, such as pipelines/table2.yaml.")],
    override: Overrides = None,
    processes: Annotated[
        int, typer.Option(min=1, help="How many cells are trained at once, each by its share of the cores.")
    ] = 1,
    root: Root = Path("saved_models"),
) -> None:
    """Trains what of a study is not done yet, the cheapest first, and writes its tables. Started again, it goes on.

    Example: `tfcorr study pipelines/table2.yaml --set datasets.beauty.data.path=beauty.parquet --processes 2`
    """
    from tfcorr.study import run_study

    try:
        console.print(f"tables written to {run_study(study, override or [], processes, root, console)}", soft_wrap=True)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on with the study")
        raise typer.Exit(130) from None
