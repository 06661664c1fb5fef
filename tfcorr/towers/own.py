"""Towers of a user's own: the files that register them, for processes that must know them too."""

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from tfcorr.settings import InputError
from tfcorr.towers import RANKERS, RETRIEVERS


def own_files() -> list[str]:
    """The files that register towers which are not tfcorr's own. Raises: InputError if one stands in no file."""
    files = []
    for name, tower in (RETRIEVERS | RANKERS).items():
        if tower.__module__.partition(".")[0] != "tfcorr":
            file = getattr(sys.modules.get(tower.__module__), "__file__", None)
            if file is None:
                raise InputError(
                    f"the tower {name!r} is defined in no file, from which another process could load it; move it "
                    "to one"
                )
            files.append(os.path.abspath(file))
    return sorted(set(files))


def register_own(files: Sequence[str]) -> None:
    """Runs files that register towers, each with what lies beside it to import."""
    for path in files:
        sys.path.insert(0, str(Path(path).parent))
        runpy.run_path(path)
