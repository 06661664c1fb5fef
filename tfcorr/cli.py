"""The commands: each parses, calls one library function, and prints."""

import csv
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from tfcorr.settings import InputError

if TYPE_CHECKING:  # commands import what they need, so that --help is quick
    from tfcorr.runs import Evaluation

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
data = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Describes a data set, or makes one up.")
app.add_typer(data, name="data")
console = Console(markup=False)  # a title may hold brackets

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as saved_models/movielens100k.")]
IndexOption = Annotated[Literal["exact", "scann"], typer.Option(help="How the retriever's items are searched.")]


@app.callback()
def _tfcorr() -> None:
    """Trains a retriever and a ranker together, and ships them as one cascade."""


@app.command()
def init(
    table: Annotated[Path, typer.Argument(help="A CSV, TSV (either may be .gz) or Parquet file with a row an interaction.")],
    output: Annotated[Path | None, typer.Option(help="The YAML file to write; by default of the table's name, here.")] = None,
    user: Annotated[str | None, typer.Option(help="The column of the users, where it cannot be told.")] = None,
    item: Annotated[str | None, typer.Option(help="The column of the items.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of the times.")] = None,
) -> None:
    """Looks at a table of interactions, guesses its columns, and writes a commented pipeline for it.

    Example: `tfcorr init clicks.csv`
    """
    from tfcorr.data.guess import guess, pipeline_text
    from tfcorr.files import write_whole

    path = output or Path(f"{table.name.removesuffix('.gz').rsplit('.', 1)[0]}.yaml")
    if path.exists():
        raise InputError(f"{path}: is there already; give another name by --output, or remove it")
    given = {role: name for role, name in (("user", user), ("item", item), ("time", time)) if name is not None}
    text = pipeline_text(table, guess(table, given))
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    console.print(text, soft_wrap=True)
    console.print(f"written to {path}; look it over, then type: tfcorr train {path}", soft_wrap=True)


