"""docs/add-a-tower.md: the code of the page passes the contract of towers, and goes from a pipeline to a served
list."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_project
from tfcorr import cli
from tfcorr.serving.recommend import Recommender
from tfcorr.towers import RANKERS, RETRIEVERS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-tower.md").read_text()


@pytest.fixture
def files(tmp_path):
    """A folder with every file of the page."""
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(code)
    assert {path.name for path in tmp_path.iterdir()} == {"fading.py", "plain.py"}
    return tmp_path


def test_the_towers_of_the_page_pass_the_contract(files):
    for tower in ("fading", "plain"):
        assert f"    PYTHONPATH=. pytest -p {tower} tests/towers/test_contract.py -k {tower}\n" in PAGE
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "fading",
        "-p",
        "plain",
        "tests/towers/test_contract.py",
        "-k",
        "fading or plain",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(files), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


def test_a_tower_of_the_page_is_trained_and_served_by_the_commands(files, monkeypatch):
    monkeypatch.syspath_prepend(files)
    monkeypatch.chdir(files)
    monkeypatch.setattr(cli.console, "quiet", True)
    write_project(files)
    try:
        importlib.import_module("fading")
        importlib.import_module("plain")
        arguments = [
            "--set",
            "retriever.name=fading",
            "--set",
            "ranker={name: plain, dim: 8}",
            "--set",
            "training.epochs=1",
        ]
        for changed, code in (["retriever.fade=2"], 1), ([], 0):
            monkeypatch.setattr(
                sys, "argv", ["tfcorr", "train", "walks.yaml", *arguments, *(f"--set={each}" for each in changed)]
            )
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert (ended.value.code or 0) == code
    finally:
        RETRIEVERS.pop("fading", None)
        RANKERS.pop("plain", None)
    found = Recommender(files / "saved_models" / "walks").recommend(
        [["film-3"]], k=5
    )  # the SavedModel needs no file of the page
    assert found.height == 5
