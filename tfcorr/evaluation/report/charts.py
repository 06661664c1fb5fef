"""Every figure of a report: what is drawn in it, what it says in words and in numbers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfcorr.evaluation.compare import Difference
from tfcorr.evaluation.metrics import METRICS, MISSED, ndcg, recall
from tfcorr.evaluation.report.drawing import Dot, Line, Moves, Panel, draw_dots, draw_lines, draw_moves
from tfcorr.evaluation.report.measured import RANKER_ALONE, Measured
from tfcorr.evaluation.report.measures import (
    Floats,
    Interval,
    Ints,
    coverage,
    cut_offs,
    gini,
    interval,
    novelty,
    quantile_bins,
    rank_bins,
    recommended,
    self_information,
)
from tfcorr.evaluation.report.words import (
    UNITS,
    Table,
    about_bands,
    about_breaks,
    interval_text,
    metric_name,
    names_of_bins,
    number,
    spoken,
    table_of,
    words_of,
    words_of_rows,
)
from tfcorr.evaluation.style import LOOKS, Look

UP_TO = 100  # the largest k that quality is drawn for

Points = tuple[Sequence[float], list[Interval]]  # places on x, and the values there
PointsOf = Callable[[Measured, str], Points | None]  # of a run's stage, if it has any


@dataclass(frozen=True)
class Chart:
    """A figure with its file's name, its title, a caption, its description for who cannot see it, and its numbers."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    table: Table


def charts(runs: Sequence[Measured], differences: Sequence[Sequence[Difference]], k: int) -> list[Chart]:
    """All figures, in the order of the page; `differences` are those of every further run to the first.

    A figure for which there is nothing to draw is left out.
    """
    drawn = [
        _quality(runs, k),
        *([_differences(runs, differences)] if differences else []),
        _learning(runs),
        _validation(runs),
        _against_k(runs),
        _against_retrieved(runs),
        _moves(runs),
        _by(
            runs,
            k,
            "history-length",
            "Quality by history length",
            "interactions before the target",
            lambda run: run.lengths,
        ),
        _by(
            runs,
            k,
            "popularity",
            "Quality by item popularity",
            "training interactions with the target",
            lambda run: run.popularity,
        ),
        _catalogue(runs, k),
        _negatives(runs),
    ]
    return [each for each in drawn if each is not None]


def metrics_table(runs: Sequence[Measured], k: int) -> Table:
    """Means over the test users with their 95% intervals, by stage and run."""
    rows = []
    for stage in _stages(runs):
        for run in runs:
            if stage in run.ranks:
                found = [interval_text(interval(metric(run.ranks[stage], k))) for metric in METRICS.values()]
                rows.append([spoken(stage), run.label, *found])
    return Table(["stage", "run", *(f"{UNITS[name]}@{k}" for name in METRICS)], rows)


def differences_table(runs: Sequence[Measured], differences: Sequence[Sequence[Difference]]) -> Table:
    """Every further run less the first, paired by user."""
    head = ["run", "stage", "metric", runs[0].label, "this run", "difference", "95% interval", "p"]
    rows = []
    for run, found in zip(runs[1:], differences, strict=True):
        for each in found:
            means = [number(each.second), number(each.first)]
            tested = [f"{each.difference:+.4f}", f"{each.low:+.4f} to {each.high:+.4f}", f"{each.p_value:.2g}"]
            rows.append([run.label, spoken(each.stage), metric_name(each.metric), *means, *tested])
    return Table(head, rows)


def _quality(runs: Sequence[Measured], k: int) -> Chart:
    panels: dict[str, list[Dot]] = {}
    for name, metric in METRICS.items():
        dots = panels[f"{UNITS[name]}@{k} (0 to 1)"] = []
        for stage in _stages(runs):
            for place, run in enumerate(runs):
                if stage in run.ranks:
                    label = spoken(stage) if len(runs) == 1 else f"{spoken(stage)} · {run.label}"
                    dots.append(Dot(label, _look(runs, stage, place), *interval(metric(run.ranks[stage], k))))
    figure = draw_dots(panels, from_zero=True)
    hint = "see the paired differences" if len(runs) > 1 else "compare runs user by user, with tfcorr compare"
    caption = (
        f"Means over {len(runs[0].targets):,} test users and 95% intervals by Student's t. Runs whose intervals "
        "overlap may still "
        f"differ: {hint}."
    )
    table = metrics_table(runs, k)
    return Chart(
        "quality", "Quality on the test split", caption, words_of_rows("Means with intervals", table), figure, table
    )


