"""What the service says of itself: log lines for people, metrics for Prometheus."""

from telemetry.logs import Logger, configure_logging, excerpt, get_logger, redact, request_id, unquoted
from telemetry.measurements import Measurement
from telemetry.metrics import METRICS_TYPE, Metrics

__all__ = [
    "METRICS_TYPE",
    "Logger",
    "Measurement",
    "Metrics",
    "configure_logging",
    "excerpt",
    "get_logger",
    "redact",
    "request_id",
    "unquoted",
]
