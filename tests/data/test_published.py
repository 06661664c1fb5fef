"""The readers of the publishers' files, each on a small file of that very format."""

import gzip
import json
import zipfile

import polars as pl
import pytest

from tfcorr.data.interactions import DataSettings
from tfcorr.data.sources import load
from tfcorr.settings import InputError

# user, item, day, rating; Ann and Bob each have all three items
ROWS = [
    ("11", "7", 3, 5),
    ("11", "8", 1, 3),
    ("22", "7", 2, 4),
    ("11", "9", 2, 1),
    ("22", "9", 9, 2),
    ("22", "8", 4, 5),
    ("22", "7", 10, 4),
]
HISTORIES = {"11": ["8", "9", "7"], "22": ["7", "8", "9", "7"]}


def gowalla(folder):
    lines = [f"{user}\t2010-10-{day:02}T22:17:43Z\t30.2691\t-97.7494\t{item}\n" for user, item, day, _ in ROWS]
    (folder / "loc-gowalla_totalCheckins.txt.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return folder / "loc-gowalla_totalCheckins.txt.gz"


def taobao(folder):
    lines = [f"{user},{item},2520377,pv,{1511544070 + day}\n" for user, item, day, _ in ROWS]
    (folder / "UserBehavior.csv").write_text("".join(lines) + "22,8,149192,buy,1511572885\n")
    return folder / "UserBehavior.csv"


def amazon_ratings(folder):
    (folder / "ratings_Electronics.csv").write_text(
        "".join(f"{user},{item},{rating}.0,{day}\n" for user, item, day, rating in ROWS)
    )
    return folder / "ratings_Electronics.csv"


def amazon_reviews(folder):
    lines = [
        json.dumps(
            {"reviewerID": user, "asin": item, "reviewText": 'a "b", c', "overall": rating, "unixReviewTime": day}
        )
        for user, item, day, rating in ROWS
    ]
    (folder / "reviews_Electronics_5.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder / "reviews_Electronics_5.json.gz"


def movielens_100k(folder):
    (folder / "u.data").write_text("".join(f"{user}\t{item}\t{rating}\t{day}\n" for user, item, day, rating in ROWS))
    films = ["7|Les Misérables (1995)|01-Jan-1995||http://x|0|1", "8|Two (1996)|||http|1", "9|Three|||"]
    (folder / "u.item").write_bytes("\n".join(films).encode("latin-1"))
    return folder


def movielens_1m(folder):
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        archive.writestr(
            "ml-1m/ratings.dat", "".join(f"{user}::{item}::{rating}::{day}\n" for user, item, day, rating in ROWS)
        )
        films = "7::Les Misérables (1995)::Drama|Musical\n8::Two: the film (1996)::Comedy\n9::Three::War\n"
        archive.writestr("ml-1m/movies.dat", films.encode("latin-1"))
    return folder / "ml-1m.zip"


def movielens_25m(folder):
    (folder / "ml-25m").mkdir()
    ratings = "".join(f"{user},{item},{rating}.0,{day}\n" for user, item, day, rating in ROWS)
    (folder / "ml-25m" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    films = (
        'movieId,title,genres\n7,"Misérables, Les (1995)",Drama|War\n8,Two (1996),Comedy\n9,Three,(no genres listed)\n'
    )
    (folder / "ml-25m" / "movies.csv").write_text(films, encoding="utf-8")
    return folder / "ml-25m"


WRITERS = {
    "gowalla": gowalla,
    "taobao": taobao,
    "amazon-ratings": amazon_ratings,
    "amazon-reviews": amazon_reviews,
    "movielens 100k": movielens_100k,
    "movielens 1m": movielens_1m,
    "movielens 25m": movielens_25m,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_as_published_gives_histories_in_time_order_with_titles_where_there_are_any(tmp_path, kind):
    more = {"filter": "event == pv"} if kind == "taobao" else {}
    dataset = load(DataSettings(source=kind.split()[0], path=WRITERS[kind](tmp_path), min_interactions=1, **more))
    found = {
        user: [dataset.catalogue.ids[item - 1] for item in dataset.histories.items[start:end]]
        for user, start, end in zip(
            dataset.histories.users, dataset.histories.offsets, dataset.histories.offsets[1:], strict=False
        )
    }
    assert found == HISTORIES
    assert (
        "Misérables" in dataset.catalogue.titles[0]
        if kind.startswith("movielens")
        else not any(dataset.catalogue.titles)
    )
    if kind == "taobao":
        assert ("filtered: not event == pv", -1, None, None) in dataset.account


def test_ratings_can_be_filtered(tmp_path):
    settings = DataSettings(source="movielens", path=movielens_1m(tmp_path), min_interactions=1, filter="rating >= 2")
    assert load(settings).account[1] == ("filtered: not rating >= 2", -1, None, None)


@pytest.mark.parametrize(
    ("source", "name", "content", "message"),
    [
        ("gowalla", "x.txt", None, "there is no such file; give data.path: loc-gowalla_totalCheckins.txt"),
        ("gowalla", "x.txt", "", "x.txt: its first row has 1 fields: ''; expected user, time"),
        (
            "gowalla",
            "x.txt",
            "1\tyesterday\t1\t2\t3\n",
            "row 1: a time that is no number or date like 2024-05-31 12:30",
        ),
        (
            "taobao",
            "x.csv",
            "1,2,3,pv,4,5\n",
            "its first row has 6 fields: '1,2,3,pv,4,5'; expected user, item, category, event, time",
        ),
        ("taobao", "x.csv", "1,2,3,pv,4\n1,2,3,pv\n", "row 2: a time that is no number, as most are"),
        ("amazon-reviews", "x.json", "{no json}\n", "amazon-reviews, .*x.json: cannot be read"),
        ("amazon-ratings", "x.csv", "a,b,five,1\n", "row 1: a rating that is no number"),
        (
            "movielens",
            "x.zip",
            "no archive",
            "x.zip: cannot be read: File is not a zip file; expected a MovieLens archive",
        ),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, source, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    more = {"filter": "rating >= 1"} if source == "amazon-ratings" else {}
    with pytest.raises(InputError, match=message):
        load(DataSettings(source=source, path=tmp_path / name, **more))


def test_a_folder_that_holds_no_movielens_is_refused(tmp_path):
    pl.DataFrame({"a": [1]}).write_csv(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"holds no u.data, ratings.dat or ratings.csv; expected a MovieLens archive"):
        load(DataSettings(source="movielens", path=tmp_path))
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    with pytest.raises(InputError, match=r"holds no movies.dat; give the archive, or the folder, as it was published"):
        load(DataSettings(source="movielens", path=tmp_path))
