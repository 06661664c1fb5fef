"""Work in a process of its own, which ends when the process that began it does, and that takes nothing else with it if it dies."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfcorr.settings import InputError


def run_apart(module: str, job: Mapping[str, Any], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a module in a new process, which reads the job by `job_of_parent`; what it prints is added to the log.

    Raises: InputError, with its last words, if it failed; KeyboardInterrupt if Ctrl-C ended it.
    """
    begins = log.stat().st_size if log.exists() else 0
    code = _run(module, job, log, environment)
    if code == -signal.SIGSEGV:  # which TensorFlow may come to by chance; a run goes on from its last epoch
        code = _run(module, job, log, environment)
    if code == 0:
        return
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    said = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines()
    if code < 0:
        said.append(f"ended by {signal.Signals(-code).name}" + (", as where memory runs out" if code == -signal.SIGKILL else ""))
    raise InputError((said or [f"ended with exit code {code}"])[-1].removeprefix("error: "))


def _run(module: str, job: Mapping[str, Any], log: Path, environment: Mapping[str, str] | None) -> int:
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            bufsize=0,
            env={**os.environ, **(environment or {})},
        )
        assert process.stdin
        with process, process.stdin:  # which stays open for as long as this process lives
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
            return process.wait()


def job_of_parent() -> dict[str, Any]:
    """The job that this process was begun for; from now on it ends with its parent."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return job


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed, however that came about
    os._exit(1)
