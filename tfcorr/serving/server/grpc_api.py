"""The services of TensorFlow Serving over gRPC."""

import asyncio
import hmac
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from tfcorr.serving.server.errors import RequestError
from tfcorr.serving.server.requests import arrays_of
from tfcorr.serving.server.service import Service

STREAMS = 4  # calls of a connection, as a multiple of the requests that may be answered; beyond, they wait
MESSAGE = 30.0  # seconds that a message may take to come
SHOWN = 1000  # characters of an error, which may quote the request: more do not fit into the trailers
Context = Any  # grpc.aio.ServicerContext, which ships no types


class Unread:
    """Bytes of answers that their peers have not taken, as one who takes none would have the memory filled."""

    def __init__(self, limit: int) -> None:
        """limit is how many there may be; a peer may always have one."""
        self._limit, self._total = limit, 0
        self._of: dict[str, int] = defaultdict(int)

    def add(self, size: int, context: Context) -> None:
        """Until the call has ended. Raises: RequestError if there are too many."""
        peer = context.peer()
        if self._of[peer] and self._total + size > self._limit:
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "earlier answers have not been read; read them")
        self._of[peer] += size
        self._total += size
        context.add_done_callback(partial(self._end, peer, size))

    def _end(self, peer: str, size: int, _: Context) -> None:
        self._total -= size
        self._of[peer] -= size
        if not self._of[peer]:
            del self._of[peer]


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; any other method is UNIMPLEMENTED."""

    def __init__(self, service: Service, unread: Unread) -> None:
        self.service, self.unread = service, unread

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """Answers tensors by tensors."""
        return await _answered(self, "Predict", request, context, self._predict)

    async def GetModelMetadata(self, request: GetModelMetadataRequest, context: Context) -> GetModelMetadataResponse:
        """The signatures."""
        return await _answered(self, "GetModelMetadata", request, context, self._metadata)

    async def _predict(self, request: PredictRequest) -> PredictResponse:
        limits = self.service.limits
        spec, outputs = await self.service.predict(
            request.model_spec, lambda signature: arrays_of(request.inputs, signature, limits), request.output_filter
        )
        response = PredictResponse(model_spec=spec)
        for name, values in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values, tf.string if values.dtype == object else None))
        return response

    async def _metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        return self.service.metadata(request.model_spec, request.metadata_field)


class Models(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; what is served is chosen by models.config alone, so that reloading by request is
    UNIMPLEMENTED."""

    def __init__(self, service: Service, unread: Unread) -> None:
        self.service, self.unread = service, unread

    async def GetModelStatus(self, request: GetModelStatusRequest, context: Context) -> GetModelStatusResponse:
        """The states of versions."""
        return await _answered(self, "GetModelStatus", request, context, self._status)

    async def _status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        return self.service.status(request.model_spec)


async def _answered(
    servicer: Prediction | Models, method: str, request: Any, context: Context, answer: Callable[[Any], Awaitable[Any]]
) -> Any:
    try:
        with servicer.service.admitted("gRPC", method, request.model_spec.name):
            response = await answer(request)
        servicer.unread.add(response.ByteSize(), context)
        return response
    except RequestError as error:
        await context.abort(error.code, str(error)[:SHOWN])


class KeyRequired(grpc.aio.ServerInterceptor):
    """Lets through only what carries the API key."""

    def __init__(self, key: str) -> None:
        self.key = key.encode()

        async def refuse(request: Any, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the request must carry the API key as x-api-key")

        self.refusal = grpc.stream_unary_rpc_method_handler(refuse)  # which waits for no message

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """By the metadata x-api-key."""
        given = dict(details.invocation_metadata).get("x-api-key", "")
        right = hmac.compare_digest(given.encode() if isinstance(given, str) else given, self.key)
        return await continuation(details) if right else self.refusal


class Parsing(grpc.aio.ServerInterceptor):
    """Takes a call's message within a time, and lets go of the slowest where too many are coming. Answers bytes that
    are no message, and a call without any, by INTERNAL, as gRPC does in C++; in Python they would be UNKNOWN, and never
    answered."""

    def __init__(self, limit: int) -> None:
        """limit is how many messages may be coming."""
        self._limit = limit
        self._coming: dict[asyncio.Task[bytes | None], None] = {}  # in the order in which they began

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Takes and parses the message within the method, where an error can be given a code."""
        handler = await continuation(details)
        if handler is None:
            return None

        async def parse(requests: AsyncIterator[bytes], context: Context) -> Any:
            try:
                message = handler.request_deserializer(await self._whole(requests))
            except EOFError:
                await context.abort(grpc.StatusCode.INTERNAL, "the call ended without a message")
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"the message did not come within {MESSAGE:g} s, or others did"
                )
            except DecodeError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
            try:
                return await handler.unary_unary(message, context)
            except NotImplementedError:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")

        return grpc.stream_unary_rpc_method_handler(parse, None, handler.response_serializer)

    async def _whole(self, requests: AsyncIterator[bytes]) -> bytes:
        """Raises: EOFError if there is none, TimeoutError if it takes too long."""
        if len(self._coming) >= self._limit:
            next(iter(self._coming)).cancel()
        coming = asyncio.ensure_future(anext(requests, None))
        self._coming[coming] = None
        try:
            done, _ = await asyncio.wait([coming], timeout=MESSAGE)
        finally:
            del self._coming[coming]
            coming.cancel()
        if not done or coming.cancelled():
            raise TimeoutError
        message = coming.result()
        if message is None:
            raise EOFError
        return message


def make_server(service: Service, key: str | None, connections: int) -> grpc.aio.Server:
    """A server that listens nowhere yet, for so many connections."""
    options = [
        ("grpc.max_receive_message_length", service.limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second server at one port is an error, not a lottery
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", 5000),  # TLS and HTTP/2's own
        ("grpc.max_concurrent_streams", STREAMS * service.limits.requests),  # of a connection
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.keepalive_time_ms", 30_000),  # who is gone does not answer, and is let go of
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    interceptors = [*([KeyRequired(key)] if key else []), Parsing(service.limits.requests)]
    unread = Unread(service.limits.unread_bytes)
    server = grpc.aio.server(options=options, interceptors=interceptors)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(service, unread), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(service, unread), server)
    return server
