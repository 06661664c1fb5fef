"""From a request's tensors to arrays that a signature takes, or to one clear error."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from tfcorr.serving.server.batcher import Arrays
from tfcorr.serving.server.errors import RequestError, invalid
from tfcorr.serving.server.settings import Limits


def arrays_of(protos: Mapping[str, TensorProto], signature: SignatureDef, limits: Limits) -> Arrays:
    """A gRPC request's tensors, checked. Raises: RequestError."""
    check_names(set(protos), signature)
    return checked(
        {name: _array(name, proto, signature.inputs[name], limits) for name, proto in protos.items()}, signature, limits
    )


def check_names(given: set[str], signature: SignatureDef) -> None:
    """Raises: RequestError if the inputs are not those of the signature."""
    expected = set(signature.inputs)
    if given != expected:
        differing = {"missing": sorted(expected - given), "not known": sorted(given - expected)}
        listed = ", ".join(f"{what}: {', '.join(names)}" for what, names in differing.items() if names)
        raise invalid(f"inputs do not match the signature's, which are {', '.join(sorted(expected))}; {listed}")


def checked(arrays: Arrays, signature: SignatureDef, limits: Limits) -> Arrays:
    """The arrays, if their shapes and sizes are such as the signature and the limits allow. Raises: RequestError."""
    rows = {name: len(values) for name, values in arrays.items()}
    if len(set(rows.values())) > 1:
        raise invalid(
            "inputs have unequal numbers of rows: "
            f"{', '.join(f'{name} {count}' for name, count in sorted(rows.items()))}"
        )
    count = next(iter(rows.values()))
    if not 1 <= count <= limits.rows:
        raise invalid(f"a request has 1 to {limits.rows} rows; this one has {count}")
    for name, values in arrays.items():
        if values.ndim > 1 and values.shape[1] > limits.length:
            raise too_large(name, values.shape, limits)
        if values.dtype.kind == "f" and np.isinf(values).any():
            row = int(np.isinf(values).reshape(count, -1).any(axis=1).argmax())
            raise invalid(f"{name}: row {row} has a number beyond {values.dtype}; expected finite ones, or NaN")
    width = arrays["candidates"].shape[1] if "candidates" in arrays else 0
    if "k" in arrays:
        least, width = int(arrays["k"].min()), int(arrays["k"].max())
        if least < 0 or width > limits.k:
            raise invalid(f"k: expected 0 to {limits.k}, received {least} to {width}")
    if width * count > limits.items:
        raise invalid(
            f"an answer has at most {limits.items} items; {count} rows of {width} are {width * count}: ask for fewer "
            "rows at once"
        )
    return arrays


def too_large(name: str, shape: Sequence[int], limits: Limits) -> RequestError:
    """What to say of an input of more rows, or of longer ones, than the limits allow."""
    return invalid(
        f"{name}: at most {limits.rows} rows of {limits.length} values are taken, received the shape {list(shape)}"
    )


def described(info: TensorInfo) -> str:
    """A tensor's type and shape as text, such as string [?, ?]."""
    shape = ", ".join("?" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim)
    return f"{tf.as_dtype(info.dtype).name} [{shape}]"


def _array(name: str, proto: TensorProto, info: TensorInfo, limits: Limits) -> np.ndarray:
    """Checked before it is decoded: a few bytes can claim a shape that fills the memory."""
    if proto.dtype != info.dtype:
        received = DataType.Name(proto.dtype) if proto.dtype in DataType.values() else f"type {proto.dtype}"
        raise invalid(f"{name}: expected {described(info)}, received {received.removeprefix('DT_').lower()}")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or len(shape) != len(info.tensor_shape.dim) or any(size < 0 for size in shape):
        raise invalid(f"{name}: expected {described(info)}, received the shape {shape}")
    if shape[0] > limits.rows or any(size > limits.length for size in shape[1:]):
        raise too_large(name, shape, limits)
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid(f"{name}: the values do not fill the shape {shape}: {error}") from None
