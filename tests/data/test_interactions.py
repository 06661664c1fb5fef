import datetime
import gzip

import polars as pl
import pytest

from tfcorr.data.interactions import Columns, DataSettings, TitleSettings, read_interactions
from tfcorr.settings import InputError

GOOD = "user_id,item_id,timestamp\nu1,i1,3\nu2,i2,1\nu1,i2,2\n"

HEADER = "user_id,item_id,timestamp\n"
MEND = "; mend the row, or set data.on_bad_rows: skip"
RATED = {"filter": "rating >= 4", "columns": {"rating": "r"}}
EMPTY = "expected a header and one row an interaction"


def settings(path, **others):
    return DataSettings(path=path, **others)


def write(tmp_path, text, name="clicks.csv"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet"])
def test_every_format_reads_the_same(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pl.DataFrame(
            {"user_id": ["u1", "u2", "u1"], "item_id": ["i1", "i2", "i2"], "timestamp": [3, 1, 2]}
        ).write_parquet(path)
    else:
        write(tmp_path, GOOD.replace(",", "\t") if "tsv" in name else GOOD, name)
    frame = read_interactions(settings(path)).collect()
    assert frame.rows() == [("u1", "i1", 3), ("u2", "i2", 1), ("u1", "i2", 2)]
    assert frame.schema == {"user": pl.String, "item": pl.String, "time": pl.Int64}


def test_columns_are_mapped_and_ids_stay_strings(tmp_path):
    path = write(tmp_path, "when,who,what,stars\n1.5,007,00,5\n2.5,7,0,1\n")
    columns = Columns(user="who", item="what", time="when", rating="stars")
    assert read_interactions(settings(path, columns=columns)).collect().rows() == [("007", "00", 1.5), ("7", "0", 2.5)]


def test_integer_ids_and_dates_of_parquet_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": [7], "item_id": [9], "timestamp": [datetime.datetime(2024, 1, 1)]}).write_parquet(path)
    assert read_interactions(settings(path)).collect().rows() == [("7", "9", 1_704_067_200_000_000)]


def test_nanoseconds_keep_their_order_beside_a_row_that_is_skipped(tmp_path):
    path = write(tmp_path, HEADER + "u,a,1700000000000000002\nu,b,1700000000000000001\nu,c,never\n")
    assert read_interactions(settings(path, on_bad_rows="skip")).collect()["time"].to_list() == [
        1700000000000000002,
        1700000000000000001,
    ]


def test_a_byte_order_mark_line_ends_of_windows_and_blank_lines_are_no_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert read_interactions(settings(path)).collect().rows() == [("u1", "i1", 3), ("u2", "i2", 1), ("u1", "i2", 2)]
    path.write_bytes(GOOD.replace("\n", "\n\n").encode())
    assert read_interactions(settings(path)).collect().rows() == [("u1", "i1", 3), ("u2", "i2", 1), ("u1", "i2", 2)]


def test_unusual_characters_do_not_end_a_row(tmp_path):
    path = write(tmp_path, 'user_id,item_id,timestamp,note\nu\u2028v,i\x0bj,1,"x"\nu,j,2,\n')
    assert read_interactions(settings(path)).collect().rows() == [("u\u2028v", "i\x0bj", 1), ("u", "j", 2)]


@pytest.mark.parametrize(
    ("kind", "rule", "kept"),
    [
        (pl.Boolean, "event == True", [1, 3]),
        (pl.Boolean, "event != False", [1, 3]),
        (pl.Boolean, "event == 0", [0]),
        (pl.Float64, "event != 0", [1, 3]),
        (pl.Float64, "event == 1.0", [1, 3]),
        (pl.Int8, "event == '1'", [1, 3]),
        (pl.Float64, "event != 1" + "0" * 45, [0, 1, 3]),
        (pl.Int64, "event != 1" + "0" * 45, [0, 1, 3]),
        (pl.String, "event != 0", [1, 3]),
        (pl.String, "event != 0.0", [1, 3]),
        (pl.Categorical, "event == 1", [1, 3]),
        (pl.Enum(["0", "1"]), "event != buy", [0, 1, 3]),
    ],
)
def test_events_are_compared_as_what_their_column_holds(tmp_path, kind, rule, kept):
    """A row without an event is kept by no filter."""
    values = [0, 1, None, 1]
    texts = kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum)
    event = pl.Series([None if each is None else str(each) for each in values] if texts else values).cast(kind)
    pl.DataFrame({"user_id": list("abcd"), "item_id": ["i"] * 4, "timestamp": range(4), "event": event}).write_parquet(
        tmp_path / "a.parquet"
    )
    found = read_interactions(settings(tmp_path / "a.parquet", columns=Columns(event="event"), filter=rule))
    assert found.collect()["time"].to_list() == kept


@pytest.mark.parametrize(("kind", "holds"), [(pl.Boolean, "true and false"), (pl.Int64, "numbers")])
def test_an_event_that_the_column_cannot_hold_is_told(tmp_path, kind, holds):
    table = {"user_id": ["a"], "item_id": ["i"], "timestamp": [1], "event": pl.Series([1]).cast(kind)}
    pl.DataFrame(table).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=rf"the event column holds {holds}; data.filter is 'event == buy', expected one"
    ):
        read_interactions(settings(tmp_path / "a.parquet", columns=Columns(event="event"), filter="event == buy"))


