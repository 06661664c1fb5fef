"""From a run to a served list."""

import csv
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tfcorr.cli.app import IndexOption, RunFolder, app, console
from tfcorr.console import command, on_one_line
from tfcorr.settings import InputError

if TYPE_CHECKING:
    from tfcorr.serving.recommend import Unknown

KEY = "TFCORR_API_KEY"


@app.command()
def export(
    run: RunFolder,
    label: Annotated[
        str, typer.Option(help="The label to point at the new version; a version is served while one does.")
    ] = "stable",
    keep: Annotated[int, typer.Option(min=1, help="How many versions without a label to keep, the newest.")] = 3,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="With the items that the data have today, without training.")
    ] = False,
) -> None:
    """Writes the run's SavedModels: retriever, ranker, cascade and cascade_scann, each as a new version.

    Example: `tfcorr export saved_models/movielens100k --label canary`
    """
    from tfcorr import runs

    opened = runs.open_run(run)
    if reindex:
        opened, trained = runs.reindexed(opened), opened
        console.print(runs.changes(trained, opened), soft_wrap=True)
    version = runs.export_run(opened, label, keep)
    console.print(f"exported version {version} to {run / 'serving'}, served as {label}", soft_wrap=True)


@app.command()
def label(
    run: RunFolder,
    moves: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABEL=VERSION]…", help="stable=2 points a label at a version, canary= takes one away."
        ),
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
        raise InputError(f"{folder}: holds no exported version; make one with: {command('tfcorr', 'export', run)}")
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
    model: Annotated[
        list[str] | None, typer.Option(help="Which models to load; may be repeated. All by default.")
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out the page at / to try the cascade on.")] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="A PEM file; needs --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="A PEM file.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=KEY, help="What requests must carry as x-api-key; better in the environment."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine with neither TLS nor a key.")
    ] = False,
    drain: Annotated[
        float, typer.Option(help="Seconds that requests have to end when the server is told to stop.")
    ] = 30,
    max_message: Annotated[int, typer.Option(help="Bytes of a request.")] = 4 * 2**20,
    max_rows: Annotated[int, typer.Option(help="Rows of a request.")] = 256,
    max_length: Annotated[int, typer.Option(help="Ids in a row.")] = 2000,
    max_k: Annotated[int, typer.Option(help="Items asked for in a row.")] = 1000,
    max_items: Annotated[int, typer.Option(help="Items of an answer: a request's rows times its k.")] = 2**16,
    load_seconds: Annotated[float, typer.Option(help="Seconds that a version may take until it answers.")] = 600,
    max_requests: Annotated[int, typer.Option(help="Requests at once.")] = 128,
) -> None:
    """Serves a run's exported models by TensorFlow Serving's protocols: gRPC, REST, and a page to try them on.

    Example: `tfcorr serve saved_models/movielens100k --port 8500 --rest-port 8501`
    """
    from tfcorr.serving.server.serve import serve as serve_models
    from tfcorr.serving.server.settings import ServerSettings
    from tfcorr.serving.versions import MODELS

    _check_key()
    limits = {
        "message_bytes": max_message,
        "rows": max_rows,
        "length": max_length,
        "k": max_k,
        "items": max_items,
        "requests": max_requests,
    }
    chosen = {
        "host": host,
        "port": port,
        "rest_port": rest_port,
        "models": model or MODELS,
        "page": not no_page,
        "limits": limits,
    }
    safety = {
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "api_key": api_key,
        "insecure": insecure,
        "drain_seconds": drain,
        "load_seconds": load_seconds,
    }
    settings = ServerSettings.parse(chosen | safety)
    serve_models(
        run / "serving", settings, partial(print, flush=True)
    )  # not by the console, which ends all if no one reads


