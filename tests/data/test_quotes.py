"""Quotes in text files: what was written is read, and a stray one swallows nothing without a word."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcorr.data.interactions import Columns, DataSettings, read_interactions
from tfcorr.settings import InputError

COLUMNS = Columns(title="title")
ROWS = [[f"u{row // 6}", f"i{row % 8}", str(row), "x"] for row in range(24)]


def text_of(rows, separator=",", end="\n", quoting=csv.QUOTE_MINIMAL):
    file = io.StringIO(newline="")
    table = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
    table.writerows([["user_id", "item_id", "timestamp", "title"], *rows])
    return file.getvalue()


def read(path, text, **more):
    path.write_bytes(text.encode())
    return read_interactions(DataSettings(path=path, columns=COLUMNS, **more))


@given(
    titles=st.lists(st.text("ab \"'\n;é", max_size=12), min_size=1, max_size=6),
    separator=st.sampled_from([",", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=60, deadline=None)
def test_what_a_writer_quotes_is_read_as_it_was(tmp_path_factory, titles, separator, end, quoting):
    rows = [[f"u{row}", f"i{row}", str(row), title] for row, title in enumerate(titles)]
    path = tmp_path_factory.mktemp("quotes") / ("a.csv" if separator == "," else "a.tsv")
    found = read(path, text_of(rows, separator, end, quoting))
    assert found.collect().rows() == [(user, item, int(time)) for user, item, time, _ in rows]
    assert found.titles == {item: title for _, item, _, title in rows if title}


@pytest.mark.parametrize("row", [0, 5, 22, 23])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_quote_that_is_never_closed_is_told_with_its_row_and_costs_that_row_alone(tmp_path, row, separator):
    text = text_of(ROWS, separator).splitlines()
    text[1 + row] = text[1 + row].replace(f"{separator}x", f'{separator}"Best of')
    path = tmp_path / ("a.csv" if separator == "," else "a.tsv")
    with pytest.raises(
        InputError, match=rf"row {2 + row}: a quote opens that is never closed: .*Best of'; mend the row"
    ):
        read(path, "\n".join(text))
    found = read(path, "\n".join(text), on_bad_rows="skip")
    assert found.collect()["time"].to_list() == [other for other in range(24) if other != row]
    assert dict(found.account)["skipped: a ragged row"] == -1


@pytest.mark.parametrize(
    ("closing", "sentence"),
    [
        ('x"', "a quoted field holds 6 line breaks between what look like rows: 'u0,i2,2,"),
        ('5" disk', "a quote opens that is not closed by the rules"),
        ('"a, b"', "a quote opens that is not closed by the rules"),
        ('a","b', "a quote opens that is never closed"),
    ],
)
@pytest.mark.parametrize("between", ["", "\n", "u9,i9\n", "\n\n\n"])
def test_rows_between_two_stray_quotes_are_not_taken_for_one_field(tmp_path, closing, sentence, between):
    """Nor where a line between them is blank, or none itself; and only the rows with a stray quote are lost."""
    text = [f"{line}\n" for line in text_of(ROWS).splitlines()]
    text[3], text[9] = text[3].replace(",x", ',"Best of'), text[9].replace(",x", f",{closing}")
    text[5] += between
    sentence = sentence.replace("6", str(6 + between.count("\n")))
    with pytest.raises(InputError, match=rf"row 4: {sentence}"):
        read(tmp_path / "a.csv", "".join(text))
    found = read(tmp_path / "a.csv", "".join(text), on_bad_rows="skip")
    lost = {2, 8} if closing.startswith("a") else {2}
    assert set(found.collect()["time"].to_list()) == set(range(24)) - lost
    assert sum(rows for _, rows in found.account) == 24 - len(lost)
    assert dict(found.account)["read"] == 24 + bool(between.strip())


def test_a_field_may_hold_line_breaks_and_a_ragged_one_is_shown_in_part(tmp_path):
    text = text_of([*ROWS[:3], ["u1", "zz", "9", "one\ntwo, and three\n" + "four " * 50], *ROWS[3:]])
    assert read(tmp_path / "a.csv", text).titles["zz"].startswith("one\ntwo, and three\nfour four")
    with pytest.raises(InputError, match=r"row 5: 5 fields, but the header has 4: 'u1,zz,9,9,one") as caught:
        read(tmp_path / "a.csv", text.replace("u1,zz,9", "u1,zz,9,9"))
    assert len(str(caught.value)) < 300


def test_a_quote_within_a_field_is_a_letter(tmp_path):
    text = text_of(ROWS).replace("u0,i3,3,x", 'u0,i3,3,5" pipe').replace("u0,i4,4,x", 'u0,i4,4,"so ""called"""')
    found = read(tmp_path / "a.csv", text)
    assert found.collect().height == 24
    assert found.titles["i4"] in ('so "called"', "x")


def test_a_field_that_is_too_long_for_one_is_told_with_its_row(tmp_path):
    rows = [*ROWS[:4], ["u1", "i1", "9", '"' + "y" * 200_000], *ROWS[4:]]
    with pytest.raises(InputError, match=r"row 6: a field is longer than 131,072 characters, as after a stray quote"):
        read(tmp_path / "a.csv", text_of(rows))
    assert read(tmp_path / "a.csv", text_of(rows), on_bad_rows="skip").collect().height == 24


def test_a_quote_that_the_header_opens_is_told(tmp_path):
    with pytest.raises(
        InputError, match=r"in the header a quote opens that is not closed on its line: 'user_id,item_id,timesta"
    ):
        read(tmp_path / "a.csv", text_of(ROWS).replace("title", '"title', 1))
