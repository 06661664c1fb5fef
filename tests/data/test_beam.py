"""Beam prepares what `prepare` does: the same rows, counts, titles and account, from several files and over several
rounds."""

import logging
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tfcorr.data.dataset import prepare
from tfcorr.data.interactions import Columns, DataSettings, TitleSettings, read_titles, select
from tfcorr.data.prepared import read_prepared
from tfcorr.data.tables import Table
from tfcorr.settings import InputError

beam = pytest.importorskip("tfcorr.data.beam")
OPTIONS = beam.PipelineOptions(
    ["--runner=FnApiRunner"]
)  # what DirectRunner is where it may load nothing from the network
COLUMNS = Columns(rating="stars", title="name")


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("apache_beam").setLevel(logging.ERROR)


def table(size=900, seed=3):
    """Rows with few distinct times, titles that change, bad rows, and a chain of users and items that rounds take away
    link by link."""
    rng = np.random.default_rng(seed)
    clicks = pl.DataFrame(
        {
            "user_id": [f"ü{user}" for user in rng.integers(0, 40, size)],
            "item_id": [f"{item}" for item in rng.zipf(1.3, size) % 90],
            "timestamp": rng.integers(0, 9, size),
            "stars": rng.integers(1, 6, size),
            "name": [None if n == 0 else f"Name {n}" for n in rng.integers(0, 5, size)],
        }
    )
    links = [(f"chain{n}", f"link{n + step}") for n in range(4) for step in (0, 0, 1)]
    chain = pl.DataFrame(links, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=1, stars=5, name=pl.lit("Link")
    )
    bad = clicks[:4].with_columns(user_id=pl.Series(["", " ", None, "b"]), item_id=pl.Series(["1", "2", None, " "]))
    return pl.concat([clicks[:500], bad, chain, clicks[500:]], how="vertical_relaxed")


def write_parts(rows, folder):
    for number, part in enumerate(rows.iter_slices(350)):
        part.write_parquet(folder / f"part-{number}.parquet", row_group_size=100)
    return folder / "part-*.parquet"


def same(found, expected):
    assert found.account == expected.account
    assert found.catalogue.ids == expected.catalogue.ids
    assert found.catalogue.titles == expected.catalogue.titles
    assert found.catalogue.counts.tolist() == expected.catalogue.counts.tolist()
    assert found.checksum == expected.checksum


def test_several_files_give_what_prepare_makes_of_their_rows(tmp_path, monkeypatch):
    rows, rounds = table(), []
    path = write_parts(rows, tmp_path)
    settings = DataSettings(path=path, columns=COLUMNS, filter="rating >= 2", on_bad_rows="skip", min_interactions=3)
    drop_rare = beam._drop_rare
    monkeypatch.setattr(beam, "_drop_rare", lambda *given: rounds.append(given) or drop_rare(*given))
    account = beam.prepare_by_beam(settings, str(tmp_path / "prepared"), OPTIONS)
    expected = prepare(select(Table(rows.lazy(), 1), settings, "rows"), 3)
    same(read_prepared(tmp_path / "prepared"), expected)
    assert account == expected.account
    filtered = "filtered: not rating >= 2"
    assert [what for what, *_ in account[:4]] == [
        "read",
        "skipped: an empty user id",
        "skipped: an empty item id",
        filtered,
    ]
    assert len(rounds) >= 3
    assert sorted(each.name for each in tmp_path.iterdir() if not each.name.startswith("part-")) == ["prepared"]
    with pytest.raises(InputError, match="prepared: is there already"):
        beam.prepare_by_beam(settings, str(tmp_path / "prepared"), OPTIONS)


def test_the_command_prepares_a_file_with_titles_of_their_own(tmp_path, capsys):
    rows = pl.DataFrame(
        {"user_id": [1, 2] * 12, "item_id": [n % 7 for n in range(24)], "timestamp": [f"{n // 5}.5" for n in range(24)]}
    )
    rows.write_parquet(tmp_path / "clicks.parquet")
    pl.DataFrame({"item_id": [3, 99], "title": ["Three", "Other"]}).write_csv(tmp_path / "titles.csv")
    (tmp_path / "clicks.yaml").write_text(
        f"data: {{path: {tmp_path}/clicks.parquet, titles: {{path: {tmp_path}/titles.csv}}}}"
    )
    beam.main(
        [
            str(tmp_path / "clicks.yaml"),
            str(tmp_path / "out"),
            "--set",
            "data.min_interactions=1",
            "--runner=FnApiRunner",
        ]
    )
    interactions = select(Table(rows.lazy(), 1), DataSettings(path=tmp_path / "clicks.parquet"), "rows")
    titles, _ = read_titles(TitleSettings(path=tmp_path / "titles.csv"), "fail")
    same(read_prepared(tmp_path / "out"), prepare(replace(interactions, titles=titles), 1))
    assert (
        "left: 24 interactions, 2 users, 7 items\nof these without a title: 6 items\nprepared in"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit, match="1"):
        beam.main([str(tmp_path / "clicks.yaml"), str(tmp_path / "out")])
    assert "error: " in capsys.readouterr().err


def damaged(folder):
    (folder / "part-1.parquet").write_bytes(b"PAR1 but no more than that")


@pytest.mark.parametrize(
    ("change", "damage", "message"),
    [
        (
            {},
            None,
            r"part-1.parquet, row 151: an empty user id; received user '', .*mend the row, or set "
            r"data.on_bad_rows: skip",
        ),
        ({}, damaged, r"part-1.parquet: cannot be read as PARQUET"),
        (
            {"on_bad_rows": "skip", "filter": "rating > 5"},
            None,
            r"part-\*.parquet: no interaction is left of 916 rows read",
        ),
        (
            {"on_bad_rows": "skip", "min_interactions": 500},
            None,
            r"part-\*.parquet: nothing is left of 912 interactions",
        ),
    ],
)
def test_a_mistake_in_the_input_is_one_clear_sentence_and_leaves_nothing(tmp_path, change, damage, message):
    path = write_parts(table(), tmp_path)
    if damage:
        damage(tmp_path)
    before = sorted(tmp_path.iterdir())
    settings = DataSettings(**{"path": path, "columns": COLUMNS} | change)
    with pytest.raises(InputError, match=message):
        beam.prepare_by_beam(settings, str(tmp_path / "prepared"), OPTIONS)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "clicks.csv"}, "Beam reads Parquet alone"),
        ({"source": "movielens-100k"}, "Beam reads Parquet alone, but data.source is movielens-100k"),
        ({"path": "nowhere-*.parquet"}, r"nowhere-\*.parquet: there is no such file"),
    ],
)
def test_only_parquet_files_that_are_there_are_read(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        beam.prepare_by_beam(DataSettings(**settings), str(tmp_path / "prepared"), OPTIONS)
