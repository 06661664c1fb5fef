"""Who may ask: nobody beyond this machine, unless by TLS, with a key, or because someone said so."""

import socket
import sys
import threading
from pathlib import Path

import grpc
import pytest
import requests
import trustme
from cryptography.hazmat.primitives import serialization
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.serving.server.conftest import certified, copy_of, start_server
from tests.serving.server.test_reload import ROW, message
from tfcorr import cli
from tfcorr.serving.client import RemoteRecommender
from tfcorr.serving.server.settings import ServerSettings
from tfcorr.settings import InputError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_an_address_beyond_this_machine_needs_protection_or_a_word(host):
    with pytest.raises(
        InputError,
        match=r"is beyond this machine: give --tls-certificate and --tls-key, or an API key, or say --insecure",
    ):
        ServerSettings.parse({"host": host})
    tls = {"tls_certificate": Path("c"), "tls_key": Path("k")}
    for protection in (tls, {"api_key": "secret"}, {"insecure": True}):
        assert ServerSettings.parse({"host": host} | protection).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_needs_none(host):
    assert ServerSettings.parse({"host": host}).host == host


@pytest.mark.parametrize("key", ["", " ", "two\nlines", "sésame", "trailing "])
def test_a_key_that_could_not_be_sent_is_none(key):
    with pytest.raises(InputError, match="api_key: expected printable ASCII") as error:
        ServerSettings.parse({"host": "0.0.0.0", "api_key": key})
    assert "received" not in str(error.value)  # a secret is not for the log


def test_half_of_tls_is_refused():
    with pytest.raises(InputError, match="TLS needs both a certificate and a key"):
        ServerSettings.parse({"tls_certificate": Path("c")})


def test_tls_and_the_key_are_asked_of_everyone(trained, tmp_path):
    tls, ca = certified(tmp_path)
    server = start_server(copy_of(trained, tmp_path / "run"), "--model", "cascade", *tls, "--api-key", "open sesame")
    try:
        assert server.url.startswith("https://")
        url, body = f"{server.url}/v1/models/cascade:predict", {"instances": [ROW]}
        with pytest.raises(requests.exceptions.SSLError):
            requests.post(url, json=body, timeout=30)
        assert requests.post(url, json=body, timeout=30, verify=ca).status_code == 401
        assert (
            requests.post(url, json=body, timeout=30, verify=ca, headers={"x-api-key": "sésame".encode()}).status_code
            == 401
        )
        good = requests.post(url, json=body, timeout=30, verify=ca, headers={"x-api-key": "open sesame"})
        assert good.status_code == 200
        assert requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=30, verify=ca).status_code == 401
        stub = PredictionServiceStub(
            grpc.secure_channel(server.grpc_address, grpc.ssl_channel_credentials(ca.read_bytes()))
        )
        for metadata in (None, [("x-api-key", "wrong")]):
            with pytest.raises(grpc.RpcError) as error:
                stub.Predict(message(), 30, metadata=metadata)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        found = RemoteRecommender(server.grpc_address, api_key="open sesame", certificate=ca).recommend(
            [ROW["history"]], 5, [ROW["exclude"]]
        )
        assert found["item"].to_list() == good.json()["predictions"][0]["item"]
    finally:
        server.process.kill()
        server.process.wait(30)


@pytest.fixture
def refused(monkeypatch, capsys):
    """What `tfcorr serve` says when it ends with exit code 1."""

    def serve(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfcorr", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        return capsys.readouterr().err

    return serve


def test_an_encrypted_key_and_a_port_in_use_are_said_and_nothing_stays_loaded(trained, tmp_path, refused):
    pair = trustme.CA().issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(pair.private_key_pem.bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"abc")
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form))
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = ["--tls-certificate", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more, sentence in (
            (tls, "the TLS key is encrypted"),
            (["--port", port, "--model", "retriever"], f"cannot listen at 127.0.0.1:{port}: it is in use"),
            (["--port", "0", "--rest-port", port, "--model", "retriever"], f"cannot listen at 127.0.0.1:{port}: "),
        ):
            assert sentence in refused(trained.folder, *more)
    assert not [thread for thread in threading.enumerate() if thread.name == "batcher"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "--host", "0.0.0.0"], "error: --host 0.0.0.0 is beyond this machine"),
        (
            ["RUN", "--tls-certificate", "no.pem", "--tls-key", "no.pem", "--model", "retriever"],
            "no.pem cannot be used with no.pem",
        ),
        (["RUN", "--model", "nope"], "error: models: there is no model 'nope'"),
        (["nowhere"], "error: nowhere/serving: there is nothing to serve; make a version with: tfcorr export nowhere"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(trained, arguments, sentence, refused):
    said = refused(
        *(trained.folder if each == "RUN" else each for each in arguments), "--port", "0", "--rest-port", "0"
    )
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
