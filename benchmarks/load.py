"""A server under load while versions appear and are withdrawn: requests, failures, latencies, memory; prints one table.

python benchmarks/load.py saved_models/movielens100k --seconds 300
"""

import tfcorr  # isort: skip  # first, as it quietens TensorFlow

import argparse
import http.client
import itertools
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import polars as pl
from measure import table
from served import COMMAND, Ask, Server, over_grpc, over_rest, server_of

from tfcorr.serving.recommend import Recommender

assert tfcorr
K = 20
# What happens, at these shares of the time: two versions appear, and the second of them is withdrawn.
EVENTS = [
    (0.2, ["export", "RUN", "--label", "canary"]),
    (0.35, ["label", "RUN", "stable=2", "canary="]),
    (0.5, ["export", "RUN"]),
    (0.65, ["label", "RUN", "stable=2"]),
]


class Clients:
    """Threads that ask one history at a time without a pause, by turns over gRPC and over REST."""

    def __init__(self, count: int, expected: dict[tuple[str, ...], list[str]], server: Server) -> None:
        """expected are the histories to ask, with what the model answers in process."""
        self.expected, histories = expected, [list(history) for history in expected]
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.others = 0  # answers that are not what the model answers in process
        self.stop = threading.Event()
        grpc_, rest = (over_grpc, server.grpc_address), (over_rest, server.rest_address)
        asks = [way(address, "cascade", K) for way, address in itertools.islice(itertools.cycle([grpc_, rest]), count)]
        starts = range(0, len(histories), max(len(histories) // count, 1))
        self.threads = [
            threading.Thread(target=self._work, args=(ask, itertools.cycle(histories[start:] + histories[:start])))
            for ask, start in zip(asks, starts, strict=False)
        ]

    def _work(self, ask: Ask, histories: itertools.cycle) -> None:
        while not self.stop.is_set():
            started = time.perf_counter()
            history = next(histories)
            try:
                items = ask(history)
            except (grpc.RpcError, OSError, http.client.HTTPException, RuntimeError) as error:
                self.failures.append(repr(error))
                continue
            self.seconds.append(time.perf_counter() - started)
            self.others += items != self.expected[tuple(history)]


def histories_of(run: Path, count: int, length: int = 50) -> list[list[str]]:
    """Made up, of the run's items as often as they are in training."""
    items = pl.read_parquet(run / "catalogue.parquet")
    rng = np.random.default_rng(0)
    chosen = rng.choice(items["id"].to_numpy(), [count, length], p=items["count"] / items["count"].sum())
    return chosen.tolist()


def resident(process: int) -> float:
    """MiB of memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 2**20


def load(server: Server, run: Path, count: int, seconds: int) -> tuple[Clients, list[float]]:
    """Asks for so many seconds, while the events come to pass; the clients, and the server's memory by the second."""
    histories = histories_of(run, 1000)
    found = Recommender(run).recommend(histories, K).group_by("row", maintain_order=True).agg("item")["item"].to_list()
    clients = Clients(count, dict(zip(map(tuple, histories), found, strict=True)), server)
    memory: list[float] = []
    for thread in clients.threads:
        thread.start()
    began, events = time.monotonic(), list(EVENTS)
    running: list[subprocess.Popen[bytes]] = []
    while (passed := time.monotonic() - began) < seconds:
        memory.append(resident(server.process.pid))
        if events and passed > events[0][0] * seconds:
            command = [str(run) if word == "RUN" else word for word in events.pop(0)[1]]
            running.append(subprocess.Popen([*COMMAND, *command], stdout=subprocess.DEVNULL))
        time.sleep(1)
    clients.stop.set()
    for thread in clients.threads:
        thread.join()
    assert [each.wait() for each in running] == [0] * len(EVENTS)
    return clients, memory


def main() -> None:
    """Serves a copy of the run, asks it, and meanwhile exports it again and moves its labels by the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        shutil.copytree(options.run, run)
        shutil.rmtree(run / "serving", ignore_errors=True)
        subprocess.run([*COMMAND, "export", run], check=True, stdout=subprocess.DEVNULL)
        with server_of(run, "--model", "cascade") as server:
            clients, memory = load(server, run, options.clients, options.seconds)
            server.process.terminate()
            ended = server.process.wait(60)
    minute = min(60, len(memory) // 3)
    first, last = statistics.mean(memory[5 : minute + 5]), statistics.mean(memory[-minute:])
    p50, p99 = np.percentile(clients.seconds, [50, 99]) * 1000
    change = f"{100 * (last / first - 1):+.1f}%"
    counts = (
        options.clients,
        len(clients.seconds),
        len(clients.failures),
        clients.others,
        f"{len(clients.seconds) / options.seconds:.0f}",
    )
    heads = (
        "clients",
        "answered",
        "failed",
        "other list",
        "a second",
        "p50, ms",
        "p99, ms",
        "memory, first minute",
        "last minute",
        "change",
    )
    table(heads, (*counts, f"{p50:.1f}", f"{p99:.1f}", f"{first:.0f}", f"{last:.0f}", change))
    print(f"{''.join(server.log)}the server ended with {ended}")
    for failure in clients.failures[:3]:
        print(failure)


if __name__ == "__main__":
    main()
