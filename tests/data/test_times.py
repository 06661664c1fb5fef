from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcorr.data.guess import guess
from tfcorr.data.interactions import DataSettings, read_interactions
from tfcorr.settings import InputError


def times(path, **more):
    return read_interactions(DataSettings(path=path, **more)).collect()["time"].to_list()


def table(path, values):
    """One row a value, as CSV."""
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"u,i,{value}\n" for value in values))
    return path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02 03:04:05.25", 1704164645.25),
        ("2024-01-02T03:04:05+02:00", 1704157445),
        ("2024-01-02T03:04:05.123456+0200", 1704157445.123456),
        ("2024-01-02 03:04:05+02", 1704157445),
        ("2024-01-02 03:04:05 UTC", 1704164645),
        ("2024-01-02 03:04:05.25 gmt", 1704164645.25),
        ("2024-01-02 03:04 -01:30", 1704170040),
        ("2024-01-02 03:04", 1704164640),
        (" 2024-01-02 ", 1704153600),
    ],
)
def test_times_may_be_dates(tmp_path, text, seconds):
    """By ISO 8601; the seconds are those of Python's datetime."""
    assert times(table(tmp_path / "a.csv", [text])) == [round(seconds * 10**6)]


@settings(deadline=None)
@given(
    moment=st.datetimes(datetime(1678, 1, 2), datetime(2261, 12, 30)),
    hours=st.integers(-12, 14),
    between=st.sampled_from(["T", " ", "t"]),
    form=st.sampled_from(["colon", "digits", "hours"]),
)
def test_a_date_is_the_moment_that_it_tells(tmp_path_factory, moment, hours, between, form):
    moment = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    offset = {"colon": f"{hours:+03d}:00", "digits": f"{hours:+03d}00", "hours": f"{hours:+03d}"}[form]
    text = moment.replace(tzinfo=None).isoformat(sep=between) + offset
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    path = table(tmp_path_factory.mktemp("times") / "a.csv", [text])
    assert times(path) == [since // timedelta(microseconds=1)]


@pytest.mark.parametrize("junk", ["unknown", "0", "", "2024-13-02"])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_most_rows_decide_that_times_are_dates(tmp_path, junk, position):
    values = ["2024-01-02 03:04:05", "2024-01-03", "2024-01-04"]
    values.insert(position, junk)
    path = table(tmp_path / "a.csv", values)
    with pytest.raises(
        InputError, match=rf"row {position + 2}: a time that is no date like 2024-05-31 12:30, as most are; received"
    ):
        times(path)
    assert len(times(path, on_bad_rows="skip")) == 3


def test_most_rows_decide_that_times_are_numbers(tmp_path):
    path = table(tmp_path / "a.csv", ["2024-01-02", "7", " 8 "])
    with pytest.raises(InputError, match="row 2: a time that is no number, as most are; received user 'u', item 'i'"):
        times(path)
    assert times(path, on_bad_rows="skip") == [7, 8]


DATES = pl.Series([date(2024, 1, 2), date(9999, 12, 31), date(1600, 1, 1), None])


@pytest.mark.parametrize("column", [DATES, DATES.cast(pl.Datetime("us")), DATES.cast(pl.Datetime("ms"))])
def test_what_stands_for_no_date_is_named_or_left_out(tmp_path, column):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": "u", "item_id": "i", "timestamp": column}).write_parquet(path)
    with pytest.raises(InputError, match="row 4: an empty time; received"):
        times(path)
    pl.DataFrame({"user_id": "u", "item_id": "i", "timestamp": column[:3]}).write_parquet(path)
    with pytest.raises(InputError, match=r"row 2: a time before 1678 or after 2261; received .*time .9999-12-31"):
        times(path)
    assert times(path, on_bad_rows="skip") == [1704153600 * 10**6]
    texts = table(tmp_path / "a.csv", column[:3].cast(pl.String))
    with pytest.raises(InputError, match="row 3: a time before 1678 or after 2261; received"):
        times(texts)


def test_nanoseconds_are_told_apart(tmp_path):
    path = tmp_path / "a.parquet"
    moments = pl.Series([1, 2, 3]).cast(pl.Datetime("ns"))
    pl.DataFrame({"user_id": "u", "item_id": "i", "timestamp": moments}).write_parquet(path)
    assert times(path) == [1, 2, 3]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+02:00", "Mars/Olympus"])
def test_the_time_zone_of_a_column_does_not_matter(tmp_path, zone):
    path = tmp_path / "a.parquet"
    moments = pa.array([5, None], pa.timestamp("us", tz=zone))
    pq.write_table(pa.table({"user_id": ["u", "u"], "item_id": ["i", "j"], "timestamp": moments}), path)
    with pytest.raises(InputError, match="row 2: an empty time"):
        times(path)
    assert times(path, on_bad_rows="skip") == [5]


FAR = {
    "us": pl.Series([10**15, 2**63 - 1, -(2**63)]).cast(pl.Datetime("us")),
    "zoned": pl.Series([10**15, 2**63 - 1, -(2**63)]).cast(pl.Datetime("us", "Europe/Paris")),
    "ms": pl.Series([10**12, 18448444073709551, 2**62]).cast(pl.Datetime("ms")),
    "days": pl.Series([19_000, 2**31 - 1, -(2**31)], dtype=pl.Int32).cast(pl.Date),
}


@pytest.mark.parametrize("kind", FAR)
def test_a_databases_infinity_is_told_or_skipped_alike_of_every_type(tmp_path, kind):
    """PostgreSQL writes it as the largest number that the type holds, which is no date in Python."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": list("abc"), "item_id": list("xyz"), "timestamp": FAR[kind]}).write_parquet(path)
    with pytest.raises(InputError, match=r"row 2: a time before 1678 or after 2261; received user 'b', .* time '\d+'"):
        read_interactions(DataSettings(path=path))
    found = read_interactions(DataSettings(path=path, on_bad_rows="skip"))
    assert found.collect()["user"].to_list() == ["a"]
    assert found.unit == 1_000_000
    with pytest.raises(InputError, match=r"row 2: a time before 1678|nothing is left"):
        guess(path, {})
