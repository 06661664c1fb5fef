"""Reports of the shared run, of which copies stand in for others."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tfcorr import reports, runs
from tfcorr.config import load_settings, save_settings
from tfcorr.data.batches import evaluation_batches
from tfcorr.data.sources import load
from tfcorr.evaluation.compare import compare
from tfcorr.evaluation.metrics import ndcg
from tfcorr.evaluation.report.history import read_history
from tfcorr.evaluation.report.lists import recommend_users
from tfcorr.evaluation.report.write import write_report
from tfcorr.settings import InputError

ODD = 'a<b>&"$x_1$'
VOID = {"meta", "link", "img", "br"}
ALWAYS = {
    "quality",
    "loss",
    "validation",
    "against-k",
    "against-retrieved",
    "ranks",
    "history-length",
    "popularity",
    "catalogue",
    "negatives",
}


class Parsed(HTMLParser):
    """What a page holds: its tags with their attributes, and its text; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


def copy_of(run, folder):
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("serving", "tensorboard", "last"))
    return folder


def reranked(folder):
    """Gives a run other ranks, so that it differs from the one it is a copy of."""
    path = folder / "ranks.parquet"
    how = {name: value for name, value in pl.read_parquet_metadata(path).items() if not name.startswith("ARROW")}
    table = pl.read_parquet(path)
    table.with_columns((pl.col("cascade") * 2).clip(upper_bound=25)).sample(
        fraction=1, shuffle=True, seed=2
    ).write_parquet(path, metadata=how)


@pytest.fixture(scope="module", autouse=True)
def _in_the_project(project):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.parent)
        yield


@pytest.fixture(scope="module")
def pair(trained, tmp_path_factory):
    """A run, and another of an odd name, other settings and ranks, and one epoch of which little is known."""
    root = tmp_path_factory.mktemp("pair")
    first, second = copy_of(trained, root / "walks"), copy_of(trained, root / ODD)
    reranked(second)
    settings = load_settings(second / "settings.yaml", ["training.patience=77"])
    save_settings(settings, second / "settings.yaml")
    (second / "history.csv").write_text("stage,epoch,loss_ranker,kl,hardness,cascade_ndcg@20\njoint,1,2.5,,0.25,NaN\n")
    return first, second


@pytest.fixture(scope="module")
def page(pair):
    """The page of the pair, written where an earlier report stands."""
    folder = pair[0].parent / "out"
    folder.mkdir()
    (folder / "index.html").write_text('<meta name="generator" content="tfcorr report">')
    (folder / "of-old.png").write_bytes(b"")
    return reports.report(list(pair), folder)


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page.read_text(encoding="utf-8"))


def test_a_page_asks_for_nothing_from_elsewhere(page, parsed):
    linked = [attributes[name] for _, attributes in parsed.tags for name in ("src", "href") if name in attributes]
    assert linked
    for each in linked:
        assert each.startswith(("data:", "#")) or (page.parent / each).is_file()
    assert not re.search(r"https?:|url\(|@import|<script", page.read_text(encoding="utf-8"))
    assert {each for each in linked if each.startswith("#")} <= {f"#{each['id']}" for each in parsed.of("h2")}


def test_every_figure_stands_in_the_page_and_beside_it_and_is_described(page, parsed):
    images = parsed.of("img")
    files = {path.stem: path.read_bytes() for path in page.parent.glob("*.png")}
    assert files.keys() == ALWAYS | {"differences"}
    assert [base64.b64decode(each["src"].removeprefix("data:image/png;base64,")) for each in images] == [
        files[each["href"].removesuffix(".png")] for each in parsed.of("a") if "download" in each
    ]
    for name, each in files.items():
        pixels = np.asarray(Image.open(page.parent / f"{name}.png").convert("L"))
        assert each.startswith(b"\x89PNG")
        assert (pixels < 100).mean() > 0.002, name  # something is drawn
        assert all((edge == 255).all() for edge in (pixels[[0, -1]], pixels[:, [0, -1]])), (
            name
        )  # and nothing cut off at the edge
    assert all(len(each["alt"]) > 40 for each in images)


def test_names_are_text_and_no_markup(parsed):
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert any(ODD in text for text in parsed.text)
    assert f"Report of walks and {ODD}" in parsed.text


def test_the_page_holds_means_differences_and_settings_that_differ(pair, parsed):
    ranks = pl.read_parquet(pair[0] / "ranks.parquet")["cascade"].fill_null(np.iinfo(np.int32).max).to_numpy()
    assert any(text.startswith(f"{ndcg(ranks, 20).mean():.4f} (") for text in parsed.text)
    tested = next(
        each for each in compare([pair[1]], [pair[0]], 20) if (each.stage, each.metric) == ("cascade", "ndcg@20")
    )
    assert f"{tested.difference:+.4f}" in parsed.text
    assert f"{tested.low:+.4f} to {tested.high:+.4f}" in parsed.text
    start = parsed.text.index("These differ:")
    assert {"training.patience", "77"} <= set(parsed.text[start : parsed.text.index("5", start) + 2])
    assert any(f"tfcorr report {pair[0]} '{pair[1]}' --k 20" in text for text in parsed.text)


def test_a_run_by_itself_is_reported_in_its_folder(pair):
    path = reports.report([pair[0]], k=5)
    assert path == pair[0] / "report" / "index.html"
    assert {each.stem for each in path.parent.glob("*.png")} == ALWAYS
    assert not [each.name for each in path.parent.parent.glob(".*")]


