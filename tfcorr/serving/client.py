"""Recommendations from a server: `tfcorr serve`, or TensorFlow Serving."""

from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tfcorr.evaluation.index import IndexKind
from tfcorr.serving.recommend import MODEL, AnyRecommender
from tfcorr.settings import InputError

SECONDS = 30.0  # that an answer may take
OPTIONS = [("grpc.max_receive_message_length", -1)]  # an answer is as large as what was asked for


class RemoteRecommender(AnyRecommender):
    """A cascade that is served, asked over gRPC."""

    def __init__(
        self,
        server: str,
        index: IndexKind = "exact",
        label: str | None = None,
        api_key: str | None = None,
        certificate: Path | None = None,
        rows: int = 64,
    ) -> None:
        """server is HOST:PORT; label chooses a version, where the highest is meant otherwise; with a certificate, by
        TLS.

        certificate is a PEM file of those who may vouch for the server; rows are asked at once. Raises: InputError if
        the server does not answer.
        """
        self.server, self.rows = server, rows
        self.spec = ModelSpec(name=MODEL[index], version_label=label) if label else ModelSpec(name=MODEL[index])
        if certificate is None:
            channel = grpc.insecure_channel(server, OPTIONS)
        else:
            try:
                channel = grpc.secure_channel(server, grpc.ssl_channel_credentials(certificate.read_bytes()), OPTIONS)
            except OSError as error:
                raise InputError(f"{certificate}: cannot be read: {error.strerror}") from None
        self._stub = PredictionServiceStub(channel)
        self._with = [("x-api-key", api_key)] if api_key else []
        self.specs = self._signature()

    def ask(self, request: dict[str, tf.Tensor], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """As the base class says; in halves where the server takes fewer rows. Raises: InputError if the server answers
        by an error."""
        message = PredictRequest(model_spec=self.spec)
        message.model_spec.signature_name = signature
        for name, values in request.items():
            message.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        try:
            answer = self._stub.Predict(message, SECONDS, metadata=self._with)
        except grpc.RpcError as error:
            half = len(next(iter(request.values()))) // 2
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or " rows" not in error.details() or not half:
                raise self._failure(error) from None
            halves = [
                self.ask({name: values[part] for name, values in request.items()}, signature)
                for part in (slice(half), slice(half, None))
            ]
            return {name: np.concatenate([each[name] for each in halves]) for name in halves[0]}
        return {name: tf.make_ndarray(values) for name, values in answer.outputs.items()}

    def _signature(self) -> dict[str, tf.TensorSpec]:
        try:
            request = GetModelMetadataRequest(model_spec=self.spec, metadata_field=["signature_def"])
            answer = self._stub.GetModelMetadata(request, SECONDS, metadata=self._with)
        except grpc.RpcError as error:
            raise self._failure(error) from None
        signatures = SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        inputs = signatures.signature_def["serving_default"].inputs
        return {
            name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), name)
            for name, info in inputs.items()
        }

    def _failure(self, error: grpc.RpcError) -> InputError:
        return InputError(f"{self.server}: {error.code().name}: {error.details()}")
