"""A run that is killed goes on, and ends where one that was left alone ends."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from rich.console import Console

from tests.conftest import FPMC, LIGHT, write_project
from tfcorr import runs
from tfcorr.config import load_settings

quiet = Console(quiet=True)


def weights(run):
    return [variable.numpy() for tower in run.towers.values() for variable in tower.variables]


def tfcorr(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "tfcorr", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_during_epoch(process, history: Path, epoch: int, how: int) -> None:
    """Waits until the epoch before has ended and this one is under way, then sends the signal."""
    deadline = time.monotonic() + 120
    while not (
        history.is_file() and pl.read_csv(history).height >= epoch - 1 and [*history.parent.rglob("last/checkpoint")]
    ):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(how)
    output, _ = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; go on with: tfcorr train" in output


def test_a_killed_run_resumes_and_ends_where_an_uninterrupted_one_ends(tmp_path, monkeypatch):
    """Interrupted in its first stage and killed in its second: same weights, history and ranks as if left alone."""
    pipeline = write_project(tmp_path)
    overrides = [FPMC, LIGHT, "training={method: corr, start: retriever, epochs: 5, patience: 5, batch_size: 8}"]
    monkeypatch.chdir(tmp_path)
    expected = runs.train(load_settings(pipeline, overrides), tmp_path / "left-alone", quiet)
    runs.evaluate(expected)
    command = "train", pipeline, *(word for each in overrides for word in ("--set", each))
    history = tmp_path / "saved_models" / "walks" / "history.csv"
    for how, epoch, more in ((signal.SIGINT, 2, []), (signal.SIGKILL, 8, ["--resume"])):
        kill_during_epoch(tfcorr(*command, *more, cwd=tmp_path), history, epoch, how)
    assert pl.read_csv(history)["stage"][-1] == "joint"
    assert pl.read_csv(history).height < pl.read_csv(expected.folder / "history.csv").height
    resumed = tfcorr(*command, "--resume", cwd=tmp_path)
    output, _ = resumed.communicate()
    assert resumed.returncode == 0, output
    assert "going on after epoch" in output
    found = runs.open_run(tmp_path / "saved_models" / "walks")
    for one, other in zip(weights(expected), weights(found), strict=True):
        np.testing.assert_array_equal(one, other)
    tables = [pl.read_csv(run.folder / "history.csv").drop("seconds") for run in (expected, found)]
    assert tables[0].equals(tables[1])
    assert pl.read_parquet(expected.folder / "ranks.parquet").equals(pl.read_parquet(found.folder / "ranks.parquet"))


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def left_alone(eagerly, tmp_path_factory):
    pipeline = write_project(tmp_path_factory.mktemp("left-alone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipeline.parent)
        return runs.train(
            load_settings(pipeline, [FPMC, LIGHT, "training.batch_size=300"]), pipeline.parent / "saved_models", quiet
        )


@pytest.mark.parametrize("write", range(1, 5))
def test_a_run_killed_between_two_writes_resumes_to_the_same_end(left_alone, tmp_path, monkeypatch, write):
    """Stopped before it writes its best weights, or its state, for the first time or a later one: as if left alone."""
    monkeypatch.chdir(left_alone.folder.parent.parent)
    calls, save = itertools.count(1), tf.train.CheckpointManager.save

    def stop(self, **options):
        if next(calls) == write:
            raise Killed
        return save(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", stop)
        with pytest.raises(Killed):
            runs.train(left_alone.settings, tmp_path, quiet)
    found = runs.train(left_alone.settings, tmp_path, quiet, resume=True)
    for one, other in zip(weights(left_alone), weights(found), strict=True):
        np.testing.assert_array_equal(one, other)
    tables = [pl.read_csv(run.folder / "history.csv").drop("seconds") for run in (left_alone, found)]
    assert tables[0].equals(tables[1])


@pytest.mark.usefixtures("eagerly")
def test_a_run_killed_while_it_writes_its_first_state_begins_with_the_counts_again(tmp_path, monkeypatch):
    pipeline = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = load_settings(pipeline, [FPMC, LIGHT, "training={start: retriever, epochs: 1, batch_size: 300}"])
    expected = runs.train(settings, tmp_path / "left-alone", quiet)

    def stop(self, **_):
        self.checkpoint.write(str(Path(self.directory) / "ckpt-1"))  # and what names it does not stand there yet
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", stop)
        with pytest.raises(Killed):
            runs.train(settings, tmp_path, quiet)
    found = runs.train(settings, tmp_path, quiet, resume=True)
    for one, other in zip(weights(expected), weights(found), strict=True):
        np.testing.assert_array_equal(one, other)
