"""The search with trials that are made up: what a run would leave, without the training."""

import importlib
import itertools
import math
import re
import shutil

import polars as pl
import pytest
import yaml
from rich.console import Console

from tests.conftest import write_project
from tfcorr import cli, tuning
from tfcorr.config import load_settings, save_settings
from tfcorr.files import locked
from tfcorr.settings import InputError
from tfcorr.towers import RETRIEVERS
from tfcorr.tuning import algorithms, figures, search, tuner

SPACE = {"training.ranker.learning_rate": {"log_float": [1e-4, 1.0]}, "retriever.dim": {"choice": [4, 8, 16]}}
quiet = Console(quiet=True)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in tuner.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_project(tmp_path)
    path.write_text(path.read_text() + yaml.safe_dump({"search": SPACE}))
    return path


def quality(settings):
    """Best at a rate of 0.1 and 16 dimensions: 0.9."""
    return (
        0.9 - 0.1 * abs(math.log10(settings.training.ranker.learning_rate) + 1) - 0.01 * (16 - settings.retriever.dim)
    )


@pytest.fixture
def trained(monkeypatch):
    """Stands in for the training of a trial; gives the names of those trained, to which a test may add failures."""
    jobs, names, failing = [], [], {}

    def train(job):
        jobs.append(job)
        names.append(job.name)
        settings = load_settings(job.pipeline, job.overrides, job.name)
        if job.name in failing:
            raise failing[job.name]
        job.folder.mkdir(exist_ok=True)
        save_settings(settings, job.folder / "settings.yaml")
        before = pl.read_csv(job.folder / "history.csv").height if (job.folder / "history.csv").exists() else 0
        rows = [
            ("joint", epoch, 1.0, quality(settings) - 0.1 / epoch, 1 / epoch)
            for epoch in range(1, settings.training.epochs + 1)
        ]
        with (job.folder / "log").open("a") as log:
            log.write(f"{before + 1} to {settings.training.epochs}\n")
        columns = ["stage", "epoch", "seconds", "cascade_ndcg@20", "retriever_ndcg@20"]
        pl.DataFrame(rows, columns, orient="row").write_csv(job.folder / "history.csv")

    train.jobs, train.names, train.failing = jobs, names, failing
    monkeypatch.setattr(tuning, "draw", lambda *_: _[-1].touch())
    monkeypatch.setattr(tuner, "train_apart", train)
    return train


def test_a_search_leaves_a_table_a_picture_and_the_best_settings(pipeline, trained, monkeypatch):
    monkeypatch.setattr(tuning, "draw", figures.draw)
    found = search(pipeline, 6, "random", console=quiet)
    assert found.has_own
    assert found.trials[0].values == {"training.ranker.learning_rate": 0.01, "retriever.dim": 8}
    best = load_settings(found.folder / "best.yaml")
    assert best.name == "walks-best"
    assert max(quality(load_settings(found.folder / each.name / "settings.yaml")) for each in found.trials) == quality(
        best
    )
    assert found.ranked[0].objective == pytest.approx(quality(best) - 0.1 / 3)
    assert best.model_copy(update={"name": "walks"}) == load_settings(
        pipeline, [f"{name}={value}" for name, value in found.ranked[0].values.items()]
    ).model_copy(update={"search": {}})
    table = pl.read_csv(found.folder / "trials.csv")
    assert table["trial"].to_list() == [each.name for each in found.trials] == trained.names
    assert table["cascade_ndcg@20"].to_list() == pytest.approx([each.objective for each in found.trials])
    assert (found.folder / "search.png").read_bytes().startswith(b"\x89PNG")


def test_the_objective_is_that_of_the_epoch_whose_weights_are_kept(pipeline, trained):
    found = search(
        pipeline, 2, "random", "retriever_ndcg@20", console=quiet
    )  # best in the first epoch, the cascade in the third
    assert [each.objective for each in found.trials] == pytest.approx([1 / 3, 1 / 3])


