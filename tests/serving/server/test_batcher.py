"""Requests answered together are answered as each would be alone."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcorr.serving.server import batcher as batcher_module
from tfcorr.serving.server.batcher import Batcher, Job, in_one, narrowed, together


def ids(rows):
    return np.array(rows, object)


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within 5 s")


class Gate:
    """A model that doubles x, and answers nothing until it is opened."""

    def __init__(self):
        self.open, self.asked = threading.Event(), []

    def __call__(self, signature, inputs):
        self.asked.append((signature, inputs["x"].tolist()))
        assert self.open.wait(5)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": 2 * inputs["x"]}


def job(*values, signature="s"):
    return Job(signature, {"x": np.array(values)})


def test_what_comes_while_others_are_answered_is_answered_together():
    gate, seen = Gate(), []
    batcher = Batcher(gate, 4, seen.append)
    first = batcher.submit(job(1))
    wait_until(lambda: gate.asked)
    others = [batcher.submit(each) for each in (job(2), job(3, 4), job(9, signature="other"), job(5, 6), job(7))]
    gate.open.set()
    assert first.result(5)["y"].tolist() == [2]
    assert [each.result(5)["y"].tolist() for each in others] == [[4], [6, 8], [18], [10, 12], [14]]
    assert gate.asked == [("s", [1]), ("s", [2, 7, 3, 4]), ("other", [9]), ("s", [5, 6])]
    assert seen == [1, 4, 1, 2]
    batcher.close()


def test_rows_of_many_candidates_run_in_smaller_parts(monkeypatch):
    """And narrow ones are not padded to wide ones beyond what may run at once."""
    monkeypatch.setattr(batcher_module, "PAIRS", 16)
    opened, shapes = threading.Event(), []

    def score(_, inputs):
        shapes.append(inputs["candidates"].shape)
        assert opened.wait(5)
        return {"score": 2 * inputs["candidates"]}

    batcher = Batcher(score, 64)

    def scored(rows, width):
        return batcher.submit(Job("s", {"candidates": np.arange(rows * width).reshape(rows, width)}))

    asked = [scored(1, 1)]
    wait_until(lambda: shapes)
    asked += [scored(6, 8), scored(5, 2)]
    opened.set()
    for each, (rows, width) in zip(asked, ((1, 1), (6, 8), (5, 2)), strict=True):
        np.testing.assert_array_equal(each.result(5)["score"], 2 * np.arange(rows * width).reshape(rows, width))
    assert all(rows * width <= 16 for rows, width in shapes)
    batcher.close()


def test_a_small_request_waits_for_one_run_and_a_large_one_ends_too():
    """Large ones go through in parts, of which the oldest has a quarter of each run."""
    gate = Gate()
    batcher = Batcher(gate, 4)
    large = batcher.submit(job(*range(12)))
    wait_until(lambda: gate.asked)
    small = [batcher.submit(job(100 + number)) for number in range(9)]
    gate.open.set()
    assert large.result(5)["y"].tolist() == [2 * value for value in range(12)]
    assert [each.result(5)["y"].tolist() for each in small] == [[2 * (100 + number)] for number in range(9)]
    runs = [asked for _, asked in gate.asked]
    assert runs[:4] == [[0, 1, 2, 3], [4, 100, 101, 102], [5, 103, 104, 105], [6, 106, 107, 108]]
    assert runs[4:] == [[7, 8, 9, 10], [11]]
    batcher.close()


def test_parts_of_an_answer_have_the_width_of_the_widest():
    lowest = np.finfo(np.float32).min
    part = {"item": ids([[b"a"]]), "score": np.array([[1]], np.float32), "known": np.array([[True]])}
    wide = {"item": ids([[b"b", b"c"]]), "score": np.array([[3, 2]], np.float32), "known": np.array([[True, True]])}
    whole = in_one([part, wide])
    assert whole["item"].tolist() == [[b"a", b""], [b"b", b"c"]]
    assert whole["score"].tolist() == [[1, lowest], [3, 2]]
    assert whole["known"].tolist() == [[True, False], [True, True]]


def test_one_requests_fault_is_no_others():
    gate = Gate()
    batcher = Batcher(gate, 8)
    batcher.submit(job(0))
    wait_until(lambda: gate.asked)
    good, bad, also_good = batcher.submit(job(1)), batcher.submit(job(-1)), batcher.submit(job(2))
    gate.open.set()
    assert (good.result(5)["y"].tolist(), also_good.result(5)["y"].tolist()) == ([2], [4])
    with pytest.raises(ValueError, match="negative"):
        bad.result(5)
    batcher.close()


def test_a_request_that_was_given_up_is_not_answered():
    gate = Gate()
    batcher = Batcher(gate, 1)
    batcher.submit(job(0))
    wait_until(lambda: gate.asked)
    given_up, wanted = batcher.submit(job(1)), batcher.submit(job(2))
    assert given_up.cancel()
    gate.open.set()
    assert wanted.result(5)["y"].tolist() == [4]
    assert gate.asked == [("s", [0]), ("s", [2])]
    batcher.close()


def test_closing_answers_what_was_asked_and_ends_the_thread():
    gate = Gate()
    batcher = Batcher(gate, 1)
    answers = [batcher.submit(job(value)) for value in range(5)]
    threading.Timer(0.1, gate.open.set).start()
    batcher.close()
    assert [answer.result(0)["y"].tolist() for answer in answers] == [[0], [2], [4], [6], [8]]
    assert not batcher._thread.is_alive()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), min_size=1, max_size=4))
def test_rows_are_padded_at_their_ends_to_the_longest(shapes):
    requests = [{"history": ids([[b"x"] * width] * rows).reshape(rows, width)} for rows, width in shapes]
    merged = together(requests)["history"]
    widest = max(width for _, width in shapes)
    assert merged.shape == (sum(rows for rows, _ in shapes), widest)
    expected = [[b"x"] * width + [b""] * (widest - width) for rows, width in shapes for _ in range(rows)]
    assert merged.tolist() == expected


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_an_answer_is_no_wider_than_its_largest_k(ks):
    answer = narrowed({"item": ids([list(range(10))] * len(ks))}, {"k": np.array(ks)})
    assert answer["item"].shape == (len(ks), max(ks))
    wide = narrowed({"score": np.zeros((2, 9))}, {"candidates": ids([[b"a", b"b"]] * 2)})
    assert wide["score"].shape == (2, 2)
    assert narrowed({"vector": np.zeros((2, 9))}, {"history": ids([[b"a"]] * 2)})["vector"].shape == (2, 9)
