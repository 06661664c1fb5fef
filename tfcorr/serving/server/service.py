"""What both protocols do with a request: admit it, find its model, check it, have it answered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfcorr.serving.server.batcher import Arrays
from tfcorr.serving.server.errors import CODES, RequestError, invalid
from tfcorr.serving.server.metrics import Metrics
from tfcorr.serving.server.registry import Registry
from tfcorr.serving.server.settings import Limits

DEFAULT = "serving_default"


class Service:
    """The models' answers, over no protocol in particular."""

    def __init__(self, registry: Registry, limits: Limits, metrics: Metrics) -> None:
        self.registry, self.limits, self.metrics = registry, limits, metrics
        self._under_way = 0

    @contextmanager
    def admitted(self, api: str, method: str, model: str) -> Iterator[None]:
        """Counts a request while it is answered. Raises: RequestError if too many are."""
        known = model if model in self.registry.names else ""
        with self.metrics.request(api, method, known):
            if self._under_way >= self.limits.requests:
                raise RequestError(
                    StatusCode.RESOURCE_EXHAUSTED, f"{self._under_way} requests are under way already; try again"
                )
            self._under_way += 1
            self.metrics.under_way.set(self._under_way)
            try:
                yield
            finally:
                self._under_way -= 1
                self.metrics.under_way.set(self._under_way)

    async def predict(
        self, spec: ModelSpec, arrays: Callable[[SignatureDef], Arrays], output_filter: Sequence[str] = ()
    ) -> tuple[ModelSpec, Arrays]:
        """Answers by the model that is meant; `arrays` gives the checked inputs of a signature. Raises:
        RequestError."""
        if not spec.name:
            raise invalid("the request names no model")
        model = self.registry.find(spec)
        name = spec.signature_name or DEFAULT
        if name not in model.signatures:
            raise RequestError(
                StatusCode.FAILED_PRECONDITION,
                f"{spec.name} has no signature {name!r}; there are: {', '.join(sorted(model.signatures))}",
            )
        signature = model.signatures[name]
        unknown = sorted(set(output_filter) - set(signature.outputs))
        if unknown:
            raise invalid(
                f"output_filter: there is no output {unknown[0]!r}; there are: {', '.join(sorted(signature.outputs))}"
            )
        if len(set(output_filter)) < len(output_filter):
            raise invalid("output_filter: an output stands twice")
        try:
            outputs = await model.ask(name, arrays(signature))
        except tf.errors.OpError as error:
            raise RequestError(CODES.get(error.error_code, StatusCode.UNKNOWN), error.message.splitlines()[0]) from None
        kept = {each: outputs[each] for each in output_filter or sorted(outputs)}
        answered = ModelSpec(name=spec.name, signature_name=name)
        answered.version.value = model.version
        return answered, kept

    def metadata(self, spec: ModelSpec, fields: Sequence[str]) -> GetModelMetadataResponse:
        """The signatures of the model that is meant. Raises: RequestError."""
        if not spec.name:
            raise invalid("the request names no model")
        if not fields:
            raise invalid("metadata_field: expected signature_def, received none")
        for each in fields:
            if each != "signature_def":
                raise invalid(f"metadata_field: expected signature_def, received {each!r}")
        model = self.registry.find(spec)
        response = GetModelMetadataResponse(model_spec=ModelSpec(name=spec.name))
        response.model_spec.version.value = model.version
        signatures = SignatureDefMap()
        for name, signature in model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, spec: ModelSpec) -> GetModelStatusResponse:
        """The states of a model's versions, the newest first. Raises: RequestError."""
        if not spec.name:
            raise invalid("the request names no model")
        response = GetModelStatusResponse()
        for version, status in sorted(self.registry.status(spec).items(), reverse=True):
            each = response.model_version_status.add(version=version, state=status.state)
            each.status.error_code = status.code.value[0]
            each.status.error_message = status.message
        return response