def test_bayes_comes_nearer_to_the_optimum_than_its_first_half(pipeline, trained):
    found = search(pipeline, 10, "bayesian", console=quiet)
    assert found.ranked[0] in found.trials[5:]
    assert found.ranked[0].objective > 0.9 - 0.1 / 3 - 0.02


@pytest.mark.parametrize("algorithm", ["random", "hyperband"])
def test_a_search_goes_on_where_it_was(pipeline, trained, tmp_path, algorithm):
    search(pipeline, 4, algorithm, console=quiet)
    found = search(pipeline, 6, algorithm, console=quiet)
    assert trained.names == [f"trial-{number:02}" for number in range(6)]
    at_once = search(pipeline, 6, algorithm, root=tmp_path / "other", console=quiet)
    assert [each.values for each in at_once.trials] == [each.values for each in found.trials]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("write", [2, 3, 4, 5, 6, 8, 11])
def test_a_search_killed_before_any_of_its_writes_ends_as_if_it_had_not_been(
    pipeline, trained, tmp_path, monkeypatch, write
):
    expected = search(pipeline, 3, "random", root=tmp_path / "other", console=quiet)
    calls, whole = itertools.count(1), algorithms.write_whole

    def stop(path, content):
        if next(calls) == write:
            raise Killed
        whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(algorithms, "write_whole", stop)
        with pytest.raises(Killed):
            search(pipeline, 3, "random", console=quiet)
    found = search(pipeline, 3, "random", console=quiet)
    here = trained.names[3:]
    assert sum(here.count(name) - 1 for name in set(here)) <= 1  # what had ended is not trained again
    assert [(each.name, each.values, each.objective) for each in found.trials] == [
        (each.name, each.values, each.objective) for each in expected.trials
    ]


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(pipeline, trained):
    trained.failing |= {
        "trial-00": InputError("ended by SIGKILL, as where memory runs out"),
        "trial-02": InputError("joint: nan"),
    }
    found = search(pipeline, 4, "bayesian", console=quiet)
    assert [each.message for each in found.trials] == [
        "ended by SIGKILL, as where memory runs out",
        "",
        "joint: nan",
        "",
    ]
    assert [each.objective is None for each in found.trials] == [True, False, True, False]
    assert {each.name for each in found.ranked} == {"trial-01", "trial-03"}
    assert pl.read_csv(found.folder / "trials.csv")["message"].drop_nulls().to_list()[0].startswith("ended by SIGKILL")


def test_where_every_trial_fails_the_first_ones_message_is_the_searchs(pipeline, trained):
    trained.failing |= {f"trial-{number:02}": InputError(f"no memory {number}") for number in range(3)}
    with pytest.raises(InputError, match="every trial failed; the first: no memory 0"):
        search(pipeline, 3, "random", console=quiet)


