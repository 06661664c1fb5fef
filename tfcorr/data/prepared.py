"""A prepared data set as a folder of Parquet files, which any engine can write and training reads in place of raw
files.

    prepared.json       {"format": 1, "account": [[what, interactions or null, users or null, items or null], …]}
    items*.parquet      number Int32 (1 to N), id String, title String ("" where unknown)
    histories*.parquet  user String, items List(Int32), in time order; the rows in any order

An item's number is the place of its id in their sorted order (by bytes of UTF-8), counted from 1. Whatever wrote it,
the same interactions give the same Dataset, checksum included.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from tfcorr.data.dataset import Account, Dataset, check_trainable
from tfcorr.data.histories import Catalogue, Histories
from tfcorr.data.interactions import DataSettings
from tfcorr.files import read_intact, write_whole
from tfcorr.settings import InputError

FORMAT = 1


def write_prepared(dataset: Dataset, folder: Path) -> None:
    """Writes the folder, whole or not at all. Raises: InputError if there is something at its place."""
    check_absent(folder)
    catalogue, histories = dataset.catalogue, dataset.histories
    items = pl.DataFrame(
        {
            "number": pl.Series(range(1, len(catalogue) + 1), dtype=pl.Int32),
            "id": pl.Series(catalogue.ids, dtype=pl.String),
            "title": pl.Series(catalogue.titles, dtype=pl.String),
        }
    )
    owner = np.repeat(np.arange(len(histories.users)), np.diff(histories.offsets))
    grouped = (
        pl.DataFrame({"owner": owner, "items": histories.items}).group_by("owner", maintain_order=True).agg("items")
    )

    def write(partial: Path) -> None:
        partial.mkdir()
        items.write_parquet(partial / "items.parquet")
        grouped.select(pl.Series("user", histories.users, dtype=pl.String), "items").write_parquet(
            partial / "histories.parquet"
        )
        write_account(partial, dataset.account)

    write_whole(folder, write)


def check_can_hold(settings: DataSettings) -> None:
    """Raises: InputError if the data have what a prepared folder has no place for."""
    if settings.features:
        raise InputError(
            f"data.features: {', '.join(settings.features)}: prepared data hold ids, titles and histories alone; "
            "leave the features out, or train on the file itself"
        )


def check_absent(folder: Path) -> None:
    """Raises: InputError if there is something at the folder's place."""
    if folder.exists():
        raise InputError(f"{folder}: is there already; give a folder that is not, or remove it")


def write_account(folder: Path, account: Account) -> None:
    """Writes prepared.json, without which a folder is no prepared data set: write it last."""
    (folder / "prepared.json").write_text(account_json(account), encoding="utf-8")


def account_json(account: Account) -> str:
    """What prepared.json holds."""
    return json.dumps({"format": FORMAT, "account": account}, indent=1)


def read_prepared(folder: Path) -> Dataset:
    """Reads the folder. Raises: InputError if it is none, of another format, or damaged."""
    about = folder / "prepared.json"
    if not about.is_file():
        raise InputError(f"{folder}: holds no prepared.json; expected a folder that `tfcorr prepare` has written whole")
    told = read_intact(about, lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(told, dict) or told.get("format") != FORMAT or "account" not in told:
        raise InputError(f"{about}: is not of format {FORMAT}; prepare the data anew with this version of tfcorr")
    items = read_intact(folder / "items*.parquet", lambda path: pl.read_parquet(path).sort("number"))
    rows = read_intact(folder / "histories*.parquet", lambda path: pl.read_parquet(path).sort("user"))
    _check(folder, "items*.parquet", items, {"number": pl.Int32, "id": pl.String, "title": pl.String})
    _check(folder, "histories*.parquet", rows, {"user": pl.String, "items": pl.List(pl.Int32)})
    if not (items["number"].to_numpy() == np.arange(1, items.height + 1)).all():
        raise InputError(
            f"{folder}: items*.parquet does not number its {items.height} items from 1; is a file missing, or there "
            "twice?"
        )
    if not rows["user"].is_unique().all():
        raise InputError(f"{folder}: histories*.parquet holds a user twice; a file is there twice")
    lengths, chosen = rows["items"].list.len().to_numpy(), rows["items"].explode(empty_as_null=False).to_numpy()
    unknown = chosen[(chosen < 1) | (chosen > items.height)]
    if unknown.size:
        raise InputError(
            f"{folder}: histories*.parquet holds item {unknown[0]}, but there are {items.height} items; is a file "
            "missing?"
        )
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    histories = Histories(rows["user"].to_list(), chosen, offsets)
    check_trainable(len(histories.training_counts), str(folder))
    return Dataset(
        Catalogue.of(histories, items["id"].to_list(), items["title"].to_list()),
        histories,
        [tuple(row) for row in told["account"]],
    )


def _check(folder: Path, files: str, frame: pl.DataFrame, expected: dict[str, pl.DataType | type[pl.DataType]]) -> None:
    received = dict(frame.schema)
    if received != expected:
        raise InputError(f"{folder}: {files} holds {received}; expected {expected}")
    for name in expected:
        if frame[name].null_count():
            raise InputError(f"{folder}: {files} holds nulls in {name!r}; expected none")
