"""What came of a study's cells: one JSON file, which goes with the tables, from machine to machine."""

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tfcorr.evaluation.metrics import MISSED
from tfcorr.files import read_intact, write_whole
from tfcorr.settings import InputError, Settings
from tfcorr.study.settings import Cell, Tree

TOP = 20  # the greatest cut-off: ranks beyond are not kept
Metrics = dict[str, float]


class Record(Settings):
    """A cell that is done; `failed` says why where there is nothing to measure."""

    key: str
    dataset: str
    settings: Tree
    failed: str | None = None
    data_sha256: str = ""
    sizes: dict[str, int] = Field({}, description="users, items, interactions")
    validation: Metrics = Field({}, description="in the epoch whose weights are kept")
    test: dict[str, Metrics] = Field({}, description="by stage")
    ranks: dict[str, str] = Field({}, description="by stage, as `packed` makes it of every user's rank")
    epochs: int = 0
    cpu_seconds: float = 0.0
    machine: str = ""
    versions: dict[str, str] = Field({}, description="of tfcorr, TensorFlow and Python")


def packed(ranks: npt.NDArray[np.int32]) -> str:
    """Ranks [users] as text: a byte each, 0 where the target is not within the first 20, deflated, in base 64.

    >>> unpacked(packed(np.array([1, 20, 21, MISSED]))).tolist() == [1, 20, MISSED, MISSED]
    True
    """
    within = np.where(ranks <= TOP, ranks, 0).astype(np.uint8)
    return base64.b64encode(zlib.compress(within.tobytes(), 9)).decode()


def unpacked(text: str) -> npt.NDArray[np.int32]:
    """The ranks [users] again, MISSED where they are beyond 20. Raises: ValueError if the text is damaged."""
    try:
        within = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8).astype(np.int32)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return np.where(within > 0, within, MISSED)


class Records:
    """The records by their cells' keys, as they stand in a file."""

    def __init__(self, path: Path) -> None:
        """The file may not be there yet. Raises: InputError if it is damaged."""
        self.path = path
        found = read_intact(path, _read) if path.exists() else []
        self._records = {each.key: each for each in found}

    def of(self, cell: Cell) -> Record | None:
        """What came of a cell, if it is done."""
        return self._records.get(cell.key)

    def all(self) -> Sequence[Record]:
        """All of them, in the order in which they came."""
        return list(self._records.values())

    def add(self, record: Record) -> None:
        """Keeps a record, in place of an earlier one of the same cell; the file is at all times whole."""
        self._records[record.key] = record
        lines = ",\n".join(each.model_dump_json(exclude_defaults=True) for each in self._records.values())
        write_whole(self.path, lambda path: path.write_text(f"[\n{lines}\n]\n", encoding="utf-8"))


def _read(path: Path) -> list[Record]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise InputError("expected a list of cells")
    return [Record.parse(row) for row in rows]
