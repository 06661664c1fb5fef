"""The versions that are loaded: they follow models.config while the server runs, and no request is dropped
meanwhile."""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grpc import StatusCode
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfcorr.serving import versions
from tfcorr.serving.server.errors import RequestError, invalid
from tfcorr.serving.server.model import LoadedModel
from tfcorr.serving.server.threads import within
from tfcorr.settings import InputError

LOOK = 1.0  # seconds between looks at whether a version that is being loaded is still wanted
State = ModelVersionStatus.State
Identity = tuple[int, int] | None
Load = Callable[[Path, str, int], LoadedModel]


@dataclass
class Status:
    """What became of a version."""

    state: Any
    code: StatusCode = StatusCode.OK
    message: str = ""


class Registry:
    """Models by name and version."""

    def __init__(
        self, folder: Path, names: Iterable[str], load: Load, announce: Callable[[str], None], seconds: float = 600
    ) -> None:
        """folder holds NAME/VERSION/ and models.config; load makes a version ready, within so many seconds; announce is
        told what happens."""
        self.folder, self.names, self._load, self._announce = folder, tuple(names), load, announce
        self._seconds = seconds
        self.statuses: dict[str, dict[int, Status]] = {name: {} for name in self.names}
        self.labels: dict[str, dict[str, int]] = {name: {} for name in self.names}
        self._loaded: dict[str, dict[int, LoadedModel]] = {name: {} for name in self.names}
        self._tried: dict[tuple[str, int], Identity] = {}  # by name and version
        self._complaint = ""

    def find(self, spec: ModelSpec) -> LoadedModel:
        """The model that a request means: a version, a label's, or the highest. Raises: RequestError."""
        loaded = self._loaded_of(spec.name)
        which = spec.WhichOneof("version_choice")
        if which is None:
            if not loaded:
                raise RequestError(StatusCode.NOT_FOUND, f"no version of {spec.name} is available")
            return loaded[max(loaded)]
        version = self._labelled(spec) if which == "version_label" else spec.version.value
        if version not in loaded:
            found = ", ".join(map(str, sorted(loaded))) or "none"
            raise RequestError(
                StatusCode.NOT_FOUND, f"version {version} of {spec.name} is not available; there are: {found}"
            )
        return loaded[version]

    def status(self, spec: ModelSpec) -> dict[int, Status]:
        """Every version that there was since the server began, or the one that is asked for. Raises: RequestError."""
        self._loaded_of(spec.name)
        known = self.statuses[spec.name]
        which = spec.WhichOneof("version_choice")
        if which is None:
            return known
        version = self._labelled(spec) if which == "version_label" else spec.version.value
        if version not in known:
            raise RequestError(StatusCode.NOT_FOUND, f"there is no version {version} of {spec.name}")
        return {version: known[version]}

    @property
    def available(self) -> bool:
        """Whether anything answers."""
        return any(self._loaded.values())

    async def follow(self, seconds: float) -> None:
        """Looks at models.config every so many seconds, for ever."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception as error:  # a fault in following is no reason to answer no more
                self._complain(f"{type(error).__name__}: {error}; what is loaded goes on")

    async def refresh(self) -> None:
        """Loads what is to be served and is not, then lets go of what is not to be; says why where it cannot."""
        try:
            labels = versions.labels(self.folder)
            if not labels:
                raise InputError(f"{self.folder / 'models.config'}: is not there, or has no label")
        except (InputError, OSError) as error:
            self._complain(f"{error}; what is loaded goes on" if self.available else str(error))
            return
        self._complaint = ""
        for version in sorted(set(labels.values())):
            await self._load_while_wanted(version)
        for name in self.names:
            self._label(name, labels)
        for name in self.names:
            await self._let_go(name, labels)

    def close(self) -> None:
        """Ends every model; what was asked before is answered."""
        for models in self._loaded.values():
            while models:
                models.popitem()[1].close()

    async def _load_while_wanted(self, version: int) -> None:
        """Gives up a version that no label is at any more: what hangs must not keep the next from being loaded."""
        loading = asyncio.create_task(self._load_together(version))
        try:
            while not (await asyncio.wait([loading], timeout=LOOK))[0]:
                with suppress(InputError, OSError):
                    if version not in versions.labels(self.folder).values():
                        return
            await loading
        finally:
            loading.cancel()

    async def _load_together(self, version: int) -> None:
        """Makes a version of all models ready, within the time for it, before any of them answers by it."""
        deadline = time.monotonic() + self._seconds
        ready = {name: await self._try_to_load(name, version, deadline) for name in self.names}
        for name, model in ready.items():
            if model is not None:
                before = self._loaded[name].get(version)  # of an earlier export with this number
                self._loaded[name][version] = model
                self.statuses[name][version] = Status(State.AVAILABLE)
                self._announce(f"{name} version {version}: available" + (" anew" if before else ""))
                if before is not None:
                    with suppress(TimeoutError):  # what hangs is left alone
                        await within(self._seconds, before.close)

    def _label(self, name: str, labels: dict[str, int]) -> None:
        """A label stays with its old version until the new one answers."""
        loaded, before = self._loaded[name], self.labels[name]
        self.labels[name] = {
            label: version if version in loaded else before.get(label, version) for label, version in labels.items()
        }

    async def _let_go(self, name: str, labels: dict[str, int]) -> None:
        loaded, wanted = self._loaded[name], set(labels.values())
        for version in self.statuses[name].keys() - wanted:
            self._tried.pop((name, version), None)
        if wanted & loaded.keys():
            for version in sorted(loaded.keys() - wanted - set(self.labels[name].values())):
                await self._unload(name, version)

    async def _try_to_load(self, name: str, version: int, deadline: float) -> LoadedModel | None:
        """A version that was tried is not tried again until another export has its number, or it has been taken out of
        models.config."""
        folder, is_loaded = self.folder / name / str(version), version in self._loaded[name]
        identity = _identity(folder)
        if self._tried.get((name, version), ()) == identity or (is_loaded and identity is None):
            return None
        if not is_loaded:
            self.statuses[name][version] = Status(State.LOADING)
        load = partial(self._load, folder, name, version)
        try:
            model = await within(max(deadline - time.monotonic(), 0), load, LoadedModel.close)
        except TimeoutError:
            code, first = StatusCode.DEADLINE_EXCEEDED, f"it was not ready within {self._seconds:g} s"
        except asyncio.CancelledError:
            if not is_loaded:
                self.statuses[name][version] = Status(State.END, StatusCode.CANCELLED, "no label is at it any more")
            raise
        except Exception as error:  # of TensorFlow's many kinds: a version that is broken must not take others with it
            kind = f"{type(error).__name__}: " if isinstance(error, LookupError) else ""
            code, first = StatusCode.UNKNOWN, kind + (str(error).splitlines() or [type(error).__name__])[0]
        else:
            self._tried[name, version] = identity
            return model
        self._tried[name, version] = identity
        if not is_loaded:
            self.statuses[name][version] = Status(State.END, code, first)
        self._announce(
            f"{name} version {version}: cannot be loaded: {first}" + ("; the one before goes on" if is_loaded else "")
        )
        return None

    async def _unload(self, name: str, version: int) -> None:
        """Those who have asked it already are answered by it."""
        self.statuses[name][version].state = State.UNLOADING
        with suppress(TimeoutError):  # what hangs is left alone
            await within(self._seconds, self._loaded[name].pop(version).close)
            await within(self._seconds, _free)
        self.statuses[name][version].state = State.END
        self._announce(f"{name} version {version}: unloaded")

    def _loaded_of(self, name: str) -> dict[int, LoadedModel]:
        if name not in self._loaded:
            raise RequestError(StatusCode.NOT_FOUND, f"there is no model {name!r}; there are: {', '.join(self.names)}")
        return self._loaded[name]

    def _labelled(self, spec: ModelSpec) -> int:
        known = self.labels[spec.name]
        if spec.version_label not in known:
            raise invalid(
                f"{spec.name} has no version label {spec.version_label!r}; there are: {', '.join(sorted(known))}"
            )
        return known[spec.version_label]

    def _complain(self, complaint: str) -> None:
        """Once, not at every look."""
        if complaint != self._complaint:
            self._announce(complaint)
        self._complaint = complaint


def _identity(folder: Path) -> Identity:
    """What tells an export from a later one with its number; None if it is not there."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _free() -> None:
    """Gives what is no more in use back to the system, which glibc would keep for long."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
