"""The services of TensorFlow Serving over gRPC."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
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

SHOWN = 1000  # characters of an error, which may quote the request: more do not fit into the trailers
Context = Any  # grpc.aio.ServicerContext, which ships no types


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; any other method is UNIMPLEMENTED."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """Answers tensors by tensors."""
        return await _answered(self.service, "Predict", request, context, self._predict)

    async def GetModelMetadata(self, request: GetModelMetadataRequest, context: Context) -> GetModelMetadataResponse:
        """The signatures."""
        return await _answered(self.service, "GetModelMetadata", request, context, self._metadata)

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

    def __init__(self, service: Service) -> None:
        self.service = service

    async def GetModelStatus(self, request: GetModelStatusRequest, context: Context) -> GetModelStatusResponse:
        """The states of versions."""
        return await _answered(self.service, "GetModelStatus", request, context, self._status)

    async def _status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        return self.service.status(request.model_spec)


async def _answered(
    service: Service, method: str, request: Any, context: Context, answer: Callable[[Any], Awaitable[Any]]
) -> Any:
    try:
        with service.admitted("gRPC", method, request.model_spec.name):
            return await answer(request)
    except RequestError as error:
        await context.abort(error.code, str(error)[:SHOWN])


class KeyRequired(grpc.aio.ServerInterceptor):
    """Lets through only what carries the API key."""

    def __init__(self, key: str) -> None:
        self.key = key.encode()

        async def refuse(request: Any, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the request must carry the API key as x-api-key")

        self.refusal = grpc.unary_unary_rpc_method_handler(refuse, lambda request: request)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """By the metadata x-api-key."""
        given = dict(details.invocation_metadata).get("x-api-key", "")
        right = hmac.compare_digest(given.encode() if isinstance(given, str) else given, self.key)
        return await continuation(details) if right else self.refusal


class Parsing(grpc.aio.ServerInterceptor):
    """Answers bytes that are no message, and a call without any, by INTERNAL, as gRPC does in C++; in Python they would
    be UNKNOWN, and never answered."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Takes and parses the message within the method, where an error can be given a code."""
        handler = await continuation(details)
        if handler is None:
            return None

        async def parse(requests: AsyncIterator[bytes], context: Context) -> Any:
            try:
                message = handler.request_deserializer(await anext(requests))
            except StopAsyncIteration:
                await context.abort(grpc.StatusCode.INTERNAL, "the call ended without a message")
            except DecodeError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
            return await handler.unary_unary(message, context)

        return grpc.stream_unary_rpc_method_handler(parse, None, handler.response_serializer)


def make_server(service: Service, key: str | None, connections: int) -> grpc.aio.Server:
    """A server that listens nowhere yet, for so many connections."""
    options = [
        ("grpc.max_receive_message_length", service.limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second server at one port is an error, not a lottery
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", 5000),  # TLS and HTTP/2's own
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.keepalive_time_ms", 30_000),  # who reads nothing does not answer, and is let go of
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    server = grpc.aio.server(options=options, interceptors=[Parsing(), *([KeyRequired(key)] if key else [])])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(service), server)
    return server
