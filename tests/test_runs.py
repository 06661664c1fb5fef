import json
import shutil

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from rich.console import Console
from tensorflow.python.summary.summary_iterator import summary_iterator

from tests.conftest import FPMC, LIGHT, write_project
from tfcorr import runs
from tfcorr.config import load_settings
from tfcorr.evaluation.baselines import BASELINES
from tfcorr.evaluation.metrics import summarise
from tfcorr.files import locked
from tfcorr.settings import InputError
from tfcorr.training import Bookkeeper

pytestmark = pytest.mark.usefixtures("eagerly")

quiet = Console(quiet=True)


def weights(run):
    return [variable.numpy() for tower in run.towers.values() for variable in tower.variables]


def test_a_run_keeps_what_it_takes_to_understand_it(trained):
    folder = trained.folder
    assert load_settings(folder / "settings.yaml") == trained.settings
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {"tfcorr", "python", "tensorflow", "scann", "data_sha256"} <= set(provenance)
    history = pl.read_csv(folder / "history.csv")
    assert history["epoch"].to_list() == [1, 2, 3]
    logged = {
        "loss_retriever",
        "loss_ranker",
        "log_loss_retriever",
        "log_loss_ranker",
        "kl",
        "effective_sample_size",
        "target_share",
        "hardness",
    }
    measured = {"retriever_ndcg@20", "retriever_recall@25", "cascade_ndcg@20"}
    assert logged | measured <= set(history.columns)
    assert history["log_loss_retriever"][-1] < history["log_loss_retriever"][0]
    tags = {
        value.tag
        for path in (folder / "tensorboard").rglob("events*")
        for event in summary_iterator(str(path))
        for value in event.summary.value
    }
    assert logged | measured <= tags


@pytest.mark.parametrize(
    "training",
    [
        {"method": "adversarial", "loss": "bce"},
        {"method": "two-stage", "examples": "window", "retriever": "gru4rec", "ranker": "bst", "negatives": "resample"},
        {"method": "corr", "retriever": "caser", "ranker": "dien", "negatives": "ltop", "distillation": "top"},
    ],
    ids=lambda training: training["method"],
)
def test_each_method_trains_other_towers_by_other_strategies(tmp_path, monkeypatch, training):
    """Two epochs of each; what the second began from is in the checkpoint, statistics of batches included."""
    pipeline = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    towers = [
        f"{tower}={{name: {training.pop(tower)}, dim: 8}}" for tower in ("retriever", "ranker") if tower in training
    ]
    sampler = {"pool": 20, "samples": 5} | {
        name: training.pop(name) for name in ("negatives", "distillation") if name in training
    }
    settings = load_settings(
        pipeline,
        [f"training={training | {'epochs': 2, 'batch_size': 200, 'start': 'random'}}", f"sampler={sampler}", *towers],
    )
    run = runs.train(settings, console=quiet)
    estimated = set(pl.read_csv(run.folder / "history.csv").columns)
    # Of draws without a probability it would be no estimate.
    assert bool({"log_loss", "log_loss_ranker"} & estimated) == ("ltop" not in sampler.values())
    measured = runs.evaluate(run).metrics
    opened = runs.open_run(run.folder)
    assert runs.evaluate(opened).metrics == measured
    for one, other in zip(weights(opened), weights(run), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("share", "method"), [(0.0, "corr"), (0.6, "two-stage")])
