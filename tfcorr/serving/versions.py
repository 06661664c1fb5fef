"""Which exported versions are served, and the files that tell TensorFlow Serving so.

`models.config` is the truth: a version is served while a label points at it. So that all models of a version appear at
once, this file is written, in one step, after their folders are whole.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfcorr.files import locked, write_whole
from tfcorr.settings import InputError

MODELS = ("cascade", "cascade_scann", "retriever", "ranker")
ELSEWHERE = {"cascade_scann"}  # models that a stock server cannot load, so that it would not start with them
STABLE = "stable"  # the label that an export moves by itself
MONITORING_PATH = "/monitoring/prometheus/metrics"

# Padding stays off: a server pads by a tensor's first element (its batching/batching_util.h), which would repeat a
# history's oldest item as its latest.
BATCHING = """\
max_batch_size { value: 128 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
pad_variable_length_inputs: false
"""
MONITORING = f"""\
prometheus_config {{
  enable: true
  path: "{MONITORING_PATH}"
}}
"""


def labels(folder: Path) -> dict[str, int]:
    """The versions that are served, by label; empty if nothing was exported. Raises: InputError if models.config is
    damaged."""
    path = folder / "models.config"
    if not path.is_file():
        return {}
    try:
        config = text_format.Parse(path.read_text(), ModelServerConfig())
        return dict(config.model_config_list.config[0].version_labels)
    except (text_format.ParseError, UnicodeDecodeError, IndexError) as error:
        raise InputError(
            f"{path}: is damaged: {str(error) or 'it names no model'}; remove it, and make a new version with: "
            "tfcorr export"
        ) from None


def newest_served(folder: Path) -> int:
    """The version that answers a request which names none: the highest that is served, 0 if there is none."""
    return max(labels(folder).values(), default=0)


def check_label(label: str) -> None:
    """Raises: InputError if it cannot be a label, as it must stand in the path of a request.

    >>> check_label("canary")
    >>> check_label("to day")
    Traceback (most recent call last):
    tfcorr.settings.InputError: label 'to day': expected a letter or digit, then these or _ . - such as stable or canary
    """
    if not re.fullmatch(r"\w[\w.-]*", label, re.ASCII):
        raise InputError(f"label {label!r}: expected a letter or digit, then these or _ . - such as stable or canary")


def next_version(folder: Path) -> int:
    """One more than the highest number that anything has among the models' versions, be it one or not."""
    named = (path.name for name in MODELS for path in (folder / name).glob("*"))
    return 1 + max((int(name) for name in named if name.isascii() and name.isdecimal()), default=0)


def versions_on_disk(folder: Path) -> set[int]:
    """The versions under NAME/: folders, or links to some, whose names are numbers as they are written here."""
    named = {path.name for path in folder.glob("*") if path.is_dir()}
    return {int(name) for name in named if re.fullmatch("[1-9][0-9]*", name)}


def whole_versions(folder: Path) -> set[int]:
    """The versions that every model has."""
    return set.intersection(*(versions_on_disk(folder / name) for name in MODELS))


def publish(folder: Path, version: int, label: str, keep: int) -> None:
    """Serves a version under a label; of what has no label then, all but the newest `keep` versions are removed."""
    now_served = labels(folder) | {label: version}
    _write(folder, now_served)
    for old in sorted(whole_versions(folder) - set(now_served.values()))[:-keep]:
        for name in MODELS:
            _remove(folder / name / str(old))


def _remove(version: Path) -> None:
    """In one step, so that no one finds half of it."""
    removed = version.with_name(f".{version.name}.removed")
    version.rename(removed)
    _discard(removed)


def _discard(path: Path) -> None:
    """Removes a folder or file; of a link, itself alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def move_labels(folder: Path, moves: Mapping[str, int | None]) -> dict[str, int]:
    """Points labels at other versions, or takes them away where the version is None; returns all labels then.

    Raises: InputError if a version is not on the disk, a label is not there, or no label would be left.
    """
    known = labels(folder)
    for label, version in moves.items():
        check_label(label)
        there = whole_versions(folder)
        if version is not None and version not in there:
            found = ", ".join(map(str, sorted(there))) or "none"
            raise InputError(f"{label}={version}: there is no whole version {version} in {folder}; there are: {found}")
        if version is None and label not in known:
            raise InputError(
                f"{label}=: there is no label {label!r} to take away; there are: {', '.join(known) or 'none'}"
            )
    left = {label: version for label, version in (known | dict(moves)).items() if version is not None}
    if not left:
        raise InputError(f"{folder}: nothing would be served; leave one label at least")
    _write(folder, left)
    return left


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time change what is served. What it, or a killed one before it, left unfinished is
    removed."""
    with locked(folder / ".lock"):
        _clear(folder)
        try:
            yield
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    """Removes what is half-written, and versions that not every model has."""
    for name in MODELS:
        for left in [*(folder / name).glob(".*.partial-*"), *(folder / name).glob(".*.removed")]:
            _discard(left)
        for version in versions_on_disk(folder / name) - whole_versions(folder) - set(labels(folder).values()):
            _remove(folder / name / str(version))


def _write(folder: Path, served: Mapping[str, int]) -> None:
    """`models.config` last, as it is what makes a version appear."""
    stock = [name for name in MODELS if name not in ELSEWHERE]
    texts = {
        "batching.config": BATCHING,
        "monitoring.config": MONITORING,
        "models-stock.config": text_format.MessageToString(models_config(stock, served)),
        "models.config": text_format.MessageToString(models_config(MODELS, served)),
    }
    for name, text in texts.items():
        write_whole(folder / name, partial(Path.write_text, data=text))


def models_config(names: Iterable[str], served: Mapping[str, int], base: str = "/models") -> ModelServerConfig:
    """The configuration of the models under the folder `base`, in which the official image keeps them."""
    config = ModelServerConfig()
    policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy(
        specific=FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific(versions=sorted(set(served.values())))
    )
    for name in names:
        model = config.model_config_list.config.add(name=name, base_path=f"{base}/{name}", model_platform="tensorflow")
        model.model_version_policy.CopyFrom(policy)
        model.version_labels.update(served)
    return config
