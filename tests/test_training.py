"""A stage's training by itself: when it stops, what it keeps, and that a killed one goes on alike."""

import pytest
import tensorflow as tf
from rich.console import Console

from tfcorr.config import TrainingSettings
from tfcorr.cooperation.model import LoggedModel
from tfcorr.training import Stage, fit


class Tower(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.steps = self.add_weight(shape=(), initializer="zeros", name="steps")


class Counting(LoggedModel):
    """Its only weight is the number of steps that it has done."""

    def __init__(self, tower):
        super().__init__("counting", ["loss"])
        self.tower = tower

    def train_step(self, data):
        self.tower.steps.assign_add(1.0)
        return self.record({"loss": self.tower.steps})


def trained_by(folder, figures, **settings):
    """Trains, an epoch a step, until it stops, is killed, or the figures of validation run out; returns the number of
    epochs done and the epoch whose weights are kept."""
    trained, kept = Tower(), Tower()
    done = []

    def validate():
        done.append(int(trained.steps))
        return {"ndcg@20": figures[int(trained.steps) - 1]}

    stage = Stage("alone", Counting(trained), {"tower": trained}, {"tower": kept}, validate, "ndcg@20")
    stage.model.compile(run_eagerly=True)
    chosen = TrainingSettings.parse({"epochs": len(figures), "averaging": 0, **settings})
    data = lambda epoch, inputs: tf.data.Dataset.from_tensors(0.0).repeat()  # noqa: E731
    fit(stage, data, 1, chosen, folder, Console(quiet=True), True)
    return done[-1] if done else 0, int(kept.steps)


# Rises by 0.05% an epoch: two epochs after a gain is the first that is 0.1% above it, four the first by 0.2%.
SLOW = [0.5 * 1.0005**epoch for epoch in range(12)]


@pytest.mark.parametrize(
    ("figures", "settings", "done", "kept"),
    [
        ([0.1, 0.2, 0.15, 0.2, 0.19, 0.3], {"patience": 3}, 5, 2),
        ([0.1, 0.2, 0.15, 0.2, 0.21, 0.3], {"patience": 3}, 6, 6),
        ([0.5, 0.5004, 0.5003, 0.5002, 0.6], {"patience": 3}, 4, 2),
        ([0.5, 0.5004, 0.5003, 0.5002, 0.6], {"patience": 3, "min_delta": 0}, 5, 5),
        (SLOW, {"patience": 3}, 12, 12),
        (SLOW, {"patience": 1}, 2, 2),
        (SLOW, {"patience": 3, "min_delta": 0.002}, 4, 4),
        ([0.0, 0.0, 0.0, 0.0, 0.1], {"patience": 3}, 4, 1),
    ],
)
def test_training_stops_where_it_no_longer_gains_by_min_delta_and_keeps_the_best(
    tmp_path, figures, settings, done, kept
):
    assert trained_by(tmp_path, figures, **settings) == (done, kept)


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_a_killed_stage_stops_where_one_left_alone_stops(tmp_path, killed):
    figures = [0.5, 0.5004, 0.5003, 0.5002, 0.6, 0.6]
    with pytest.raises(IndexError):  # in the validation of the epoch after
        trained_by(tmp_path, figures[:killed], epochs=6)
    assert trained_by(tmp_path, figures) == (4, 2)
    assert trained_by(tmp_path, figures) == (0, 2)  # it is trained already