def test_what_is_kept_is_the_average_over_epochs(tmp_path, monkeypatch, share, method):
    """Of the towers that a stage trains, and with the share 0 their last weights."""
    pipeline = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        pipeline,
        [
            f"training.averaging={share}",
            f"training.method={method}",
            "training.epochs=2",
            "training.batch_size=200",
            FPMC,
            LIGHT,
        ],
    )
    found = []
    average = Bookkeeper._average

    def watched(self, epoch):
        average(self, epoch)
        names = self.stage.trained
        found.append(
            [
                [v.numpy() for name in names for v in towers[name].trainable_variables]
                for towers in (self.stage.trained, self.stage.kept)
            ]
        )

    monkeypatch.setattr(Bookkeeper, "_average", watched)
    runs.train(settings, tmp_path / "saved_models", quiet)
    assert len(found) == {"corr": 2, "two-stage": 4}[method]
    for (first, kept), (second, averaged) in zip(found[::2], found[1::2], strict=True):
        for one, other, start, end in zip(first, second, kept, averaged, strict=True):
            np.testing.assert_array_equal(start, one)
            np.testing.assert_allclose(end, share * one + (1 - share) * other, rtol=1e-5, atol=1e-7)
            assert not np.array_equal(one, other)


def test_an_opened_run_has_the_best_epochs_weights(trained):
    for one, other in zip(weights(runs.open_run(trained.folder)), weights(trained), strict=True):
        np.testing.assert_array_equal(one, other)


def test_metrics_are_those_of_the_ranks_kept(trained):
    measured = runs.evaluate(trained, [1, 5], ranker_alone=True)
    ranks = pl.read_parquet(trained.folder / "ranks.parquet")
    stages = ["retriever", "ranker", "cascade", "ranker_alone"]
    assert [name for name in ranks.columns if name not in BASELINES] == ["user", "target", *stages]
    assert measured.users == ranks.height == 60
    for stage in stages:
        values = ranks[stage].fill_null(2**31 - 1).to_numpy()
        assert {name: measured.metrics[stage][name] for name in summarise(values, [1, 5])} == summarise(values, [1, 5])
    assert measured.metrics["retriever"]["recall@25"] == pytest.approx(ranks["retriever"].is_not_null().mean())
    assert ranks["ranker_alone"].null_count() == 0
    assert ranks["ranker"].null_count() == ranks["retriever"].null_count() > 0


def test_scann_measures_what_the_exact_index_measures_on_a_small_catalogue(trained):
    scann, exact = (runs.evaluate(trained, index=index, ranker_alone=True).metrics for index in ("scann", "exact"))
    assert exact == scann


def test_a_second_run_into_the_same_folder_is_refused_unless_told_otherwise(trained):
    root = trained.folder.parent
    with pytest.raises(
        InputError, match="the run exists; go on with --resume, replace it with --overwrite, or choose another --name"
    ):
        runs.train(trained.settings, root, quiet)
    longer = trained.settings.model_copy(update={"seed": 2})
    with pytest.raises(
        InputError, match="cannot resume with other settings than the run began with; these differ: seed"
    ):
        runs.train(longer, root, quiet, resume=True)


def test_one_process_at_a_time_trains_a_run(trained):
    before = weights(trained)
    with locked(trained.folder.parent / f".{trained.folder.name}.training.lock"):
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="another process holds this lock"):
                runs.train(trained.settings, trained.folder.parent, quiet, **options)
    for one, other in zip(weights(runs.open_run(trained.folder)), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["[old]", "what?", "a*", "back\\slash"])
def test_a_path_that_reads_as_a_pattern_is_refused_before_anything_is_written(trained, tmp_path, name):
    with pytest.raises(InputError, match="a run is not found again where its path has one of"):
        runs.train(trained.settings, tmp_path / name, quiet)
    assert not (tmp_path / name).exists()
    shutil.copytree(trained.folder, tmp_path / name)
    with pytest.raises(InputError, match="take another folder, or cd to it first"):
        runs.open_run(tmp_path / name)


def test_a_run_may_lie_elsewhere_behind_a_link(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.parent)
    settings = load_settings(project, [LIGHT, FPMC, "training.epochs=1"], "linked")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    for number in range(2):
        runs.train(settings, tmp_path, quiet, overwrite=number > 0)
        assert (tmp_path / "linked").is_symlink()
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["run"]
    assert runs.open_run(tmp_path / "linked").settings == settings


