"""Outputs that appear whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` make a file or folder under a hidden name beside `path`, then moves it there in one step.

    A folder that stands at `path` already is an error of the operating system's; a file is replaced.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(partial)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
