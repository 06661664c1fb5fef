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
    """A run's metrics, stage by stage, and whether its cascade is worth it."""
    differences = measured.verdict.differences
    if as_json:
        found = {"metrics": measured.metrics, "users": measured.users, "users_per_second": measured.users_per_second}
        verdict = {"cascade_less": [asdict(each) for each in differences], "verdict": measured.verdict.sentence}
        print(json.dumps(found | verdict))
        return
    metrics = measured.metrics
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    title = f"test: {measured.users:,} users, {measured.users_per_second:,.0f} a second"
    table = Table("metric", *metrics, title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))  # 80 columns
    for name in names:
        table.add_row(name, *(f"{values[name]:.4f}" if name in values else "" for values in metrics.values()))
    console.print(table)
    beside = Table(
        "cascade less", differences[0].metric, "difference", "95% interval", "p", box=None, padding=(0, 2, 0, 0)
    )
    for each in differences:
        beside.add_row(
            each.stage,
            f"{each.second:.4f}",
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            p_value(each),
        )
    console.print()
    console.print(beside)
    console.print()
    console.print(measured.verdict.sentence, soft_wrap=True, highlight=False)


def p_value(difference: "Difference") -> str:
    """As it is shown: what is below 0.0001 is that."""
    return f"{difference.p_value:.2g}" if difference.p_value >= 1e-4 else "< 0.0001"


def differences_table(differences: "Sequence[Difference]") -> Table:
    """Paired differences by stage and metric."""
    table = Table(
        "stage", "metric", "first", "second", "difference", "95% interval", "p", box=None, padding=(0, 2, 0, 0)
    )  # 80 columns
    for each in differences:
        values = (
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
        )
        table.add_row(each.stage, each.metric, *values, p_value(each))
    return table
