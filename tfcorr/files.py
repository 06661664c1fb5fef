"""Outputs that appear whole or not at all, and inputs of ours that may have been damaged since."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from tfcorr.settings import InputError

Content = TypeVar("Content")


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` make a file or folder under a hidden name beside `path`, then moves it there in one step.

    A folder that stands at `path` already is an error of the operating system's; a file is replaced, and where `path`
    is a link, what it leads to.
    """
    path = path.resolve()
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


def remove_whole(folder: Path) -> None:
    """Removes a folder such that it is gone in one step, whatever happens meanwhile; of a link, what it leads to."""
    folder = folder.resolve()
    replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    folder.rename(replaced)
    shutil.rmtree(replaced)


@contextmanager
def locked(path: Path, others_wait: bool = True) -> Iterator[None]:
    """Lets one process at a time do what only one may; the file is made, and stays. Raises: InputError where others do
    not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if others_wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process holds this lock; wait for it to end, or stop it") from None
        yield


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` make a folder as `write_whole` does; one that stands at `path` gives way once the new one is
    whole."""
    path = path.resolve()
    replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")

    def give_way(partial: Path) -> None:
        write(partial)
        if path.exists():
            path.rename(replaced)

    try:
        write_whole(path, give_way)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def read_intact(path: Path, read: Callable[[Path], Content]) -> Content:
    """Reads a file that tfcorr wrote. Raises: InputError if it is not there or damaged."""
    try:
        return read(path)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is not there, or is damaged: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
