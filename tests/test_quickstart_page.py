"""docs/quickstart.md: every command of the page is run in its order, and prints what stands below it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.printed import without_numbers
from tfcorr import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()
# Said on some processors, and on others otherwise, as epochs and orders are about as good as others.
NEAR_TIE = re.compile("(?:retriever|joint): the last epoch was the best.*\n|final order, by validation: .*\n")


def commands():
    """Each command of the page with what it prints, which may be a block of its own."""
    shown = re.sub(r"```\n\n```yaml\n", "", PAGE).replace(" \\\n   ", "")
    blocks = re.findall(r"```console\n(.*?)```", shown, re.DOTALL)
    return [found for block in blocks for found in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)]


def serve(command, output, processes):
    """Starts the server at free ports; returns what it says, and its gRPC port."""
    arguments = [sys.executable, "-m", *command.split(), "--port", "0", "--rest-port", "0"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    processes.append(process)
    said = "".join(process.stdout.readline() for _ in output.splitlines())
    return said, re.search(r"gRPC at 127.0.0.1:(\d+)", said)[1]


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.terminate()
        process.wait()


def test_every_command_prints_what_the_page_says(tmp_path, monkeypatch, capsys, processes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "width", 80)
    (tmp_path / "clicks.py").write_text(re.search(r"```python\n# clicks.py\n(.*?)```", PAGE, re.DOTALL)[1])
    port, first = None, []
    for command, output in commands():
        if command.startswith("tfcorr serve"):
            said, port = serve(command, output, processes)
        elif command.startswith("tfcorr "):
            words = re.findall(r'"([^"]*)"|(\S+)', command.replace("127.0.0.1:8500", f"127.0.0.1:{port}"))
            monkeypatch.setattr(sys, "argv", [quoted or bare for quoted, bare in words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code, command
            said = capsys.readouterr().out
            first += re.findall(r"│ 1 +│ (\w+) ", said) if " recommend " in command else []
        else:
            said = subprocess.run(
                command.replace("python", sys.executable), shell=True, check=True, capture_output=True, text=True
            ).stdout
        lines, (begins, _, ends) = without_numbers(NEAR_TIE.sub("", said)), NEAR_TIE.sub("", output).partition("…\n")
        begins, ends = without_numbers(begins), without_numbers(ends)
        if "…" in output:
            assert (lines[: len(begins)], lines[-len(ends) :]) == (begins, ends), command
        else:
            assert lines == begins, command
    assert first == ["p19", "p19"]  # the rule by which the table was made
