"""One search by several processes: Keras Tuner's chief, and workers that train."""

import socket
import subprocess
import sys
import textwrap

import polars as pl
import pytest
import yaml

from tests.conftest import write_project
from tfcorr.tuning.tuner import ENVIRONMENT

# What each process runs: a search of which the trials are made up. Nobody waits as long as Keras Tuner would.
SCRIPT = textwrap.dedent("""
    import os, sys, time
    import polars as pl
    from keras_tuner.src.distribute import oracle_chief
    from tfcorr.config import load_settings, save_settings
    from tfcorr.tuning import search, tuner

    def train(job):
        settings = load_settings(job.pipeline, job.overrides, job.name)
        job.folder.mkdir()  # an error if another worker has this trial too
        save_settings(settings, job.folder / "settings.yaml")
        (job.folder / "worker").write_text(os.environ.get("KERASTUNER_TUNER_ID", "alone"))
        pl.DataFrame({"stage": ["joint"], "seconds": [1.0], "cascade_ndcg@20": [settings.ranker.dim / 100]}).write_csv(
            job.folder / "history.csv"
        )
        time.sleep(1)

    tuner.train_apart = train
    sleep = time.sleep
    oracle_chief.time = type("Time", (), {"sleep": staticmethod(lambda seconds: sleep(min(seconds, 0.3)))})
    found = search("walks.yaml", int(sys.argv[1]), "random")
    assert (found is None) == (os.environ.get("KERASTUNER_TUNER_ID", "chief") != "chief")
""")


def test_two_workers_share_a_search(tmp_path):
    path = write_project(tmp_path)
    path.write_text(path.read_text() + yaml.safe_dump({"search": {"ranker.dim": {"int": [1, 90]}}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = {}
    for name in ("chief", "one", "two"):
        environment = dict(zip(ENVIRONMENT, (name, "127.0.0.1", port), strict=True))
        processes[name] = subprocess.Popen(
            ["env", *(f"{key}={value}" for key, value in environment.items()), sys.executable, "-c", SCRIPT, "6"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        for name, process in processes.items():
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, f"{name}: {output}"
    finally:
        for process in processes.values():
            process.kill()
    folder = tmp_path / "saved_models" / "walks-search"
    trials = pl.read_csv(folder / "trials.csv")
    assert trials.height == 6
    assert trials["cascade_ndcg@20"].to_list() == pytest.approx([dim / 100 for dim in trials["ranker.dim"]])
    assert {(folder / name / "worker").read_text() for name in trials["trial"]} == {"one", "two"}
    assert yaml.safe_load((folder / "best.yaml").read_text())["ranker"]["dim"] == trials["ranker.dim"].max()
    alone = subprocess.run(
        [sys.executable, "-c", SCRIPT, "7"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "going on after 6 trials" in alone.stdout
    names = pl.read_csv(folder / "trials.csv")["trial"].to_list()
    assert [name for name in names if (folder / name / "worker").read_text() == "alone"] == ["trial-06"]
