"""Columns are guessed by their names, and what is written is a pipeline that loads."""

import datetime

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcorr.config import load_settings, run_name
from tfcorr.data.guess import guess, guess_columns, pipeline_text
from tfcorr.data.sources import load
from tfcorr.settings import InputError
from tfcorr.tuning.space import own_values

MADE = {  # columns of well-known data sets
    "MovieLens": (["userId", "movieId", "rating", "timestamp"], {"user": 0, "item": 1, "rating": 2, "time": 3}),
    "Retailrocket": (
        ["timestamp", "visitorid", "event", "itemid", "transactionid"],
        {"time": 0, "user": 1, "event": 2, "item": 3},
    ),
    "Amazon": (["reviewerID", "asin", "overall", "unixReviewTime"], {"user": 0, "item": 1, "rating": 2, "time": 3}),
    "REES46": (
        ["event_time", "event_type", "product_id", "user_id", "user_session"],
        {"time": 0, "event": 1, "item": 2, "user": 3},
    ),
    "Last.fm": (["user_id", "timestamp", "artist", "track_id", "track_name"], {"user": 0, "time": 1, "item": 3}),
    "H&M": (["t_dat", "customer_id", "article_id", "price"], {"user": 1, "item": 2}),
}


@pytest.mark.parametrize("name", MADE)
def test_columns_of_well_known_tables_are_told(tmp_path, name):
    columns, expected = MADE[name]
    (tmp_path / "a.csv").write_text(",".join(columns) + "\n" + ",".join("1" for _ in columns) + "\n")
    roles = {role: columns[place] for role, place in expected.items()}
    if "time" not in roles:
        with pytest.raises(
            InputError, match=r"cannot tell which column is the time; the file has: .*; say --time COLUMN"
        ):
            guess_columns(tmp_path / "a.csv", {})
        roles["time"] = columns[0]
        assert guess_columns(tmp_path / "a.csv", {"time": columns[0]}) == roles
    else:
        assert guess_columns(tmp_path / "a.csv", {}) == roles


def table(folder, repeats, users=40, length=8, **more):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        items = rng.integers(30, size=length) if repeats else rng.permutation(30)[:length]
        rows += [(f"u: {user}", f"i#{item}", f"2024-01-{day + 1:02} 10:00") for day, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user", "product", "date"], orient="row").with_columns(**more)
    frame.write_csv(folder / "my shop.csv")
    return folder / "my shop.csv"


@pytest.mark.parametrize("repeats", [True, False])
def test_what_is_written_loads_and_says_whether_items_come_again(tmp_path, repeats):
    path = table(tmp_path, repeats)
    found = guess(path, {})
    text = pipeline_text(path, found)
    (tmp_path / "shop.yaml").write_text(text)
    settings = load_settings(tmp_path / "shop.yaml")
    assert settings.data.columns.model_dump(exclude_none=True) == {"user": "user", "item": "product", "time": "date"}
    assert settings.evaluation.exclude_seen == (not repeats)
    assert load(settings.data).histories.users[0] == "u: 0"
    assert "# such as u: 0, u: 1, u: 2" in text
    assert f"# {found.interactions:,} interactions of {found.users} users with {found.items} items" in text


@pytest.mark.filterwarnings("ignore")
@hypothesis.settings(deadline=None, max_examples=50)
@given(
    columns=st.lists(st.text(min_size=1, max_size=20), min_size=3, max_size=3, unique=True),
    texts=st.lists(st.text(max_size=30), min_size=3, max_size=3),
    stem=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20),
)
def test_what_is_written_loads_whatever_files_columns_and_ids_are_called(tmp_path_factory, columns, texts, stem):
    """An id may hold anything; what tells them apart stands at both ends, where blanks would not matter."""
    names = dict(zip(("user", "item", "time"), columns, strict=True))
    rows = [(f"{user}{texts[0]}{user}", f"{item}{texts[1]}{item}") for user in range(8) for item in range(6)]
    frame = pl.DataFrame(rows, schema=columns[:2], orient="row").with_columns(pl.lit(7).alias(columns[2]))
    path = tmp_path_factory.mktemp("table") / f"{stem}.parquet"
    frame.write_parquet(path)
    pipeline = path.parent / f"{run_name(stem)}.yaml"
    pipeline.write_text(pipeline_text(path, guess(path, names)), encoding="utf-8")
    loaded = load_settings(pipeline)
    assert load(loaded.data).histories.users == list(dict.fromkeys(frame[columns[0]]))
    assert loaded.data.path == path


