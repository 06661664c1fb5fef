import codecs
import csv
import decimal
import gzip
import io
import math

import hypothesis
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcorr.data.interactions import DataSettings, read_interactions
from tfcorr.data.tables import read_table
from tfcorr.data.values import text_of
from tfcorr.settings import InputError

TABLE = pl.DataFrame({"user_id": ["u", "v", "w"], "item_id": ["i", "j", "k"], "timestamp": [1, 2, 3]})


def rows(path):
    return read_interactions(DataSettings(path=path)).collect().rows()


def test_a_folder_of_parquet_parts_is_one_table(tmp_path):
    """As Spark writes one; files that it hides do not count."""
    folder = tmp_path / "clicks.parquet"
    folder.mkdir()
    for number in range(3):
        TABLE[number].write_parquet(folder / f"part-{2 - number}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").write_bytes(b"crc")
    (folder / "_temporary").mkdir()
    TABLE.write_parquet(folder / "_temporary" / "part-9.parquet")
    assert rows(folder) == TABLE.rows()[::-1]


def test_the_names_of_folders_within_are_a_column(tmp_path):
    for user in ("u", "w", "v"):
        part = tmp_path / "clicks" / f"user_id={user}"
        part.mkdir(parents=True)
        TABLE.filter(user_id=user).drop("user_id").write_parquet(part / "part-0.parquet")
    assert rows(tmp_path / "clicks") == TABLE.rows()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame.rename({"item_id": "item"}), "b.parquet: has other columns, .* than a.parquet: .*item"),
        (lambda frame: frame.cast({"timestamp": pl.Int32}), "b.parquet: has other columns, .*: timestamp; write all"),
    ],
)
def test_parts_that_differ_are_refused(tmp_path, change, sentence):
    TABLE.write_parquet(tmp_path / "a.parquet")
    change(TABLE).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=sentence):
        rows(tmp_path)


def test_what_is_in_a_folder_is_read_once_or_named(tmp_path):
    (tmp_path / "a.parquet").mkdir()  # a folder, whose part is no other's
    TABLE[0].write_parquet(tmp_path / "a.parquet" / "x.parquet")
    TABLE[1:].write_parquet(tmp_path / "b.PARQUET")
    assert rows(tmp_path) == TABLE.rows()
    (tmp_path / "c.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"c\.parquet: cannot be read as PARQUET: "):
        rows(tmp_path)
    (tmp_path / "c.parquet").rename(tmp_path / "c.snappy")
    with pytest.raises(InputError, match=r"holds c\.snappy, which is no \.parquet"):
        rows(tmp_path)


def test_a_folders_name_is_a_text_and_hides_no_column(tmp_path):
    for user in ("007", "08"):
        (tmp_path / f"user_id={user}").mkdir()
        TABLE[0].drop("user_id").write_parquet(tmp_path / f"user_id={user}" / "part.parquet")
    assert rows(tmp_path) == [("007", "i", 1), ("08", "i", 1)]
    (tmp_path / "item_id=9").mkdir()
    (tmp_path / "user_id=08").rename(tmp_path / "item_id=9" / "user_id=08")
    with pytest.raises(InputError, match=r"user_id=007/part.parquet does not lie in folders of the same names KEY=VAL"):
        rows(tmp_path)
    (tmp_path / "user_id=007").rename(tmp_path / "item_id=9" / "user_id=007")
    with pytest.raises(InputError, match="item_id is a column of its files and in the names of folders"):
        rows(tmp_path)


def test_a_folder_without_parts_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: is a folder without .parquet files"):
        rows(tmp_path)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(TABLE.write_csv().replace("\n", end).encode())
    assert rows(path) == TABLE.rows()


IDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6)
TEXTS = {".csv": ",", ".tsv": "\t"}