def _differences(runs: Sequence[Measured], differences: Sequence[Sequence[Difference]]) -> Chart:
    panels: dict[str, list[Dot]] = {}
    for place, (run, found) in enumerate(zip(runs[1:], differences, strict=True), start=1):
        for each in found:
            label = f"{spoken(each.stage)} · {run.label}"
            dot = Dot(label, LOOKS[place], each.difference, each.low, each.high)
            panels.setdefault(f"difference in {metric_name(each.metric)}", []).append(dot)
    table = differences_table(runs, differences)
    caption = (
        f"Each run less {runs[0].label}, over the same users: mean difference and 95% interval of a paired t-test. "
        "Where the interval holds 0, chance alone could have made the difference."
    )
    title = f"Differences to {runs[0].label}"
    return Chart(
        "differences", title, caption, words_of_rows("Differences", table), draw_dots(panels, from_zero=False), table
    )


def _learning(runs: Sequence[Measured]) -> Chart | None:
    panels = [
        *_over_epochs(runs, "log_loss", "log-loss (nats)", "Log-loss over all items"),
        *_over_epochs(runs, "loss", "loss (nats)", "Training loss"),
    ]
    caption = (
        "Means over an epoch's training targets. The log-loss estimates −log of the target's softmax among all "
        "items, and is the curve "
        "that falls (a ranker whose negatives are uncorrected has none); a retriever that draws its own negatives "
        "has a training loss "
        "near log(1 + samples) at all times, of which only the gradient informs."
    )
    return _lines("loss", "Losses over epochs", caption + about_breaks(runs), panels)


def _validation(runs: Sequence[Measured]) -> Chart | None:
    names = dict.fromkeys(name for run in runs for name in run.history.curves if "@" in name)
    ks = {name.partition("@")[2] for name in names if name.startswith("ndcg")}
    panels = []
    for name in names:
        kind, _, k = name.partition("@")
        title = f"{metric_name(name)}" if k in ks else f"Recall@{k}, the ceiling"
        panels += _over_epochs(
            runs, name, f"{metric_name(name)} ({'share of users' if kind == 'recall' else '0 to 1'})", title
        )
    caption = (
        "Measured after each epoch on validation, which chose the epoch that is kept. What a stage misses no later "
        "one can find."
    )
    return _lines("validation", "Metrics over epochs, on validation", caption + about_breaks(runs), panels)


def _against_k(runs: Sequence[Measured]) -> Chart | None:
    ks = cut_offs(min(UP_TO, *(list(run.handed_on.values())[-1] for run in runs)))
    panels = []
    for name, metric, unit in (("NDCG", ndcg, "0 to 1"), ("Recall", recall, "share of users")):
        panels += _by_stage(runs, _metric_at(metric, ks), name, "k, items recommended", f"{name}@k ({unit})", "log")
    caption = "On the test split, for lists of 1 to k items; each target counts once, and one that is missed counts 0."
    return _lines("against-k", "NDCG and Recall against k", caption + about_bands(runs), panels)


def _metric_at(metric: Callable[[npt.NDArray[np.int32], int], Floats], ks: Sequence[int]) -> PointsOf:
    def points(run: Measured, stage: str) -> Points | None:
        return (ks, [interval(metric(run.ranks[stage], k)) for k in ks]) if stage in run.ranks else None

    return points


def _against_retrieved(runs: Sequence[Measured]) -> Chart | None:
    def points(run: Measured, stage: str) -> Points | None:
        return _metric_at(recall, cut_offs(run.handed_on[stage]))(run, stage) if stage in run.handed_on else None

    panels = _by_stage(
        runs,
        points,
        "Recall of what is handed on",
        "n, items retrieved or handed on",
        "Recall@n (share of users)",
        "log",
    )
    caption = (
        "The share of test users whose target is among a stage's first n items, up to those it hands on: no later "
        "stage finds more."
    )
    return _lines("against-retrieved", "Recall against the number retrieved", caption + about_bands(runs), panels)


