"""What several commands print."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from tfcorr.cli.app import console

if TYPE_CHECKING:  # commands import what they need, so that --help is quick
    from tfcorr.evaluation.compare import Difference
    from tfcorr.runs import Evaluation


def print_evaluation(measured: "Evaluation", as_json: bool) -> None:
    """A run's metrics, stage by stage."""
    if as_json:
        differences, sentence = [asdict(each) for each in measured.verdict.differences], measured.verdict.sentence
        found = {"metrics": measured.metrics, "users": measured.users, "users_per_second": measured.users_per_second}
        print(json.dumps(found | {"cascade_less": differences, "verdict": sentence}))
        return
    metrics = measured.metrics
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    table = Table(
        "metric", *metrics, title=f"test: {measured.users:,} users, {measured.users_per_second:,.0f} a second", title_justify="left"
    )
    for name in names:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "" for values in metrics.values()))
    console.print(table)
    console.print(differences_table("cascade less", measured.verdict.differences))
    console.print(measured.verdict.sentence, soft_wrap=True, highlight=False)


def differences_table(first: str, differences: "Sequence[Difference]") -> Table:
    """Paired differences by stage, under the name of what they are of."""
    table = Table(first, "metric", "first", "second", "difference", "95% interval", "p", box=None, padding=(0, 2, 0, 0))  # 80 columns
    for each in differences:
        values = (
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            f"{each.p_value:.2g}",
        )
        table.add_row(each.stage, each.metric, *values)
    return table
