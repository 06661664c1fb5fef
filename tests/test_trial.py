"""One trial of a search in a process of its own."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from statistics import median

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FPMC, LIGHT
from tfcorr import runs, trial
from tfcorr.config import load_settings
from tfcorr.files import locked
from tfcorr.settings import InputError
from tfcorr.trial import GRACE, Job, curve_of, is_poor, train_apart

curves = st.lists(st.floats(0, 1), max_size=8)


@given(curves, st.lists(curves, max_size=8))
def test_a_trial_is_poor_if_most_others_were_better_by_the_same_epoch(curve, others):
    poor = is_poor(curve, others)
    others = [other for other in others if other]
    if len(curve) < GRACE or len(others) < GRACE:
        assert not poor
    else:
        better = sum(max(other[: len(curve)]) > max(curve) for other in others)
        assert not poor or 2 * better >= len(others)
        assert poor or 2 * better <= len(others)


@given(curves, st.lists(curves, min_size=1, max_size=8))
def test_a_trial_that_rises_above_the_median_is_not_poor(curve, others):
    begun = [max(other) for other in others if other]
    assert not is_poor([*curve, median(begun or [0])], others)


def test_a_curve_is_that_of_one_stage(tmp_path):
    assert curve_of(tmp_path, "retriever_ndcg@20", "ranker") == []
    rows = [("retriever", 0.1, None), ("retriever", 0.2, None), ("ranker", 0.3, 0.5), ("ranker", 0.3, 0.6)]
    pl.DataFrame(rows, ["stage", "retriever_ndcg@20", "cascade_ndcg@20"], orient="row").write_csv(
        tmp_path / "history.csv"
    )
    assert curve_of(tmp_path, "retriever_ndcg@20", "ranker") == [0.3, 0.3]
    assert curve_of(tmp_path, "retriever_ndcg@20", "retriever") == [0.1, 0.2]
    assert curve_of(tmp_path, "cascade_ndcg@20", "ranker") == [0.5, 0.6]
    assert curve_of(tmp_path, "cascade_ndcg@20", "retriever") == []
    assert curve_of(tmp_path, "middle_1_ndcg@20", "ranker") == []
    (tmp_path / "history.csv").write_text("")
    assert curve_of(tmp_path, "cascade_ndcg@20", "ranker") == []


@pytest.fixture
def job(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.parent)
    return Job(
        str(project),
        ["training.epochs=5", FPMC, LIGHT],
        str(tmp_path),
        "trial-7",
        "cascade_ndcg@20",
        stops=True,
        towers=[],
    )


def test_a_trial_is_a_run_that_ends_as_soon_as_it_is_a_poor_one(job, tmp_path, monkeypatch):
    for number in range(GRACE):
        (tmp_path / f"trial-{number}").mkdir()
        pl.DataFrame({"stage": ["joint"] * 5, "cascade_ndcg@20": [0.99] * 5}).write_csv(
            tmp_path / f"trial-{number}" / "history.csv"
        )
    train_apart(job)
    assert len(curve_of(job.folder, "cascade_ndcg@20", "joint")) == GRACE
    assert load_settings(job.folder / "settings.yaml") == load_settings(job.pipeline, job.overrides, "trial-7")
    assert f"joint epoch {GRACE}" in (tmp_path / "trial-7.log").read_text()
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("it was trained once more"))
    trial._train(job)  # as after a kill before the search could say that it has ended


def test_a_trial_knows_the_towers_that_stand_in_files_of_the_users(job, tmp_path):
    (tmp_path / "shared.py").write_text("NAME = 'mine'\n")
    (tmp_path / "mine.py").write_text(
        "import tfcorr, shared\ntfcorr.RETRIEVERS[shared.NAME] = tfcorr.RETRIEVERS['mf']\n"
    )
    with pytest.raises(InputError, match="there is no 'minr'; did you mean 'mine'"):
        train_apart(replace(job, towers=[str(tmp_path / "mine.py")], overrides=["retriever={name: minr}"]))


def test_a_mistake_in_a_trial_is_told_in_its_own_words(job):
    with pytest.raises(InputError, match=r"missing.csv: there is no such file"):
        trial._train(replace(job, overrides=["data={path: missing.csv}"]))
    assert not job.folder.exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -KILL $$", "ended by SIGKILL, as where memory runs out"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("echo Traceback >&2; echo 'RuntimeError: broken' >&2; exit 1", "RuntimeError: broken"),
        ("exit 3", "ended with exit code 3"),
    ],
)
def test_a_crash_is_told_by_how_it_came(job, tmp_path, monkeypatch, script, message):
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(InputError) as raised:
        train_apart(job)
    assert str(raised.value) == message


def test_an_interrupted_trial_interrupts_its_search(job, tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nkill -INT $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(KeyboardInterrupt):
        train_apart(job)


def test_a_trial_ends_with_the_process_that_began_it(job, tmp_path):
    with locked(tmp_path / ".trial-7.lock"):  # for which it waits
        process = subprocess.Popen([sys.executable, "-m", "tfcorr.trial"], stdin=subprocess.PIPE)
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        process.stdin.close()
        assert process.wait(20) == 1
    assert not job.folder.exists()