def _moves(runs: Sequence[Measured]) -> Chart:
    panels, rows = [], []
    for run in runs:
        before_stage = list(run.handed_on)[-1]
        before, after = run.ranks[before_stage], run.ranks["cascade"]
        found = (before != MISSED) & (after != MISSED)
        before, after = before[found], after[found]
        tops = rank_bins(run.handed_on[before_stage])
        counts = np.zeros((len(tops), len(tops)), np.int64)
        np.add.at(counts, (np.searchsorted(tops, after), np.searchsorted(tops, before)), 1)
        names = f"rank by the {spoken(before_stage)}", "rank in the cascade"
        panels.append(Moves(run.label, *names, tops, counts))
        of_all = max(len(before), 1)
        shares = [
            f"{100 * np.count_nonzero(each) / of_all:.1f}%"
            for each in (after < before, after == before, after > before)
        ]
        medians = [f"{np.median(each):g}" if len(each) else "" for each in (before, after)]
        rows.append(
            [run.label, spoken(before_stage), f"{len(before):,}", f"{np.count_nonzero(~found):,}", *shares, *medians]
        )
    head = [
        "run",
        "before",
        "targets handed on",
        "missed",
        "moved up",
        "same",
        "moved down",
        "median before",
        "median after",
    ]
    caption = (
        "Test users by where their target stood before the ranker, and where the final order puts it. Below the "
        "framed diagonal it was "
        "moved up, above it down. Cells hold how many users; the darker, the more."
    )
    table = Table(head, rows)
    title = "Rank before and after the ranker"
    return Chart("ranks", title, caption, words_of_rows("Table of ranks", table), draw_moves(panels), table)


def _by(
    runs: Sequence[Measured], k: int, name: str, title: str, of: str, values: Callable[[Measured], Ints]
) -> Chart | None:
    bins = quantile_bins(values(runs[0]))
    ticks = names_of_bins(bins)

    def points(run: Measured, stage: str) -> Points | None:
        if stage not in run.ranks:
            return None
        gains = ndcg(run.ranks[stage], k)
        return range(len(ticks)), [interval(gains[bins.of == each]) for each in range(len(ticks))]

    panels = _by_stage(runs, points, f"NDCG@{k}", of, f"NDCG@{k} (0 to 1)", "category", ticks)
    caption = (
        f"Test users in groups of about the same size, by the {of}; n is how many they are. Bars are 95% intervals."
    )
    return _lines(name, title, caption, panels)


def _catalogue(runs: Sequence[Measured], k: int) -> Chart | None:
    ks, first = cut_offs(k), runs[0]

    def points(measure: Callable[[Measured, Ints], Interval]) -> PointsOf:
        return lambda run, stage: (
            (ks, [measure(run, run.lists[stage][:, :each]) for each in ks]) if stage in run.lists else None
        )

    def covered(run: Measured, lists: Ints) -> Interval:
        return _exactly(coverage(recommended(lists, len(run.counts))))

    def unequal(run: Measured, lists: Ints) -> Interval:
        return _exactly(gini(recommended(lists, len(run.counts))))

    def novel(run: Measured, lists: Ints) -> Interval:
        bits = novelty(lists, run.counts)
        return interval(bits) if len(bits) else _exactly(0.0)

    x, training = "k, items recommended", {"training data": gini(first.counts)}
    taken = {"users' own choice": float(self_information(first.counts)[first.targets - 1].mean())}
    panels = [
        *_by_stage(runs, points(covered), "Catalogue coverage", x, "coverage@k (share of items)", "log"),
        *_by_stage(runs, points(unequal), "Gini coefficient", x, "Gini (0 to 1)", "log", references=training),
        *_by_stage(runs, points(novel), "Novelty", x, "novelty (bits)", "log", references=taken, floor=None),
    ]
    caption = (
        "Of the lists that all test users are given. Coverage: the share of the catalogue that is recommended to "
        "anyone. Gini: how "
        "unequally items are recommended, beside that of the training interactions. Novelty: the mean −log2 of an "
        "item's share of the "
        "training interactions, beside that of what users took next; an item without any counts as if it had one."
    )
    return _lines("catalogue", "Coverage, Gini coefficient and novelty", caption, panels)