@app.command()
def recommend(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run's folder; not needed with --server.")
    ] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What else is known: user=ID, or a feature; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=10**6, help="How many items.")] = 10,
    exclude: Annotated[str, typer.Option(help="Item ids that must not be recommended, separated by commas.")] = "",
    titles: Annotated[bool, typer.Option("--titles", help="Show the items' titles.")] = False,
    index: IndexOption = "exact",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    source: Annotated[
        Path | None, typer.Option("--input", help="Parquet with the columns user and history (a list of ids).")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Parquet to write the recommendations for --input to.")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ask what is served there, over gRPC.")
    ] = None,
    version_label: Annotated[
        str | None, typer.Option("--label", help="With --server: which version; the highest by default.")
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="With --server: by TLS, which this PEM file vouches for.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar=KEY, help="With --server; better in the environment.")] = None,
) -> None:
    """Recommends by the exported cascade, here or as it is served: for one history or context, or for a file of them.

    Example: `tfcorr recommend saved_models/movielens100k --history 50,181,172 --k 10 --titles`
    """
    import polars as pl

    from tfcorr.serving import recommend as serving

    if (not history and not context) == (source is None) or (source is None) != (output is None):
        raise typer.BadParameter("give either --history or --context or both, or --input and --output")
    if source is not None and (exclude or titles or as_json):
        raise typer.BadParameter(
            "--exclude, --titles and --json are of one history; a file may have a column exclude, and gets ids alone"
        )
    if server is not None:
        from tfcorr.serving.client import RemoteRecommender

        _check_key()
        recommender: serving.AnyRecommender = RemoteRecommender(server, index, version_label, api_key, tls_ca)
    elif run is not None:
        recommender = serving.Recommender(run, index)
    else:
        raise typer.BadParameter("give a run's folder, or --server HOST:PORT")
    if server is None and (version_label or tls_ca):
        raise typer.BadParameter("--label and --tls-ca are of a server: give --server HOST:PORT too")
    if titles and run is None:
        raise typer.BadParameter("--titles reads them from a run's folder: give it too")
    known = _known(context or [], recommender.reads)
    if source is not None and output is not None:
        written, unknown = serving.recommend_file(recommender, source, output, k)
        _note(unknown)
        console.print(f"{written:,} recommendations written to {output}", soft_wrap=True)
        return
    histories, excluded = [_ids(history or "")], [_ids(exclude)]
    found = recommender.recommend(histories, k, excluded, known).drop("row")
    if titles and run is not None:
        names = serving.titles(run)
        found.insert_column(2, pl.Series("title", [names.get(item, "") for item in found["item"]], pl.String))
    _note(recommender.unknown(histories, excluded, known))
    if as_json:
        print(json.dumps(found.to_dicts(), ensure_ascii=False))
        return
    heads = {"ranker_score": "ranker's", "retriever_score": "retriever's"}
    table = Table()
    for name in found.columns:
        table.add_column(heads.get(name, name), overflow="fold")
    for row in found.iter_rows():
        table.add_row(*(f"{each:.3f}" if isinstance(each, float) else on_one_line(str(each)) for each in row))
    console.print(table)


def _check_key() -> None:
    """An empty key in the environment counts as none given, which may not be what is meant. Raises: InputError."""
    if os.environ.get(KEY) == "":
        raise InputError(f"{KEY} is empty: set it to the key, or unset it to do without one")


def _note(unknown: "dict[str, Unknown]") -> None:
    """Says what of a request has no effect, beside what is printed."""
    for name, each in unknown.items():
        print(f"note: {name}: {on_one_line(str(each))}", file=sys.stderr)


def _ids(text: str) -> list[str]:
    """Ids between commas, as in a row of a CSV file: one that holds a comma stands in double quotes."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        return [item for row in rows for item in row if item]
    except csv.Error as error:
        raise InputError(f"{text[:40]!r}: cannot be read as ids with commas between them: {error}") from None


def _move(text: str) -> tuple[str, int | None]:
    """LABEL=VERSION, or LABEL= for none. Raises: InputError."""
    label, equals, version = text.partition("=")
    if not label or not equals or not (version.isdecimal() or not version):
        raise InputError(f"{text}: expected LABEL=VERSION, such as stable=2, or LABEL= to take the label away")
    return label, int(version) if version else None


def _known(context: list[str], names: frozenset[str]) -> dict[str, list[object]]:
    """What is known beside a history, by name. Raises: InputError."""
    assigned = [_assigned(each, names) for each in context]
    known = dict(assigned)
    twice = [name for name in known if [each for each, _ in assigned].count(name) > 1]
    if twice:
        raise InputError(f"--context: {', '.join(twice)} is given twice; several categories stand between commas")
    return known


def _assigned(text: str, names: frozenset[str]) -> tuple[str, list[object]]:
    """NAME=VALUE for a single row; a categorical feature may have several values between commas. Raises: InputError."""
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        asked = ", ".join(sorted(names)) or "nothing but a history"
        raise InputError(f"--context {text}: expected NAME=VALUE, and the run's towers read: {asked}")
    values = _ids(value)
    return name, [values[0] if len(values) == 1 else values]
