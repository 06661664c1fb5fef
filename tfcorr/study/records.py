"""What came of a study's cells: one JSON file, which goes with the tables, from machine to machine."""

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

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
    data_sha256: str
    sizes: dict[Literal["users", "items", "interactions"], int]
    validation: Metrics = Field({}, description="in the epoch whose weights are kept")
    test: dict[str, Metrics] = Field({}, description="by stage")
    ranks: dict[str, str] = Field({}, description="by stage, as `packed` makes it of every user's rank")
    epochs: int
    cpu_seconds: float
    shared_cpu_seconds: float = Field(
        0.0, description="of these, what another cell spent on the retriever that both have"
    )
    machine: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.failed is None:
            lacking = [
                name
                for name in ("retriever", "cascade")
                if name not in self.test or f"{name}_ndcg@{TOP}" not in self.validation
            ]
            if lacking or self.test.keys() != self.ranks.keys():
                raise ValueError(f"the cell {self.key} has not all stages: {', '.join(lacking or self.test)}")
            for ranks in self.ranks.values():
                unpacked(ranks)
        return self


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
    except (zlib.error, ValueError) as error:
        raise ValueError(f"ranks are damaged: {error}") from None
    return np.where(within > 0, within, MISSED)


class Records:
    """The records by their cells' keys, as they stand in a file."""

    def __init__(self, path: Path) -> None:
        """The file may not be there yet. Raises: InputError if it is damaged."""
        self.path = path
        try:
            found = read_intact(path, _read) if path.exists() else []
        except InputError as error:
            raise InputError(f"{error}; bring an earlier one back, or remove it to begin anew") from None
        self._records = {each.key: each for each in found}

    def has(self, key: str) -> bool:
        """Whether a cell is done."""
        return key in self._records

    def check(self, cell: Cell, checksum: str) -> None:
        """Raises: InputError if cells of the same data set, read in the same way, are done on data of another
        checksum."""
        for each in self.all():
            alike = each.dataset == cell.dataset and _reading(each.settings) == _reading(cell.explicit)
            if alike and each.data_sha256 != checksum:
                raise InputError(
                    f"{cell.dataset}: the data's SHA-256 is {checksum[:12]}…, that of the cells in {self.path} "
                    f"{each.data_sha256[:12]}…; "
                    "bring those data back, or give the data set another name"
                )

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


def _reading(settings: Tree) -> Tree:
    return {name: value for name, value in settings.items() if name.startswith("data.")}


def _read(path: Path) -> list[Record]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(error) from None
    if not isinstance(rows, list):
        raise ValueError("expected a list of cells")
    return [Record.parse(row) for row in rows]
