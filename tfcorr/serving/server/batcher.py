"""Requests that come while others are answered are answered together, by one run of the graph.

TensorFlow's own in-graph batching (`tf.nondifferentiable_batch_function`) is not used: it keeps a queue, and its
threads, for each name for good, and mixes the rows of functions of one name, so that versions come and go safely with
neither one name nor many. Measured by benchmarks/batching.py.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass
class Job:
    """A checked request: arrays whose first axis are its rows, and the answer that will be."""

    signature: str
    inputs: Arrays
    answer: Future[Arrays] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.inputs.values())))


class Batcher:
    """Runs jobs on a thread of its own, as many rows of one signature at once as wait, up to a number."""

    def __init__(
        self, run: Callable[[str, Arrays], Arrays], rows: int, observe: Callable[[int], None] = lambda rows: None
    ) -> None:
        """run answers arrays by a signature; rows is how many it may take at once; observe is told how many it took."""
        self._run, self._rows, self._observe = run, rows, observe
        self._arriving: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._open = True
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
            batch = self._next()
            if batch:
                self._answer(batch)

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

    def _next(self) -> list[Job]:
        """The longest-waiting job and what else can run with it."""
        batch: list[Job] = []
        left: list[Job] = []
        rows = 0
        for job in self._waiting:
            fits = not batch or (job.signature == batch[0].signature and rows + job.rows <= self._rows)
            (batch if fits else left).append(job)
            rows += job.rows if fits else 0
        self._waiting = left
        return [job for job in batch if job.answer.set_running_or_notify_cancel()]

    def _answer(self, batch: Sequence[Job]) -> None:
        try:
            outputs = self._run(batch[0].signature, together([job.inputs for job in batch]))
        except Exception as error:
            if len(batch) > 1:  # one request's fault is no other's
                for job in batch:
                    self._answer([job])
            else:
                batch[0].answer.set_exception(error)
            return
        self._observe(sum(job.rows for job in batch))
        first = 0
        for job in batch:
            rows = {name: values[first : first + job.rows] for name, values in outputs.items()}
            job.answer.set_result(narrowed(rows, job.inputs))
            first += job.rows


def together(requests: Sequence[Arrays]) -> Arrays:
    """The rows of several requests as one; lists of ids are padded by b"" to the longest."""
    merged: Arrays = {}
    for name, values in requests[0].items():
        parts = [request[name] for request in requests]
        if values.ndim == 2:
            width = max(part.shape[1] for part in parts)
            parts = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=b"") for part in parts]
        merged[name] = np.concatenate(parts)
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