def _negatives(runs: Sequence[Measured]) -> Chart | None:
    panels = [
        *_over_epochs(runs, "effective_sample_size", "size (items)", "Effective sample size"),
        *_over_epochs(runs, "hardness", "share of negatives", "Hardness of the negatives"),
        *_over_epochs(runs, "target_share", "share of samples", "Samples that are the target"),
        *_over_epochs(runs, "kl", "KL divergence (nats)", "Distillation"),
    ]
    caption = (
        "Means over an epoch. The effective sample size is 1 / Σ Q² over what a tower resamples from: the smaller, "
        "the fewer items are "
        "drawn again and again. Hardness is the share of negatives that the tower in training, "
        "of both the ranker, scores at or above the target."
    )
    return _lines("negatives", "Negatives over epochs", caption + about_breaks(runs), panels)


def _over_epochs(runs: Sequence[Measured], quantity: str, unit: str, title: str) -> list[Panel]:
    """A quantity of history.csv over epochs: of one run a line a tower, of several a panel a tower."""

    def points(run: Measured, of: str) -> Points | None:
        curve = run.history.curves.get(quantity, {}).get(of)
        return None if curve is None else (curve.epochs.tolist(), [_exactly(each) for each in curve.values.tolist()])

    return _by_stage(runs, points, title, "epoch", unit, "epochs", floor=None)


def _by_stage(
    runs: Sequence[Measured],
    points: PointsOf,
    title: str,
    x: str,
    y: str,
    scale: str,
    ticks: Sequence[str] = (),
    references: dict[str, float] | None = None,
    floor: float | None = 0.0,
) -> list[Panel]:
    """Of one run a panel with a line a stage, of several a panel a stage with a line a run."""

    def made(run: Measured, stage: str, label: str, place: int) -> Iterable[Line]:
        found = points(run, stage)
        if found is None:
            return []
        means, low, high = zip(*found[1], strict=True)
        known = bool(np.isfinite(low).any()) and (len(runs) == 1 or scale == "category")
        return [Line(label, _look(runs, stage, place), found[0], means, low if known else (), high if known else ())]

    stages = _stages(runs)
    if len(runs) == 1:
        groups = [(title, [each for stage in stages for each in made(runs[0], stage, spoken(stage), 0)])]
    else:
        groups = [
            (
                f"{title}: {spoken(stage)}",
                [each for place, run in enumerate(runs) for each in made(run, stage, run.label, place)],
            )
            for stage in stages
        ]
    breaks = [each - 0.5 for each in runs[0].history.begins] if scale == "epochs" and len(runs) == 1 else []
    return [Panel(name, x, y, lines, scale, ticks, floor, references or {}, breaks) for name, lines in groups if lines]


def _lines(name: str, title: str, caption: str, panels: Sequence[Panel]) -> Chart | None:
    if not panels:
        return None
    words = [
        f"{panel.title}, {panel.y} against {panel.x}: {'; '.join(words_of(line) for line in panel.lines)}."
        for panel in panels
    ]
    return Chart(name, title, caption, f"Line chart. {' '.join(words)}", draw_lines(panels), table_of(panels))


def _stages(runs: Sequence[Measured]) -> list[str]:
    """Every stage and tower of any of the runs, in the order in which they work."""
    names = {
        name for run in runs for name in [*run.ranks, *(of for curves in run.history.curves.values() for of in curves)]
    }
    last = ["ranker", "cascade", RANKER_ALONE]
    return sorted(names, key=lambda name: (last.index(name) + 1 if name in last else 0, name != "retriever", name))


def _look(runs: Sequence[Measured], stage: str, place: int) -> Look:
    """Of several runs a look a run; of one a look a stage, of which the cascade's is black."""
    if len(runs) > 1:
        return LOOKS[place]
    others = [each for each in _stages(runs) if each != "cascade"]
    return LOOKS[0] if stage == "cascade" else LOOKS[1 + others.index(stage) % (len(LOOKS) - 1)]


def _exactly(value: float) -> Interval:
    """A value that has no interval."""
    return Interval(value, float("nan"), float("nan"))
