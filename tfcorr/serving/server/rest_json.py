"""TensorFlow Serving's JSON for tensors: row form ("instances", "predictions") and column form ("inputs",
"outputs")."""

import base64
import binascii
import gc
import json
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from tfcorr.serving.server.batcher import Arrays
from tfcorr.serving.server.errors import RequestError, invalid
from tfcorr.serving.server.requests import described, too_large
from tfcorr.serving.server.settings import Limits

Infos = dict[str, TensorInfo]


def parse(body: bytes) -> dict[str, Any]:
    """A request's body. Raises: RequestError."""
    try:
        found = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise invalid('the body must be a JSON object with "instances" or "inputs"')
    if not isinstance(found.get("signature_name", ""), str):
        raise invalid('"signature_name" must be a string')
    if ("instances" in found) == ("inputs" in found):
        raise invalid('the body must have either "instances" (rows) or "inputs" (columns)')
    return found


def _parsed(body: bytes) -> Any:
    """Without looking for garbage meanwhile, which takes most of the time where a body holds a million lists."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return json.loads(body)
    finally:
        if collects:
            gc.enable()


def inputs_of(body: dict[str, Any], infos: Infos) -> dict[str, Any]:
    """The columns of a body that was parsed, by input. Raises: RequestError."""
    if "inputs" in body:
        columns = body["inputs"]
        return columns if isinstance(columns, dict) and not _is_base64(columns) else {_only(infos): columns}
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        raise invalid('"instances" must be a list with one row at least')
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named:
        return {_only(infos): rows}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            raise invalid(f"instance {number} does not have the same inputs as the first: {sorted(rows[0])}")
    return {name: [row[name] for row in rows] for name in rows[0]}


def array_of(name: str, values: Any, info: TensorInfo, limits: Limits) -> np.ndarray:
    """JSON lists as the array that an input takes. Raises: RequestError, before it looks at more values than the limits
    allow."""
    shape: list[int] = []
    flat = [values]
    for most in (limits.rows, *[limits.length] * (len(info.tensor_shape.dim) - 1)):
        if not all(isinstance(each, list) for each in flat):
            raise invalid(f"{name}: expected {described(info)}, received a list of {len(shape)} levels")
        lengths = {len(each) for each in flat}
        if len(lengths) > 1:
            raise invalid(f'{name}: its lists are of unequal lengths {sorted(lengths)}; fill the shorter up, ids by ""')
        shape.append(lengths.pop() if lengths else 0)
        if shape[-1] > most:
            raise too_large(name, shape, limits)
        flat = [value for each in flat for value in each]
    dtype = tf.as_dtype(info.dtype)
    if dtype == tf.string:
        return np.array([_text(name, each) for each in flat], object).reshape(shape)
    kind = np.dtype(dtype.as_numpy_dtype)
    allowed = (int, float) if kind.kind == "f" else (int,)
    wrong = [each for each in flat if type(each) not in allowed]  # true is no number
    if wrong:
        raise _unexpected(name, wrong[0], dtype)
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and told where all is checked
            return np.array(flat, float if kind.kind == "f" else kind).astype(kind).reshape(shape)
    except OverflowError:
        raise _unexpected(name, max(flat, key=abs), dtype) from None


def predictions(outputs: Arrays, in_rows: bool) -> dict[str, Any]:
    """A response's body."""
    columns = {name: _plain(name, values) for name, values in outputs.items()}
    single = next(iter(columns.values())) if len(columns) == 1 else None
    if not in_rows:
        return {"outputs": columns if single is None else single}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": rows if single is None else single}


def _text(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if _is_base64(value):
        return _decoded(name, value["b64"])
    raise _unexpected(name, value, tf.string)


def _unexpected(name: str, value: Any, dtype: tf.DType) -> RequestError:
    return invalid(f"{name}: expected values of type {dtype.name}, received {json.dumps(value)[:60]}")


def _decoded(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # which may be left out
    except (TypeError, ValueError, binascii.Error):
        raise invalid(f'{name}: {{"b64": {json.dumps(text)[:60]}}} is no base64') from None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _only(infos: Infos) -> str:
    """The name of the only input, which may go without saying. Raises: RequestError if there are several."""
    if len(infos) > 1:
        raise invalid(f"there are several inputs, so each must be named: {sorted(infos)}")
    return next(iter(infos))


def _plain(name: str, values: np.ndarray) -> Any:
    if values.dtype == np.float32:  # by the digits that tell it, which are fewer than those of the same float64
        return values.astype(str).astype(float).tolist()
    if values.dtype != object:
        return values.tolist()
    encode = (lambda each: {"b64": base64.b64encode(each).decode()}) if name.endswith("_bytes") else bytes.decode
    flat = [encode(each) for each in values.reshape(-1)]
    return np.array(flat, object).reshape(values.shape).tolist()