@app.command()
def train(
    pipeline: Annotated[Path, typer.Argument(help="The YAML file of settings.")],
    name: Annotated[str | None, typer.Option(help="The run's folder under --root; the YAML file's name by default.")] = None,
    root: Annotated[Path, typer.Option(help="Where runs land.")] = Path("saved_models"),
    override: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Overrides a setting; may be repeated.")] = None,
    warm_start: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Start from a run of the same towers; its items and users may be others.")
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
        console.print(f"\ninterrupted; go on with: tfcorr train {pipeline} --resume, and the same options as before")
        raise typer.Exit(130) from None
    if not is_chief(settings.training.distribution):
        return
    _print_evaluation(runs.evaluate(run), as_json=False)
    if not runs.is_exported(run):
        console.print(f"exported version {runs.export_run(run)} to {run.folder / 'serving'}", soft_wrap=True)


@app.command()
def prepare(
    pipeline: Annotated[Path, typer.Argument(help="The YAML file of settings.")],
    output: Annotated[Path, typer.Argument(help="The folder to write, which must not be there.")],
    override: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Overrides a setting; may be repeated.")] = None,
) -> None:
    """Prepares a pipeline's data once, for runs that read it with data.source: prepared.

    Example: `tfcorr prepare pipelines/movielens100k.yaml data/movielens100k`
    """
    from tfcorr.config import load_settings
    from tfcorr.data.prepared import check_absent, write_prepared
    from tfcorr.data.sources import load
    from tfcorr.runs import account_table

    settings = load_settings(pipeline, override or [])
    check_absent(output)
    dataset = load(settings.data)
    write_prepared(dataset, output)
    console.print(account_table(dataset))
    console.print(f"prepared in {output}; train on it with: --set data='{{source: prepared, path: {output}}}'", soft_wrap=True)


@data.command()
def describe(
    pipeline: Annotated[Path, typer.Argument(help="The YAML file of settings.")],
    override: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Overrides a setting; may be repeated.")] = None,
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
        raise InputError(f"--interactions {interactions}: there are {users} users, of whom each has one at least; raise it")
    if output.suffix != ".parquet" or output.is_dir():
        raise InputError(f"{output}: give the name of a .parquet file to write")
    frame = synthetic.synthesize(users, items, interactions, seed)
    write_whole(output, frame.write_parquet)
    console.print(f"{frame.height:,} interactions written to {output}; train on them with: --set data.path={output}", soft_wrap=True)


@app.command()
def evaluate(
    run: RunFolder,
    k: Annotated[list[int] | None, typer.Option(min=1, help="Cut-offs; may be repeated, or be followed by several.")] = None,
    retrieve: Annotated[int | None, typer.Option(min=1, max=10**6, help="How many items the retriever hands to the ranker.")] = None,
    index: IndexOption = "exact",
    ranker_alone: Annotated[bool, typer.Option("--ranker-alone", help="Also rank all items by the ranker.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measures a run on its test split, stage by stage, and keeps every user's rank in ranks.parquet.

    Example: `tfcorr evaluate saved_models/movielens100k --k 5 10 20 --ranker-alone`
    """
    from tfcorr import runs

    _print_evaluation(runs.evaluate(runs.open_run(run), k, retrieve, index, ranker_alone), as_json)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN[,RUN…]", help="A run's folder, or several that differ only in their seed.")],
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
    table = Table("stage", "metric", "first", "second", "difference", "95% interval", "p", box=None, padding=(0, 2, 0, 0))  # 80 columns
    for each in differences:
        values = (
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            f"{each.p_value:.2g}",
        )
        table.add_row(each.stage, each.metric, *values)
    console.print(table)


@app.command()
def export(
    run: RunFolder,
    label: Annotated[str, typer.Option(help="The label to point at the new version; a version is served while one does.")] = "stable",
    keep: Annotated[int, typer.Option(min=1, help="How many versions without a label to keep, the newest.")] = 3,
    reindex: Annotated[bool, typer.Option("--reindex", help="With the items that the data have today, without training.")] = False,
) -> None:
    """Writes the run's SavedModels: retriever, ranker, cascade and cascade_scann, each as a new version.

    Example: `tfcorr export saved_models/movielens100k --label canary`
    """
    from tfcorr import runs

    opened = runs.open_run(run)
    version = runs.export_run(runs.reindexed(opened) if reindex else opened, label, keep)
    console.print(f"exported version {version} to {run / 'serving'}, served as {label}", soft_wrap=True)


@app.command()
def label(
    run: RunFolder,
    moves: Annotated[
        list[str] | None, typer.Argument(metavar="[LABEL=VERSION]…", help="stable=2 points a label at a version, canary= takes one away.")
    ] = None,
) -> None:
    """Rolls forward or back: points labels at versions, of which those with a label are served. Prints all labels.

    Example: `tfcorr label saved_models/movielens100k stable=2 canary=`
    """
    from tfcorr.serving import versions

    folder = run / "serving"
    wanted = dict(_move(each) for each in moves or [])
    found = versions.labels(folder)
    if not found:
        raise InputError(f"{folder}: holds no exported version; make one with: tfcorr export {run}")
    if wanted:
        with versions.exclusive(folder):
            found = versions.move_labels(folder, wanted)
    for name, version in sorted(found.items()):
        console.print(f"{name}: version {version}")


@app.command()
def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of gRPC; 0 takes a free one.")] = 8500,
    rest_port: Annotated[int, typer.Option(help="Of REST; 0 takes a free one.")] = 8501,
    model: Annotated[list[str] | None, typer.Option(help="Which models to load; may be repeated. All by default.")] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out the page at / to try the cascade on.")] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="A PEM file; needs --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="A PEM file.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TFCORR_API_KEY", help="What requests must carry as x-api-key; better in the environment.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine with neither TLS nor a key.")] = False,
    drain: Annotated[float, typer.Option(help="Seconds that requests have to end when the server is told to stop.")] = 30,
    max_message: Annotated[int, typer.Option(help="Bytes of a request.")] = 4 * 2**20,
    max_rows: Annotated[int, typer.Option(help="Rows of a request.")] = 256,
    max_length: Annotated[int, typer.Option(help="Ids in a row.")] = 2000,
    max_k: Annotated[int, typer.Option(help="Items asked for in a row.")] = 1000,
    max_requests: Annotated[int, typer.Option(help="Requests at once.")] = 128,
) -> None:
    """Serves a run's exported models by TensorFlow Serving's protocols: gRPC, REST, and a page to try them on.

    Example: `tfcorr serve saved_models/movielens100k --port 8500 --rest-port 8501`
    """
    from tfcorr.serving.server.serve import serve as serve_models
    from tfcorr.serving.server.settings import ServerSettings
    from tfcorr.serving.versions import MODELS

    limits = {"message_bytes": max_message, "rows": max_rows, "length": max_length, "k": max_k, "requests": max_requests}
    chosen = {"host": host, "port": port, "rest_port": rest_port, "models": model or MODELS, "page": not no_page, "limits": limits}
    safety = {"tls_certificate": tls_certificate, "tls_key": tls_key, "api_key": api_key, "insecure": insecure, "drain_seconds": drain}
    settings = ServerSettings.parse(chosen | safety)
    serve_models(run / "serving", settings, partial(print, flush=True))  # not by the console, which ends all if no one reads


@app.command()
def recommend(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder; not needed with --server.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What else is known: user=ID, or a feature; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=10**6, help="How many items.")] = 10,
    exclude: Annotated[str, typer.Option(help="Item ids that must not be recommended, separated by commas.")] = "",
    titles: Annotated[bool, typer.Option("--titles", help="Show the items' titles.")] = False,
    index: IndexOption = "exact",
    source: Annotated[Path | None, typer.Option("--input", help="Parquet with the columns user and history (a list of ids).")] = None,
    output: Annotated[Path | None, typer.Option(help="Parquet to write the recommendations for --input to.")] = None,
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ask what is served there, over gRPC.")] = None,
    version_label: Annotated[str | None, typer.Option("--label", help="With --server: which version; the highest by default.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="With --server: by TLS, which this PEM file vouches for.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="TFCORR_API_KEY", help="With --server; better in the environment.")] = None,
) -> None:
    """Recommends by the exported cascade, here or as it is served: for one history or context, or for a file of them.

    Example: `tfcorr recommend saved_models/movielens100k --history 50,181,172 --k 10 --titles`
    """
    from tfcorr.serving import recommend as serving

    if (not history and not context) == (source is None) or (source is None) != (output is None):
        raise typer.BadParameter("give either --history or --context or both, or --input and --output")
    if server is not None:
        from tfcorr.serving.client import RemoteRecommender

        recommender: serving.AnyRecommender = RemoteRecommender(server, index, version_label, api_key, tls_ca)
    elif run is not None:
        recommender = serving.Recommender(run, index)
    else:
        raise typer.BadParameter("give a run's folder, or --server HOST:PORT")
    if server is None and (version_label or tls_ca):
        raise typer.BadParameter("--label and --tls-ca are of a server: give --server HOST:PORT too")
    if titles and run is None:
        raise typer.BadParameter("--titles reads them from a run's folder: give it too")
    known = dict(_assigned(each, recommender.reads) for each in context or [])
    if source is not None and output is not None:
        console.print(f"{serving.recommend_file(recommender, source, output, k):,} recommendations written to {output}", soft_wrap=True)
        return
    names = serving.titles(run) if titles and run is not None else {}
    found = recommender.recommend([_ids(history or "")], k, [_ids(exclude)], known)
    table = Table("rank", "item", *(["title"] if titles else []), "ranker score", "retriever score")
    for _, rank, item, ranked, retrieved in found.iter_rows():
        table.add_row(str(rank), item, *([names.get(item, "")] if titles else []), f"{ranked:.3f}", f"{retrieved:.3f}")
    console.print(table)


@app.command()
def doctor() -> None:
    """Prints versions and devices, and whether everything loads.

    Example: `tfcorr doctor`
    """
    from tfcorr.doctor import examine

    table, healthy = examine()
    console.print(table)
    raise typer.Exit(0 if healthy else 1)


def _print_evaluation(measured: "Evaluation", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"metrics": measured.metrics, "users": measured.users, "users_per_second": measured.users_per_second}))
        return
    metrics = measured.metrics
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    table = Table(
        "metric", *metrics, title=f"test: {measured.users:,} users, {measured.users_per_second:,.0f} a second", title_justify="left"
    )
    for name in names:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "" for values in metrics.values()))
    console.print(table)


def _spread(arguments: list[str]) -> list[str]:
    """Lets --k be followed by several numbers: --k 5 10 20 becomes --k 5 --k 10 --k 20."""
    spread: list[str] = []
    for argument in arguments:
        if len(spread) >= 2 and spread[-2] == "--k" and argument.isdigit():
            spread.append("--k")
        spread.append(argument)
    return spread


def _ids(text: str) -> list[str]:
    """Ids between commas, as in a row of a CSV file: one that holds a comma stands in double quotes."""
    try:
        return [item for row in csv.reader(text.splitlines(), skipinitialspace=True) for item in row if item]
    except csv.Error as error:
        raise InputError(f"{text[:40]!r}: cannot be read as ids with commas between them: {error}") from None


def _move(text: str) -> tuple[str, int | None]:
    """LABEL=VERSION, or LABEL= for none. Raises: InputError."""
    label, equals, version = text.partition("=")
    if not label or not equals or not (version.isdecimal() or not version):
        raise InputError(f"{text}: expected LABEL=VERSION, such as stable=2, or LABEL= to take the label away")
    return label, int(version) if version else None


def _assigned(text: str, names: frozenset[str]) -> tuple[str, list[object]]:
    """NAME=VALUE for a single row; a categorical feature may have several values between commas. Raises: InputError."""
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        asked = ", ".join(sorted(names)) or "nothing but a history"
        raise InputError(f"--context {text}: expected NAME=VALUE, and the run's towers read: {asked}")
    values = _ids(value)
    return name, [values[0] if len(values) == 1 else values]


def main() -> None:
    """The console script: exits with 0 when done, 1 when input or settings are wrong, 2 on wrong usage."""
    try:
        for argument in sys.argv[1:]:
            if any("\udc80" <= each <= "\udcff" for each in argument):
                raise InputError(f"{argument!r}: is no UTF-8")
        app(args=_spread(sys.argv[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
