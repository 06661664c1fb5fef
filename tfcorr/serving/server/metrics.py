"""What Prometheus is told."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from tfcorr.serving.server.errors import RequestError

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
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
        """In Prometheus' format."""
        return generate_latest(self._registry)
