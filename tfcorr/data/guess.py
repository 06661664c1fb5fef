"""A first pipeline for a file of interactions: what its columns are, by their names and values, as a commented YAML."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import yaml

from tfcorr.data.histories import Histories
from tfcorr.data.interactions import Columns, DataSettings
from tfcorr.data.sources import load
from tfcorr.data.tables import collect, read_table
from tfcorr.data.times import is_time, with_times_as_text
from tfcorr.data.values import is_plain
from tfcorr.settings import InputError

# What columns are called, without anything but letters, the likeliest first.
NAMES = {
    "user": (
        "userid user uid visitorid visitor customerid customer clientid client buyerid buyer shopperid shopper "
        "memberid member reviewerid accountid account sessionid session"
    ),
    "item": (
        "itemid item iid productid product productcode sku skucode asin articleid article articlecode movieid "
        "movie filmid film trackid track songid song poi"
    ),
    "time": "timestamp time ts datetime date eventtime createdat when orderdate purchasedate unixreviewtime reviewtime",
    "rating": "rating score stars overall",
    "event": "eventtype event action behavior behaviour kind",
    "title": "title itemname productname movietitle name",
}
NEEDED = ("user", "item", "time")
SAMPLE = 100_000  # rows that are looked at
REPEATS = 0.02  # share of validation targets that their user has had before, below which nobody wants an item again
SMALL = 50_000  # interactions, below which an epoch of large batches has few steps
EXACT = 30_000  # items up to which the softmax over all of them is worth its time
LEAST = (5, 3, 2, 1)  # min_interactions that are tried


@dataclass(frozen=True)
class Guess:
    """The columns by role, some of their values, and what the data are like with them."""

    columns: dict[str, str]
    examples: dict[str, str]
    min_interactions: int
    repeats: float
    users: int
    items: int
    interactions: int
    longest: int  # history of nine users in ten
    skipped: list[tuple[str, int]]  # rows that cannot be read, by what is wrong with them


def guess_columns(path: Path, given: dict[str, str]) -> dict[str, str]:
    """The columns of a file by role: user, item, time, and rating, event and title where there are such; `given` are
    known.

    Raises: InputError if the file cannot be read, or a column that is needed cannot be told.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "clicks.csv"
    >>> _ = path.write_text("visitor,sku,price,ts\\n1,2,3,4\\n")
    >>> guess_columns(path, given={})
    {'user': 'visitor', 'item': 'sku', 'time': 'ts'}
    """
    frame = read_table(path, "skip").frame
    present = frame.collect_schema().names()
    usable = _usable(frame, path)
    for role, name in given.items():
        if name not in present:
            raise InputError(f"{path}: no column {name!r} for the {role}; the file has: {', '.join(present)}")
    found = dict(given)
    for role, names in NAMES.items():
        if role not in found:
            free = [name for name in present if name not in found.values() and _plain(name) in names.split()]
            fit = [name for name in free if name in usable[role]] or (free if role in NEEDED else [])
            if fit:
                found[role] = min(fit, key=lambda name: (names.split().index(_plain(name)), name != _plain(name), name))
    missing = [role for role in NEEDED if role not in found]
    if missing:
        flags = " ".join(f"--{role} COLUMN" for role in missing)
        fields = "; fields are to be separated by commas" if len(present) == 1 else ""
        raise InputError(
            f"{path}: cannot tell which column is the {missing[0]}; the file has: {', '.join(present)}{fields}; say "
            f"{flags}"
        )
    return found


def _usable(frame: pl.LazyFrame, path: Path) -> dict[str, list[str]]:
    """The columns that may have each role: of its types, and those that are not needed only with something in them."""
    schema = frame.collect_schema()
    counts = collect(frame.select(pl.all().count()), str(path)).row(0, named=True)
    plain = [name for name, kind in schema.items() if is_plain(kind)]
    timed = [name for name, kind in schema.items() if is_time(kind)]
    filled = [name for name in plain if counts[name]]
    return {role: timed if role == "time" else plain if role in NEEDED else filled for role in NAMES}


def guess(path: Path, given: dict[str, str]) -> Guess:
    """What a pipeline for the file should say. Raises: InputError if the file cannot be read, or has nothing to train
    on."""
    columns = guess_columns(path, given)
    mapped = Columns.parse(columns)
    problem: InputError | None = None
    for least in LEAST:
        try:
            dataset = load(DataSettings(path=path, columns=mapped, min_interactions=least, on_bad_rows="skip"))
        except InputError as error:
            problem = problem or error
            continue
        histories = dataset.histories
        some = read_table(path, "skip").frame.select(cs.by_name(*columns.values())).head(SAMPLE)
        head = collect(with_times_as_text(some).cast(pl.String), str(path))
        examples = {role: _examples(head[name]) for role, name in columns.items()}
        of_account = [(what.partition(": "), rows or 0) for what, rows, *_ in dataset.account]
        skipped = [(what, -rows) for (kind, _, what), rows in of_account if kind == "skipped"]
        longest = int(np.quantile(np.diff(histories.offsets), 0.9))
        sizes = len(histories.users), len(dataset.catalogue), len(histories.items)
        return Guess(columns, examples, least, _share_of_repeats(histories), *sizes, longest, skipped)
    load(DataSettings(path=path, columns=mapped))  # which says what is wrong with the first row that cannot be read
    raise problem or InputError(f"{path}: has nothing to train on")


def _share_of_repeats(histories: Histories) -> float:
    """The share of the validation targets that stand in their history."""
    places = histories.targets("validation")
    size = int(histories.items.max()) + 1
    positions = np.arange(len(histories.items))
    pairs, first = np.unique(
        histories.owners(positions) * size + histories.items, return_index=True
    )  # of each user with each item
    of_target = histories.owners(places) * size + histories.items[places]
    return float((first[np.searchsorted(pairs, of_target)] < places).mean())


def pipeline_text(path: Path, found: Guess) -> str:
    """The YAML, with a remark on every line that was guessed."""
    columns = "\n".join(
        f"    {role}: {_scalar(name)}{' ' * max(24 - len(role) - len(name), 1)}# such as {found.examples[role]}"
        for role, name in found.columns.items()
    )
    fewer = "" if found.min_interactions == LEAST[0] else f"; with {LEAST[0]} too little would be left"
    seen = found.repeats < REPEATS
    filters = [f"  # filter: rating >= {_scalar('4')}  # which of them count"] if "rating" in found.columns else []
    filters += ["  # filter: event == NAME  # which of them count"] if "event" in found.columns else []
    lines = [
        f"# {found.interactions:,} interactions of {found.users:,} users with {found.items:,} items, after the rare "
        "are dropped.",
        "data:",
        f"  path: {_scalar(str(path.absolute() if str(path).startswith('~') else path))}",
        "  columns:",
        columns,
        *[line.replace("'", "") for line in filters],
        *(["  on_bad_rows: skip            # fail tells which; left out are"] if found.skipped else []),
        *[f"                               # {rows:,}: {what}" for what, rows in found.skipped],
        f"  min_interactions: {found.min_interactions}          # users and items with fewer are dropped{fewer}",
        f"history_length: {min(max(found.longest, 5), 50):<13} # of nine users in ten it holds all, up to 50",
        "retriever: {name: bsarec}     # and the ranker is a din that is told counts of pairs: docs/towers.md",
        _sampler(found.items),
        "training:",
        "  epochs: 30                   # at most, of each stage: it stops when validation has not become better "
        "for some epochs",
        f"  batch_size: {128 if found.interactions < SMALL else 256:<16} # targets a step",
        "evaluation:",
        f"  retrieve: {max(min(500, found.items // 4), 20):<18} # how many the retriever hands to the ranker",
        f"  exclude_seen: {str(seen).lower():<14} # {found.repeats:.1%} of validation targets are items that their "
        "user has had before",
        "search:                         # what tfcorr tune may choose; any setting can be searched",
        "  training.retriever.learning_rate: {log_float: [3e-4, 1e-2]}",
        "  training.ranker.learning_rate: {log_float: [3e-4, 1e-2]}",
        "  ranker.dropout: {float: [0, 0.5]}",
    ]
    return "\n".join(lines) + "\n"


def _sampler(items: int) -> str:
    if items <= EXACT:
        return (
            f"sampler: {{pool: all}}          # {items:,} items: the softmax over all of them is affordable up to "
            f"{EXACT:,}"
        )
    return f"sampler: {{pool: 4096}}         # {items:,} items: a softmax over all of them is costly beyond {EXACT:,}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _examples(values: pl.Series) -> str:
    """Up to three values, on one line."""
    some = values.drop_nulls().unique(maintain_order=True).head(3).to_list()
    shown = (re.sub(r"\s+", " ", each)[:24] for each in some)
    return ", ".join("".join(each if each.isprintable() else "?" for each in text) for text in shown) or "nothing"


def _scalar(text: str) -> str:
    """A text as YAML writes it within a line."""
    style = None if text.isprintable() else '"'
    written = yaml.safe_dump(text, allow_unicode=True, width=10**6, default_style=style)
    return str(written).strip().removesuffix("...").strip()
