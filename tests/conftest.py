import gc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import tfcorr  # TensorFlow comes after it, and not at all into the process that only hands out the tests

PIPELINE = """
data: {path: clicks.csv, titles: {path: titles.csv}}
history_length: 6
retriever: {name: sasrec, dim: 8}
ranker: {dim: 8, attention: [8, 4], mlp: [8], dropout: 0.3, item_dropout: 0, products: false, inner: false}
sampler: {pool: 20, pool_scope: example, samples: 5}
training:
  epochs: 3
  start: random
  batch_size: 64
  averaging: 0.3
  retriever: {learning_rate: 0.01}
  ranker: {learning_rate: 0.01, decay: 0.9, weight_decay: 0}
evaluation: {retrieve: 25, exclude_seen: true, k: [1, 5, 20], batch_size: 16}
"""
# Settings for tests in which any towers would do: their graphs are soon made.
LIGHT = "ranker={name: deepfm, dim: 8, mlp: [8]}"
FPMC = "retriever={name: fpmc, dim: 8}"

gc.set_threshold(100_000, 50, 100)  # graphs are many objects, of which few are garbage: looking often costs time


@pytest.hookimpl(tryfirst=True)  # before it is read which group a test is of
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By --dist loadgroup the tests of a file share a process, as do those of all files that take the trained run."""
    shared = {item.path for item in items if "trained" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("trained" if item.path in shared else item.location[0]))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)


def write_project(folder: Path) -> Path:
    """A folder with 60 users' walks through 40 items, which mostly go from item i to item i + 1; returns its
    pipeline."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        item = int(rng.integers(40))
        for time in range(int(rng.integers(8, 16))):
            item = (item + 1) % 40 if rng.random() < 0.7 else int(rng.integers(40))
            rows.append((f"u{user}", f"film-{item}", time))
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "clicks.csv")
    titles = pl.DataFrame(
        {"item_id": [f"film-{item}" for item in range(40)], "title": [f"Film No. {item}" for item in range(40)]}
    )
    titles.write_csv(folder / "titles.csv")
    (folder / "walks.yaml").write_text(PIPELINE)
    return folder / "walks.yaml"


@pytest.fixture(scope="module")
def eagerly():
    """Trains without graphs, of which the making takes longer than a few steps of tiny towers; others test the
    graphs."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def trained(project: Path):
    """A run of the cooperation, trained, measured and exported once for all tests; they must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.parent)
        run = tfcorr.train(tfcorr.load_settings(project), project.parent / "saved_models", Console(quiet=True))
        tfcorr.evaluate(run, ranker_alone=True)
        tfcorr.export_run(run)
    return run