@hypothesis.settings(deadline=None)
@given(
    rows=st.lists(st.tuples(IDS, IDS, st.integers(-(2**62), 2**62), IDS), min_size=1, max_size=8),
    kind=st.sampled_from([*TEXTS]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    is_marked=st.booleans(),
    is_zipped=st.booleans(),
)
def test_a_text_file_is_read_as_it_was_written(tmp_path_factory, rows, kind, end, quoting, is_marked, is_zipped):
    """Whatever its ids, quotes, ends of lines and byte order mark; what has an empty id is left out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=TEXTS[kind], lineterminator=end, quoting=quoting)
    writer.writerows([("user_id", "item_id", "timestamp", "note"), *rows])
    content = text.getvalue().encode("utf-8-sig" if is_marked else "utf-8")
    path = tmp_path_factory.mktemp("table") / f"a{kind}{'.gz' * is_zipped}"
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    expected = [(text_of(user), text_of(item), time) for user, item, time, _ in rows]
    check(path, [row for row in expected if None not in row])


def check(path, expected):
    """The rows that are read are these, and to read none is an error."""
    settings = DataSettings(path=path, on_bad_rows="skip")
    if expected:
        assert read_interactions(settings).collect().rows() == expected
    else:
        with pytest.raises(InputError, match="no interaction is left"):
            read_interactions(settings)


WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)
COLUMNS = st.one_of(
    st.lists(st.none() | IDS, min_size=3, max_size=3),
    st.lists(st.none() | WHOLE, min_size=3, max_size=3),
    st.lists(st.none() | WHOLE.map(float) | st.just(math.nan), min_size=3, max_size=3),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3),
    st.lists(st.none() | WHOLE.map(decimal.Decimal), min_size=3, max_size=3),
)


@hypothesis.settings(deadline=None)
@given(users=COLUMNS, items=COLUMNS)
def test_a_parquet_file_is_read_as_it_was_written(tmp_path_factory, users, items):
    """An id is the same whatever the type of its column, as it is in a request."""
    path = tmp_path_factory.mktemp("table") / "a.parquet"
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": [1, 2, 3]}, strict=False)
    frame.write_parquet(path)
    expected = [(text_of(user), text_of(item), time) for user, item, time in frame.rows()]
    check(path, [row for row in expected if None not in row])


@pytest.mark.parametrize("last", ["", '"x"'])
def test_columns_without_a_name_are_called_after_their_number(tmp_path, last):
    path = tmp_path / "a.csv"
    path.write_text(f"user_id,item_id,timestamp,,\nu,i,1,2,3\nv,j,2,,{last}\n")
    assert read_table(path).frame.collect_schema().names() == [*TABLE.columns, "column 4", "column 5"]
    assert rows(path) == TABLE.rows()[:2]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", ",")])
def test_another_separator_is_told(tmp_path, name, separator):
    path = tmp_path / name
    path.write_text(TABLE.write_csv(separator=separator))
    with pytest.raises(InputError) as caught:
        rows(path)
    assert f"they seem to be by {separator!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# of 2024\n", r"a\.csv, row 2: 3 fields, but the header has"),
        ("sep=,\n", "a.csv: the first line is 'sep=,', a spreadsheet's; take it out"),
        ("sep=;\n", "a.csv: the first line is 'sep=;', a spreadsheet's; take it out"),
    ],
)
def test_rows_that_none_fits_the_header_say_so(tmp_path, content, sentence):
    path = tmp_path / "a.csv"
    path.write_text(content + TABLE.write_csv())
    with pytest.raises(InputError, match=sentence):
        read_table(path, "skip")


def test_lines_before_the_header_may_be_blank_and_marks_of_byte_order_many(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF8 * 2 + b"\n\r\n" + TABLE.write_csv().encode())
    assert rows(path) == TABLE.rows()


def test_lines_may_end_in_several_ways(tmp_path):
    path = tmp_path / "a.csv"
    header, *lines = TABLE.write_csv().splitlines()
    path.write_bytes(f"{header}\r{lines[0]}\r{lines[1]}\n{lines[2]}\r\n".encode())
    assert rows(path) == TABLE.rows()


def test_another_encoding_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(TABLE.write_csv().encode("utf-16"))
    with pytest.raises(InputError, match="the header holds zero bytes, as in UTF-16; write the file as UTF-8"):
        rows(path)
    path.write_bytes(TABLE.write_csv().replace("u,", "é,").encode("latin-1"))
    with pytest.raises(InputError, match=r"cannot be read as CSV: .*; write it as UTF-8"):
        rows(path)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_text_file_may_be_packed_whatever_its_name(tmp_path, name, packed):
    content = TABLE.write_csv().encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert rows(tmp_path / name) == TABLE.rows()


@pytest.mark.parametrize("log", ["_delta_log", ".hoodie"])
def test_a_folder_of_which_a_log_tells_what_counts_is_refused(tmp_path, log):
    TABLE.write_parquet(tmp_path / "part-0.parquet")
    (tmp_path / log).mkdir()
    with pytest.raises(InputError, match=f"holds {log}, by which some of its files no longer count"):
        rows(tmp_path)


def test_parts_whose_columns_differ_in_their_order_alone_are_told(tmp_path):
    TABLE.write_parquet(tmp_path / "part-0.parquet")
    TABLE.select(reversed(TABLE.columns)).write_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(InputError, match=r"part-1.parquet: has its columns in another order than part-0.parquet"):
        rows(tmp_path)
