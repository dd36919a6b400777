"""What is counted: the table of all metric families, with their labels and buckets.

Owns the names. Knows nothing of where the numbers lie (`batching.counters`) or how they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

Series = tuple[str, tuple[str, ...]]
"""One series: its family's name, and its label values in the order of `Metric.labels`."""


@dataclass(frozen=True)
class Metric:
    """One family of series. `buckets` are a histogram's upper bounds (inclusive), without infinity."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers one series takes: 1, or for a histogram its sum, a count for each bucket and one for all above."""
        return len(self.buckets) + 2 if self.kind == HISTOGRAM else 1


# A small model answers in half a millisecond; PREDICT_TIMEOUT_MS is 2 s unless set higher.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# What a front does itself takes some ten microseconds of a small body.
SHORT_SECONDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
# By four each from 64 bytes to 64 MiB, which MAX_BODY_BYTES is unless set higher.
BYTES = tuple(64.0 * 4**power for power in range(11))
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
MODEL = ("model", "version")
OVERFLOW = "inference_counters_overflow_total"

# Label values come from closed sets only (route templates, known models, statuses): a caller must not be able to make
# new series.
METRICS = (
    Metric("inference_requests_total", COUNTER, "Requests answered.", ("route", *MODEL, "dialect", "status")),
    Metric("inference_request_seconds", HISTOGRAM, "From a whole request to its answer.", ("route",), SECONDS),
    Metric(
        "inference_model_request_seconds",
        HISTOGRAM,
        "From a whole request to a model to its answer, by outcome: answered, failed.",
        (*MODEL, "outcome"),
        SECONDS,
    ),
    Metric(
        "inference_last_answer_timestamp_seconds",
        GAUGE,
        "When a front last answered for a model, in seconds since 1970.",
        (*MODEL, "front"),
    ),
    Metric("inference_request_bytes", HISTOGRAM, "A request's body, as it came.", ("route",), BYTES),
    Metric("inference_response_bytes", HISTOGRAM, "An answer's body, before it is compressed.", ("route",), BYTES),
    Metric("inference_parse_seconds", HISTOGRAM, "From a body to the model's rows.", MODEL, SHORT_SECONDS),
    Metric("inference_encode_seconds", HISTOGRAM, "From the model's outputs to a body.", MODEL, SHORT_SECONDS),
    Metric("inference_queue_seconds", HISTOGRAM, "An item's wait in a worker's queue.", MODEL, SECONDS),
    Metric("inference_compute_seconds", HISTOGRAM, "One batch in the model.", MODEL, SECONDS),
    Metric("inference_batch_rows", HISTOGRAM, "Rows in one batch.", MODEL, ROWS),
    Metric("inference_batches_total", COUNTER, "Batches run.", MODEL),
    Metric("inference_rows_total", COUNTER, "Rows run.", MODEL),
    Metric("inference_items_failed_total", COUNTER, "Items that ended without outputs.", (*MODEL, "reason")),
    Metric("inference_in_flight", GAUGE, "Items sent to workers and not yet answered."),
    Metric("inference_queue_rows", GAUGE, "Rows waiting in the workers' queues.", ("model",)),
    Metric(
        "inference_queue_oldest_seconds",
        GAUGE,
        "Age of the longest waiting item in the queues of a group's workers; 0 where none waits.",
        ("group",),
    ),
    Metric("inference_worker_starts_total", COUNTER, "Workers started.", ("group",)),
    Metric(
        "inference_worker_deaths_total",
        COUNTER,
        "Workers that died or were replaced: crashed, failed_start, stuck, memory.",
        ("group", "reason"),
    ),
    Metric(
        "inference_reloads_total",
        COUNTER,
        "New generations of a group's models, by what became of them: switched, failed, rolled_back.",
        ("group", "outcome"),
    ),
    Metric("inference_generation", GAUGE, "The generation of a group's models that serves.", ("group",)),
    Metric("inference_front_starts_total", COUNTER, "Fronts started."),
    Metric("inference_front_deaths_total", COUNTER, "Fronts that ended unasked."),
    Metric("inference_service_starts_total", COUNTER, "Processes started beside fronts and workers.", ("service",)),
    Metric("inference_retries_total", COUNTER, "Items sent again because the worker that held them died."),
    Metric("inference_cancelled_total", COUNTER, "Items whose client had gone before the answer."),
    Metric("inference_connections", GAUGE, "Open client connections."),
    Metric("inference_connections_cut_total", COUNTER, "Connections closed against the client's will.", ("reason",)),
    Metric("inference_log_rows_written_total", COUNTER, "Rows appended to the prediction log's spool."),
    Metric("inference_log_rows_dropped_total", COUNTER, "Rows that the spool could not take."),
    Metric("inference_log_rows_left_out_total", COUNTER, "Rows of requests that sampling left out.", ("status",)),
    Metric("inference_log_rows_shipped_total", COUNTER, "Rows known to be in the table."),
    Metric("inference_log_rows_quarantined_total", COUNTER, "Rows that the database refused, set aside."),
    Metric("inference_log_records_damaged_total", COUNTER, "Spoilt records of the spool, set aside."),
    Metric("inference_log_retries_total", COUNTER, "Tries of the shipper that will be repeated.", ("sqlstate",)),
    Metric("inference_log_spool_bytes", GAUGE, "Bytes that wait to be shipped, or without a database are kept."),
    Metric("inference_log_oldest_seconds", GAUGE, "Age of the oldest record that waits to be shipped."),
    Metric(
        "inference_resident_memory_bytes",
        GAUGE,
        "Memory of our processes by kind: front, worker, supervisor, shipper. What they share counts in each.",
        ("process",),
    ),
    Metric("inference_build_info", GAUGE, "Always 1; the label is this program's version.", ("version",)),
    Metric(OVERFLOW, COUNTER, "Times a series was not counted because there was no room for it."),
)
BY_NAME = {metric.name: metric for metric in METRICS}
