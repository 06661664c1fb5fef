"""What Prometheus is told."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.samples import Sample

from tfcorr.serving.server.errors import RequestError

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
COUNT, LATENCY, MICRO = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency", 10**6
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Requests by protocol, method, model and code; their seconds; how many are answered together, and how many are
    under way."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use here
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tfcorr_requests", "requests answered", ["api", "method", "model", "code"], registry=self._registry
        )
        self.seconds = Histogram(
            "tfcorr_request_seconds",
            "from a request to its answer",
            ["api", "method", "model"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.rows = Histogram(
            "tfcorr_batch_rows", "rows answered together", ["model"], buckets=ROWS, registry=self._registry
        )
        self.under_way = Gauge(
            "tfcorr_requests_under_way", "requests that wait for their answers", registry=self._registry
        )

    @contextmanager
    def request(self, api: str, method: str, model: str) -> Iterator[None]:
        """Counts and times what is done within; model is the name of one that there is, or ""."""
        started, code = time.perf_counter(), StatusCode.UNKNOWN
        try:
            yield
            code = StatusCode.OK
        except RequestError as error:
            code = error.code
            raise
        except asyncio.CancelledError:  # whoever asked did not wait
            code = StatusCode.CANCELLED
            raise
        finally:
            self.requests.labels(api, method, model, code.name).inc()
            self.seconds.labels(api, method, model).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """In Prometheus' format, by names of our own and by TensorFlow Serving's."""
        return generate_latest(self._registry) + "".join(f"{line}\n" for line in self._as_the_original()).encode()

    def _as_the_original(self) -> Iterator[str]:
        """Answers to Predict, as TensorFlow Serving counts them (servables/tensorflow/util.cc), in microseconds."""
        counts = defaultdict[tuple[str, str], float](float)
        for sample in self._samples(self.requests, "_total"):
            counts[sample.labels["model"], sample.labels["code"]] += sample.value
        yield f"# TYPE {COUNT} counter"
        for (model, code), count in counts.items():
            yield f'{COUNT}{{model_name="{model}",status="{code}"}} {count:.0f}'
        yield f"# TYPE {LATENCY} histogram"
        for part, scale in (("_bucket", 1), ("_sum", MICRO), ("_count", 1)):
            for sample in self._samples(self.seconds, part):
                named = (
                    f'model_name="{sample.labels["model"]}",API="predict",entrypoint="{sample.labels["api"].upper()}"'
                )
                bound = sample.labels.get("le")
                le = "" if bound is None else f',le="{float(bound) * MICRO:g}"'.replace("inf", "+Inf")
                yield f"{LATENCY}{part}{{{named}{le}}} {sample.value * scale:.17g}"

    def _samples(self, metric: Counter | Histogram, part: str) -> Iterator[Sample]:
        """Those of calls of Predict."""
        every = (sample for family in metric.collect() for sample in family.samples)
        return (each for each in every if each.name.endswith(part) and each.labels["method"] == "Predict")
