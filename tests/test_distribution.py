"""Training on several replicas: two devices of one process, and two processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from tests.conftest import LIGHT, write_project
from tfcorr import runs
from tfcorr.distribution import is_chief, strategy_of
from tfcorr.settings import InputError

WORKERS = {"worker": 2}
TOWERS = ["--set", "retriever={name: fpmc, dim: 8}", "--set", LIGHT]
# Trains on the project in the working folder with pools that depend on the target alone, and writes the losses and
# weights; where one process has two devices, also those of a plain training, by no strategy.
PROGRAM = """
import sys
import numpy as np, tensorflow as tf
kind, result = sys.argv[1:]
if kind == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfcorr.distribution import strategy_of
strategy = strategy_of(kind)
from tests.towers import test_contract
from tfcorr.cooperation.corr import CoRR
from tfcorr.cooperation.sampler import Sampler
from tfcorr.cooperation.sampling import Drawn, Pool, Resampled, SamplerSettings
from tfcorr.config import load_settings
from tfcorr.data.batches import steps_per_epoch, training_batches
from tfcorr.data.sources import load

class Fixed(Sampler):
    def resample(self, query, target, every=None):
        pool = (target[:, None] * 3 + tf.range(8)) % 40 + 1
        target_score, scores = self._retriever.match(query, target, pool)
        log_q = tf.nn.log_softmax(tf.stop_gradient(tf.concat([target_score[:, None], scores], axis=1)))
        drawn = Drawn(pool[:, :5], log_q[:, 1:6], log_q[:, 0])
        return Resampled(drawn, Pool(pool, log_q[:, 1:], log_q[:, 0]), scores, target_score, target_score, pool)

test_contract.USERS = 60
histories = load(load_settings("walks.yaml").data).histories

def train(strategy, result):
    tf.keras.utils.set_random_seed(3)
    with strategy.scope():
        towers = [test_contract.build(name, {"dim": 8, "dropout": 0.0}, 40, 6) for name in ("fpmc", "deepfm")]
        model = CoRR(*towers, Fixed(SamplerSettings(), np.ones(40, np.int64), towers[0], seed=5), "softmax", 1.0)
        optimisers = dict(zip(("retriever", "ranker"), map(test_contract.adam, towers)))
        for optimiser in optimisers.values():
            optimiser.epsilon = 0.1  # else a gradient that is nearly zero moves a weight by its sign
        model.compile(optimizer=optimisers)
    sizes = "prefix", 6, 50
    creator = tf.keras.utils.experimental.DatasetCreator
    batches = creator(lambda inputs: training_batches(histories, *sizes, 1, 0, inputs))
    history = model.fit(batches, epochs=2, steps_per_epoch=steps_per_epoch(histories, *sizes), verbose=0).history
    draw = tf.function(lambda: model.sampler.proposal.draw([20], model.generator))
    drawn = strategy.experimental_local_results(strategy.run(draw))
    weights = [variable.numpy() for tower in towers for variable in tower.trainable_variables]
    losses = np.array([history[name] for name in ("loss_retriever", "loss_ranker", "kl")])
    np.savez(result, *weights, losses=losses, drawn=np.array([each.numpy() for each in drawn]))

if kind == "mirrored":
    train(tf.distribute.get_strategy(), "plain.npz")
train(strategy, result)
"""


# `tfcorr train` on a cluster with parameter servers, whose tables must be divided among them though they are tiny.
SERVED = """
import sys
from tfcorr import distribution, runs
from tfcorr.cli import main
distribution.SHARD_BYTES = 128
fit = runs.fit
def checked(stage, **options):
    names = [variable.name for tower in stage.trained.values() for variable in tower.trainable_variables]
    assert any("items/embeddings/part_1" in name for name in names), names
    fit(stage, **options)
runs.fit = checked
sys.argv = ["tfcorr", "train", "walks.yaml", "--name", "served", *sys.argv[1:]]
main()
"""

# `tfcorr train` without what comes after the training.
TRAINING = """
import sys
from tfcorr import runs
from tfcorr.cli import main
train = runs.train
def only(*arguments):
    train(*arguments)
    sys.exit(0)
