"""What is installed is all of it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_holds_every_module_the_page_and_the_licence(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "tfcorr", source / "tfcorr", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", source]
    subprocess.run(command, check=True, cwd=tmp_path)
    with zipfile.ZipFile(next((tmp_path / "wheels").glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    expected = {str(path.relative_to(ROOT)) for kind in ("*.py", "*.html", "py.typed") for path in (ROOT / "tfcorr").rglob(kind)}
    assert expected <= held
    assert any(name.endswith("LICENSE") for name in held)
