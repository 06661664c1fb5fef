"""What is built and installed is all of it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGED = {
    str(path.relative_to(ROOT)) for kind in ("*.py", "*.html", "py.typed") for path in (ROOT / "tfcorr").rglob(kind)
}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, made of a copy, as building leaves things behind."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "tfcorr", source / "tfcorr", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], check=True, cwd=source)
    return next((source / "dist").glob("tfcorr-*.tar.gz"))


def test_a_source_distribution_holds_all_that_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert PACKAGED | {"setup.py", "README.md", "LICENSE", "requirements.txt"} <= held


def test_a_wheel_built_from_it_holds_every_module_the_page_and_the_licence(sdist, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, sdist], check=True
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        metadata = wheel.read(next(name for name in held if name.endswith("METADATA"))).decode()
    assert held >= PACKAGED
    assert any(name.endswith("LICENSE") for name in held)
    needed = [
        line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist: ")
    ]
    assert "tensorflow==2.20.0" in needed
    assert not [each for each in needed if each.startswith("pytest")]


def test_what_the_image_is_built_from_is_there():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = {name for line in lines if line[:1] == ["COPY"] for name in line[1:-1]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


def test_what_is_checked_before_a_commit_is_what_the_tests_begin_with():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    assert "test: lint" in (ROOT / "Makefile").read_text()
