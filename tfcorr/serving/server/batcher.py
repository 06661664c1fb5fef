"""Requests that come while others are answered are answered together, by one run of the graph.

TensorFlow's own in-graph batching (`tf.nondifferentiable_batch_function`) is not used: it keeps a queue, and its
threads, for each name for good, and mixes the rows of functions of one name, so that versions come and go safely with
neither one name nor many. Measured by benchmarks/batching.py.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PAIRS = 2**14  # rows times candidates that run at once
Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class Job:
    """A checked request: arrays whose first axis are its rows, and the answer that will be."""

    signature: str
    inputs: Arrays
    answer: Future[Arrays] = field(default_factory=Future)
    begun: int = 0  # rows
    parts: list[Arrays] = field(default_factory=list)  # answers of the first rows

    @property
    def left(self) -> int:
        """Rows that have not begun."""
        return len(next(iter(self.inputs.values()))) - self.begun

    @property
    def width(self) -> int:
        """Candidates in each row that are to be scored."""
        return self.inputs["candidates"].shape[1] if "candidates" in self.inputs else 0

    def take(self, rows: int) -> Arrays:
        """Its next rows."""
        self.begun += rows
        return {name: values[self.begun - rows : self.begun] for name, values in self.inputs.items()}

    def give(self, part: Arrays) -> None:
        """The answer of some rows; with the last it is whole."""
        self.parts.append(part)
        if not self.left:
            self._end(self.answer.set_result, narrowed(in_one(self.parts), self.inputs))

    def fail(self, error: Exception) -> None:
        """Answers by an error."""
        self.begun += self.left
        self._end(self.answer.set_exception, error)

    def _end(self, settle: Callable[[Any], None], outcome: Any) -> None:
        with suppress(InvalidStateError):  # given up meanwhile
            settle(outcome)


class Batcher:
    """Runs jobs on a thread of its own, as many rows of one signature at once as wait, up to a number.

    Of a job with many rows some run at a time, and small jobs before larger ones, so that a small one waits for one run
    at most; a part of each run is for the job that has waited longest, so that a large one ends too.
    """

    def __init__(
        self, run: Callable[[str, Arrays], Arrays], rows: int, observe: Callable[[int], None] = lambda rows: None
    ) -> None:
        """run answers arrays by a signature; rows is how many it may take at once; observe is told how many it took."""
        self._run, self._rows, self._observe = run, rows, observe
        self._arriving: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._open, self._is_oldests_turn = True, True
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Arrays]:
        """Its answer, in time; an exception that `run` raises is the answer's."""
        self._arriving.put(job)
        return job.answer

    def close(self) -> None:
        """Answers what was submitted before, then ends the thread."""
        self._arriving.put(None)
        self._thread.join()

    def _work(self) -> None:
        while self._open or self._waiting:
            self._collect()
            self._waiting = [job for job in self._waiting if job.left and not job.answer.cancelled()]
            if self._waiting:
                self._answer([(job, job.take(rows), rows) for job, rows in self._next().items()])

    def _collect(self) -> None:
        """Takes what has arrived; waits only if nothing has."""
        while self._open:
            try:
                job = self._arriving.get(block=not self._waiting)
            except queue.Empty:
                return
            if job is None:
                self._open = False
            else:
                self._waiting.append(job)

    def _next(self) -> dict[Job, int]:
        """How many rows of which jobs run next: a quarter for the oldest, the rest for the smallest."""
        oldest, smallest = self._waiting[0], min(self._waiting, key=_left)
        signature = (oldest if self._is_oldests_turn else smallest).signature
        self._is_oldests_turn = not self._is_oldests_turn
        alike = [job for job in self._waiting if job.signature == signature]
        width = alike[0].width  # of all, as the narrower are padded
        batch = {alike[0]: min(alike[0].left, max(self._most(width) // 4, 1))}
        for job in sorted(alike, key=_left):
            wider = max(width, job.width)
            more = min(job.left - batch.get(job, 0), self._most(wider) - sum(batch.values()))
            if more > 0:
                batch[job] = batch.get(job, 0) + more
                width = wider
        return batch

    def _most(self, width: int) -> int:
        """Rows of so many candidates that may run at once."""
        return max(min(self._rows, PAIRS // max(width, 1)), 1)

    def _answer(self, parts: Sequence[tuple[Job, Arrays, int]]) -> None:
        signature = parts[0][0].signature
        try:
            outputs = self._run(signature, together([inputs for _, inputs, _ in parts]))
        except Exception as error:
            if len(parts) > 1:  # one request's fault is no other's
                for part in parts:
                    self._answer([part])
            else:
                parts[0][0].fail(error)
            return
        self._observe(sum(rows for _, _, rows in parts))
        first = 0
        for job, _, rows in parts:
            job.give({name: values[first : first + rows] for name, values in outputs.items()})
            first += rows


def _left(job: Job) -> int:
    return job.left


def in_one(parts: Sequence[Arrays]) -> Arrays:
    """The rows of several answers as one; lists are padded to the longest as the models pad them."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate(_of_one_width([part[name] for part in parts])) for name in parts[0]}


def _of_one_width(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    if parts[0].ndim < 2:
        return list(parts)
    kind = parts[0].dtype
    padding: Any = b"" if kind.hasobject else np.finfo(kind).min if kind.kind == "f" else np.zeros((), kind)
    width = max(part.shape[1] for part in parts)
    return [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=padding) for part in parts]


def together(requests: Sequence[Arrays]) -> Arrays:
    """The rows of several requests as one; lists of ids are padded by b"" to the longest."""
    merged: Arrays = {}
    for name in requests[0]:
        parts = [request[name] for request in requests]
        merged[name] = np.concatenate(_of_one_width(parts))
    return merged


def narrowed(outputs: Arrays, inputs: Arrays) -> Arrays:
    """What a request would have been answered by itself: no wider than it asked for, by its largest k, its
    candidates, or the list that an output is about."""
    if "k" in inputs:
        width = int(inputs["k"].max())
    elif "candidates" in inputs:
        width = inputs["candidates"].shape[1]
    else:
        widths = {name: inputs[name].shape[1] for name in outputs if name in inputs and inputs[name].ndim == 2}
        return outputs | {name: outputs[name][:, :width] for name, width in widths.items()}
    return {name: values[:, :width] for name, values in outputs.items()}