def test_an_empty_last_column_is_no_ragged_row(tmp_path):
    path = write(tmp_path, "user_id,item_id,timestamp,note\nu,i,1,\nu,j,2,x\n")
    assert read_interactions(settings(path)).collect().height == 2


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("rating >= 4", ["b", "c"]),
        ("rating == 4", ["b"]),
        ("rating < 4.5", ["a", "b"]),
        ("event == click", ["a", "c"]),
        ("event != click", ["b"]),
    ],
)
def test_filters_keep_what_they_say(tmp_path, rule, left):
    path = write(tmp_path, "user_id,item_id,timestamp,stars,kind\nu,a,1,3,click\nu,b,2,4,buy\nu,c,3,5,click\n")
    interactions = read_interactions(settings(path, columns=Columns(rating="stars", event="kind"), filter=rule))
    assert interactions.collect()["item"].to_list() == left
    assert interactions.account == [("read", 3), (f"filtered: not {rule}", len(left) - 3)]


def test_quoted_fields_may_hold_separators_and_line_ends(tmp_path):
    path = write(tmp_path, 'user_id,item_id,timestamp,note\nu1,"a,b",1,"x\ny"\nu2,c,2,\n')
    assert read_interactions(settings(path)).collect().rows() == [("u1", "a,b", 1), ("u2", "c", 2)]


def test_titles_come_from_a_second_file(tmp_path):
    titles = write(tmp_path, "item_id,title\ni1,Toy Story\ni2,\n", "titles.csv")
    assert read_interactions(settings(write(tmp_path, GOOD), titles=TitleSettings(path=titles))).titles == {
        "i1": "Toy Story"
    }


