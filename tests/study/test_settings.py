"""What a study's file may say, and how its parts become a run's settings."""

import re

import pytest

from tfcorr.config import TrainingSettings, load_settings
from tfcorr.data.interactions import DataSettings
from tfcorr.settings import InputError
from tfcorr.study.settings import PLACES, load_study
from tfcorr.towers.sasrec import SASRecSettings


def test_later_parts_override_earlier_ones(path):
    study = load_study(path, ["base.retriever.dropout=0.1", "datasets.walks.retriever.dropout=0.2", "base.seed=7"])
    settings = study.cell("walks", "mf", "fast", 2).settings
    assert (settings.retriever.name, settings.retriever.dim, settings.retriever.dropout) == ("mf", 8, 0.2)
    assert (settings.training.retriever.learning_rate, settings.seed, settings.ranker.name) == (0.01, 2, "deepfm")


def test_a_cell_is_the_same_wherever_its_data_lie(path):
    here = load_study(path).cell("walks", "apart", "slow", 1)
    there = load_study(path, ["datasets.walks.data.path=/elsewhere/clicks.csv"]).cell("walks", "apart", "slow", 1)
    assert here.key == there.key
    assert here.settings != there.settings
    assert here.key == load_study(path).cell("walks", "all items", "slow", 1).key


def test_a_default_that_is_written_out_makes_no_other_cell(path):
    cell = load_study(path).cell("walks", "apart", "slow", 1)
    patience, dropout = TrainingSettings().patience, SASRecSettings().dropout
    overrides = (
        f"base.training.patience={patience}",
        f"systems.apart.settings.retriever.dropout={dropout}",
        "base.sampler.temperature=1",
    )
    for override in overrides:
        assert load_study(path, [override]).cell("walks", "apart", "slow", 1).key == cell.key


def test_no_place_of_data_is_part_of_a_cell():
    places = {f"data.{name}" for name in _paths(DataSettings)} | {
        f"data.{each}.path" for each in ("titles", "items", "users")
    }
    assert set(PLACES) == places


def _paths(settings):
    return [name for name, field in settings.model_fields.items() if "Path" in str(field.annotation)]


def test_what_anchors_share_is_overridden_apart(path):
    study = load_study(path, ["systems.apart.settings.ranker.dim=4"])
    assert study.cell("walks", "apart", "slow", 1).settings.ranker.dim == 4
    assert study.cell("walks", "all items", "slow", 1).settings.ranker.dim == 8


def test_an_override_finds_its_place_however_the_file_names_it(path):
    path.write_text(
        path.read_text().replace("  history_length: 6\n", "  history_length: 6\n  evaluation.batch_size: 8\n")
    )
    assert load_study(path, ["base.evaluation.batch_size=4"]).example("walks").settings.evaluation.batch_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "title: A\nsystems: [a]\ndatasets: {a: {}}",
            'systems: expected a mapping that holds something, received ["a"]',
        ),
        ("title: A\nsystems:\ndatasets: {a: {}}", "systems: expected a mapping that holds something, received null"),
        (
            "title: A\nsystems: {a: {}}\ndatasets: {a: {}}\nsearch: {0.1: {}}",
            "the key 0.1 is no text; write it in quotes",
        ),
        ("title: A\nsystems: {a: {}}\ndatasets: {a: {}}\nsearch: {'0.1': {}}", "search.0.1"),
        ("title: A\nsystems: {a = 1: {}}\ndatasets: {a: {}}", "systems.a = 1"),
        ("title: A\nsystems: {a: {settings: {training: {on: 1}}}}\ndatasets: {a: {}}", "the key true is no text"),
        ("title: A\nbase: &b {x: *b}\nsystems: {a: {}}\ndatasets: {a: {}}", "an anchor stands within itself"),
        ("title: A\nsystems: {a: 3}\ndatasets: {a: {}}", "systems.a: "),
        ("title: A\nlike: small.yaml\nsystems: {a: {}}", "like: small.yaml leads back to it"),
    ],
)
def test_a_file_of_another_shape_is_told(path, text, message):
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        load_study(path)


@pytest.mark.parametrize(
    "override",
    [
        "base.history_length=7",
        "base.data.min_interactions=4",
        "systems.apart.settings.ranker.dim=4",
        "systems.apart.settings.ranker.counts=null",
    ],
)
def test_a_cell_is_another_with_any_other_setting(path, override):
    cell = load_study(path).cell("walks", "apart", "slow", 1)
    assert load_study(path, [override]).cell("walks", "apart", "slow", 1).key != cell.key
    assert load_study(path).cell("walks", "apart", "slow", 2).key != cell.key


def test_a_study_takes_from_another_what_it_does_not_say_and_overrides_hold_for_both(path):
    other = path.parent / "other.yaml"
    other.write_text(
        "like: small.yaml\ntitle: Other\nseeds: [5]\nsystems: {one: {settings: {retriever.name: gru4rec}}}\n"
    )
    study = load_study(other, ["datasets.walks.data.path=there.csv"])
    assert study.settings.name == "other"
    assert study.settings.against is None
    settings = study.cell("walks", "one", "fast", 5).settings
    assert settings.retriever.dim == 8
    assert settings.data.path.name == "there.csv"


