import polars as pl
import pytest

from tfcorr.data.interactions import DataSettings, read_interactions
from tfcorr.data.tables import read_table
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


def test_parts_of_different_columns_are_refused(tmp_path):
    TABLE.write_parquet(tmp_path / "a.parquet")
    TABLE.rename({"item_id": "item"}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be read: .*item"):
        rows(tmp_path)


def test_a_folder_without_parts_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: is a folder without .parquet files"):
        rows(tmp_path)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(TABLE.write_csv().replace("\n", end).encode())
    assert rows(path) == TABLE.rows()


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