# what is wrong: (the file's name, its content, further settings, the sentence that the user gets after the file's path)
MALFORMED = {
    "missing column": (
        "a.csv",
        "user_id,film_id,timestamp\nu,i,1\n",
        {},
        ": no column 'item_id' for the item; the file has: user_id, film_id, timestamp; set data.columns.item to "
        "the right one",
    ),
    "empty user id": (
        "a.csv",
        HEADER + "u,i,1\n,i,2\n",
        {},
        ", row 3: an empty user id; received user None, item 'i', time '2'" + MEND,
    ),
    "blank item id": (
        "a.csv",
        HEADER + "u,  ,1\n",
        {},
        ", row 2: an empty item id; received user 'u', item '  ', time '1'" + MEND,
    ),
    "time in words": (
        "a.csv",
        HEADER + "u,i,now\n",
        {},
        ", row 2: a time that is no number or date like 2024-05-31 12:30; received user 'u', item 'i', time 'now'"
        + MEND,
    ),
    "no time": (
        "a.csv",
        HEADER + "u,i,1\nu,j,\n",
        {},
        ", row 3: a time that is no number, as most are; received user 'u', item 'j', time None" + MEND,
    ),
    "infinite time": (
        "a.csv",
        HEADER + "u,i,inf\n",
        {},
        ", row 2: a time that is no number or date like 2024-05-31 12:30; received user 'u', item 'i', time 'inf'"
        + MEND,
    ),
    "short row": ("a.csv", HEADER + "u,i,1\nu,i\n", {}, ", row 3: 2 fields, but the header has 3: 'u,i'" + MEND),
    "long row": ("a.csv", HEADER + "u,i,1,9\n", {}, ", row 2: 4 fields, but the header has 3: 'u,i,1,9'" + MEND),
    "long row, gzipped": (
        "a.csv.gz",
        HEADER + "u,i,1,9\n",
        {},
        ", row 2: 4 fields, but the header has 3: 'u,i,1,9'" + MEND,
    ),
    "commas in a TSV": (
        "a.tsv",
        HEADER + "u,i,1\n",
        {},
        ": the header is 'user_id,item_id,timestamp', one column; the name says that fields are separated by '\\t', "
        "but they seem to be by ','; write them by commas in a .csv, by tabs in a .tsv",
    ),
    "a column named twice": (
        "a.csv",
        "user_id,user_id,item_id,timestamp\nu,v,i,1\n",
        {},
        ": the header names user_id twice; every column needs a name of its own",
    ),
    "rating nan": (
        "a.csv",
        "user_id,item_id,timestamp,r\nu,i,1,nan\n",
        RATED,
        ", row 2: a rating that is no number; received user 'u', item 'i', time '1', rating 'nan'" + MEND,
    ),
    "empty file": ("a.csv", "", {}, ": the file is empty; " + EMPTY),
    "blank file": ("a.csv", "\n\n", {}, ": the file is empty; " + EMPTY),
    "header alone": ("a.csv", HEADER, {}, ": the file has no rows; " + EMPTY),
    "unknown kind": (
        "a.xlsx",
        "x",
        {},
        ": unknown kind of file '.xlsx'; expected .csv, .tsv (either may be .gz) or .parquet",
    ),
    "no Parquet inside": ("a.parquet", HEADER, {}, ": cannot be read as PARQUET: "),
    "rating in words": (
        "a.csv",
        "user_id,item_id,timestamp,r\nu,i,1,good\n",
        RATED,
        ", row 2: a rating that is no number; received user 'u', item 'i', time '1', rating 'good'" + MEND,
    ),
    "filter without column": (
        "a.csv",
        HEADER + "u,i,1\n",
        {"filter": "event == buy"},
        ": data.filter 'event == buy' needs data.columns.event, which is not set",
    ),
    "nothing passes the filter": (
        "a.csv",
        "user_id,item_id,timestamp,r\nu,i,1,2\n",
        RATED,
        ": no interaction is left of 1 rows read; see data.filter and data.on_bad_rows",
    ),
}


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("item_id", [["a"]], "the item column holds List(String); expected text or numbers"),
        ("user_id", [b"\xff"], "the user column holds Binary; expected text or numbers"),
        ("timestamp", [datetime.time(12)], "the time column holds Time; expected text or numbers, or dates"),
    ],
)
def test_malformed_types_in_parquet_are_rejected(tmp_path, column, values, sentence):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [1]} | {column: values}).write_parquet(path)
    with pytest.raises(InputError) as caught:
        read_interactions(settings(path))
    assert str(caught.value) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "movielens-100k", "path": "a.csv"}, "source movielens-100k does not use path; leave it out"),
        ({"path": "a.csv", "builder": "movielens"}, "source file does not use builder; leave it out"),
        (
            {"path": "a.csv", "titles": {"pth": "b.csv"}},
            "unknown setting 'titles.pth'; did you mean 'path'?; 'titles.path' is required",
        ),
        (
            {"path": "a.csv", "filter": "rating >= four"},
            "filter: a filter reads 'rating >= 4' or 'event == click' (received: 'rating >= four')",
        ),
    ],
)
def test_malformed_data_settings_are_refused(values, sentence):
    with pytest.raises(InputError) as caught:
        DataSettings.parse(values)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_rejected_with_one_clear_sentence(tmp_path, case):
    name, content, others, sentence = MALFORMED[case]
    path = write(tmp_path, content, name)
    with pytest.raises(InputError) as caught:
        read_interactions(DataSettings.parse({"path": path, **others}))
    print(f"{case}: {caught.value}")  # pytest -rP -k malformed shows them all
    assert str(caught.value).startswith(f"{path}{sentence}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_gzip_or_not_utf8_or_not_there_is_rejected(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(b"\x1f\x8bno gzip after all")
    (tmp_path / "b.csv").write_bytes("user_id,item_id,timestamp\nu,\xe9,1\n".encode("latin-1"))
    whole = gzip.compress(GOOD.encode())
    (tmp_path / "c.csv.gz").write_bytes(whole[: len(whole) // 2])
    for name, reason in {
        "a.csv.gz": "cannot be read as CSV",
        "b.csv": "cannot be read as CSV",
        "c.csv.gz": "cannot be read as CSV",
        "d.csv": "there is no such file",
    }.items():
        with pytest.raises(InputError, match=reason):
            read_interactions(settings(tmp_path / name))


def test_bad_rows_are_skipped_and_counted_when_told_to(tmp_path):
    path = write(tmp_path, "user_id,item_id,timestamp\nu,i,1\n,i,2\nu,i\nu,j,soon\nu,,4\nu,k,5,5\nu,l,6\n")
    interactions = read_interactions(settings(path, on_bad_rows="skip"))
    assert interactions.collect()["item"].to_list() == ["i", "l"]
    assert interactions.account == [
        ("read", 7),
        ("skipped: a ragged row", -2),
        ("skipped: an empty user id", -1),
        ("skipped: an empty item id", -1),
        ("skipped: a time that is no number, as most are", -1),
    ]