def test_a_system_starts_from_the_one_that_it_is_like(path):
    other = path.parent / "other.yaml"
    systems = (
        "one: {like: together, settings: {ranker.dim: 4}}, two: {like: one, settings: {ranker: {mlp: [4]}}}, "
        "together: {like: mf}"
    )
    other.write_text(f"like: small.yaml\ntitle: Other\nsystems: {{{systems}}}\n")
    study = load_study(other)
    assert study.cell("walks", "one", "fast", 1).settings.ranker.dim == 4
    two = study.cell("walks", "two", "fast", 1).settings.ranker
    assert (two.name, two.dim, two.attention, two.mlp) == ("din", 4, (8, 4), (4,))
    assert study.cell("walks", "together", "fast", 1).settings.retriever.name == "mf"
    assert study.settings.systems["together"].stage == "retriever"
    third = path.parent / "third.yaml"
    third.write_text("like: other.yaml\ntitle: Third\nsystems: {three: {like: two, settings: {ranker.dim: 5}}}\n")
    assert load_study(third).cell("walks", "three", "fast", 1).settings.ranker.mlp == (4,)
    assert load_study(third).cell("walks", "three", "fast", 1).settings.ranker.dim == 5
    with pytest.raises(
        InputError, match=r"other.yaml: one: like: there is no 'togethr' before it; did you mean 'together'\?"
    ):
        load_study(other, ["systems.one.like=togethr"])


def test_what_a_system_has_of_another_studys_is_alike_for_all_too(path):
    path.write_text(
        path.read_text().replace("{settings: {ranker: *din}}", "{settings: {ranker: *din, training.epochs: 9}}")
    )
    other = path.parent / "other.yaml"
    other.write_text("like: small.yaml\ntitle: Other\nsystems: {one: {like: together}, two: {like: apart}}\n")
    with pytest.raises(InputError, match=r"systems.one: training.epochs must be the same for all systems"):
        load_study(other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["against=aprt"], "there is no 'aprt'; did you mean 'apart'?"),
        (["only.wlks=[mf]"], "there is no 'wlks'; did you mean 'walks'?"),
        (["only.walks=[mff]"], "there is no 'mff'; did you mean 'mf'?"),
        (["paper.walks.toget=1"], "there is no 'toget'; did you mean 'together'?"),
        (["base.sampler.pol=1"], "walks, mf: unknown setting 'sampler.pol'; did you mean 'pool'?"),
        (["base.retriever=4"], "walks, mf: 'retriever' is a value and has no settings below it"),
        (
            ["systems.mf.stage=middle"],
            "systems.mf.stage: Input should be 'popularity', 'transitions', 'retriever', 'ranker', 'cascade' or "
            "'ranker_alone' (received: 'middle')",
        ),
        (["seeds=[]"], "seeds: "),
        (["search={}"], "search: "),
        (["seeds=[1, 2, 1]"], "seeds: one stands twice in [1, 2, 1]"),
        (["seeds=[true]"], "seeds.0: Input should be a valid integer (received: True)"),
        (["only.walks=[mf, mf]"], "only.walks: one stands twice in ['mf', 'mf']"),
        (
            ["systems.mf.settings.evaluation.retrieve=30"],
            "systems.mf: evaluation.retrieve must be the same for all systems",
        ),
        (["search.slow.seed=3"], "search.slow: seed must be the same for all systems"),
        (["base.evaluation.k=[5]"], "walks, mf: evaluation.k is [5], but the tables are of 20; add it"),
        (["systems.mf.x=3"], "x: a figure over an axis needs the axis' name"),
        (["x=size"], "x: a figure over an axis needs the axis' name, and an x of systems"),
        (["systems.mf.line=one"], "systems.mf: line: 'one' needs the system's place on it, x"),
        (["title="], "title: "),
        (
            ["systems.aprt.stage=cascade"],
            "--set systems.aprt.stage=cascade: systems has no 'aprt'; did you mean 'apart'?",
        ),
        (["search.slw.seed=3"], "--set search.slw.seed=3: search has no 'slw'; did you mean 'slow'?"),
        (["sed=[1]"], "unknown setting 'sed'; did you mean 'seeds'?"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(path, overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_study(path, overrides)


def test_a_study_like_one_that_is_not_there_is_refused(path):
    (path.parent / "other.yaml").write_text("like: nowhere.yaml\ntitle: Other\nsystems: {one: {}}\n")
    with pytest.raises(InputError, match=r"nowhere.yaml: there is no such file"):
        load_study(path.parent / "other.yaml")


def test_a_pipeline_is_no_study_and_a_study_is_no_pipeline(path):
    (path.parent / "run.yaml").write_text("data: {path: clicks.csv}\n")
    with pytest.raises(
        InputError,
        match=r"run.yaml: is no study, as it has no systems; train a single run with: tfcorr train .*run.yaml",
    ):
        load_study(path.parent / "run.yaml")
    with pytest.raises(
        InputError, match=r"small.yaml: is a study of several runs; train it with: tfcorr study .*small.yaml"
    ):
        load_settings(path)


def test_a_study_may_be_like_one_without_a_base(path):
    (path.parent / "bare.yaml").write_text(
        "title: Bare\ndatasets: {walks: {data: {path: clicks.csv}}}\nsystems: {one: {settings: {retriever.dim: 8}}}\n"
    )
    other = path.parent / "other.yaml"
    other.write_text("title: Other\nlike: bare.yaml\nsystems: {two: {like: one}}\n")
    assert load_study(other).cell("walks", "two", "as it is", 1).settings.retriever.dim == 8
