"""TensorFlow Serving's REST interface, version 1, Prometheus' metrics, and the page to try the cascade on."""

import hmac
import json
import re
from collections.abc import Collection

from aiohttp import web, web_response
from aiohttp.typedefs import Handler, Middleware
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import StatusCode
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfcorr.serving.server import rest_json
from tfcorr.serving.server.batcher import Arrays
from tfcorr.serving.server.connections import Connections
from tfcorr.serving.server.errors import HTTP_STATUS, RequestError, invalid
from tfcorr.serving.server.page import Page
from tfcorr.serving.server.requests import check_names, checked
from tfcorr.serving.server.service import DEFAULT, Service
from tfcorr.serving.versions import MONITORING_PATH

SHOWN = 1000  # characters of an error, which may quote the request
LOCAL = ("localhost", "127.0.0.1", "[::1]")  # names by which this machine's browsers ask it
PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?P<what>:predict|/metadata)?"
)


class Rest:
    """Handlers of requests."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def models(self, request: web.Request) -> web.Response:
        """Everything under /v1/models/."""
        match = PATH.fullmatch(request.path)
        what = match["what"] if match else None
        if match is None or request.method != ("POST" if what == ":predict" else "GET"):
            raise invalid(f"malformed request: {request.method} {request.path}")
        spec = ModelSpec(name=match["name"])
        if match["label"]:
            spec.version_label = match["label"]
        elif match["version"]:
            if int(match["version"]) >= 2**63:
                raise invalid(f"version {match['version']} is beyond 64 bits")
            spec.version.value = int(match["version"])
        method = {":predict": "Predict", "/metadata": "GetModelMetadata", None: "GetModelStatus"}[what]
        body = await request.read()  # which has come already
        with self.service.admitted("REST", method, spec.name):
            if what == ":predict":
                return await self._predict(spec, body)
            if what == "/metadata":
                return _json_of(self.service.metadata(spec, ["signature_def"]))
            return _json_of(self.service.status(spec))

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(
            body=self.service.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _predict(self, spec: ModelSpec, text: bytes) -> web.Response:
        body, limits = rest_json.parse(text), self.service.limits
        spec.signature_name = body.get("signature_name", DEFAULT)

        def arrays(signature: SignatureDef) -> Arrays:
            infos = dict(signature.inputs)
            columns = rest_json.inputs_of(body, infos)
            check_names(set(columns), signature)
            found = {name: rest_json.array_of(name, values, infos[name], limits) for name, values in columns.items()}
            return checked(found, signature, limits)

        _, outputs = await self.service.predict(spec, arrays)
        return web.json_response(rest_json.predictions(outputs, in_rows="instances" in body))


def make_app(
    service: Service, page: Page | None, key: str | None, connections: Connections, local: Collection[str]
) -> web.Application:
    """The application; the page is left out if there is none; `local` are the names by which alone it may be asked,
    where only this machine can."""
    web_response.SERVER_SOFTWARE = "tfcorr"  # type: ignore[attr-defined]  # no versions, also to what is no HTTP
    rest = Rest(service)
    guards = [connections.watch, _errors, own_pages_only([] if key else local)]
    guards += [*([_key_required(key)] if key else []), connections.take_body]
    app = web.Application(middlewares=guards, client_max_size=service.limits.message_bytes)
    app.on_response_prepare.append(_as_it_is)
    app.router.add_route("*", "/v1/{rest:.*}", rest.models)
    app.router.add_get(MONITORING_PATH, rest.metrics)
    if page is not None:
        app.router.add_get("/", page.html)
        app.router.add_get("/page/items", page.items)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return web.json_response({"error": str(error)[:SHOWN]}, status=HTTP_STATUS[error.code])
    except UnicodeEncodeError:
        return web.json_response(
            {"error": "the request holds a text that is no Unicode, half of a surrogate pair"}, status=400
        )
    except web.RequestPayloadError as error:
        return web.json_response({"error": f"the body could not be read: {error}"}, status=400)
    except web.HTTPException as error:  # no such path, a body that is too large
        return web.json_response({"error": error.text or error.reason}, status=error.status)


async def _as_it_is(_: web.Request, response: web.StreamResponse) -> None:
    """No browser takes the content for another kind than it says."""
    response.headers["X-Content-Type-Options"] = "nosniff"


def own_pages_only(local: Collection[str]) -> Middleware:
    """Refuses what a page of another site asks by its visitor's browser: by its Origin and, where only this machine can
    ask and needs no key, by a name for it that is none of `local`, to which another site's name may lead."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if local and name.lower().removesuffix(".") not in local:
            raise RequestError(StatusCode.PERMISSION_DENIED, f"this server is not {name or 'of no name'}")
        if origin is not None and origin.rpartition("://")[2].lower() != host.lower():
            raise RequestError(StatusCode.PERMISSION_DENIED, f"a page of {origin} may not ask this server")
        return await handler(request)

    return check


def _key_required(key: str) -> Middleware:
    expected = key.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """The page itself may be seen by anyone: it asks for the key."""
        given = request.headers.get("x-api-key", "").encode("utf-8", "surrogateescape")
        if request.path != "/" and not hmac.compare_digest(given, expected):
            raise RequestError(StatusCode.UNAUTHENTICATED, "the request must carry the API key as x-api-key")
        return await handler(request)

    return check


def _json_of(message: Message) -> web.Response:
    plain = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for packed in plain.get("metadata", {}).values():
        packed.pop("@type", None)
    return web.json_response(plain, dumps=lambda value: json.dumps(value, indent=1))
