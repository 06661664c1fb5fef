"""tfcorr: retriever and ranker trained together, on TensorFlow."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# TensorFlow Recommenders needs Keras 2, which tf.keras becomes if this is set before it is first touched.
_keras = vars(sys.modules["tensorflow"]).get("keras") if "tensorflow" in sys.modules else None
if type(_keras) is ModuleType and not _keras.__name__.startswith(
    "tf_keras"
):  # until touched it is a lazy loader, of a type of its own
    raise ImportError(
        "tfcorr needs Keras 2 (tf_keras), but tf.keras is Keras 3 already; import tfcorr before tensorflow.keras is "
        "used, "
        "or set TF_USE_LEGACY_KERAS=1 in the environment"
    )
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on missing GPUs are no news to anyone

# The public names and where they live; each is imported when it is first asked for, as TensorFlow takes seconds.
_PUBLIC = {
    "Adversarial": "tfcorr.cooperation.adversarial",
    "Chain": "tfcorr.cooperation.chain",
    "CoRR": "tfcorr.cooperation.corr",
    "Domain": "tfcorr.towers",
    "InputError": "tfcorr.settings",
    "Proposal": "tfcorr.cooperation.proposals",
    "RANKERS": "tfcorr.towers",
    "RETRIEVERS": "tfcorr.towers",
    "Ranker": "tfcorr.towers",
    "RankerAlone": "tfcorr.cooperation.two_stage",
    "Recommender": "tfcorr.serving.recommend",
    "RemoteRecommender": "tfcorr.serving.client",
    "Retriever": "tfcorr.towers",
    "RetrieverAlone": "tfcorr.cooperation.two_stage",
    "Sampler": "tfcorr.cooperation.sampler",
    "Tower": "tfcorr.towers",
    "compare": "tfcorr.evaluation.compare",
    "evaluate": "tfcorr.runs",
    "export_run": "tfcorr.runs",
    "load_settings": "tfcorr.config",
    "open_run": "tfcorr.runs",
    "report": "tfcorr.reports",
    "run_study": "tfcorr.study",
    "sampled_kl": "tfcorr.cooperation.losses",
    "sampled_log_softmax": "tfcorr.cooperation.losses",
    "search": "tfcorr.tuning",
    "train": "tfcorr.runs",
}
__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 (its elements are the keys above)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tfcorr' has no attribute {name!r}")
