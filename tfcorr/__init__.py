"""tfcorr: retriever and ranker trained together, on TensorFlow."""

import os
import sys

__version__ = "0.1.0"
__all__ = ["__version__"]

# TensorFlow Recommenders needs Keras 2, which tf.keras becomes if this is set before it is first touched.
if "tf_keras" not in sys.modules and "keras" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError(
        "tfcorr needs Keras 2 (tf_keras), but Keras 3 is loaded already; import tfcorr before tensorflow.keras, "
        "or set TF_USE_LEGACY_KERAS=1 in the environment"
    )
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