def test_hyperband_gives_the_better_trials_more_epochs(pipeline, trained):
    found = search(pipeline, 14, "hyperband", overrides=["training.epochs=9"], console=quiet)
    logs = {each.name: (found.folder / each.name / "log").read_text().splitlines() for each in found.trials}
    assert {each.epochs for each in found.trials} == {1, 3, 9}
    for each in found.trials:
        assert logs[each.name][-1].endswith(f"to {each.epochs}")
        assert load_settings(found.folder / each.name / "settings.yaml").training.epochs == each.epochs
    raised = [each for each in found.trials if each.epochs == 3 and len(logs[each.name]) == 2]
    assert raised
    for each in raised:  # a copy of one that had an epoch, gone on with
        assert logs[each.name] == ["1 to 1", "2 to 3"]
        before = [other for other in found.trials if other.values == each.values and other.epochs == 1]
        assert len(before) == 1
        worse = [
            other
            for other in found.trials[: found.trials.index(each)]
            if other.epochs == 1 and other.objective > before[0].objective
        ]
        assert len(worse) < 3  # of nine that had an epoch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"objective": "cascade_ndgc@20"},
            r"no run measures 'cascade_ndgc@20' on validation; did you mean 'cascade_ndcg@20'\?",
        ),
        ({"overrides": ["search={}"]}, "says nothing of what to search; add, for instance"),
        ({"overrides": ["search={name: {choice: [a, b]}}"]}, "search.name: is no setting of a run"),
        (
            {"overrides": ["training.method=two-stage"], "algorithm": "hyperband"},
            "have stages one after another; take bayesian",
        ),
        (
            {"overrides": ["search={training.epochs: {int: [1, 3]}}"], "algorithm": "hyperband"},
            "leave it out of the search",
        ),
        ({"overrides": ["training.distribution=multi-worker"]}, "a search is shared by Keras Tuner's workers instead"),
        ({"trials": 0}, "expected 1 or more, received 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(pipeline, trained, arguments, message):
    with pytest.raises(InputError, match=message):
        search(pipeline, **arguments, console=quiet)
    assert not trained.names


def test_a_search_that_began_otherwise_is_not_gone_on_with(pipeline, trained):
    search(pipeline, 1, "random", console=quiet)
    for arguments, message in (
        ({"algorithm": "bayesian"}, "these differ: algorithm"),
        ({"overrides": ["training.epochs=4"]}, r"these differ: settings\.training\.epochs"),
        (
            {"overrides": ["search={retriever.dim: {choice: [8, 4]}}"]},
            r"these differ: search\..*retriever\.dim\.choice",
        ),
    ):
        with pytest.raises(InputError, match=message):
            search(pipeline, 2, **({"algorithm": "random"} | arguments), console=quiet)
    found = search(pipeline, 1, "bayesian", console=quiet, overwrite=True)
    assert len(found.trials) == 1


def test_towers_of_the_users_own_are_known_by_their_files(pipeline, trained, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("import tfcorr\nclass Mine(tfcorr.RETRIEVERS['mf']): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(RETRIEVERS, "mine", importlib.import_module("mine").Mine)
    search(pipeline, 1, console=quiet)
    assert trained.jobs[0].towers == [str(tmp_path / "mine.py")]
    monkeypatch.setattr(RETRIEVERS["mine"], "__module__", "__typed_in__")
    with pytest.raises(InputError, match="the tower 'mine' is defined in no file"):
        search(pipeline, 2, console=quiet)


def test_a_folder_of_something_else_is_left_alone(pipeline, trained, tmp_path):
    other = tmp_path / "saved_models" / "walks-search"
    other.mkdir(parents=True)
    with pytest.raises(InputError, match="is no search"):
        search(pipeline, 1, console=quiet, overwrite=True)
    assert other.is_dir()


def test_two_processes_do_not_search_in_one_folder(pipeline, trained, tmp_path):
    with (
        locked(tmp_path / "saved_models" / ".walks-search.lock"),
        pytest.raises(InputError, match=r"walks-search.lock: another process holds this lock"),
    ):
        search(pipeline, 1, console=quiet)


def test_half_of_what_a_shared_search_needs_is_refused(pipeline, trained, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(
        InputError,
        match=re.escape("KERASTUNER_ORACLE_IP alone in the environment; a shared search needs KERASTUNER_TUNER_ID"),
    ):
        search(pipeline, 1, console=quiet)


def test_the_command_prints_the_best_first_and_what_to_type_next(pipeline, trained, capsys, monkeypatch):
    monkeypatch.setattr(cli.console, "width", 140)
    trained.failing["trial-01"] = InputError("no memory")
    cli.app(["tune", str(pipeline), "--trials", "4", "--algorithm", "random"], standalone_mode=False)
    printed = capsys.readouterr().out
    rows = re.findall(r"^(0\.\d{4})  (trial-\d\d), 3 epochs(.*)", printed, re.MULTILINE)
    assert {row[1] for row in rows} == {"trial-00", "trial-02", "trial-03"}
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)
    assert [row[1] for row in rows if row[2] == ", the pipeline's own settings"] == ["trial-00"]
    assert all(row[2].startswith((", the", ": retriever.dim")) for row in rows)
    assert "trial-01: failed: no memory" in printed
    assert "1 of 4 trials failed" in printed
    assert "tfcorr train saved_models/walks-search/best.yaml" in printed


def test_an_interrupted_command_says_how_to_go_on(pipeline, trained, capsys):
    trained.failing["trial-00"] = KeyboardInterrupt()
    assert cli.app(["tune", str(pipeline), "--trials", "3"], standalone_mode=False) == 130
    assert "the same command goes on with the search" in capsys.readouterr().out


def test_a_small_space_is_searched_once(pipeline, trained, capsys):
    overrides = ["search={retriever.dim: {choice: [4, 8, 16]}, ranker.recency: {boolean: true}}"]
    found = search(pipeline, 12, "bayesian", overrides=overrides)
    values = [tuple(each.values.values()) for each in found.trials]
    assert len(values) == len(set(values)) <= 6
    assert f"the search ended after {len(values)} trials" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(
        InputError, match=r"begins 9 trials for 9 epochs and .*, 13 in all; the space has only 6 choices; take random"
    ):
        search(
            pipeline,
            14,
            "hyperband",
            overrides=[*overrides, "training.epochs=9"],
            root=pipeline.parent / "other",
            console=quiet,
        )


def test_hyperband_wants_the_trials_of_its_first_bracket(pipeline, trained):
    """By 30 epochs 34 begin with two of them; of 20 none would ever be given more."""
    with pytest.raises(
        InputError, match=r"begins 34 trials for 30 epochs and .*, 52 in all; received 20 trials; raise them, or lower"
    ):
        search(pipeline, 20, "hyperband", overrides=["training.epochs=30"], console=quiet)
    assert not trained.names


def test_a_whole_tower_is_chosen_before_a_setting_of_it(pipeline, trained):
    overrides = ["search={retriever.dim: {choice: [4, 16]}, retriever: {choice: [{name: sasrec}, {name: gru4rec}]}}"]
    found = search(pipeline, 4, "random", overrides=overrides, console=quiet)
    for each in found.trials:
        settings = load_settings(found.folder / each.name / "settings.yaml")
        assert (settings.retriever.dim, settings.retriever.name) == (
            each.values["retriever.dim"],
            each.values["retriever"]["name"],
        )


def test_no_drawn_training_has_stages_for_hyperband(pipeline, trained):
    overrides = ["search={training.method: {choice: [corr, two-stage]}, ranker.dropout: {float: [0, 1]}}"]
    with pytest.raises(InputError, match="have stages one after another"):
        search(pipeline, 2, "hyperband", overrides=overrides, console=quiet)


def test_runs_may_be_removed_when_a_search_has_ended(pipeline, trained):
    found = search(pipeline, 2, "random", console=quiet)
    best = (found.folder / "best.yaml").read_text()
    for each in found.trials:
        shutil.rmtree(found.folder / each.name)
    search(pipeline, 2, "random", console=quiet)
    assert (found.folder / "best.yaml").read_text() == best


@pytest.mark.parametrize("damaged", ["search.yaml", "keras-tuner/oracle.json", "keras-tuner/trial_0/trial.json"])
@pytest.mark.parametrize("content", ["", "[", "{}", None])
def test_a_damaged_search_is_refused_in_one_sentence(pipeline, trained, damaged, content):
    found = search(pipeline, 1, "random", console=quiet)
    path = found.folder / damaged
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    refused = r"is not there, or is damaged|is damaged: .*; begin anew with --overwrite|is no search|began otherwise"
    with pytest.raises(InputError, match=refused):
        search(pipeline, 2, "random", console=quiet)
