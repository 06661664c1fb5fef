import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import requests
import trustme
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub


@dataclass
class Server:
    """A server in a process of its own, which has said where it listens."""

    process: subprocess.Popen
    grpc_address: str
    url: str

    def stubs(self):
        channel = grpc.insecure_channel(self.grpc_address)
        return PredictionServiceStub(channel), ModelServiceStub(channel)

    def get(self, path, **more):
        return requests.get(self.url + path, timeout=30, **more)

    def predict(self, body, model="cascade", **more):
        text = {"data": body} if isinstance(body, bytes) else {"json": body}
        return requests.post(f"{self.url}/v1/models/{model}:predict", timeout=30, **text, **more)

    def lines_until(self, pattern):
        """What it prints up to a line that matches."""
        lines = []
        while not lines or not re.search(pattern, lines[-1]):
            lines.append(self.process.stdout.readline())
            assert lines[-1], f"the server ended: {lines}"
        return lines


def start_server(run: Path, *options: object) -> Server:
    command = [
        sys.executable,
        "-c",
        "from tfcorr.cli import main; main()",
        "serve",
        run,
        "--port",
        "0",
        "--rest-port",
        "0",
        *options,
    ]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    server = Server(process, "", "")
    found = re.search(r"gRPC at (\S+), REST at (\S+?)(,|$)", server.lines_until("gRPC at ")[-1].strip())
    server.grpc_address, server.url = found[1], found[2]
    return server


def certified(folder: Path) -> tuple[list[object], Path]:
    """The options by which a server on this machine speaks TLS, and the file of who vouches for it."""
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    pair.private_key_pem.write_to_path(folder / "key.pem")
    pair.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return ["--tls-certificate", folder / "cert.pem", "--tls-key", folder / "key.pem"], folder / "ca.pem"


def copy_of(trained, folder: Path) -> Path:
    """A run's exports in a folder of their own, which a test may change."""
    shutil.copytree(trained.folder / "serving", folder / "serving")
    return folder


@pytest.fixture(scope="session")
def server(trained):
    """Of the trained run, with small limits; tests must leave it as it is."""
    limits = ("--max-rows", 8, "--max-length", 50, "--max-k", 30, "--max-items", 200, "--max-message", 20_000)
    started = start_server(trained.folder, *limits)
    yield started
    started.process.terminate()
    assert started.process.wait(30) == 0
