"""Work in a process of its own, which ends when the process that began it does, and takes nothing else with it if it
dies."""

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


class Apart:
    """A module at work in a new process, which reads its job by `job_of_parent`; what it prints is added to the log.

    If TensorFlow ends it by a segmentation fault, as it does by chance now and then, it is begun once more.
    """

    def __init__(
        self, module: str, job: Mapping[str, Any], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """environment is beside this process's own."""
        self._command, self._job, self._log = [sys.executable, "-P", "-m", module], job, log
        self._environment = {**os.environ, **(environment or {})}
        self._begins = log.stat().st_size if log.exists() else 0
        self._is_second = False
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("a") as output:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=output, stderr=output, bufsize=0, env=self._environment
            )
        assert process.stdin
        with suppress(BrokenPipeError):
            process.stdin.write(
                json.dumps(self._job).encode() + b"\n"
            )  # and it stays open for as long as this process lives
        return process

    def has_ended(self, timeout: float | None = None) -> bool:
        """Waits so many seconds, or for as long as it takes; whether the work has ended by then."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        assert self._process.stdin
        self._process.stdin.close()
        if code == -signal.SIGSEGV and not self._is_second:
            self._is_second = True
            self._process = self._start()
            return self.has_ended(timeout)
        return True

    def outcome(self) -> None:
        """How it ended. Raises: InputError, with its last words, if it failed; KeyboardInterrupt if Ctrl-C ended it."""
        code = self._process.returncode
        if code == 0:
            return
        if code == -signal.SIGINT:
            raise KeyboardInterrupt
        said = self._log.read_bytes()[self._begins :].decode(errors="replace").strip().splitlines()
        if code < 0:
            said.append(
                f"ended by {signal.Signals(-code).name}"
                + (", as where memory runs out" if code == -signal.SIGKILL else "")
            )
        raise InputError((said or [f"ended with exit code {code}"])[-1].removeprefix("error: "))

    def end(self) -> None:
        """Ends the work, if it has not ended, and waits for that."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def job_of_parent() -> dict[str, Any]:
    """The job that this process was begun for; from now on it ends with its parent."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return job


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed, however that came about
    os._exit(1)
