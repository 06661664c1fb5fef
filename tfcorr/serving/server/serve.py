"""From settings to a server that runs until it is told to stop."""

import asyncio
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
from aiohttp import web

from tfcorr.serving.server import model_server
from tfcorr.serving.server.grpc_api import make_server
from tfcorr.serving.server.metrics import Metrics
from tfcorr.serving.server.model import LoadedModel
from tfcorr.serving.server.page import Page
from tfcorr.serving.server.registry import Registry
from tfcorr.serving.server.rest_api import make_app
from tfcorr.serving.server.service import Service
from tfcorr.serving.server.settings import ServerSettings
from tfcorr.settings import InputError


def serve(folder: Path, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serves the versions under a run's `serving` folder until SIGTERM or SIGINT, then answers what it was asked, and returns.

    TensorFlow Serving's own binary does so where it is installed and settings allow it. Raises: InputError if nothing can be
    served, or not there.
    """
    if model_server.is_wanted(settings):
        model_server.run(folder, settings, announce)
    else:
        asyncio.run(_serve(folder, settings, announce))


async def _serve(folder: Path, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    metrics, limits = Metrics(), settings.limits

    def load(path: Path, name: str, version: int) -> LoadedModel:
        return LoadedModel(path, name, version, limits.rows, metrics.rows.labels(name).observe)

    registry = Registry(folder, settings.models, load, announce)
    await registry.refresh()
    if not registry.available:
        raise InputError(f"{folder}: there is nothing to serve; make a version with: tfcorr export {folder.parent}")
    service = Service(registry, limits, metrics)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        grpc_port = await _start_grpc(service, settings, key, stack)
        page = Page(registry, limits.k) if settings.page and "cascade" in settings.models else None
        rest_port = await _start_rest(web.AppRunner(make_app(service, page, key), access_log=None), settings, stack)
        scheme = "https" if settings.tls_certificate else "http"
        announce(f"gRPC at {settings.host}:{grpc_port}, REST at {scheme}://{settings.host}:{rest_port}" + (", page at /" if page else ""))
        following = asyncio.create_task(registry.follow(settings.poll_seconds))
        await asyncio.wait([following, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()  # raises what ended it, which nothing should
        following.cancel()
        announce(f"stopping: requests have {settings.drain_seconds:g} s to end")
    announce("stopped")


async def _start_grpc(service: Service, settings: ServerSettings, key: str | None, stack: AsyncExitStack) -> int:
    server = make_server(service, key)
    address = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    try:
        if settings.tls_certificate and settings.tls_key:
            pair = settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except (RuntimeError, OSError) as error:
        raise InputError(f"cannot listen at {address}: {error}; choose another --port or --host") from None
    await server.start()
    stack.push_async_callback(server.stop, settings.drain_seconds)
    return int(port)


async def _start_rest(runner: web.AppRunner, settings: ServerSettings, stack: AsyncExitStack) -> int:
    context = None
    if settings.tls_certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{settings.tls_certificate}: cannot be used with {settings.tls_key}: {error}") from None
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = partial(web.TCPSite, runner, settings.host, settings.rest_port, ssl_context=context)
    try:
        await site().start()
    except OSError as error:
        raise InputError(f"cannot listen at {settings.host}:{settings.rest_port}: {error.strerror}; choose another --rest-port") from None
    return int(runner.addresses[0][1])
