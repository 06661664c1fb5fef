"""A report's page: one HTML file that asks for nothing from elsewhere."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tfcorr import __version__
from tfcorr.evaluation.report.charts import Chart
from tfcorr.evaluation.report.measured import RANKER_ALONE, Measured
from tfcorr.evaluation.report.words import Table, number, spoken
from tfcorr.evaluation.verdict import judge

WORTH = "What ranks best"
GENERATOR = '<meta name="generator" content="tfcorr report">'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
CSS = """
:root { color-scheme: light dark; --ink: #1d1d1b; --soft: #5c5c57; --line: #cfcfc8; --paper: #fff; --mark: #ececE4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a8a8a2; --line: #4a4a46; --paper: #1a1a1a; --mark: #31312e; }
  img { filter: invert(.9) hue-rotate(180deg); }  /* white becomes the paper's grey */
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p, figcaption { max-width: 46rem; }
figcaption, .about { color: var(--soft); font-size: .92rem; }
a { color: inherit; }
nav ul { columns: 20rem; padding-left: 1.2rem; }
figure { margin: 0; }
.scroll { overflow-x: auto; }
img { display: block; width: 100%; min-width: 36rem; height: auto; }
img.narrow { width: 70%; min-width: 26rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); }
.differs > th:first-child { background: var(--mark); }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--soft); }
td.number { text-align: right; white-space: nowrap; }
thead th.number { text-align: right; }
.settings td { overflow-wrap: anywhere; min-width: 7rem; }
.differs { background: var(--mark); }
summary { cursor: pointer; padding: .5rem 0; }
pre { background: var(--mark); padding: .7rem; overflow-x: auto; font-size: .88rem; }
:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
@media print { details > summary { display: none; } h2, figure { break-after: avoid; } }
"""


def page(runs: Sequence[Measured], charts: Sequence[Chart], images: Mapping[str, bytes], k: int) -> str:
    """The page as HTML; `images` are the charts' PNG files by the charts' names."""
    title = "Report of " + " and ".join(run.label for run in runs)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(_about(runs))}</p>',
        _contents(charts),
        _verdicts(runs, k),
        *(_section(chart, images[chart.name]) for chart in charts),
        _settings(runs),
        _commands(runs, k),
    ]
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{GENERATOR}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{CSS}</style>\n</head>\n<body>\n'
    )
    return head + "\n".join(parts) + "\n</body>\n</html>\n"


def _about(runs: Sequence[Measured]) -> str:
    first = runs[0]
    seen = f"what a user had before is {'never' if first.settings['evaluation.exclude_seen'] else 'also'} recommended"
    return (
        f"{len(first.targets):,} test users, {len(first.counts):,} items, {int(first.counts.sum()):,} training "
        "interactions. "
        f"Each user's last item is to be found among all items; {seen}. The retriever hands on "
        f"{next(iter(first.handed_on.values())):,} items, found by the {first.index} index. Made by tfcorr "
        f"{__version__}."
    )


def _contents(charts: Sequence[Chart]) -> str:
    names = [
        ("verdict", WORTH),
        *((chart.name, chart.title) for chart in charts),
        ("settings", "Settings"),
        ("commands", "Commands"),
    ]
    items = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in names)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _verdicts(runs: Sequence[Measured], k: int) -> str:
    """Of each run the sentence on what ranks best, and the cascade beside every other order, paired by user."""
    parts = []
    for run in runs:
        verdict = judge(run.ranks, k)
        rows = [
            [
                spoken(each.stage),
                number(each.first),
                number(each.second),
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}",
                f"{each.p_value:.2g}",
            ]
            for each in verdict.differences
        ]
        head = ["cascade less", f"cascade, NDCG@{k}", "the other", "difference", "95% interval", "p"]
        name = f"{run.label}: " if len(runs) > 1 else ""
        parts.append(
            f"<p>{escape(name + verdict.sentence)}</p>"
            f"{_table(Table(head, rows), f'The cascade beside other orders, {run.label}')}"
        )
    return f'<section aria-labelledby="verdict"><h2 id="verdict">{WORTH}</h2>{"".join(parts)}</section>'


def _section(chart: Chart, image: bytes) -> str:
    data = base64.b64encode(image).decode()
    narrow = ' class="narrow"' if chart.figure.get_figwidth() < 7 else ""
    table = _table(chart.table, f"{chart.title}, in numbers")
    rows = len(chart.table.rows)
    numbers = table if rows <= 12 else f"<details><summary>{rows} rows of numbers</summary>{table}</details>"
    return (
        f'<section aria-labelledby="{chart.name}"><h2 id="{chart.name}">{escape(chart.title)}</h2>\n<figure>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(chart.title)}">'
        f'<img{narrow} alt="{escape(chart.alt)}" src="data:image/png;base64,{data}"></div>'
        f'<figcaption>{escape(chart.caption)} <a download="{chart.name}.png" '
        f'href="{chart.name}.png">{chart.name}.png</a></figcaption>'
        f"</figure>\n{numbers}</section>"
    )


def _table(table: Table, name: str) -> str:
    numeric = [
        any(row[column][:1] in "+-−0123456789" for row in table.rows if row[column])
        for column in range(len(table.head))
    ]
    numeric[0] = False
    classes = [' class="number"' if each else "" for each in numeric]

    def row(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, classes, strict=True))
            + "</tr>"
        )

    rows = "".join(row(cells, "td") for cells in table.rows)
    return (
        '<div class="scroll" tabindex="0" role="group" '
        f'aria-label="{escape(name)}"><table><thead>{row(table.head, "th")}</thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _settings(runs: Sequence[Measured]) -> str:
    """All settings by run, those that differ first and marked."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    values = {name: [_value(run.settings.get(name)) for run in runs] for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]

    def table(chosen: Sequence[str], heads: Sequence[str], mark: str) -> str:
        head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
        rows = "".join(
            f'<tr{mark}><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{escape(each)}</td>" for each in values[name][: len(heads)])
            + "</tr>"
            for name in chosen
        )
        return (
            '<div class="scroll settings" tabindex="0" role="group" aria-label="Settings"><table><thead><tr><th '
            'scope="col">setting</th>'
            f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    alike = [name for name in names if name not in differing]
    marked = table(differing, [run.label for run in runs], ' class="differs"')
    first = f"<p>These differ:</p>{marked}" if differing else ""
    summary = f"{len(alike)} settings that all runs share" if differing else f"All {len(alike)} settings"
    rest = f"<details><summary>{summary}</summary>{table(alike, ['value'], '')}</details>"
    return f'<section aria-labelledby="settings"><h2 id="settings">Settings</h2>{first}{rest}</section>'


def _value(value: Any) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)


def _commands(runs: Sequence[Measured], k: int) -> str:
    """What to type to have the same numbers again."""
    lines = []
    for run in runs:
        alone = " --ranker-alone" if RANKER_ALONE in run.ranks else ""
        retrieve = next(iter(run.handed_on.values()))
        lines.append(f"tfcorr evaluate {_typed(run.folder)} --k {k} --retrieve {retrieve} --index {run.index}{alone}")
    lines += [f"tfcorr compare {_typed(run.folder)} {_typed(runs[0].folder)} --k {k}" for run in runs[1:]]
    lines.append(f"tfcorr report {' '.join(_typed(run.folder) for run in runs)} --k {k}")
    text = escape("\n".join(lines))
    return (
        '<section aria-labelledby="commands"><h2 id="commands">Commands</h2><p>These make the numbers again. To '
        "train a run again, type "
        f"tfcorr train with its settings.yaml and another --name.</p><pre>{text}</pre></section>"
    )


def _typed(folder: Path) -> str:
    return shlex.quote(str(folder))
