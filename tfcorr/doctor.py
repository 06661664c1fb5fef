"""What the environment holds, and whether it works."""

import importlib
import importlib.metadata
import platform
from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from tfcorr import __version__
from tfcorr.data.sources import cache_folder


def examine() -> tuple[Table, bool]:
    """A table of what was found, and whether all of it is well."""
    checks: dict[str, Callable[[], str]] = {
        "tfcorr": lambda: __version__,
        "python": platform.python_version,
        **{name: _loads(name, module) for name, module in PACKAGES.items()},
        "devices": _devices,
        "ScaNN's operations": _scann_searches,
        "cache": lambda: str(cache_folder()),
    }
    table, healthy = Table("what", "found"), True
    for name, check in checks.items():
        try:
            table.add_row(name, check())
        except Exception as error:  # a broken package may fail in any way, and the report must go on
            healthy = False
            table.add_row(name, Text(f"fails: {type(error).__name__}: {str(error).splitlines()[0]}", style="red"))
    return table, healthy


PACKAGES = {
    "tensorflow": "tensorflow",
    "tf_keras": "tf_keras",
    "tensorflow-recommenders": "tensorflow_recommenders",
    "scann": "scann",
    "tensorflow-datasets": "tensorflow_datasets",
    "keras-tuner": "keras_tuner",
    "protobuf": "google.protobuf",
    "tensorflow-serving-api": "tensorflow_serving.apis.predict_pb2",
    "grpcio": "grpc",
    "aiohttp": "aiohttp",
    "polars": "polars",
}


def _loads(package: str, module: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(module)
        return importlib.metadata.version(package)

    return check


def _devices() -> str:
    import tensorflow as tf

    return ", ".join(device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices())


def _scann_searches() -> str:
    import tensorflow as tf

    from tfcorr.evaluation.index import ScannIndex

    ids, _ = ScannIndex(tf.eye(4)).search(tf.eye(4), tf.constant(1))
    if ids[:, 0].numpy().tolist() != [1, 2, 3, 4]:
        raise RuntimeError(f"a search for four known vectors found {ids[:, 0].numpy().tolist()}, expected [1, 2, 3, 4]")
    return "search works"