def test_a_small_table_asks_for_less(tmp_path):
    path = table(tmp_path, repeats=False, users=12, length=4)
    found = guess(path, {})
    assert found.min_interactions < 5
    assert "with 5 too little would be left" in pipeline_text(path, found)


def test_ratings_and_events_are_shown_as_filters_to_be_chosen(tmp_path):
    path = table(tmp_path, repeats=True, stars=pl.lit(5), action=pl.lit("buy"))
    text = pipeline_text(path, guess(path, {}))
    assert "  # filter: rating >= 4 " in text
    assert "  # filter: event == NAME " in text
    (tmp_path / "shop.yaml").write_text(text.replace("  # filter: rating >= 4", "  filter: rating >= 4"))
    assert load_settings(tmp_path / "shop.yaml").data.filter == "rating >= 4"


def test_what_cannot_be_trained_on_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\nu,i,1\nu,j,2\n")
    with pytest.raises(InputError, match="nothing is left"):
        guess(tmp_path / "a.csv", {})
    with pytest.raises(InputError, match="no column 'who' for the user; the file has: user, item, time"):
        guess(tmp_path / "a.csv", {"user": "who"})


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (["31/12/2023"] * 9, "row 2: a time that is no number or date like 2024-05-31 12:30; received .*31/12/2023"),
        ([datetime.timedelta(1)] * 9, "the time column holds Duration"),
        ([[1, 2]] * 9, "the time column holds List"),
    ],
)
def test_times_that_no_row_has_are_told_as_a_run_tells_them(tmp_path, times, sentence):
    frame = pl.DataFrame({"user": ["u"] * 9, "item": list("abcdefghi"), "time": times})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=sentence.replace("row 2", "row 1")):
        guess(tmp_path / "a.parquet", {})


def test_the_exact_name_is_the_likelier_and_no_column_has_two_parts(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time,Item\nu,i,1,x\n")
    assert guess_columns(tmp_path / "a.csv", {})["item"] == "item"
    with pytest.raises(InputError, match="user, item and time must be three columns; received user, user, time"):
        guess(tmp_path / "a.csv", {"user": "user", "item": "user"})


def test_what_is_written_can_be_searched_from_its_own_values(tmp_path):
    path = table(tmp_path, repeats=True)
    (tmp_path / "shop.yaml").write_text(pipeline_text(path, guess(path, {})))
    settings = load_settings(tmp_path / "shop.yaml")
    own, missing = own_values(settings, lambda more: load_settings(tmp_path / "shop.yaml", more))
    assert own.keys() == settings.search.keys() != set()
    assert missing is None


def test_bad_rows_and_double_clicks_do_not_mislead(tmp_path):
    path = table(tmp_path, repeats=False)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] for _ in range(2)), "u,i", "u,i,then"]) + "\n")
    found = guess(path, {})
    assert (sum(rows for _, rows in found.skipped), found.repeats) == (2, 0)
    text = pipeline_text(path, found)
    lines = text.partition("  on_bad_rows: skip            # fail tells which; left out are\n")[2].splitlines()[:2]
    assert [line.strip() for line in lines] == [
        "# 1: a ragged row",
        "# 1: a time that is no date like 2024-05-31 12:30, as most are",
    ]
    (tmp_path / "shop.yaml").write_text(text)
    assert load(load_settings(tmp_path / "shop.yaml").data).histories.items.size


def test_a_small_catalogues_retriever_selects(tmp_path):
    path = table(tmp_path, repeats=True, users=200, length=8)
    (tmp_path / "shop.yaml").write_text(pipeline_text(path, guess(path, {})))
    assert load_settings(tmp_path / "shop.yaml").evaluation.retrieve == 20  # a quarter of 30, and 20 at least