def test_overwrite_replaces_a_run(trained, project, tmp_path, monkeypatch):
    shutil.copytree(trained.folder, tmp_path / trained.settings.name)
    monkeypatch.chdir(project.parent)
    settings = load_settings(project, ["training.epochs=1", "training.batch_size=600", FPMC, LIGHT])
    second = runs.train(settings, tmp_path, quiet, overwrite=True)
    assert pl.read_csv(second.folder / "history.csv").height == 1
    assert not (second.folder / "serving").exists()
    assert second.settings.ranker.name == "deepfm"


def test_changed_data_are_noticed(trained, project, tmp_path):
    write_project(tmp_path)
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    settings = (folder / "settings.yaml").read_text()
    (folder / "settings.yaml").write_text(settings.replace(str(project.parent), str(tmp_path)))
    run = runs.open_run(folder)
    assert runs.evaluate(run).users == 60
    with (tmp_path / "clicks.csv").open("a") as file:
        file.write("u1,film-3,99\n")
    with pytest.raises(InputError, match="the data have changed since the run began"):
        runs.evaluate(run)


def test_a_cut_off_beyond_what_is_retrieved_is_refused(trained):
    with pytest.raises(InputError, match="k = 20 is beyond the 9 items that"):
        runs.evaluate(trained, [5, 20], retrieve=9)


def test_what_is_no_run_or_is_damaged_cannot_be_opened(trained, tmp_path):
    with pytest.raises(InputError, match="is no run"):
        runs.open_run(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(trained.folder, damaged)
    (damaged / "catalogue.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"catalogue.parquet: is not there, or is damaged"):
        runs.open_run(damaged)
    shutil.copy(trained.folder / "catalogue.parquet", damaged)
    for part in (damaged / "checkpoints" / "joint" / "best").glob("*.data*"):
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged, or of another run"):
        runs.open_run(damaged)
    shutil.rmtree(damaged / "checkpoints")
    with pytest.raises(
        InputError, match=r"has finished no epoch; go on with: tfcorr train .*settings.yaml --root .* --resume"
    ):
        runs.open_run(damaged)


def test_a_folder_that_is_no_run_is_never_replaced(trained, tmp_path):
    (tmp_path / trained.settings.name).mkdir()
    (tmp_path / trained.settings.name / ".git").touch()
    with pytest.raises(InputError, match="is no run"):
        runs.train(trained.settings, tmp_path, quiet, overwrite=True)
    assert (tmp_path / trained.settings.name / ".git").exists()


def test_training_that_diverges_stops_with_one_clear_sentence(tmp_path, monkeypatch):
    pipeline = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = load_settings(pipeline, ["training.ranker.learning_rate=1e30", "training.batch_size=200", LIGHT])
    with pytest.raises(InputError, match=r"joint, epoch 1: .* became NaN or infinite; lower the learning rates"):
        runs.train(settings, tmp_path / "saved_models", quiet)
    assert not list((tmp_path / "saved_models" / "walks" / "checkpoints").rglob("ckpt*"))


def test_mixed_precision_trains_in_bfloat16_and_keeps_towers_that_compute_in_float32(project, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.chdir(project.parent)

    def one_step(stage, batches, **_):
        before = {
            name: [variable.numpy() for variable in tower.trainable_variables] for name, tower in stage.trained.items()
        }
        logs = stage.model.train_step(next(iter(batches(0, tf.distribute.InputContext()))))
        seen.update(trained=stage.trained, kept=stage.kept, before=before, logs=logs)

    monkeypatch.setattr(runs, "fit", one_step)
    runs.train(load_settings(project, ["training.mixed_precision=true"]), tmp_path, Console(quiet=True))
    for part, dtype in (("trained", "bfloat16"), ("kept", "float32")):
        for tower in seen[part].values():
            assert {layer.compute_dtype for layer in tower.layers} == {dtype}
            assert {variable.dtype for variable in tower.trainable_variables} == {tf.float32}
    assert all(np.isfinite(value) for value in seen["logs"].values())
    for name, before in seen["before"].items():
        assert any(
            not np.array_equal(*each) for each in zip(before, seen["trained"][name].trainable_variables, strict=True)
        ), name
