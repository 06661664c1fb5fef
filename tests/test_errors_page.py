"""docs/errors.md quotes what the code says: every message on it is raised here, and every one raised here is on it."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tfcorr import cli
from tfcorr.files import locked
from tfcorr.serving.server import serve

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
HEADER = "visitor,product,ts,event\n"
CLICKS = HEADER + "".join(
    f"v{user},p{(user + step) % 9},{1_700_000_000 + step},click\n" for user in range(9) for step in range(6)
)
PIPELINE = "data: {path: clicks.csv, columns: {user: visitor, item: product, time: ts, event: event}}\n"
SMALL = "retriever: {name: fpmc, dim: 4}\nranker: {name: deepfm, dim: 4, mlp: [4]}\nevaluation: {retrieve: 20}\n"
RUN = {"saved_models/clicks/settings.yaml": f"name: clicks\n{PIPELINE}"}
TRAIN = ["train", "clicks.yaml"]


def change(setting):
    return [*TRAIN, "--set", setting], {}


def with_row(row):
    return TRAIN, {"clicks.csv": CLICKS + row}


# A command, and the files that differ from clicks.csv and clicks.yaml as they stand above.
CASES = {
    "no table": (["init", "click.csv"], {}),
    "unknown kind": (["init", "sheet.xlsx"], {"sheet.xlsx": "?"}),
    "unknown columns": (["init", "sheet.csv"], {"sheet.csv": "who,what,when\n1,2,3\n"}),
    "no utf-8": (["init", "latin.csv"], {"latin.csv": b"user,item,time\n1,caf\xe9,3\n"}),
    "no column": change("data.columns.item=sku"),
    "a field more": with_row("v1,p2,1700000009,click,mobile\n"),
    "no time": with_row("v1,p2,yesterday,click\n"),
    "nothing kept": change("data.filter=event == buy"),
    "nothing frequent": change("data.min_interactions=50"),
    "nothing long": (
        [*TRAIN, "--set", "data.min_interactions=1"],
        {"clicks.csv": HEADER + "v1,p1,1,click\nv2,p2,2,click\n"},
    ),
    "no pipeline": (["train", "click.yaml"], {}),
    "no yaml": (TRAIN, {"clicks.yaml": "data: {path: clicks.csv"}),
    "misspelt": change("training.epoch=3"),
    "no number": change("training.epochs=ten"),
    "no tower": change("retriever.name=sasrek"),
    "no value": change("training.epochs"),
    "no filter": change("data.filter=buys"),
    "k too large": change("evaluation.k=[1000]"),
    "not causal": ([*TRAIN, "--set", "training.examples=window", "--set", "retriever.name=fpmc"], {}),
    "run exists": (TRAIN, RUN),
    "other settings": ([*TRAIN, "--resume", "--set", "seed=2"], RUN),
    "other data": (
        [*TRAIN, "--resume"],
        {**RUN, "saved_models/clicks/provenance.json": '{"data_sha256": "51e7a1c0ffee"}'},
    ),
    "run away": ([*TRAIN, "--set", "training.retriever.learning_rate=1e30"], {"clicks.yaml": PIPELINE + SMALL}),
    "no run": (["evaluate", "saved_models/click"], {}),
    "not started": (["evaluate", "saved_models/clicks"], RUN),
    "not measured": (["compare", "saved_models/clicks", "saved_models/apart"], RUN),
    "not exported": (["recommend", "saved_models/clicks", "--history", "p1"], RUN),
    "nothing to serve": (["serve", "saved_models/clicks"], RUN),
    "beyond this machine": (["serve", "saved_models/clicks", "--host", "0.0.0.0"], RUN),
    "no server": (["recommend", "--server", "127.0.0.1:1", "--history", "p1"], {}),
}


@pytest.fixture(scope="module")
def quoted():
    """The messages on the page, of which each has to be raised."""
    found = [block.strip() for block in re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    assert len(found) == len(set(found)) == len(CASES) + 3  # the three tests below, beside the cases
    return found


def is_quoted_once(message, quoted):
    patterns = [".*".join(map(re.escape, text.split("…"))) for text in quoted]
    return sum(re.fullmatch(pattern, message) is not None for pattern in patterns) == 1


@pytest.fixture
def said(monkeypatch, capsys, tmp_path):
    """What a command says on standard error, in a folder with the files."""
    monkeypatch.chdir(tmp_path)

    def run(command, files):
        for name, content in {"clicks.csv": CLICKS, "clicks.yaml": PIPELINE, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setattr(sys, "argv", ["tfcorr", *command])
        monkeypatch.setattr(cli.console, "quiet", True)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        return capsys.readouterr().err.strip().replace(f"{tmp_path}/", "")

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_message_is_quoted_as_it_is(case, said, quoted):
    message = said(*CASES[case])
    assert is_quoted_once(message, quoted), message


def test_a_run_that_is_in_training_is_quoted_as_it_is(said, quoted, tmp_path):
    with locked(tmp_path / "saved_models" / ".clicks.training.lock"):
        message = said([*TRAIN, "--resume"], RUN)
    assert is_quoted_once(message, quoted), message


def test_a_port_in_use_is_quoted_as_it_is(said, quoted, monkeypatch):
    class Loaded:
        available = True

        def __init__(self, *_):
            pass

        async def refresh(self):
            pass

        def close(self):
            pass

    monkeypatch.setattr(serve, "Registry", Loaded)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = said(["serve", "saved_models/clicks", "--port", port, "--rest-port", "0"], RUN)
    assert is_quoted_once(message.replace(port, "8500"), quoted), message


def test_the_wrong_keras_is_quoted_as_it_is(quoted):
    program = (
        "import sys, types\nsys.modules['tensorflow'] = tensorflow = types.ModuleType('tensorflow')\n"
        "tensorflow.keras = types.ModuleType('keras')\nimport tfcorr"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert is_quoted_once(done.stderr.strip().splitlines()[-1].removeprefix("ImportError: "), quoted), done.stderr