runs.train = only
sys.argv = ["tfcorr", "train", "walks.yaml", *sys.argv[1:]]
main()
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_cluster(folder, jobs, *command):
    """The command as every task of a cluster: {"worker": 2} is two workers."""
    ports = iter(free_ports(sum(jobs.values())))
    cluster = {job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}
    processes = []
    for job, index in [(job, index) for job, count in jobs.items() for index in range(count)]:
        config = {"cluster": cluster, "task": {"type": job, "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config), "PYTHONPATH": os.getcwd()}
        filled = [each.replace("INDEX", str(index)) for each in command]
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "cwd": folder,
            "env": environment,
        }
        processes.append(subprocess.Popen([sys.executable, *filled], **options))
    return processes


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def by_devices(project):
    """The losses and weights by one process: of a plain training, and of one on two devices."""
    command = [sys.executable, "-c", PROGRAM, "mirrored", "mirrored.npz"]
    for _ in range(2):
        code = subprocess.run(
            command, check=False, cwd=project.parent, env=os.environ | {"PYTHONPATH": os.getcwd()}
        ).returncode
        if code != -signal.SIGSEGV:  # within TensorFlow, as in one run of fifty, it is forgiven once
            break
    assert code == 0
    return [np.load(project.parent / f"{name}.npz") for name in ("plain", "mirrored")]


def assert_same_training(one, other):
    for name in one.files:
        if name != "drawn":
            np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_two_devices_train_as_one_does_and_draw_pools_of_their_own(by_devices):
    plain, mirrored = by_devices
    assert_same_training(plain, mirrored)
    assert (mirrored["drawn"][0] != mirrored["drawn"][1]).any()


def test_two_processes_train_as_one_with_the_whole_batch_and_draw_pools_of_their_own(project, by_devices):
    for process in start_cluster(project.parent, WORKERS, "-c", PROGRAM, "multi-worker", "worker-INDEX.npz"):
        finish(process)
    workers = [np.load(project.parent / f"worker-{index}.npz") for index in range(2)]
    for each in workers:
        assert_same_training(by_devices[0], each)
    assert (workers[0]["drawn"] != workers[1]["drawn"]).any()


def test_a_cluster_whose_worker_was_killed_resumes_and_ends_where_an_uninterrupted_one_ends(tmp_path):
    write_project(tmp_path)
    options = [*TOWERS, "--set", "training={distribution: multi-worker, epochs: 2, batch_size: 32}"]
    command = ["-c", TRAINING, *options, "--name"]
    for process in start_cluster(tmp_path, WORKERS, *command, "left-alone"):
        finish(process)
    history = tmp_path / "saved_models" / "killed" / "history.csv"
    chief, worker = start_cluster(tmp_path, WORKERS, *command, "killed")
    deadline = time.monotonic() + 200
    while not (history.is_file() and pl.read_csv(history).height >= 1 and [*history.parent.rglob("last/checkpoint")]):
        assert chief.poll() is None, chief.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    output, _ = chief.communicate(timeout=100)
    assert chief.returncode == 1, output
    assert "another process of the cluster is gone; start every process again with --resume" in output
    assert pl.read_csv(history).height < 2
    resumed, helper = start_cluster(tmp_path, WORKERS, *command, "killed", "--resume")
    assert "going on after epoch" in finish(resumed)
    assert finish(helper).count("epoch") == 0  # only the chief tells, measures and writes
    tables = [
        pl.read_csv(tmp_path / "saved_models" / name / "history.csv").drop("seconds")
        for name in ("left-alone", "killed")
    ]
    assert tables[0].equals(tables[1])
    one, other = (runs.open_run(tmp_path / "saved_models" / name) for name in ("left-alone", "killed"))
    for name, tower in one.towers.items():
        for expected, found in zip(tower.trainable_variables, other.towers[name].trainable_variables, strict=True):
            np.testing.assert_array_equal(expected, found)


def test_parameter_servers_hold_the_tables_in_shards_while_workers_train(tmp_path):
    write_project(tmp_path)
    served = [
        "training.distribution=parameter-server",
        "training.epochs=4",
        "training.start=random",
        "training.item_vectors=random",
    ]
    options = [*TOWERS, *(each for setting in [*served, "ranker.counts=null"] for each in ("--set", setting))]
    chief, *helpers = start_cluster(tmp_path, {"chief": 1, "ps": 2, "worker": 2}, "-c", SERVED, *options)
    try:
        finish(chief)
    finally:
        for helper in helpers:
            helper.kill()
            helper.communicate()
    run = runs.open_run(tmp_path / "saved_models" / "served")
    history = pl.read_csv(run.folder / "history.csv")
    assert history["epoch"].to_list() == [1, 2, 3, 4]
    assert history["log_loss_retriever"][3] < history["log_loss_retriever"][0]
    assert runs.is_exported(run)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("multi-worker", None),
        ("multi-worker", "{"),
        ("multi-worker", '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}'),
        ("multi-worker", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}'),
        ("parameter-server", None),
        (
            "parameter-server",
            '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "chief", "index": 0}}',
        ),
    ],
)
def test_a_cluster_that_tf_config_does_not_describe_is_refused(monkeypatch, kind, config):
    if config is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=r"TF_CONFIG.*received: (no TF_CONFIG|\{)"):
        strategy_of(kind)


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 0}, True),
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 1}, False),
        ({"chief": ["c:1"], "worker": ["a:1"]}, {"type": "worker", "index": 0}, False),
        ({"chief": ["c:1"], "worker": ["a:1"]}, {"type": "chief", "index": 0}, True),
    ],
)
def test_one_process_is_the_chief(monkeypatch, jobs, task, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))
    assert is_chief("multi-worker") is expected
    assert is_chief("none")
