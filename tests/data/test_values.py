"""Ids, categories and numbers mean the same in a table of any type and as values of Python."""

import math
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcorr.data.interactions import DataSettings, read_interactions
from tfcorr.data.values import number_of, numbers_of, text_of, texts, texts_of
from tfcorr.settings import InputError

KINDS = {
    "text": (st.text(" ab1\\N.\t\v\x1c\u2028\u00a0", max_size=5), pl.String),
    "whole": (st.integers(-(2**63), 2**63 - 1), pl.Int64),
    "small": (st.integers(0, 255), pl.UInt8),
    "boolean": (st.booleans(), pl.Boolean),
    "whole floats": (st.integers(-(2**52), 2**52).map(float), pl.Float64),
    "decimals": (
        st.integers(-(10**9), 10**9).map(lambda each: Decimal(each).quantize(Decimal("0.01"))),
        pl.Decimal(20, 2),
    ),
}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_column_means_what_its_values_mean_one_by_one(name, data):
    values, kind = KINDS[name]
    cells = data.draw(st.lists(st.none() | values, max_size=8))
    column = pl.Series("id", cells, dtype=kind)
    assert texts(column, "a.csv").to_list() == [text_of(each) for each in column.to_list()]
    if name not in ("text", "boolean"):
        assert texts(column, "a.csv").to_list() == [None if each is None else str(int(each)) for each in cells]


@given(st.floats(width=64))
@settings(max_examples=100, deadline=None)
def test_a_float_is_the_whole_number_that_it_is_or_no_id(value):
    column = pl.Series("id", [value])
    read = column.to_frame().select(
        value=texts_of(pl.col("id"), pl.Float64()).value, wrong=texts_of(pl.col("id"), pl.Float64()).wrong
    )
    found, wrong = read.row(0)
    if math.isnan(value):
        assert (found, wrong, text_of(value)) == (None, False, None)
    elif math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        assert (found, wrong) == (text_of(value), False) == (str(int(value)), False)
    else:
        assert (found, wrong) == (None, True)
        with pytest.raises(InputError, match="is no id: expected a text or a whole number"):
            text_of(value)


def test_what_python_and_numpy_call_one_value_is_one():
    assert [
        text_of(each) for each in (2, 2.0, np.int32(2), np.float32(2), Decimal("2.00"), " 2 ", b"2", np.str_("2"))
    ] == ["2"] * 8
    assert [text_of(each) for each in (True, np.True_, False)] == ["true", "true", "false"]
    assert [text_of(each) for each in (None, "", "  ", r"\N", float("nan"), np.nan)] == [None] * 6
    assert [text_of(each) for each in ("NULL", "null", " nan ", "None", "<NA>", Decimal("sNaN"))] == [None] * 6
    assert text_of(Decimal("1234567890123456789")) == "1234567890123456789"
    for wrong in (2.5, float("inf"), Decimal("0.1"), ["a"], {}, object(), np.float32(2**24), 10**5000, "\ud800"):
        with pytest.raises(InputError, match="is no id"):
            text_of(wrong)


@given(
    st.lists(
        st.none() | st.floats() | st.integers(-9, 9).map(str) | st.sampled_from(["", " 1.5 ", "x", "1e999", "-inf"]),
        max_size=6,
    )
)
@settings(max_examples=100, deadline=None)
def test_numbers_are_finite_none_or_wrong(cells):
    column = pl.Series(
        "n", [each if each is None or isinstance(each, str) else repr(each) for each in cells], dtype=pl.String
    )
    value, wrong = numbers_of("n", pl.String())
    for cell, number, bad in column.to_frame().select("n", value=value, wrong=wrong).iter_rows():
        text = (cell or "").strip()
        try:
            expected = float(text) if text else math.nan
        except ValueError:
            expected = math.inf
        assert bad == (abs(expected) > float(np.finfo(np.float32).max))
        assert number == (None if bad or math.isnan(expected) else expected)
        try:
            assert number_of(cell) == number
        except InputError:
            assert bad


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pl.Series([1.0, 2.0, float("nan"), None]), ["1", "2"]),
        (pl.Series([True, False, None, None]), ["true", "false"]),
        (pl.Series(["a ", " b", r"\N", " "]), ["a", "b"]),
        (pl.Series([Decimal("1.00"), Decimal("2.00"), None, None]), ["1", "2"]),
        (pl.Series([Decimal(2**62 + 1), Decimal(-(10**30)), None, None]), [str(2**62 + 1), str(-(10**30))]),
        (pl.Series(["a", "b", "NULL", "nan"]), ["a", "b"]),
    ],
)
def test_ids_of_any_type_are_read_as_texts_and_empty_ones_are_told(tmp_path, ids, expected):
    frame = pl.DataFrame({"user_id": ids, "item_id": ids, "timestamp": range(4)})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 3: an empty user id"):
        read_interactions(DataSettings(path=tmp_path / "a.parquet"))
    found = read_interactions(DataSettings(path=tmp_path / "a.parquet", on_bad_rows="skip")).collect()
    assert found["user"].to_list() == found["item"].to_list() == expected


@pytest.mark.parametrize("wrong", [1.5, float("inf"), 1e300])
def test_an_id_that_is_no_whole_number_is_told_with_its_row(tmp_path, wrong):
    frame = pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [1.0, wrong], "timestamp": range(2)})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"row 2: an item id that is no whole number; received user 2.0, item"):
        read_interactions(DataSettings(path=tmp_path / "a.parquet"))
    with pytest.raises(InputError, match=r"a.parquet, row 2: item_id is .*, expected an id: a text or a whole number"):
        texts(frame["item_id"], "a.parquet")
