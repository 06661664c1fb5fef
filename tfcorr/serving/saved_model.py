"""A SavedModel's files: its graphs' signatures and operations, and in `assets.extra` warm-up requests and its items'
titles.

A server answers the requests before it calls a version available, so that its first user does not wait for graphs.
TensorFlow Serving reads them from `tf_serving_warmup_requests`, a TFRecord file of PredictionLog.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

CATALOGUE = Path("assets.extra", "catalogue.parquet")  # items in order of popularity: id, title
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
SIZES = (1, 8)  # rows of a request
LENGTH, K = 20, 10  # items in a list, and asked for


def signatures_of(saved_model: Path) -> dict[str, SignatureDef]:
    """Its signatures by name, but for the one that TensorFlow initialises it by."""
    found = _read(saved_model).meta_graphs[0].signature_def
    return {name: signature for name, signature in found.items() if signature.method_name}


def foreign_operations(saved_model: Path) -> set[str]:
    """The operations of a SavedModel that are not TensorFlow's own, or need Python, so that a stock server cannot run
    them."""
    proto = _read(saved_model)
    used: set[str] = set()
    for graph in (meta.graph_def for meta in proto.meta_graphs):
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        used |= {node.op for node in nodes} - functions
    return used - (set(dir(tf.raw_ops)) - {"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def write_warmup(saved_model: Path, name: str, items: Sequence[str]) -> None:
    """Writes requests of each size for each signature of the model NAME, made of these items."""
    path = saved_model / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, definition in signatures_of(saved_model).items():
            for rows in SIZES:
                request = PredictRequest(model_spec=ModelSpec(name=name, signature_name=signature))
                for each, info in definition.inputs.items():
                    request.inputs[each].CopyFrom(tf.make_tensor_proto(_values(each, info, rows, items)))
                writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def read_warmup(saved_model: Path) -> Iterator[PredictRequest]:
    """The requests, none if there is no such file."""
    path = saved_model / WARMUP
    if path.is_file():
        for record in tf.data.TFRecordDataset(str(path)):
            yield PredictionLog.FromString(record.numpy()).predict_log.request


def _values(name: str, info: TensorInfo, rows: int, items: Sequence[str]) -> tf.Tensor:
    """What a request might hold: items by their names, k, and users and features of which nothing is known."""
    some = list(items[:LENGTH])
    lists = {"history": some, "candidates": some, "exclude": some[:1]}
    if name in lists:
        return tf.constant([lists[name]] * rows)
    if name == "item":
        return tf.constant(some[:rows])
    if name == "k":
        return tf.fill([rows], K)
    shape = [rows] if len(info.tensor_shape.dim) == 1 else [rows, 1]
    return tf.fill(shape, "" if info.dtype == tf.string.as_datatype_enum else math.nan)


def _read(saved_model: Path) -> SavedModel:
    return SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
