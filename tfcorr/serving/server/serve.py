"""From settings to a server that runs until it is told to stop."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from aiohttp import web

from tfcorr.console import command
from tfcorr.serving.server import model_server
from tfcorr.serving.server.connections import Connections, answering, listeners
from tfcorr.serving.server.grpc_api import make_server
from tfcorr.serving.server.logs import limit_logs
from tfcorr.serving.server.metrics import Metrics
from tfcorr.serving.server.model import LoadedModel
from tfcorr.serving.server.page import Page
from tfcorr.serving.server.registry import Registry
from tfcorr.serving.server.rest_api import LOCAL, make_app
from tfcorr.serving.server.service import Service
from tfcorr.serving.server.settings import Limits, ServerSettings, is_loopback
from tfcorr.serving.server.threads import within
from tfcorr.settings import InputError

FILE_LIMIT = resource.RLIMIT_NOFILE
FILES, SPARE = 2**16, 256  # that the process may open; and of these for others than connections
BODIES = 2  # that may be under way over REST, as a multiple of the requests that may be answered
CLOSING = 1.0  # seconds that models have to end when all was answered


def serve(folder: Path, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serves the versions under a run's `serving` folder until SIGTERM or SIGINT, then answers what it was asked, and
    returns.

    TensorFlow Serving's own binary does so where it is installed and settings allow it. Raises: InputError if nothing
    can be served, or not there.
    """
    if model_server.is_wanted(settings):
        model_server.run(folder, settings, announce)
    else:
        asyncio.run(_serve(folder, settings, partial(_say, announce)))


def _say(announce: Callable[[str], None], line: str) -> None:
    """A server does not end because no one listens to what it says."""
    with contextlib.suppress(OSError):
        announce(line)


async def _serve(folder: Path, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    limit_logs()
    metrics, limits, tls = Metrics(), settings.limits, _tls_of(settings)

    def load(path: Path, name: str, version: int) -> LoadedModel:
        return LoadedModel(path, version, limits.together, metrics.rows.labels(name).observe)

    registry = Registry(folder, settings.models, load, announce, settings.load_seconds)
    await registry.refresh()
    if not registry.available:
        raise InputError(
            f"{folder}: there is nothing to serve; make a version with: {command('tfcorr', 'export', folder.parent)}"
        )
    service = Service(registry, limits, metrics)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    stop = _stopped_by_signals()
    page = Page(registry, min(limits.k, limits.items)) if settings.page and "cascade" in settings.models else None
    connections = Connections(limits.connections, BODIES * limits.requests, limits.unread_bytes)
    local = {*LOCAL, _bracketed(settings.host).lower()} if is_loopback(settings.host) else []
    app = make_app(service, page, key, connections, local)
    grpc_server = make_server(service, key, _descriptors(limits))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.drain_seconds)
    tasks: list[asyncio.Task[None]] = []
    listening: list[socket.socket] = []
    try:
        grpc_port = await _start_grpc(grpc_server, settings, tls)
        listening = await _start_rest(runner, settings)
        assert runner.server is not None  # since the set-up
        factory = partial(answering, runner.server)
        tasks = [
            asyncio.create_task(each)
            for each in (
                *(connections.accept(listener, factory, tls.rest if tls else None) for listener in listening),
                connections.look(),
                registry.follow(settings.poll_seconds),
            )
        ]
        rest_port = listening[0].getsockname()[1]
        host, scheme = _bracketed(settings.host), "https" if tls else "http"
        address = f"{scheme}://{host}:{rest_port}"
        announce(f"gRPC at {host}:{grpc_port}, REST at {address}" + (f", page at {address}/" if page else ""))
        await stop.wait()
        announce(f"stopping: requests have {settings.drain_seconds:g} s to end")
    finally:
        for task in tasks:
            task.cancel()
        for listener in listening:
            listener.close()
        await asyncio.gather(grpc_server.stop(settings.drain_seconds), runner.cleanup())
        with contextlib.suppress(TimeoutError):  # what hangs is left alone
            await within(CLOSING, registry.close)
    announce("stopped")


def _stopped_by_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; one more ends the process at once."""
    stop = asyncio.Event()

    def told(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told, number)
    return stop


def _descriptors(limits: Limits) -> int:
    """How many connections gRPC may have of the files that the process may open, which are raised as far as they go."""
    now, most = (FILES if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(FILE_LIMIT))
    there = max(now, min(most, FILES))
    resource.setrlimit(FILE_LIMIT, (there, resource.getrlimit(FILE_LIMIT)[1]))
    return max(min(limits.grpc_connections, there - limits.connections - SPARE), 1)


class _Tls(NamedTuple):
    """A certificate and its key, as each protocol takes them."""

    grpc: Any
    rest: ssl.SSLContext


def _tls_of(settings: ServerSettings) -> _Tls | None:
    """Raises: InputError if the files are not there, or do not fit together."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, _no_password)
        pair = settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{settings.tls_certificate} cannot be used with {settings.tls_key}: {error.strerror or error}"
        ) from None
    return _Tls(grpc.ssl_server_credentials([pair]), context)


def _no_password() -> str:
    raise InputError("the TLS key is encrypted; decrypt it, and keep it where only the server may read it")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _start_grpc(server: grpc.aio.Server, settings: ServerSettings, tls: _Tls | None) -> int:
    address = f"{_bracketed(settings.host)}:{settings.port}"
    try:
        port = server.add_secure_port(address, tls.grpc) if tls else server.add_insecure_port(address)
    except RuntimeError:
        raise InputError(
            f"cannot listen at {address}: it is in use, or not this machine's; choose another --port or --host"
        ) from None
    await server.start()
    return int(port)


async def _start_rest(runner: web.AppRunner, settings: ServerSettings) -> list[socket.socket]:
    await runner.setup()
    try:
        return await listeners(settings.host, settings.rest_port)
    except OSError as error:
        address = f"{_bracketed(settings.host)}:{settings.rest_port}"
        raise InputError(
            f"cannot listen at {address}: {error.strerror}; choose another --rest-port or --host"
        ) from None
