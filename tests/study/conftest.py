"""A small study, and a stand-in for the training of its cells."""

import json

import numpy as np
import pytest

from tests.conftest import write_project
from tfcorr import study
from tfcorr.study import tables

STUDY = """
title: A small study
output: tables
base:
  data: {path: clicks.csv}
  history_length: 6
  retriever: {name: sasrec, dim: 8}
  sampler: {pool: 20, samples: 5}
  training: {epochs: 1, batch_size: 64, start: random}
  evaluation: {retrieve: 25, exclude_seen: true, k: [5, 20], batch_size: 16}
datasets: {walks: {}, other: {data.path: elsewhere.csv}}
only: {other: []}
search:
  slow: {training.retriever.learning_rate: 0.001}
  fast: {training.retriever.learning_rate: 0.01}
seeds: [1, 2]
against: apart
systems:
  mf:
    stage: retriever
    settings: {retriever.name: mf, training.method: two-stage, ranker: {name: deepfm, dim: 1, mlp: [1]}}
  all items:
    stage: ranker_alone
    settings: &apart {training.method: two-stage, ranker: &din {name: din, dim: 8, attention: [8, 4], mlp: [8]}}
  apart: {settings: *apart}
  together: {settings: {ranker: *din}}
paper:
  walks: {together: first}
"""
USERS = 50


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The study's file, in a folder with its data."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    (tmp_path / "small.yaml").write_text(STUDY)
    return tmp_path / "small.yaml"


def result_of(settings, ranker_alone, checksum):
    """What a cell's process would leave: the faster, the better on validation, and together better than apart."""
    rng = np.random.default_rng([settings["seed"], len(settings["training"]["method"])])
    value = settings["training"]["retriever"]["learning_rate"] * (2 if settings["training"]["method"] == "corr" else 1)
    stages = ("retriever", "ranker", "cascade", "ranker_alone")[: 3 + ranker_alone]
    ranks = {stage: rng.integers(1, 25 if value > 0.01 else 30, USERS) for stage in stages}
    metrics = {f"{name}@20": 0.0 for name in ("ndcg", "recall", "mrr")}
    within = {stage: np.where(each <= 20, 1 / np.log2(1.0 + each), 0.0).mean() for stage, each in ranks.items()}
    return {
        "data_sha256": checksum,
        "sizes": {"users": USERS, "items": 40},
        "validation": {"retriever_ndcg@20": value, "cascade_ndcg@20": value},
        "test": {stage: {**metrics, "ndcg@20": within[stage], "recall@25": 0.9} for stage in ranks},
        "ranks": {stage: each.tolist() for stage, each in ranks.items()},
        "epochs": 1,
        "cpu_seconds": 36.0 if settings["retriever"]["name"] == "mf" else 72.0,
        "machine": "a machine",
        "versions": {"tfcorr": "0.1", "tensorflow": "2", "python": "3"},
    }


class Trainer:
    """Stands for `Apart`: notes each cell's settings, and leaves its result; `fail` may raise instead."""

    def __init__(self, checksum):
        self.checksum, self.begun, self.trained, self.fail = checksum, [], [], lambda job: None
        self.under_way = self.most_at_once = 0

    def __call__(self, module, job, log, environment):
        self.begun.append(job["settings"]["retriever"]["name"])
        return Cell(self, job, log)


class Cell:
    """The training of one cell, which has ended as soon as it is asked."""

    def __init__(self, trainer, job, log):
        self.trainer, self.job, self.log = trainer, job, log
        trainer.under_way += 1
        trainer.most_at_once = max(trainer.most_at_once, trainer.under_way)
        self.log.write_text("")

    def has_ended(self, timeout):
        return True

    def end(self):
        pass

    def outcome(self):
        settings, alone = self.job["settings"], self.job["ranker_alone"]
        self.trainer.under_way -= 1
        self.trainer.fail(self.job)
        self.trainer.trained.append(
            (settings["retriever"]["name"], settings["training"]["method"], settings["seed"], alone)
        )
        folder = self.log.with_suffix("")
        folder.mkdir()
        (folder / study.RESULT).write_text(json.dumps(result_of(settings, alone, self.trainer.checksum)))


@pytest.fixture
def trainer(path, monkeypatch):
    """In place of the training."""
    from tfcorr.data.sources import load
    from tfcorr.study.settings import load_study

    found = Trainer(load(load_study(path).example("walks").settings.data).checksum)
    monkeypatch.setattr(study, "Apart", found)
    return found


@pytest.fixture
def undrawn(monkeypatch):
    """Figures that are written without being drawn, which takes longer than all else."""
    monkeypatch.setattr(tables, "draw", lambda study, rows, path: path.write_bytes(b""))