def test_lists_are_those_whose_ranks_were_measured(trained):
    """Where its target was not seen before, a user's rank is the place of the target in the list; nothing seen is
    listed."""
    dataset = load(trained.settings.data, trained.features)
    batches = evaluation_batches(dataset.histories, "test", trained.settings.history_length, 16, dataset.features)
    lists = recommend_users(runs.cascade_of(trained), batches.shuffle(9, seed=1), True, 25)
    ranks = pl.read_parquet(trained.folder / "ranks.parquet")
    compared = 0
    for user, (id_, target) in enumerate(ranks.select("user", "target").iter_rows()):
        place = dataset.histories.users.index(id_)
        *past, number = dataset.histories.items[dataset.histories.offsets[place] : dataset.histories.offsets[place + 1]]
        assert dataset.catalogue.ids[number - 1] == target
        for stage in ("retriever", "ranker", "cascade"):
            assert not set(past) & set(lists[stage][user])
        if number not in past:
            for stage in ("retriever", "ranker", "cascade"):
                found = np.flatnonzero(lists[stage][user] == number)
                assert ranks[stage][user] == (found[0] + 1 if len(found) else None)
            compared += 1
    assert compared > 30


def test_history_is_read_by_tower_through_the_stages(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(
        "stage,epoch,loss,log_loss,loss_ranker,kl_middle_1,hardness,retriever_ndcg@20,retriever_recall@500,comment\n"
        "retriever,1,3.5,9.5,,,,0.1,0.9,x\nretriever,2,3.25,,,,,nan,0.95,\njoint,1,,,2.5,0.5,inf,0.2,,\n"
        "ranker,1,1.5,,,,0.75,,,\n"
    )
    found = read_history(path)
    curves = {
        (quantity, of): (*curve.epochs, *curve.values)
        for quantity, each in found.curves.items()
        for of, curve in each.items()
    }
    assert curves == {
        ("loss", "retriever"): (1, 2, 3.5, 3.25),
        ("log_loss", "retriever"): (1, 9.5),
        ("loss", "ranker"): (3, 4, 2.5, 1.5),
        ("kl", "middle_1"): (3, 0.5),
        ("hardness", "ranker"): (4, 0.75),
        ("ndcg@20", "retriever"): (1, 3, 0.1, 0.2),
        ("recall@500", "retriever"): (1, 2, 0.9, 0.95),
    }
    assert found.begins == [3, 4]


def damage(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:40])


def other_targets(folder):
    path = folder / "ranks.parquet"
    how = {"retrieve": "25", "index": "exact", "exclude_seen": "True"}
    pl.read_parquet(path).with_columns(target=pl.lit("film-1")).write_parquet(path, metadata=how)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "ranks.parquet").unlink(),
            r"no ranks.parquet; make it with: tfcorr evaluate .*harmed",
        ),
        (damage("ranks.parquet"), r"ranks.parquet: is not there, or is damaged"),
        (damage("catalogue.parquet"), r"catalogue.parquet: is not there, or is damaged"),
        (damage("provenance.json"), r"provenance.json: is not there, or is damaged"),
        (
            lambda folder: (folder / "history.csv").write_text("nothing\n1\n"),
            r"history.csv: is not there, or is damaged",
        ),
        (other_targets, r"ranks.parquet is of other data than the run's; make it anew with: tfcorr evaluate"),
    ],
)
def test_a_run_that_was_not_measured_or_is_damaged_is_refused(trained, tmp_path, harm, message):
    folder = copy_of(trained, tmp_path / "harmed")
    harm(folder)
    with pytest.raises(InputError, match=message):
        reports.report([folder])
    assert not (folder / "report").exists()


def test_runs_of_other_data_the_same_run_twice_and_too_many_are_refused(pair, tmp_path, trained):
    other = copy_of(trained, tmp_path / "other")
    other_targets(other)
    with pytest.raises(InputError, match=r"has other users or targets than .*; compare runs of the same data"):
        reports.report([pair[0], other])
    with pytest.raises(InputError, match="a run is given twice"):
        reports.report([pair[0], pair[0].parent / "." / "walks"])
    with pytest.raises(InputError, match="7 runs: a report is of 1 to 6"):
        reports.report([Path(str(number)) for number in range(7)])
    with pytest.raises(InputError, match=r"k = 26 is beyond the 25 items"):
        reports.report([pair[0]], tmp_path / "out", k=26)


def test_what_is_no_report_is_never_replaced(pair, tmp_path):
    with pytest.raises(
        InputError, match=r"is no report that could be replaced \(it holds .*\); give another folder by --output"
    ):
        reports.report([pair[0]], pair[1])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is no report that could be replaced; give"):
        reports.report([pair[0]], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("when", ["while it is written", "while it is put in place"])
def test_a_report_that_fails_leaves_the_earlier_one(page, monkeypatch, when):
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    monkeypatch.setattr("tfcorr.evaluation.report.write.charts", lambda *_: [])
    monkeypatch.setattr(
        "tfcorr.evaluation.report.write.page", lambda *_: 1 if when == "while it is written" else "new"
    )  # 1 is no text
    monkeypatch.setattr(Path, "replace", lambda *_: {}["nowhere"])
    with pytest.raises((TypeError, KeyError)):
        write_report([], [], 20, page.parent)
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before
    assert not list(page.parent.parent.glob(".*"))
