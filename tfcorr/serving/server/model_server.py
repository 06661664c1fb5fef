"""TensorFlow Serving's own server, where its binary is installed, over the same exports."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format

from tfcorr.console import command
from tfcorr.files import write_whole
from tfcorr.serving import versions
from tfcorr.serving.server.settings import ServerSettings
from tfcorr.settings import InputError

BINARY = "tensorflow_model_server"


def is_wanted(settings: ServerSettings) -> bool:
    """Whether it is here, and allowed: it has no choice of an address but listens at every one, and asks for no key."""
    return (
        shutil.which(BINARY) is not None
        and settings.insecure
        and settings.api_key is None
        and settings.tls_certificate is None
    )


def run(folder: Path, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Runs it until SIGTERM or SIGINT, which are handed on; its configuration follows models.config.

    Raises: InputError if nothing was exported, or it ends by itself with an error.
    """
    if 0 in (settings.port, settings.rest_port) or settings.host not in ("127.0.0.1", "0.0.0.0", "::"):
        raise InputError(
            f"{BINARY} listens at every address, and at ports that are named: leave --host out, and give ports "
            "other than 0"
        )
    names = [name for name in settings.models if name not in versions.ELSEWHERE]
    served = versions.labels(folder)
    if not served or not names:
        raise InputError(
            f"{folder}: there is nothing that {BINARY} can serve; make a version with: "
            f"{command('tfcorr', 'export', folder.parent)}"
        )
    with tempfile.TemporaryDirectory() as there:
        config = Path(there, "models.config")
        _write(config, folder, names, served)
        flags = {
            "port": settings.port,
            "rest_api_port": settings.rest_port,
            "model_config_file": config,
            "model_config_file_poll_wait_seconds": max(round(settings.poll_seconds), 1),
            "monitoring_config_file": folder / "monitoring.config",
            "allow_version_labels_for_unavailable_models": "true",
        }
        announce(
            f"{BINARY} at every address of this machine, gRPC at port {settings.port}, REST at port "
            f"{settings.rest_port}"
        )
        with subprocess.Popen([BINARY, *(f"--{name}={value}" for name, value in flags.items())]) as process:
            told: list[int] = []

            def tell(number: int, _: object) -> None:
                told.append(number)
                process.send_signal(number)

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, tell)
            code = None
            while code is None:
                try:
                    code = process.wait(settings.poll_seconds)
                except subprocess.TimeoutExpired:
                    served = _follow(config, folder, names, served, announce)
    if code and not told:
        raise InputError(f"{BINARY} ended with code {code}; what it said stands above")


def _follow(
    config: Path, folder: Path, names: list[str], served: dict[str, int], announce: Callable[[str], None]
) -> dict[str, int]:
    try:
        now = versions.labels(folder)
    except InputError as error:
        announce(f"{error}; what is loaded goes on")
        return served
    if now and now != served:
        _write(config, folder, names, now)
    return now or served


def _write(config: Path, folder: Path, names: list[str], served: dict[str, int]) -> None:
    text = text_format.MessageToString(versions.models_config(names, served, str(folder.resolve())))
    write_whole(config, lambda path: path.write_text(text))
