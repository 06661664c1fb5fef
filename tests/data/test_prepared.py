"""A prepared folder gives back the Dataset that was written, and nothing else is taken for one."""

import json

import polars as pl
import pytest

from tfcorr.data.dataset import prepare
from tfcorr.data.interactions import DataSettings, Interactions
from tfcorr.data.prepared import check_can_hold, read_prepared, write_prepared
from tfcorr.data.sources import load
from tfcorr.settings import InputError


@pytest.fixture
def dataset():
    rows = [(f"u{user}", f"i{(user + step) % 7}", 100 - step) for user in range(12) for step in range(6)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return prepare(Interactions(frame.lazy(), [("read", len(rows))], "test", {"i3": "Three"}), 2)


def test_what_was_written_is_read_back(dataset, tmp_path):
    write_prepared(dataset, tmp_path / "prepared")
    again = load(DataSettings(source="prepared", path=tmp_path / "prepared"))
    assert again.checksum == dataset.checksum
    assert again.account == dataset.account
    assert again.catalogue.titles == dataset.catalogue.titles
    assert again.catalogue.counts.tolist() == dataset.catalogue.counts.tolist()


def test_the_order_of_rows_and_their_files_does_not_matter(dataset, tmp_path):
    folder = tmp_path / "prepared"
    write_prepared(dataset, folder)
    for kind in ("items", "histories"):
        table = pl.read_parquet(folder / f"{kind}.parquet").reverse()
        (folder / f"{kind}.parquet").unlink()
        table[:3].write_parquet(folder / f"{kind}-1-of-2.parquet")
        table[3:].write_parquet(folder / f"{kind}-0-of-2.parquet")
    assert read_prepared(folder).checksum == dataset.checksum


def test_nothing_is_overwritten(dataset, tmp_path):
    write_prepared(dataset, tmp_path / "prepared")
    with pytest.raises(InputError, match="is there already"):
        write_prepared(dataset, tmp_path / "prepared")


def test_features_which_it_has_no_place_for_are_refused():
    check_can_hold(DataSettings(path="clicks.csv"))
    with pytest.raises(InputError, match=r"data\.features: brand: prepared data hold ids, titles and histories alone"):
        check_can_hold(DataSettings(path="clicks.csv", features={"brand": {"of": "item", "kind": "categorical"}}))


def rewrite(name, change):
    def damage(folder):
        change(pl.read_parquet(folder / name)).write_parquet(folder / name)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "prepared.json").unlink(), "holds no prepared.json"),
        (lambda folder: (folder / "prepared.json").write_text("{"), "prepared.json: is not there, or is damaged"),
        (lambda folder: (folder / "prepared.json").write_text(json.dumps({"format": 9})), "is not of format 1"),
        (lambda folder: (folder / "items.parquet").unlink(), r"items\*.parquet: is not there, or is damaged"),
        (
            lambda folder: (folder / "histories.parquet").write_bytes(b"PAR1"),
            r"histories\*.parquet: is not there, or is damaged",
        ),
        (rewrite("items.parquet", lambda table: table[1:]), "does not number its 6 items from 1"),
        (rewrite("items.parquet", lambda table: table[:-1]), "holds item 7, but there are 6 items"),
        (rewrite("items.parquet", lambda table: table.drop("title")), "expected .*title"),
        (rewrite("items.parquet", lambda table: table.with_columns(id=None)), "expected"),
        (rewrite("histories.parquet", lambda table: pl.concat([table, table[:1]])), "holds a user twice"),
        (
            rewrite("histories.parquet", lambda table: table.with_columns(user=pl.lit(None, pl.String))),
            "holds nulls in 'user'",
        ),
        (
            rewrite("histories.parquet", lambda table: table.with_columns(pl.col("items").list.head(3))),
            "nothing is left to train on",
        ),
    ],
)
def test_a_malformed_folder_is_one_clear_sentence(dataset, tmp_path, damage, message):
    write_prepared(dataset, tmp_path / "prepared")
    damage(tmp_path / "prepared")
    with pytest.raises(InputError, match=message):
        read_prepared(tmp_path / "prepared")


def test_settings_that_preparation_used_up_are_refused(tmp_path):
    with pytest.raises(ValueError, match="source prepared does not use min_interactions"):
        DataSettings(source="prepared", path=tmp_path, min_interactions=3)
    with pytest.raises(InputError, match=r"data\.path is required with source: prepared"):
        load(DataSettings(source="prepared"))
