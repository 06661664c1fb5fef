"""What several commands print."""

import json
from typing import TYPE_CHECKING

from rich.table import Table

from tfcorr.cli.app import console

if TYPE_CHECKING:  # commands import what they need, so that --help is quick
    from tfcorr.runs import Evaluation


def print_evaluation(measured: "Evaluation", as_json: bool) -> None:
    """A run's metrics, stage by stage."""
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
