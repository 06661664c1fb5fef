"""One version of a model in memory: loaded, warmed up, answering."""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tfcorr.serving.saved_model import foreign_operations, read_warmup, signatures_of
from tfcorr.serving.server.batcher import Arrays, Batcher, Job


class LoadedModel:
    """A SavedModel that has answered its warm-up requests."""

    def __init__(self, folder: Path, version: int, rows: int, observe: Callable[[int], None]) -> None:
        """rows is how many it answers at once; observe is told how many it did. Raises: whatever TensorFlow does."""
        self.version = version
        self.signatures = signatures_of(folder)
        if foreign_operations(folder):
            importlib.import_module("scann")  # registers its operations
        self._model = tf.saved_model.load(str(folder))
        self._batcher = Batcher(self._run, rows, observe)
        try:
            for request in read_warmup(folder):
                inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
                self._batcher.submit(Job(request.model_spec.signature_name, inputs)).result()
        except Exception:
            self.close()
            raise

    async def ask(self, signature: str, inputs: Arrays) -> Arrays:
        """Answers checked inputs. Raises: tf.errors.OpError."""
        return await asyncio.wrap_future(self._batcher.submit(Job(signature, inputs)))

    def close(self) -> None:
        """Answers what was asked before, then ends."""
        self._batcher.close()

    def _run(self, signature: str, inputs: Arrays) -> Arrays:
        answer = self._model.signatures[signature](**{name: tf.constant(values) for name, values in inputs.items()})
        return {name: values.numpy() for name, values in answer.items()}
